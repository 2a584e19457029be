"""Write an index of the pages in the folder of a run, and links between these pages."""

import datetime
import html
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import jinja2

from circuitry.runs.files import whole_file

REPORT_PAGE = "report.html"
PAGES = (REPORT_PAGE, "explorer/index.html")
"""Paths of the pages that scripts write into the folder of a run, or into a folder inside this folder."""
BESIDE = "<!-- beside -->"
"""Marker that occurs twice in a report. Between the two markers are the links to the pages in the same folder."""
TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("circuitry.reports", ""), autoescape=True
)
OURS = "<!-- pages of a run -->"
_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)
_HEAD = 1 << 14


def link_pages(folder: Path) -> Path | None:
    """Write an index of the pages in the folder of a run, and add links to the report in this folder.

    The links in the report lead to the explorer and to the tables in the same folder. If the folder has an
    ``index.html`` that this function did not write, the file is left unchanged, and no index is written.

    Returns:
        Path of the index, or None if no index was written.

    Example:
        >>> Path("run").mkdir()
        >>> link_pages(Path("run")).name
        'index.html'
    """
    paths = [folder / name for name in PAGES if (folder / name).is_file()]
    inner: set[Path] = set()
    for name in PAGES:
        inner.update(folder.glob(f"*/{name}"))
    # The explorer's page is a page of the folder, and also matches the pattern of pages in inner folders.
    inner -= set(paths)
    pages = [_described(folder, path) for path in [*paths, *sorted(inner)]]
    _link_report(folder, pages)
    index = folder / "index.html"
    if index.is_file():
        # Only an index with our mark is replaced, because the explorer's page is an index.html, too.
        before = index.read_text(encoding="utf-8", errors="replace")
        if before and OURS not in before:
            return None
    template = TEMPLATES.get_template("run_pages.html.jinja")
    _rewrite(index, template.render(pages=pages, name=folder.name, ours=OURS))
    return index


def _link_report(folder: Path, pages: Sequence[Mapping[str, str]]) -> None:
    """Write links to the pages and tables of a folder into its report; do nothing if there is no report."""
    report = folder / REPORT_PAGE
    if not report.is_file():
        return
    others = [page for page in pages if page["address"] in PAGES[1:]]
    links = [f'<a href="{page["address"]}">{page["kind"]}</a>' for page in others]
    n_tables = len(list((folder / "tables").glob("*.csv")))
    if n_tables:
        links.append(f'<a href="tables/">{n_tables} tables</a>')
    shown = f"<p>Beside this report: {', '.join(links)}.</p>" if links else ""
    # The three parts are the text before the links, the links of an earlier call, and the text after the links.
    parts = report.read_text(encoding="utf-8").split(BESIDE, 2)
    if len(parts) == 3:
        written = report.stat()
        _rewrite(report, BESIDE.join([parts[0], shown, parts[2]]))
        # A link is no new result, so the report keeps its time of modification.
        os.utime(report, ns=(written.st_atime_ns, written.st_mtime_ns))


def _described(folder: Path, path: Path) -> dict[str, str]:
    # A page may have many MiB; its title is at the start.
    with open(path, encoding="utf-8", errors="replace") as file:
        match = _TITLE.search(file.read(_HEAD))
    address = path.relative_to(folder).as_posix()
    written = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    return {
        "title": html.unescape(match[1]).strip() if match else address,
        "address": quote(address),
        "date": f"{written:%Y-%m-%d}",
        "kind": "explorer" if path.parent.name == "explorer" else "report",
    }


def _rewrite(path: Path, text: str) -> None:
    # A file that would not change is not written, so it keeps its time of modification.
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with whole_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
