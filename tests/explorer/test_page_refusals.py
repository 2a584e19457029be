"""The page in a browser, where something is damaged, hostile or missing."""

import csv
import io
import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from circuitry import GraphFolder
from circuitry.explorer import export_explorer
from tests.explorer.made import ATTACK, DOMAINS, INNER, UNITS
from tests.explorer.reader import CAT, Reader
from tests.support.browser import find_browser

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium or Chrome on this machine"
)


def rewrite(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda saved: "{", ["JSON"]),
        (lambda saved: "[]", ["format"]),
        (
            lambda saved: json.dumps(saved | {"format": "circuitry explorer state 0"}),
            ["state 0", "state 1"],
        ),
        (
            lambda saved: json.dumps(saved | {"study": "abc", "title": "<b>other</b>"}),
            ["abc", "<b>other</b>"],
        ),
        (lambda saved: json.dumps(saved | {"state": 3}), ["damaged"]),
    ],
)
def test_damaged_and_foreign_state_files_are_refused(
    reader: Reader, change: Any, words: list[str]
) -> None:
    reader.open(**CAT)
    study = reader.tab.evaluate("circuitry.state().className") and json.loads(
        reader.export("state")
    )
    before = reader.state()
    message = reader.drop(change(study))
    assert all(word in message for word in words), message
    assert reader.state() == before


def test_a_damaged_address_starts_from_the_beginning(reader: Reader) -> None:
    reader.tab.goto("about:blank")
    reader.tab.goto((reader.folder / "index.html").as_uri() + "#%7Bnonsense")
    reader.wait()
    assert "damaged" in reader.tab.inner_text(".message[role=status]")
    assert reader.state()["className"] == ATTACK


def test_names_with_markup_are_text(reader: Reader) -> None:
    everything = {f"{site}/{unit}": "=1+1" for site in INNER for unit in range(UNITS)}
    groups = [{"name": ATTACK, "units": []}]
    reader.open(
        className=ATTACK,
        domains=list(DOMAINS),
        notes={"a/1": ATTACK},
        groups=groups,
        labels=everything,
    )
    reader.press("] ?")
    assert "Each column is a site" in reader.tab.inner_text("dialog[open]")
    assert reader.tab.locator("img[src='x']").count() == 0
    assert DOMAINS[2] in reader.tab.inner_text("[aria-label=Domains]")
    reader.press("Escape")
    for kind in ("svg", "graphml"):
        ET.fromstring(reader.export(kind))
    table = "".join(
        line
        for line in reader.export("units.csv").splitlines(True)
        if not line.startswith("# ")
    )
    assert {row["label"] for row in csv.DictReader(io.StringIO(table))} == {"'=1+1"}
    code = "d.setAttribute('onclick', 'globalThis.ran = 1'); d.click(); return globalThis.ran === undefined;"
    blocked = reader.tab.evaluate(
        f"(() => {{ const d = document.createElement('div'); {code} }})()"
    )
    assert blocked
    reader.complaints.clear()  # the browser says that it blocked the script


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda folder: (folder / "data" / "index.js").unlink(),
            ["index.js", "missing"],
        ),
        (
            lambda folder: (folder / "data" / "index.js").write_text("circuitry.lo"),
            ["index.js", "damaged"],
        ),
        (
            lambda folder: rewrite(
                folder / "data" / "index.js", "explorer 2", "explorer 1"
            ),
            ["explorer 1", "explorer 2"],
        ),
        (
            lambda folder: (folder / "data" / "class" / "0.js").unlink(),
            ["class/0.js", "missing"],
        ),
        (
            lambda folder: rewrite(
                folder / "data" / "class" / "0.js", '"export":"', '"export":"0'
            ),
            ["another export"],
        ),
    ],
)
def test_damaged_folders_say_what_to_do(
    browser: Any, graphs: GraphFolder, tmp_path: Path, damage: Any, words: list[str]
) -> None:
    export_explorer(graphs, tmp_path)
    damage(tmp_path)
    tab = browser.new_page()
    tab.goto((tmp_path / "index.html").as_uri())
    message = tab.wait_for_selector(".error").inner_text()
    tab.close()
    assert all(word in message for word in [*words, "xport"]), message


def test_a_class_that_cannot_be_read_is_not_drawn_as_another(
    browser: Any, graphs: GraphFolder, tmp_path: Path
) -> None:
    export_explorer(graphs, tmp_path)
    (tmp_path / "data" / "class" / "1.js").unlink()
    reader = Reader(browser, tmp_path).open(className=ATTACK)
    assert reader.table()
    reader.tab.select_option("#class", "cat")
    reader.tab.wait_for_selector(".error")
    assert reader.table() == {}
    reader.click_export("units.csv")
    assert "cat" in reader.tab.wait_for_selector(".message[role=status]").inner_text()
    reader.tab.select_option("#class", ATTACK)
    reader.wait()
    assert reader.table()
    reader.tab.context.close()


def test_images_that_are_gone_are_said_to_be_missing(
    browser: Any, exported: Path, tmp_path: Path
) -> None:
    shutil.copytree(
        exported, tmp_path / "copy", ignore=shutil.ignore_patterns("thumbnails")
    )
    reader = Reader(browser, tmp_path / "copy").open(**CAT, selected="a/1")
    reader.press("] j")
    reader.tab.wait_for_selector(".card .gone")
    assert reader.tab.inner_text(".card .gone >> nth=0") == "image is missing"
    reader.tab.context.close()
