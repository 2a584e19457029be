"""The explorer of a small study that was made up, exported once, and a browser that reads it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from circuitry import CausalChecks, Clip, GraphFolder, compare_domains
from circuitry.explorer import ExplorerSettings, export_explorer
from tests.explorer.made import (
    CLASSES,
    DOMAINS,
    MadeCards,
    found_in,
    make_curve,
    make_graphs,
)
from tests.explorer.reader import SWITCHES, Reader
from tests.support.browser import find_browser


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> GraphFolder:
    return make_graphs(tmp_path_factory.mktemp("explored") / "circuits")


@pytest.fixture(scope="session")
def checks(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> CausalChecks:
    return found_in(clip, tmp_path_factory.mktemp("checked"))


@pytest.fixture(scope="session")
def exported(graphs: GraphFolder) -> Path:
    out = graphs.path.parent / "explorer"
    curves = [make_curve(name, domain) for name in CLASSES[:2] for domain in DOMAINS]
    settings = ExplorerSettings(images_per_list=2, held_out_images=1)
    comparisons = compare_domains(graphs)
    export_explorer(
        graphs,
        out,
        comparisons=comparisons,
        curves=curves,
        cards=MadeCards(graphs),
        settings=settings,
    )
    return out


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed"
    )
    with playwright.sync_playwright() as started:
        switches = ["--headless", *(f"--{name}" for name in SWITCHES.split())]
        browser = started.chromium.launch(executable_path=find_browser(), args=switches)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def only_reader(browser: Any, exported: Path) -> Reader:
    return Reader(browser, exported)


@pytest.fixture
def reader(only_reader: Reader, exported: Path) -> Iterator[Reader]:
    reader = only_reader
    yield reader
    reader.tab.evaluate("localStorage.clear()")
    complaints = reader.complaints
    reader.complaints = []
    assert complaints == []
    elsewhere = [
        url
        for url in reader.requests
        if not url.startswith((exported.as_uri(), "data:", "blob:", "about:"))
    ]
    assert elsewhere == []
