"""The chart of attributed scores against exact effects. Drawing computes nothing."""

from typing import Annotated

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from circuitry.comparison.table import check_table
from circuitry.reports.figures import style
from circuitry.runs.given import SOME, Names

PANELS_IN_A_ROW = 4

_AGREE = {"color": style.GREY, "width": 1}


def attribution_against_patching(
    points: pd.DataFrame, sites: Annotated[Names, SOME], correlations: pd.DataFrame | None = None
) -> go.Figure:
    """Draw attributed scores against exact effects, a panel per site; on the line the two agree.

    Args:
        points: Columns ``site``, ``unit``, ``top``, ``attributed``, ``exact``, from `AttributionCheck`; the top units
            are filled, the random ones hollow.
        sites: The sites to draw, a panel each.
        correlations: Columns ``site``, ``sample``, ``spearman``, ``pearson``; the random sample's are written over
            the panel.
    """
    check_table(points, "points", ("site", "unit", "top", "attributed", "exact"), key=("site", "unit"))
    style.need_values(points, "points", "site", sites)
    notes = {}
    if correlations is not None:
        check_table(correlations, "correlations", ("site", "sample", "pearson", "spearman"), key=("site", "sample"))
        rows = correlations[correlations["sample"] == "random"].itertuples()
        notes = {row.site: style.faint(f"r {row.pearson:.2f}, ρ {row.spearman:.2f}") for row in rows}
    titles = [f"{site}<br>{notes.get(site, '')}" for site in sites]
    figure, places = style.small_multiples(titles, columns=PANELS_IN_A_ROW, height=170, gap=85, horizontal_spacing=0.07)
    hover = "unit %{customdata[0]}<br>attributed %{x:.4f}<br>exact %{y:.4f}"
    for site, place in zip(sites, places, strict=True):
        own = points[points["site"] == site]
        scores = own[["attributed", "exact"]].to_numpy(dtype=float)
        ends = [float(scores.min()), float(scores.max())]
        figure.add_scatter(x=ends, y=ends, mode="lines", line=_AGREE, hoverinfo="skip", showlegend=False, **place)
        marker = {"color": style.INK, "size": 6, "symbol": np.where(own["top"], "circle", "circle-open")}
        style.add_points(figure, own, "attributed", "exact", ["unit"], hover, name=site, marker=marker, **place)
    style.add_key(figure, "largest scores", mode="markers", marker={"color": style.INK, "symbol": "circle"})
    style.add_key(figure, "random units", mode="markers", marker={"color": style.INK, "symbol": "circle-open"})
    style.add_key(figure, "exact = attributed", mode="lines", line=_AGREE)
    style.lay_out(figure, title="Attributed scores against exact effects", legend=True)
    figure.update_xaxes(nticks=4, exponentformat="power")
    figure.update_yaxes(nticks=5, exponentformat="power")
    for place in places[-min(PANELS_IN_A_ROW, len(sites)) :]:  # the lowest panel of each column
        figure.update_xaxes(title_text="attributed", **place)
    figure.update_yaxes(title_text="exact (patching)", col=1)
    return figure
