"""A finished analysis as one page: text, figures, images and tables in a single HTML file.

The file needs no network and no other file: plotly.js is inlined once, images are embedded.
"""

import base64
import html
import importlib.util
import io
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib import resources
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go
import plotly.io
import plotly.offline
from PIL import Image

from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file

FIGURE_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "showSendToCloud": False,  # plotly.js 4 offers by default to upload the data of the figure
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
}
# Browsers do not lay a drawing out again for paper; 680 pixels fit the width of A4 and of Letter.
PRINT_SCRIPT = """
const figures = () => document.querySelectorAll(".plotly-graph-div");
addEventListener("beforeprint", () => figures().forEach(figure => {
  figure.screenWidth = figure.layout.width;
  Plotly.relayout(figure, {width: Math.min(680, figure.screenWidth ?? 680)});
}));
addEventListener("afterprint", () => figures().forEach(figure =>
  Plotly.relayout(figure, {width: figure.screenWidth ?? null, autosize: !figure.screenWidth})));
"""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Report:
    """A page that grows block by block and is written as one self-contained HTML file.

    All text is plain and escaped; an empty line starts a new paragraph. Figures and tables are numbered in
    the order in which they come.

    Example:
        >>> report = Report("Circuits of a small CLIP", "How much circuitry do the domains share?")
        >>> report.section("Overlap over depth")
        >>> report.text("The overlap falls with depth.")
        >>> report.figure(overlap_over_depth(depth, sites), "Mean over classes, 95 % bootstrap interval.")
        >>> report.table(accuracy, "Accuracy per domain.", formats={"accuracy": ".1%"})
        >>> report.provenance({"checkpoint": "epoch_32.pt", "seed": 0})
        >>> report.write("report.html")
    """

    def __init__(self, title: str, introduction: str = "") -> None:
        if not title.strip():
            raise InputError("A report needs a title, an empty one was given.")
        self._title = title
        self._introduction = introduction
        self._sections: list[str] = []
        self._blocks: list[str] = []
        self._figures = 0
        self._tables = 0
        self.plotly_figures: dict[str, go.Figure] = {}
        """The interactive figures by the id of their div, for ``write_static``."""
        self._provenance = ""

    def section(self, heading: str) -> None:
        """Start a section, which the table of contents lists."""
        self._sections.append(heading)
        number = len(self._sections)
        self._blocks.append(f'<h2 id="section-{number}">{html.escape(heading)}</h2>')

    def text(self, text: str) -> None:
        """Add plain text; empty lines separate paragraphs."""
        self._blocks.append(_paragraphs(text))

    def figure(self, figure: go.Figure, caption: str) -> None:
        """Add an interactive plotly figure with its caption."""
        self._figures += 1
        name = f"figure-{self._figures}"
        self.plotly_figures[name] = figure
        drawing = plotly.io.to_html(
            figure,
            full_html=False,
            include_plotlyjs=False,
            div_id=name,
            config=FIGURE_CONFIG,
            default_height=f"{figure.layout.height or 450}px",
        )
        self._add_figure(drawing, caption)

    def image(self, image: Image.Image | bytes, caption: str, *, alt: str) -> None:
        """Embed a picture, a PIL image or the bytes of a PNG file; ``alt`` says what it shows.

        Raises:
            InputError: bytes of another format, or an empty ``alt``.
        """
        if not alt.strip():
            raise InputError("An image needs an alternative text that says what it shows, an empty one was given.")
        if isinstance(image, Image.Image):
            buffer = io.BytesIO()
            image.save(buffer, format="PNG")
            image = buffer.getvalue()
        if not image.startswith(PNG_SIGNATURE):
            raise InputError("The bytes of an image must be those of a PNG file; open others with PIL first.")
        self._figures += 1
        encoded = base64.b64encode(image).decode("ascii")
        self._add_figure(f'<img src="data:image/png;base64,{encoded}" alt="{html.escape(alt)}">', caption)

    def _add_figure(self, content: str, caption: str) -> None:
        label = f"<b>Figure {self._figures}.</b> {html.escape(caption)}"
        self._blocks.append(f"<figure>{content}<figcaption>{label}</figcaption></figure>")

    def table(self, table: pd.DataFrame, caption: str, *, formats: Mapping[str, str] | None = None) -> None:
        """Add a table with readable numbers; its index is shown unless it merely counts the rows.

        Args:
            table: at most a few dozen rows read well.
            caption: what the numbers are, with units.
            formats: format specification by column, such as ``".1%"``; the others get three decimals.

        Raises:
            InputError: ``formats`` names a column that the table lacks.
        """
        formats = dict(formats or {})
        if unknown := [column for column in formats if column not in table.columns]:
            raise InputError(
                f"formats names the column {', '.join(unknown)}, the table has {', '.join(map(str, table.columns))}."
            )
        self._tables += 1
        label = f"<caption><b>Table {self._tables}.</b> {html.escape(caption)}</caption>"
        self._blocks.append(f'<div class="table">{_table(table, label, formats)}</div>')

    def provenance(self, facts: Mapping[str, object]) -> None:
        """Say where the numbers come from: checkpoint, settings, versions, seeds. Stands at the end."""
        rows = "".join(
            f'<tr><th scope="row">{html.escape(str(name))}</th><td>{html.escape(_cell(value))}</td></tr>'
            for name, value in facts.items()
        )
        self._provenance = f'<h2 id="provenance">Provenance</h2><div class="table"><table>{rows}</table></div>'

    def write(self, path: str | PathLike[str]) -> Path:
        """Write the page whole or not at all, and return its path."""
        target = Path(path)
        with whole_file(target) as temporary:
            temporary.write_text(self._page(), encoding="utf-8")
        return target

    def _page(self) -> str:
        title = html.escape(self._title)
        style = resources.files("circuitry.reports").joinpath("page.css").read_text(encoding="utf-8")
        script = f"<script>{plotly.offline.get_plotlyjs()}\n{PRINT_SCRIPT}</script>" if self.plotly_figures else ""
        links = [(f"section-{i}", heading) for i, heading in enumerate(self._sections, start=1)]
        if self._provenance:
            links.append(("provenance", "Provenance"))
        items = "".join(f'<li><a href="#{name}">{html.escape(heading)}</a></li>' for name, heading in links)
        contents = f'<nav aria-label="Contents"><ol>{items}</ol></nav>' if len(links) > 1 else ""
        body = "\n".join([_paragraphs(self._introduction), contents, *self._blocks, self._provenance])
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
            f'<link rel="icon" href="data:,">\n<style>\n{style}</style>\n{script}\n</head>\n'
            f"<body>\n<main>\n<h1>{title}</h1>\n{body}\n</main>\n</body>\n</html>\n"
        )


def _paragraphs(text: str) -> str:
    return "\n".join(f"<p>{html.escape(part.strip())}</p>" for part in text.split("\n\n") if part.strip())


def _table(table: pd.DataFrame, caption: str, formats: Mapping[str, str]) -> str:
    if not isinstance(table.index, pd.RangeIndex):
        table = table.reset_index()
    numeric = [pd.api.types.is_numeric_dtype(table[column]) for column in table.columns]
    kinds = [' class="number"' if is_number else "" for is_number in numeric]
    head = "".join(
        f'<th scope="col"{kind}>{html.escape(str(column).replace("_", " "))}</th>'
        for column, kind in zip(table.columns, kinds, strict=True)
    )
    rows = []
    for row in table.itertuples(index=False):
        cells = zip(table.columns, row, kinds, strict=True)
        rows.append("".join(f"<td{kind}>{html.escape(_cell(v, formats.get(c)))}</td>" for c, v, kind in cells))
    body = "".join(f"<tr>{cells}</tr>" for cells in rows)
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object, spec: str | None = None) -> str:
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, Real) and math.isnan(value)):
        return "–"
    if spec is not None:
        return format(value, spec)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_cell(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    if isinstance(value, bool) or not isinstance(value, Real):
        return str(value)
    if isinstance(value, Integral):
        return f"{int(value):,}"
    size = abs(float(value))
    return f"{float(value):.2e}" if 0 < size < 0.001 or size >= 1e6 else f"{float(value):,.3f}"


class StaticImages(NamedTuple):
    """What ``write_static`` wrote, and if that is nothing, what was missing."""

    paths: list[Path]
    missing: str | None


def write_static(
    figures: Mapping[str, go.Figure], folder: str | PathLike[str], *, width: int = 1000, scale: float = 2.0
) -> StaticImages:
    """Write ``folder/<name>.png`` for every figure, all of them or none, where kaleido and a browser are there.

    Args:
        figures: the figures by the name of their file.
        folder: made where it does not exist.
        width: of figures that do not set their own, in pixels before scaling.
        scale: image pixels per pixel of the figure.

    Returns:
        The paths; or none and the reason, where the extra ``static`` or a browser is not installed. Every other
        failure is raised.
    """
    if importlib.util.find_spec("kaleido") is None:
        return StaticImages([], "kaleido is not installed: pip install 'circuitry[static]'")
    import kaleido
    from kaleido.errors import ChromeNotFoundError

    paths = [Path(folder) / f"{name}.png" for name in figures]
    try:
        with ExitStack() as stack:
            jobs = [
                {
                    "fig": figure.to_dict(),
                    "path": stack.enter_context(whole_file(path)),
                    "opts": {
                        "format": "png",
                        "width": figure.layout.width or width,
                        "height": figure.layout.height or 450,
                        "scale": scale,
                    },
                }
                for path, figure in zip(paths, figures.values(), strict=True)
            ]
            # Without mathjax=False kaleido's page asks the network for it.
            kaleido.write_fig_from_object_sync(jobs, cancel_on_error=True, kopts={"mathjax": False})
    except ChromeNotFoundError:
        return StaticImages([], "no Chrome or Chromium was found: install one, or run plotly_get_chrome")
    return StaticImages(paths, None)


def write_figure(figure: go.Figure, stem: str | PathLike[str]) -> list[Path]:
    """Write ``stem.html``, self-contained, and ``stem.png`` where `write_static` can; return the paths."""
    page = Path(f"{stem}.html")
    with whole_file(page) as temporary:
        figure.write_html(temporary, include_plotlyjs=True, config=FIGURE_CONFIG)
    return [page, *write_static({page.stem: figure}, page.parent).paths]


def write_tables(tables: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Write tables as CSV files, each whole or not at all."""
    for name, table in tables.items():
        with whole_file(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")


def write_results(
    report: Report,
    tables: Mapping[str, pd.DataFrame],
    out: Path,
    results: Path | None,
    provenance: Mapping[str, object],
    small: Sequence[str] | None = None,
) -> None:
    """Write report, tables and PNG figures into a folder, and what is committed into another; say where.

    Args:
        report: The report, but for its provenance.
        tables: Tables by name.
        out: Folder for ``report.html``, ``tables`` and ``figures``.
        results: Folder for the small tables and ``provenance.json``, if any.
        provenance: What made it.
        small: Names of the tables that are small enough to be committed; all unless told.
    """
    write_tables(tables, out / "tables")
    if results is not None:
        write_tables({name: tables[name] for name in (tables if small is None else small)}, results)
        with whole_file(results / "provenance.json") as temporary:
            temporary.write_text(json.dumps(provenance, indent=1, default=str) + "\n")
    report.provenance({key: str(value) for key, value in provenance.items()})
    static = write_static(report.plotly_figures, out / "figures")
    print(f"PNG figures: {out / 'figures'}" if static.paths else f"no PNG figures: {static.missing}")
    print(f"report: {report.write(out / 'report.html')}")
