"""One self-contained page; what it holds, and that a browser draws it."""

import html
import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image

from circuitry.reports import Report, figure_files, write_results
from circuitry.reports.figure_files import write_static
from circuitry.reports.figures import (
    accuracy_bars,
    circuit_drawing,
    circuit_pair,
    overlap_over_depth,
    similarity_heatmap,
)
from tests.reports.figures.made import SITES
from tests.reports.figures.test_circuit_graphs import circuit, circuits
from tests.support.browser import load
from tests.support.scripts import needs_browser


def written(report: Report, folder: Path) -> str:
    return report.write(folder / "report.html").read_text(encoding="utf-8")


def opened(path: Path) -> Image.Image:
    return Image.open(io.BytesIO(path.read_bytes()))


def depth_of(domains: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"domain": d, "site": s, "value": 0.5, "low": 0.4, "high": 0.6}
            for d in domains
            for s in SITES
        ]
    )


def figures() -> dict[str, go.Figure]:
    domains = ["real", "sketch"]
    kinds = (
        "all",
        "seen",
        "held_out",
        "alone",
        "own_style",
        "centred",
        "chance",
        "chance_alone",
    )
    accuracy = pd.DataFrame(
        [{"domain": domain, **dict.fromkeys(kinds, 0.5)} for domain in domains]
    )
    matrix = pd.DataFrame([[0.9, 0.3], [0.3, 0.8]], index=domains, columns=domains)
    return {
        "accuracy": accuracy_bars(accuracy),
        "depth": overlap_over_depth(depth_of(domains), SITES),
        "similarity": similarity_heatmap(matrix, title="Edges", measure="Jaccard"),
        "circuit": circuit_pair(
            *circuits(), SITES, name_a="real", name_b="sketch", title="axe"
        ),
    }


def test_text_is_escaped_and_split_into_paragraphs(tmp_path: Path) -> None:
    bad = "<script>alert('x')</script> & more"
    report = Report(bad, bad)
    report.section(bad)
    report.text(f"one\n\n{bad}\n\n\n")
    report.image(Image.new("RGB", (2, 2)), bad, alt='a "quoted" <alt>')
    report.table(pd.DataFrame({bad: [bad]}), bad)
    report.provenance({bad: bad})
    page = written(report, tmp_path)
    assert page.count("<script") == 1  # the page's own
    assert (
        page.count("&lt;script&gt;") == 13
    )  # title, section and the caption of a table stand twice, the rest once
    assert "<p>one</p>\n<p>&lt;script&gt;" in page
    assert 'alt="a &#34;quoted&#34; &lt;alt&gt;"' in page


def test_the_page_asks_for_nothing_from_the_network(tmp_path: Path) -> None:
    report = Report("t", "See https://example.org")
    report.image(Image.new("RGB", (2, 2)), "c", alt="a")
    for figure in figures().values():
        report.figure(figure, "c")
    page = re.sub(
        r"<script.*?</script>", "", written(report, tmp_path), flags=re.DOTALL
    )
    targets = re.findall(r'(?:src|href|action|data)="([^"]*)"', page)
    assert targets
    assert all(target.startswith(("#", "data:")) for target in targets)
    assert not re.search(r"@import|url\(", page)


def test_table_formats_its_numbers(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "n_images": [12345, 7],
            "n": [14.0, np.nan],  # counts, of which one is not known
            "share": [0.5, np.nan],
            "p": [1.0, 0.0],
            "value": [0.12345, 1234.5],
            "tiny": [0.00012, 0.0],
            "huge": [2.5e7, -1.5],
            "note": [None, "x"],
            "kept": [True, False],
        },
        index=pd.Index(["cat", "dog"], name="class"),
    )
    report = Report("t")
    report.table(table, "c", formats={"share": ".1%"})
    report.table(pd.DataFrame({"a": [1]}), "c")
    page = written(report, tmp_path)
    rows = [
        re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)
        for row in re.findall(r"<tr>(.*?)</tr>", page)
    ]
    assert rows == [
        [
            "class",
            "n images",
            "n",
            "share",
            "p",
            "value",
            "tiny",
            "huge",
            "note",
            "kept",
        ],
        [
            "cat",
            "12,345",
            "14",
            "50.0%",
            "1.000",
            "0.123",
            "1.20e-04",
            "2.50e+07",
            "–",
            "True",
        ],
        ["dog", "7", "–", "–", "0.000", "1,234.500", "0.000", "-1.500", "x", "False"],
        ["a"],  # an index that counts the rows is not shown
        ["1"],
    ]
    assert '<td class="number">12,345</td>' in page


@needs_browser
def test_every_kind_of_figure_is_drawn(tmp_path: Path) -> None:
    report = Report("t")
    report.section("s")
    for figure in figures().values():
        report.figure(figure, "c")
    report.figure(go.Figure(go.Bar(x=[], y=[])), "nothing")
    alike = circuits()[0]
    report.figure(
        circuit_pair(alike, alike, SITES, name_a="real", name_b="sketch", title="t"),
        "c",
    )
    page = load(report.write(tmp_path / "report.html"))
    assert page.console_errors == ()
    assert page.requests == ()
    assert page.marks == {
        "figure-1": 4 + 6 + 2,  # bars, what they mix, and the numbers of each domain
        "figure-2": 2 * (3 + 1 + 3),  # three intervals, a line and three points each
        "figure-3": 1 + 4,  # the cells are one image; their numbers
        "figure-4": 6 + 4,  # nodes and edges
        "figure-5": 0,
        "figure-6": 4 + 3,
    }
    assert "only sketch: 0 nodes, 0 edges" in re.findall(
        r'<text class="legendtext"[^>]*>([^<]*)', page.dom
    )
    assert 'data-title="Share chart' not in page.dom
    assert 'data-title="Pan' in page.dom
    picture = opened(page.screenshot(tmp_path / "page.png", width=800))
    assert picture.width == 800
    assert picture.height > 1500
    assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 50


@needs_browser
def test_every_site_of_a_deep_circuit_has_its_label(tmp_path: Path) -> None:
    sites = [*(f"blocks.{i}.0" for i in range(18)), "global_pool"]
    figure = circuit_drawing(
        circuit({f"{site}/0": 1.0 + i for i, site in enumerate(sites)}, {}), sites
    )
    report = Report("t")
    report.figure(figure.update_layout(width=1200), "c")
    ticks = re.findall(
        r'<g class="xtick">.*?</g>', load(report.write(tmp_path / "report.html")).dom
    )
    shown = [
        tick for tick in ticks if "display: none" not in tick
    ]  # plotly hides a label that leaves the picture
    assert all(any(f">{site} <tspan" in tick for tick in shown) for site in sites)


HARMFUL = (
    "<script>console.error('ran')</script>",
    "<img src=x onerror=\"console.error('ran')\">",
    "'\"></h2></caption></script><svg onload=console.error('ran')>",
    "<a href=\"javascript:console.error('ran')\">name</a>",
    "{{ 7 * 7 }}{% include 'page.css' %}",
)


class _Attributes(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += attrs


@needs_browser
def test_no_name_of_a_class_domain_or_file_is_run(tmp_path: Path) -> None:
    report = Report("t")
    for name in HARMFUL:
        report.section(name)
        report.text(f"one\n\n{name}\n\n\n")
        report.table(
            pd.DataFrame(
                {name: [name], "list": [[name]], "facts": [{name: name}]}, index=[name]
            ),
            name,
        )
        report.image(Image.new("RGB", (2, 2)), name, alt=name)
        report.figure(
            overlap_over_depth(depth_of([name]), SITES, title=name, measure=name), name
        )
        matrix = pd.DataFrame([[0.5]], index=[name], columns=[name])
        report.figure(similarity_heatmap(matrix, title=name, measure=name), name)
    report.provenance({name: {name: [name]} for name in HARMFUL})
    page = load(report.write(tmp_path / "report.html"))
    assert page.console_errors == ()
    assert page.requests == ()
    assert page.dom.count("<p>one</p>\n<p>") == len(HARMFUL)
    attributes = _Attributes()
    attributes.feed(page.dom)
    assert not [key for key, _ in attributes.found if key.startswith("on")]
    assert not [
        value
        for _, value in attributes.found
        if (value or "").strip().lower().startswith("javascript")
    ]
    headings = re.findall(r'<h2 id="section-\d">(.*?)</h2>', page.dom)
    assert [html.unescape(heading) for heading in headings] == list(HARMFUL)


@needs_browser
def test_static_images_are_written(tmp_path: Path) -> None:
    pytest.importorskip("kaleido")
    every = {name: figures()[name] for name in ("accuracy", "circuit")}
    result = write_static(every, tmp_path / "png")
    assert result == [
        tmp_path / "png" / "accuracy.png",
        tmp_path / "png" / "circuit.png",
    ]
    assert [opened(path).size for path in result] == [(2000, 944), (2000, 1520)]


def test_what_keeps_static_images_away_is_said_once_to_those_who_have_kaleido(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing = pytest.importorskip("kaleido")
    monkeypatch.setattr(
        failing, "write_fig_from_object_sync", lambda *_, **__: [RuntimeError("gone")]
    )
    figure_files._without.cache_clear()
    assert write_static({}, tmp_path) == []
    assert caplog.records == []
    assert write_static(figures(), tmp_path) == write_static(figures(), tmp_path) == []
    assert [record.getMessage().split("(")[0] for record in caplog.records] == [
        "no PNG figures: the browser that draws them failed "
    ]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    figure_files._without.cache_clear()
    assert write_static(figures(), tmp_path) == []
    assert len(caplog.records) == 1
    assert not list(tmp_path.iterdir())


def test_results_are_written_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sys.argv",
        ["/home/me/experiments/question.py", "--out", "there", "--seed", "3"],
    )
    tables = {"small": pd.DataFrame({"a": [1]}), "large": pd.DataFrame({"a": [2]})}
    made_by, looked_at = (
        {"model": "rn-tiny", "weights": Path("x.pt")},
        {"images": ["real/axe/1.png", "real/axe/2.png"]},
    )
    run, committed = tmp_path / "run", tmp_path / "committed"
    drawn = {"figure-1": figures()["accuracy"]}
    report = Report("t")
    report.figure(drawn["figure-1"], "c")
    asked = []

    def write_none(*given: object) -> list[Path]:
        asked.append(given)
        return [Path("figure-1.png")]

    monkeypatch.setattr("circuitry.reports.page.write_static", write_none)
    done = write_results(report, tables, run, committed, made_by, ["small"], looked_at)
    assert asked == [(drawn, run / "figures")]
    assert done.figures == [Path("figure-1.png")]
    small = ["images.txt", "provenance.json", "small.csv"]
    assert sorted(path.name for path in (run / "tables").iterdir()) == sorted(
        [*small, "large.csv", "tables.txt"]
    )
    assert sorted(path.name for path in committed.iterdir()) == small
    assert all(
        (run / "tables" / name).read_bytes() == (committed / name).read_bytes()
        for name in small
    )
    assert (committed / "images.txt").read_text() == "real/axe/1.png\nreal/axe/2.png\n"
    assert json.loads((committed / "provenance.json").read_text()) == {
        "command": "experiments/question.py --seed 3",
        "model": "rn-tiny",
        "weights": "x.pt",
    }
    assert "rn-tiny" in (run / "report.html").read_text(encoding="utf-8")
    assert f"report: {run / 'report.html'}" in str(done)


def test_tables_that_a_command_leaves_out_the_next_time_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(line: str, *names: str) -> set[str]:
        monkeypatch.setattr("sys.argv", line.split())
        write_results(
            Report("t"),
            {name: pd.DataFrame({"a": [1]}) for name in names},
            tmp_path,
            None,
            {},
        )
        return {
            path.relative_to(tmp_path / "tables").as_posix()
            for path in (tmp_path / "tables").rglob("*.csv")
        }

    assert write("bin/circuitry compare --kernel-depths 1 2", "one", "deep/two") == {
        "one.csv",
        "deep/two.csv",
    }
    (tmp_path / "tables" / "mine.csv").write_text("a\n")
    assert write("bin/circuitry compare --kernel-depths 1", "one") == {
        "one.csv",
        "mine.csv",
    }
    assert write("bin/circuitry check", "other") == {"one.csv", "mine.csv", "other.csv"}
    (tmp_path / "tables" / "provenance.json").write_text("[")
    assert write("bin/circuitry check", "more") == {
        "one.csv",
        "mine.csv",
        "other.csv",
        "more.csv",
    }
