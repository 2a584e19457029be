"""Write explanations of pictures as one HTML page. Does not import torch."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import plotly.io
import plotly.offline
from PIL import Image

from circuitry.interventions.explanation import Explanation
from circuitry.reports.figure_files import FIGURE_CONFIG
from circuitry.reports.figures.circuit_graphs import circuit_drawing
from circuitry.reports.figures.lines import cell_curves
from circuitry.reports.figures.pictures import spotlight
from circuitry.reports.run_pages import TEMPLATES
from circuitry.runs.files import whole_file
from circuitry.runs.provenance import command

ANSWERS = 5
"""Number of answers that the page lists."""
Strips = Mapping[tuple[str, int], "Strip"]
"""What the cards of units show, by (site, unit)."""


class Strip(NamedTuple):
    """What a unit responds to elsewhere: the strongest images of its card, and its name.

    Example:
        >>> from circuitry.reports import Strip
        >>> Strip("stripes", []).name
        'stripes'
    """

    name: str  #: Name of the unit; empty if it has none that is better than chance.
    thumbnails: Sequence[bytes]  #: Contents of image files, the strongest image first.


class ExplainedPage(NamedTuple):
    """A written page of explanations. Its text is what the command prints.

    Example:
        >>> from circuitry.reports import ExplainedPage
        >>> print(ExplainedPage(Path("why.html"), ("a cup",)))
        a cup
        page: why.html
    """

    report: Path  #: Path of the page.
    said: tuple[str, ...]  #: What each explanation says in short.

    def facts(self) -> dict[str, Any]:
        """Return the sentences and the path as plain values, for JSON."""
        return {"in_short": list(self.said), "report": str(self.report)}

    def __str__(self) -> str:
        return "\n".join([*self.said, f"page: {self.report}"])


def write_explanations(
    explanations: Sequence[Explanation],
    path: str | PathLike[str],
    strips: Strips = MappingProxyType({}),
) -> ExplainedPage:
    """Write explanations of one or more pictures as a self-contained page, one screen for each picture.

    Args:
        explanations: The explanations. If two explain the same text, a table shows in which units the pictures differ.
        path: The file, which is written whole or not at all.
        strips: What the cards of units show.

    Example:
        >>> why = circuitry.explain(clip, images[0], ["cup", "clock"], n_units=3)
        >>> write_explanations([why], "why.html").report.name
        'why.html'
    """
    drawn = [_drawn(number, e, strips) for number, e in enumerate(explanations)]
    asked = {(e.text, e.against) for e in explanations}
    differing = None
    if len(explanations) == 2 and len(asked) == 1:
        differing = explanations[0].beside(explanations[1]).round(2)
    page = TEMPLATES.get_template("explanation.html.jinja").render(
        title=", ".join(f"{e.name}: {e.answer}" for e in explanations),
        explained=drawn,
        differing=differing,
        plotly_js=plotly.offline.get_plotlyjs(),
        command=command(),
    )
    target = Path(path)
    with whole_file(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return ExplainedPage(target, tuple(str(e) for e in explanations))


def _drawn(number: int, explanation: Explanation, strips: Strips) -> dict[str, Any]:
    """Return what the template shows of one explanation."""
    picture = explanation.picture
    units = []
    largest = explanation.units["effect"].abs().max() or 1.0
    for row in explanation.units.to_dict("records"):
        unit = (row["site"], row["unit"])
        lit = explanation.maps.get(unit)
        strip = strips.get(unit, Strip("", []))
        units.append(
            {
                "name": f"{row['site']}/{row['unit']}",
                "kind": row["kind"],
                "effect": row["effect"],
                "width": max(0.0, 100 * row["effect"] / largest),
                "own": row["own part of"],
                "picture": None if lit is None else _png(spotlight(picture, lit)),
                "called": strip.name,
                "strip": [
                    base64.b64encode(t).decode("ascii") for t in strip.thumbnails
                ],
            }
        )
    circuit = explanation.circuit
    with_edges = replace(circuit, edges=circuit.scored_edges)
    sites = [site for site, of_site in circuit.units.items() if len(of_site)]
    graph = circuit_drawing(with_edges, sites, title="The units, by depth")
    # Two lanes are too low for their names, which the legend has.
    graph.update_yaxes(showticklabels=False)
    curves = cell_curves(explanation)
    return {
        "name": explanation.name,
        "said": str(explanation).splitlines(),
        "answers": list(explanation.probabilities.items())[:ANSWERS],
        "picture": _png(picture),
        "where": {
            f"by {order}": _png(spotlight(picture, values))
            for order, values in explanation.cells.items()
        },
        "units": units,
        "tests": explanation.tests.to_dict("records"),
        "graph": _html(graph, f"graph-{number}", 380),
        "curves": _html(curves, f"curves-{number}", 300),
    }


def _png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _html(figure: go.Figure, name: str, height: int) -> str:
    figure.update_layout(height=height)
    html: str = plotly.io.to_html(
        figure,
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        # On a small figure the buttons would cover the title.
        config={**FIGURE_CONFIG, "displayModeBar": False},
        default_height=f"{height}px",
    )
    return html
