"""Write a finished analysis as one HTML file, which holds plotly.js and all images and so needs no other file."""

import base64
import errno
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go
import plotly.io
import plotly.offline
from PIL import Image

from circuitry.comparison.comparison import Comparison
from circuitry.reports.figure_files import FIGURE_CONFIG, write_static
from circuitry.reports.result_tables import (
    TABLES,
    remove_stale_tables,
    write_with_provenance,
)
from circuitry.reports.run_pages import BESIDE, REPORT_PAGE, TEMPLATES, link_pages
from circuitry.runs.arguments import checked
from circuitry.runs.files import whole_file
from circuitry.runs.provenance import command

OPEN_TABLES = 4
"""Tables of a page that are open; those after them are folded."""


class Finding(NamedTuple):
    """One sentence of the answer to a report's title, with its evidence; all numbers come from tables.

    Example:
        >>> finding = circuitry.reports.Finding("Half is shared.", "Of 9 classes.", "More classes.")
        >>> page = circuitry.reports.Report("How much is shared?")
        >>> page.summary([finding])
    """

    claim: str
    """The result, with its numbers."""
    certainty: str
    """Evidence for the claim: intervals and tests, and the images or classes they are over."""
    refutation: str
    """Evidence that would change the claim; the page writes "What would change it:" before it."""


class Report:
    """A page that grows block by block and is written as one self-contained HTML file.

    All text is plain and escaped; an empty line starts a new paragraph. Figures and tables are numbered in order.

    Example:
        >>> report = Report("Circuits of a small CLIP", "How much circuitry do the domains share?")
        >>> report.section("Circuits")
        >>> report.text("The circuit of the class clock.")
        >>> report.figure(circuitry.plot(circuit), "Its units and strongest edges.")
        >>> report.table(pd.DataFrame({"share": [0.5]}), "Shares.", formats={"share": ".1%"})
        >>> report.provenance({"model": "rn-tiny", "seed": 0})
        >>> report.write("report.html").name
        'report.html'
    """

    def __init__(self, title: str, introduction: str = "") -> None:
        self._title = title
        self._introduction = introduction
        # Blocks before the first heading are a section without a name.
        self._sections: list[dict[str, Any]] = [{"heading": None, "blocks": []}]
        self._findings: list[Finding] = []
        self._provenance: dict[str, str] = {}
        self._n_blocks = Counter[str]()
        self._n_open_tables = 0
        self.plotly_figures: dict[str, go.Figure] = {}
        """The interactive figures by the id of their div, for `write_static`."""

    def summary(self, findings: Sequence[Finding | None]) -> None:
        """Put findings at the top of the page, as the answer to its title; None among them is left out."""
        self._findings = [finding for finding in findings if finding is not None]

    def section(self, heading: str, *, folded: bool = False) -> None:
        """Start a section, which the table of contents lists; a folded one shows its heading until it is opened."""
        name = f"section-{len(self._sections)}"
        self._sections.append(
            {"name": name, "heading": heading, "folded": folded, "blocks": []}
        )

    def text(self, text: str) -> None:
        """Add plain text; empty lines separate paragraphs."""
        self._add("text", text)

    def figure(self, figure: go.Figure, caption: str) -> None:
        """Add an interactive plotly figure with its caption."""
        # The id of the figure's div on the page, and the stem of its PNG file.
        name = f"figure-{self._n_blocks['figure'] + 1}"
        self.plotly_figures[name] = figure
        # plotly.js is in the page once, not in every figure.
        drawing = plotly.io.to_html(
            figure,
            full_html=False,
            include_plotlyjs=False,
            div_id=name,
            config=FIGURE_CONFIG,
            default_height=f"{figure.layout.height or 450}px",
        )
        self._add_numbered("figure", caption, drawing=drawing)

    def image(self, image: Image.Image, caption: str, *, alt: str) -> None:
        """Embed an image; ``alt`` says what it shows."""
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        png = base64.b64encode(buffer.getvalue()).decode("ascii")
        self._add_numbered("figure", caption, png=png, alt=alt)

    def _add_numbered(self, kind: str, caption: str, **content: object) -> None:
        self._n_blocks[kind] += 1
        label = f"{kind.capitalize()} {self._n_blocks[kind]}."
        self._add(kind, {"label": label, "caption": caption, **content})

    def _add(self, kind: str, block: object) -> None:
        self._sections[-1]["blocks"].append((kind, block))

    def table(
        self,
        table: pd.DataFrame,
        caption: str,
        *,
        formats: Mapping[str, str] | None = None,
        folded: bool = False,
    ) -> None:
        """Add a table with readable numbers; its index is shown unless it merely counts the rows.

        The page folds it after `OPEN_TABLES` open ones.

        Args:
            table: At most a few dozen rows read well.
            formats: Format specification by column, such as ``".1%"`` (default: three decimals, none for counts).
            folded: Whether to show the start of the caption alone until it is opened.
        """
        if not isinstance(table.index, pd.RangeIndex):
            table = table.reset_index()
        columns = []
        cells = []
        for name, column in table.items():
            numeric = pd.api.types.is_numeric_dtype(column)
            columns.append({"name": str(name).replace("_", " "), "numeric": numeric})
            # Counts become floats where a row lacks one; they still have no decimals.
            spec = ",.0f" if _counts(column) else None
            spec = (formats or {}).get(str(name), spec)
            cells.append([_cell(value, spec) for value in column])
        folded = folded or self._n_open_tables >= OPEN_TABLES
        # A table in a folded section takes no room on the page.
        if not folded and not self._sections[-1].get("folded"):
            self._n_open_tables += 1
        # A folded table shows the first sentence of its caption.
        start, _, rest = caption.partition(". ")
        if rest:
            start += "."
        self._add_numbered(
            "table",
            caption,
            folded=folded,
            start=start,
            rest=rest,
            columns=columns,
            rows=list(zip(*cells, strict=True)),
        )

    def provenance(self, facts: Mapping[str, object]) -> None:
        """Add checkpoint, settings, versions and seeds at the end of the page."""
        self._provenance = {name: str(value) for name, value in facts.items()}

    def write(self, path: str | PathLike[str]) -> Path:
        """Write the page whole or not at all, and return its path."""
        target = Path(path)
        # The first section has no heading to link to.
        named = self._sections[1:]
        links = [(section["name"], section["heading"]) for section in named]
        if self._provenance:
            links.append(("provenance", "Provenance"))
        page = TEMPLATES.get_template("page.html.jinja").render(
            title=self._title,
            introduction=self._introduction,
            beside=BESIDE,
            findings=self._findings,
            links=links,
            sections=self._sections,
            provenance=self._provenance,
            plotly_js=plotly.offline.get_plotlyjs() if self.plotly_figures else "",
        )
        with whole_file(target) as temporary:
            temporary.write_text(page, encoding="utf-8")
        return target


def _counts(column: "pd.Series[Any]") -> bool:
    """Return whether a column of floats holds counts: only whole numbers, one of them above 1."""
    if not pd.api.types.is_float_dtype(column):
        return False
    known = column.dropna()
    # Zeros and ones alone may as well be shares.
    return bool((known % 1 == 0).all() and (known > 1).any())


def _cell(value: object, spec: str | None = None) -> str:
    """Return the text of a cell: a dash for a missing value, a number by ``spec`` or else with three decimals."""
    # pd.isna would return an array for a list.
    if value is None or value is pd.NA or value is pd.NaT:
        return "–"
    if isinstance(value, Real) and math.isnan(value):
        return "–"
    if spec is not None:
        return format(value, spec)
    # Python's bool is an integer, and a reader expects a word.
    if isinstance(value, bool) or not isinstance(value, Real):
        return str(value)
    if isinstance(value, Integral):
        return f"{int(value):,}"
    number = float(value)
    # Three decimals would show zero, or many digits.
    size = abs(number)
    if 0 < size < 0.001 or size >= 1e6:
        return f"{number:.2e}"
    return f"{number:,.3f}"


class Written(NamedTuple):
    """The paths that `write_results` wrote; as text, the lines that a command prints.

    Example:
        >>> from circuitry.reports import Written
        >>> print(Written(Path("report.html"), [], [], claims=("Half is shared.",)))
        Half is shared.
        report: report.html
    """

    report: Path  #: The page.
    tables: list[Path]  #: A file for each table.
    figures: list[Path]  #: PNG files, where they were asked for.
    refused: str | None = None
    """Why nothing was written."""
    claims: tuple[str, ...] = ()
    """The claims at the top of the report."""

    def facts(self) -> dict[str, Any]:
        """Return the claims and the paths as plain values, for JSON."""
        return {
            "in_short": list(self.claims),
            "report": str(self.report),
            "tables": list(map(str, self.tables)),
            "figures": list(map(str, self.figures)),
        }

    def __str__(self) -> str:
        if self.refused is not None:
            line = f"nothing is written, {self.refused}"
            if self.report.is_file():
                line += f"; an earlier report: {self.report}"
            return line
        lines = [*self.claims, f"report: {self.report}"]
        if self.figures:
            lines.append(f"PNG figures: {self.figures[0].parent}")
        return "\n".join(lines)


@checked
def write_results(
    report: Report,
    tables: Mapping[str, pd.DataFrame],
    out: Path,
    results: Path | None,
    provenance: Mapping[str, object],
    small: Sequence[str] | None = None,
    listings: Mapping[str, Sequence[str]] | None = None,
    comparisons: Mapping[str, Comparison] | None = None,
) -> Written:
    """Write a report, its tables and PNG figures into a folder, and the small tables into another folder, too.

    The folder gets an index of its pages, and the report links to the pages beside it; see `link_pages`. Tables that an
    earlier run of the same command left in the folder are removed, unless they are written now. If the folder is
    read-only, as that of a finished run may be, nothing is written and the result says so.

    Args:
        out: Folder for ``report.html``, ``tables`` and ``figures``.
        results: Folder for the small tables with the same ``provenance.json``, if any.
        provenance, listings: Those of `write_with_provenance`.
        small: Names of the tables that are small enough to be committed (default: all).
        comparisons: Comparisons to save, by the name of their folder.

    Example:
        >>> tables = {"shares": pd.DataFrame({"share": [0.5]})}
        >>> out = write_results(circuitry.reports.Report("Shares"), tables, Path("out"), None, {"seed": 0})
        >>> out.tables[0].name
        'shares.csv'
    """
    provenance = {"command": command(), **provenance}
    listed = {**(listings or {}), TABLES: list(tables)}
    try:
        for name, comparison in (comparisons or {}).items():
            comparison.save(out / "comparisons" / name)
        remove_stale_tables(out / "tables", tables)
        paths = write_with_provenance(tables, out / "tables", provenance, listed)
    except OSError as error:
        # A full disk is an error; a folder that may not be written to holds a finished run.
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        refused = f"{out} can only be read: {error.strerror}"
        return Written(out / REPORT_PAGE, [], [], refused)
    if results is not None:
        small = list(tables) if small is None else small
        committed = {name: tables[name] for name in small}
        paths += write_with_provenance(committed, results, provenance, listings)
    report.provenance(provenance)
    # After the tables: figures take longest, and the numbers are then safe.
    figures = write_static(report.plotly_figures, out / "figures")
    page = report.write(out / REPORT_PAGE)
    link_pages(out)
    claims = tuple(finding.claim for finding in report._findings)
    return Written(page, paths, figures, claims=claims)
