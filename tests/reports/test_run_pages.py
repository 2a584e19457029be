"""The pages of a run link to each other, and an index lists them."""

import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from circuitry.explorer import export_explorer
from circuitry.reports import Report, link_pages
from tests.explorer.made import make_graphs, unpack

NAME = "<b>a & b</b>"


class Links(HTMLParser):
    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [
            unquote(str(value))
            for name, value in attrs
            if tag == "a" and name == "href"
        ]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_reports_explorers_and_the_index_link_to_each_other(tmp_path: Path) -> None:
    run = tmp_path / 'a "run" #1'
    Report(NAME, "<!-- beside --> text").write(run / "report.html")
    link_pages(run)
    assert Links(run / "index.html").links == ["report.html"]
    assert Links(run / "report.html").links == []
    export_explorer(make_graphs(run / "circuits"), run / "explorer")
    Report("Faithfulness").write(run / "faith & fulness" / "report.html")
    before = (run / "report.html").read_text()
    os.utime(run / "report.html", (0, 10**9))
    for _ in range(2):
        assert link_pages(run) == run / "index.html"
    shown = Links(run / "index.html")
    assert shown.links == [
        "report.html",
        "explorer/index.html",
        "faith & fulness/report.html",
    ]
    assert NAME in shown.text
    assert Links(run / "report.html").links == ["explorer/index.html"]
    assert (run / "report.html").stat().st_mtime == 10**9
    assert "2001-09-09" in shown.text  # a link is no new result
    link = '<p>Beside this report: <a href="explorer/index.html">explorer</a>.</p>'
    assert (run / "report.html").read_text().replace(link, "") == before
    _, index, _ = unpack((run / "explorer" / "data" / "index.js").read_text())
    assert index["report"] == "../report.html"


def test_an_index_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    Report("Old").write(tmp_path / "report.html")
    (tmp_path / "explorer").mkdir()
    (tmp_path / "explorer" / "index.html").write_text("no title")
    assert link_pages(tmp_path) is None
    assert (tmp_path / "index.html").read_text() == "mine"
    assert Links(tmp_path / "report.html").links == ["explorer/index.html"]
    (tmp_path / "report.html").write_text("of another version")
    link_pages(tmp_path)
    assert (tmp_path / "report.html").read_text() == "of another version"
