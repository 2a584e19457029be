"""Every circuit drawn: a folder with a page for each class and domain, and an index. No torch."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from plotly.offline import get_plotlyjs

from circuitry.circuits.graph import AttributionGraph
from circuitry.reports.figure_files import FIGURE_CONFIG
from circuitry.reports.plots import plot
from circuitry.reports.run_pages import REPORT_PAGE, TEMPLATES
from circuitry.runs.files import whole_file

INDEX = "index.html"


def write_circuit_pages(
    graphs: Mapping[tuple[str, str], AttributionGraph],
    folder: Path,
    *,
    edges_per_node: int = 3,
    any_sign: bool = False,
) -> Path:
    """Draw every circuit on its own page, and return the index, a table of classes and domains.

    Graphs are read one at a time. All pages share one copy of plotly.js in the folder.

    Args:
        graphs: Graphs by class and domain.
        folder: Folder of the pages: ``<class>/<domain>.html``.
        edges_per_node, any_sign: Edges of the circuits; see `AttributionGraph.circuit`.
    """
    for name, domain in graphs:
        figure = plot(graphs[name, domain].circuit(edges_per_node, any_sign=any_sign))
        page = folder / name / f"{domain}.html"
        with whole_file(page) as temporary:
            figure.write_html(temporary, include_plotlyjs="../plotly.min.js", config=FIGURE_CONFIG)
    with whole_file(folder / "plotly.min.js") as temporary:
        temporary.write_text(get_plotlyjs(), encoding="utf-8")
    with whole_file(folder / INDEX) as temporary:
        temporary.write_text(_index(list(graphs)), encoding="utf-8")
    return folder / INDEX


def _index(keys: list[tuple[str, str]]) -> str:
    domains = sorted({domain for _, domain in keys})
    rows = {
        name: {domain: quote(f"{name}/{domain}.html") for domain in domains if (name, domain) in keys}
        for name in sorted({name for name, _ in keys})
    }
    template = TEMPLATES.get_template("drawn_pages.html.jinja")
    return template.render(rows=rows, domains=domains, report=f"../{REPORT_PAGE}")
