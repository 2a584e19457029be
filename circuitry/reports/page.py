"""Write a finished analysis as one HTML file.

The file contains plotly.js and all images, so it needs no other file.
"""

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
"""Number of tables on a page that are shown open. All later tables are folded: a click opens them."""


class Finding(NamedTuple):
    """One result at the top of a report: a claim, the evidence for the claim, and what would change it.

    All numbers in a finding come from tables.

    Example:
        >>> finding = circuitry.reports.Finding("Half is shared.", "Of 9 classes.", "More classes.")
        >>> page = circuitry.reports.Report("How much is shared?")
        >>> page.summary([finding])
    """

    claim: str
    """The result, with its numbers."""
    certainty: str
    """Evidence for the claim: intervals, tests, and the number of images or classes behind them."""
    refutation: str
    """Evidence that would change the claim. The page writes "What would change it:" before this text."""


class Report:
    """A page that grows block by block and is written as one self-contained HTML file.

    All text is plain text, and special characters are escaped. An empty line starts a new paragraph. Figures and tables
    are numbered in the order in which they are added.

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
        """The interactive figures. The keys are the ids of the HTML elements that hold them. `write_static` takes this
        dictionary."""

    def summary(self, findings: Sequence[Finding | None]) -> None:
        """Put findings at the top of the page, below the title. Entries that are None are left out."""
        self._findings = [finding for finding in findings if finding is not None]

    def section(self, heading: str, *, folded: bool = False) -> None:
        """Start a section, and list it in the table of contents.

        Args:
            heading: Heading of the section.
            folded: Whether only the heading is shown until the reader opens the section.
        """
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
        """Embed an image as a numbered figure; ``alt`` describes the image in words."""
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
        """Add a table with readable numbers.

        The index of the table is shown, too, unless it only counts the rows. If the page already has `OPEN_TABLES` open
        tables, the new table is folded.

        Args:
            table: The table to show. A table with more than a few dozen rows is hard to read on a page.
            formats: Format specification of a column by its name, such as ``".1%"``. By default numbers have three
                decimals, and counts have none.
            folded: Whether only the first sentence of the caption is shown until the reader opens the table.
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
        """Set the facts at the end of the page, such as the checkpoint, settings, versions and seeds."""
        self._provenance = {name: str(value) for name, value in facts.items()}

    def write(self, path: str | PathLike[str]) -> Path:
        """Write the page to a file, and return the path. If writing fails, an earlier file at this path is kept."""
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
    """Return whether a column of floats holds counts.

    Counts are whole numbers, and at least one of them is above 1. NaN is ignored.
    """
    if not pd.api.types.is_float_dtype(column):
        return False
    known = column.dropna()
    # Zeros and ones alone may as well be shares.
    return bool((known % 1 == 0).all() and (known > 1).any())


def _cell(value: object, spec: str | None = None) -> str:
    """Return the text of a cell.

    A missing value becomes a dash. If the format specification ``spec`` is given, it is used for all other values.
    Otherwise integers have no decimals. Other numbers have three decimals, or an exponent if they are very small or
    very large.
    """
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
    """What `write_results` wrote: paths of files, and the claims of the report.

    If this object is printed, the text is what a command prints at its end.

    Example:
        >>> from circuitry.reports import Written
        >>> print(Written(Path("report.html"), [], [], claims=("Half is shared.",)))
        Half is shared.
        report: report.html
    """

    report: Path  #: Path of the page.
    tables: list[Path]  #: Paths of the tables, as CSV files.
    figures: list[Path]  #: Paths of the PNG files; empty if none could be written.
    refused: str | None = None
    """Why nothing was written; None if the files were written."""
    claims: tuple[str, ...] = ()
    """The claims of the findings at the top of the report."""

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
    """Write a report, its tables and its PNG figures into a folder, and small tables also into a second folder.

    The first folder also gets an index of its pages, and the report links to the other pages in this folder; see
    `link_pages`. If an earlier run of the same command wrote tables into the first folder that this call does not
    write, they are removed. If the first folder is read-only, such as the folder of a finished run, nothing is written,
    and the result says why.

    Args:
        report: The page. Its provenance is set before the page is written.
        tables: Tables by name.
        out: The first folder. It gets ``report.html``, ``tables``, ``figures`` and ``comparisons``.
        results: The second folder, for small tables and ``provenance.json``. If it is None, there is no second folder.
        provenance: Facts for ``provenance.json`` and for the end of the page. The command line is added.
        small: Names of the tables that are written into ``results``, because they are small enough to be committed
            (default: all tables).
        listings: Lists of names to write beside the tables, as in `write_with_provenance`.
        comparisons: Comparisons to save. The key of a comparison is the name of its folder in ``out/comparisons``.

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
        # A full disk is an error. A folder without permission to write holds a finished run, which is no error.
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        refused = f"{out} can only be read: {error.strerror}"
        return Written(out / REPORT_PAGE, [], [], refused)
    if results is not None:
        if small is None:
            small = list(tables)
        committed = {name: tables[name] for name in small}
        paths += write_with_provenance(committed, results, provenance, listings)
    report.provenance(provenance)
    # Figures take longest. They are written after the tables, so that the numbers are safe by then.
    figures = write_static(report.plotly_figures, out / "figures")
    page = report.write(out / REPORT_PAGE)
    link_pages(out)
    claims = tuple(finding.claim for finding in report._findings)
    return Written(page, paths, figures, claims=claims)
