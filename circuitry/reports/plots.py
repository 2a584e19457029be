"""Draw one result as a figure.

Figures of several results, and figures with more options, are in `circuitry.reports.figures`.
"""

import plotly.graph_objects as go

from circuitry.circuits.component_effects import DirectEffects
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.comparison.comparison import Comparison
from circuitry.gates.effects_of_patches import PatchEffects
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.explanation import Explanation
from circuitry.interventions.scores_beside_effects import AttributionCheck
from circuitry.reports.figures.circuit_graphs import circuit_drawing
from circuitry.reports.figures.heatmaps import component_heatmap, patching_heatmap
from circuitry.reports.figures.lines import (
    attribution_against_patching,
    faithfulness_curves,
)
from circuitry.reports.figures.pictures import explanation_drawing
from circuitry.reports.figures.style import measure_name
from circuitry.reports.sections.compared import draw_matrix
from circuitry.runs.arguments import checked

Plotted = (
    AttributionGraph
    | Circuit
    | FaithfulnessCurve
    | DirectEffects
    | PatchEffects
    | Comparison
    | AttributionCheck
    | Explanation
)
"""Types of results that `plot` draws."""


@checked
def plot(result: Plotted) -> go.Figure:
    """Draw a result as an interactive plotly figure.

    Args:
        result: The result to draw. Its type decides what the figure shows:

            - `Circuit` or `AttributionGraph`: the units by site, and the strongest edges between them.
            - `FaithfulnessCurve`: selectivity over the size of the circuit. If there are no images of other classes,
              faithfulness over the size.
            - `DirectEffects`: a heat map of the direct effects of heads and MLPs, by layer.
            - `PatchEffects`: a heat map of the effects: rows are sites, and columns are units or positions.
            - `Comparison`: a heat map of the similarity of all pairs of domains.
            - `AttributionCheck`: attributed scores of units against their exact effects.
            - `Explanation`: the picture, lit where its units are active.

    Returns:
        The figure. ``.show()`` opens the figure. ``.write_html(path)`` and ``.write_image(path)`` write it to a file.

    Example:
        >>> circuitry.plot(circuit).layout.title.text
        '...'
    """
    match result:
        case Circuit():
            return circuit_drawing(
                result, result.source.inner_sites, title=result.source.title
            )
        # A graph is drawn as the circuit that is cut from it by default.
        case AttributionGraph():
            return plot(result.circuit())
        case FaithfulnessCurve():
            return _plot_curve(result)
        case DirectEffects():
            return component_heatmap(result)
        case PatchEffects():
            return patching_heatmap(result)
        case Comparison():
            title = f"Domains by {measure_name(result.measure)}"
            return draw_matrix(result, title=title)
        case AttributionCheck():
            points = result.points
            sites = list(points["site"].unique())
            return attribution_against_patching(points, sites, result.to_pandas())
        case Explanation():
            return explanation_drawing(result)


def _plot_curve(curve: FaithfulnessCurve) -> go.Figure:
    # Selectivity needs images of other classes, and some curves have no such images.
    measure = "faithfulness" if curve.own.all() else "selectivity"
    known = [name for name in (curve.class_name, curve.domain) if name]
    name = " in ".join(known) or "the circuit"
    table = curve.to_pandas(measure).assign(domain=name)
    figure = faithfulness_curves(table, measure=measure)
    what = "edges" if curve.ranking == "edges" else "units"
    return figure.update_xaxes(title_text=f"{what} kept (%)")
