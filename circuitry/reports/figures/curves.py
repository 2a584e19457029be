"""Charts over the size of a circuit, from finished tables."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from circuitry.comparison.table import check_table
from circuitry.reports.figures import style

RANDOM_LINE = {"color": style.GREY, "width": 1.2, "dash": "dot"}


def faithfulness_curves(
    curves: pd.DataFrame,
    *,
    circuit: str = "kept",
    measure: str = "faithfulness",
    title: str | None = None,
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw faithfulness or selectivity over circuit size: a line with intervals per domain, random units dotted.

    Args:
        curves: Columns ``domain``, ``circuit`` (``kept``, ``complement``, ``random``), ``fraction``, ``value``,
            ``low``, ``high``: tables of `FaithfulnessCurve` of one ranking and measure; see `curves_by_domain`.
        circuit: Whose curve is drawn: ``kept``, or ``complement`` for completeness.
        measure: What the values are.

    Raises:
        InputError: for no rows of that circuit.
    """
    columns = ("domain", "circuit", "fraction", "value", "low", "high")
    check_table(curves, "curves", columns, key=("domain", "circuit", "fraction"))
    style.need_values(curves, "curves", "circuit", [circuit])
    looks = style.marks_for(curves["domain"], marks)
    figure = go.Figure()
    for name in ("random", circuit):  # random units first: they cover no circuit
        for domain, part in curves[curves["circuit"] == name].groupby("domain"):
            rows = part.assign(percent=100 * part["fraction"]).sort_values("fraction")
            if name == "random":
                look: dict[str, object] = {"name": f"{domain}, random units", "mode": "lines", "line": RANDOM_LINE}
            else:
                look = {"name": domain, "showlegend": True, **looks[str(domain)].line(rows)}
            hover = f"<b>{domain}</b>, {name}<br>%{{x:.3g}} % of units: %{{y:.3f}}"
            style.add_points(figure, rows, "percent", "value", [], hover, **look)
    if "random" in set(curves["circuit"]):
        style.add_key(figure, "random units", mode="lines", line=RANDOM_LINE)
    named = f"{measure} of the complement" if circuit == "complement" else measure
    heading = title or f"{style.capitalised(named)} by size of the circuit"
    style.lay_out(figure, title=heading, subtitle=style.interval_note(curves), height=500, legend=True)
    for level in (0, 1):
        figure.add_hline(y=level, line={"color": style.GREY, "width": 1})
    figure.update_xaxes(title_text="units kept at every site (%)", type="log", tickvals=[0.1, 1, 10, 100])
    figure.update_yaxes(title_text=named)
    return figure
