"""Figures of causal checks, from finished tables and arrays. Drawing computes nothing.

1. `effects_over_depth` and `position_heatmap` for `PatchEffects`;
2. `attribution_against_patching` for an `AttributionCheck`;
3. `faithfulness_curves` for tables of `FaithfulnessCurve`;
4. `transfer_heatmap` for a `transfer_matrix`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from circuitry.errors import InputError
from circuitry.plot_style import GREY, INK, Mark, band, check_table, marks_for, style
from circuitry.plots import NEGATIVE, NEUTRAL, POSITIVE, similarity_heatmap

SIGNED = [(0.0, NEGATIVE), (0.5, NEUTRAL), (1.0, POSITIVE)]
"""Colours of numbers that have a sign."""


def effects_over_depth(effects: pd.DataFrame, sites: Sequence[str], *, measure: str) -> go.Figure:
    """Draw every unit's effect over the sites; within a site units lie side by side in their order.

    Args:
        effects: columns ``site``, ``index``, ``value``, from ``PatchEffects.table()``.
        sites: the sites to draw, from the image to the embedding.
        measure: what ``value`` is, with its unit: the title of the vertical axis.

    Raises:
        InputError: a missing column, two rows for one unit, a site that the table lacks.
    """
    check_table(effects, "effects", ("site", "index", "value"), key=("site", "index"))
    _need_sites(effects, "effects", sites)
    figure = go.Figure()
    for place, site in enumerate(sites):
        rows = effects[effects["site"] == site]
        figure.add_scatter(
            name=site,
            x=place + 0.8 * ((rows["index"] + 0.5) / (rows["index"].max() + 1) - 0.5),
            y=rows["value"],
            mode="markers",
            marker={"color": INK, "size": 5, "opacity": 0.55},
            customdata=rows[["index"]],
            hovertemplate=f"<b>{site}</b>, unit %{{customdata[0]}}<br>{measure} %{{y:.4f}}<extra></extra>",
        )
    style(figure, height=440)
    figure.update_layout(showlegend=False, hovermode="closest")
    figure.add_hline(y=0, line={"color": GREY, "width": 1})
    figure.update_xaxes(
        title_text="site, from the image to the embedding",
        tickvals=list(range(len(sites))),
        ticktext=list(sites),
        range=[-0.6, len(sites) - 0.4],
        showgrid=False,
    )
    figure.update_yaxes(title_text=measure)
    return figure


def position_heatmap(effects: np.ndarray, image: np.ndarray, *, title: str, measure: str) -> go.Figure:
    """Draw the effects of a site's positions over the image they come from.

    Args:
        effects: [height, width] of a site, e.g. ``PatchEffects.scores[site]``; the tokens of a transformer go in as
            a grid, without the class token: ``scores[1:].reshape(7, 7)``.
        image: the image as bytes [height, width, 3], of any size.
        title: heading of the figure.
        measure: what the numbers are, with their unit.

    Raises:
        InputError: effects that are no grid, or an image of another kind.
    """
    if effects.ndim != 2:
        raise InputError(
            f"Effects over an image are a grid [height, width], but have shape {list(effects.shape)}: drop the class "
            "token and reshape the others."
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(
            f"An image is an array of bytes [height, width, 3], but {image.dtype} {list(image.shape)} was given."
        )
    height, width = image.shape[:2]
    top = float(np.nanmax(np.abs(effects))) or 1.0
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.04)
    steps = height / effects.shape[0], width / effects.shape[1]
    for column, opacity in ((1, 0.0), (2, 0.7)):
        figure.add_trace(go.Image(z=image, hoverinfo="skip"), row=1, col=column)
        if opacity:
            heat = go.Heatmap(
                z=effects,
                x0=steps[1] / 2 - 0.5,
                dx=steps[1],
                y0=steps[0] / 2 - 0.5,
                dy=steps[0],
                zmin=-top,
                zmax=top,
                colorscale=SIGNED,
                opacity=opacity,
                colorbar={"title": {"text": measure, "side": "right"}, "thickness": 12, "exponentformat": "power"},
                hovertemplate=f"{measure} %{{z:.4f}}<extra></extra>",
            )
            figure.add_trace(heat, row=1, col=column)
    style(figure, title=title, subtitle=measure, height=420)
    figure.update_xaxes(visible=False, range=[-0.5, width - 0.5], constrain="domain")
    figure.update_yaxes(visible=False, range=[height - 0.5, -0.5], constrain="domain")
    figure.update_yaxes(scaleanchor="x", row=1, col=1)
    figure.update_yaxes(scaleanchor="x2", row=1, col=2)
    return figure


def attribution_against_patching(
    points: pd.DataFrame, sites: Sequence[str], correlations: pd.DataFrame | None = None, *, columns: int = 4
) -> go.Figure:
    """Draw attributed scores against exact effects, a panel per site; on the line the two agree.

    Args:
        points: columns ``site``, ``unit``, ``top``, ``attributed``, ``exact``, from ``AttributionCheck``; the top
            units are filled, the random ones hollow.
        sites: the sites to draw, a panel each.
        correlations: columns ``site``, ``sample``, ``spearman``, ``pearson``: those of the random sample are written
            over the panel.
        columns: panels in a row.

    Raises:
        InputError: a missing column, two rows for one unit, a site that the points lack.
    """
    check_table(points, "points", ("site", "unit", "top", "attributed", "exact"), key=("site", "unit"))
    _need_sites(points, "points", sites)
    wide = min(columns, len(sites))
    rows = -(-len(sites) // wide)
    notes = {} if correlations is None else _notes(correlations)
    titles = [f"{site}<br>{notes.get(site, '')}" for site in sites]
    figure = make_subplots(
        rows=rows, cols=wide, subplot_titles=titles, horizontal_spacing=0.07, vertical_spacing=0.32 / rows
    )
    for i, site in enumerate(sites):
        part = points[points["site"] == site]
        place = {"row": i // wide + 1, "col": i % wide + 1}
        ends = [float(part[["attributed", "exact"]].min().min()), float(part[["attributed", "exact"]].max().max())]
        figure.add_scatter(x=ends, y=ends, mode="lines", line={"color": GREY, "width": 1}, hoverinfo="skip", **place)
        figure.add_scatter(
            name=site,
            x=part["attributed"],
            y=part["exact"],
            mode="markers",
            marker={"color": INK, "size": 6, "symbol": ["circle" if top else "circle-open" for top in part["top"]]},
            customdata=part[["unit"]],
            hovertemplate="unit %{customdata[0]}<br>attributed %{x:.4f}<br>exact %{y:.4f}<extra></extra>",
            **place,
        )
    style(figure, height=90 + 250 * rows)
    figure.update_layout(showlegend=False, hovermode="closest", margin_t=60)
    figure.update_annotations(font_size=12)
    figure.update_xaxes(nticks=4, exponentformat="power")
    figure.update_yaxes(nticks=5, exponentformat="power")
    for column in range(1, wide + 1):
        lowest = -(-(len(sites) - column + 1) // wide)
        figure.update_xaxes(title_text="attributed", row=lowest, col=column)
    figure.update_yaxes(title_text="exact (patching)", col=1)
    return figure


def faithfulness_curves(
    curves: pd.DataFrame, *, circuit: str = "kept", marks: Mapping[str, Mark] | None = None
) -> go.Figure:
    """Draw faithfulness over circuit size, a line with its band per domain, random units dotted.

    Args:
        curves: columns ``domain``, ``circuit`` (``kept``, ``complement``, ``random``), ``fraction``, ``value``,
            ``low``, ``high``: tables of ``FaithfulnessCurve`` of one class and ranking, or their mean.
        circuit: whose curve is drawn: ``kept``, or ``complement`` for completeness.
        marks: the look of every domain; by default ``domain_marks`` of the table's.

    Raises:
        InputError: a missing column, two rows for one point, no rows of that circuit.
    """
    columns = ("domain", "circuit", "fraction", "value", "low", "high")
    check_table(curves, "curves", columns, key=("domain", "circuit", "fraction"))
    if circuit not in set(curves["circuit"]):
        raise InputError(
            f"The curves table has no rows of {circuit!r}; it has {', '.join(sorted(set(curves.circuit)))}."
        )
    looks = marks_for(curves["domain"], marks)
    figure = go.Figure()
    for domain, part in curves.groupby("domain"):
        rows = part[part["circuit"] == circuit].dropna(subset=["low", "high"]).sort_values("fraction")
        band(figure, 100 * rows["fraction"], rows["low"], rows["high"], looks[str(domain)].colour, "interval")
    for domain, part in curves.groupby("domain"):
        mark = looks[str(domain)]
        for name, dash in (("random", "dot"), (circuit, "solid")):
            rows = part[part["circuit"] == name].sort_values("fraction")
            solid = name == circuit
            figure.add_scatter(
                name=str(domain) if solid else f"{domain}, random units",
                x=100 * rows["fraction"],
                y=rows["value"],
                mode="lines+markers" if solid else "lines",
                line={"color": mark.colour, "width": 2.2 if solid else 1.5, "dash": dash},
                marker={"symbol": mark.symbol, "size": 9, "line": {"color": "white", "width": 1}},
                showlegend=solid,
                hovertemplate=f"<b>{domain}</b>, {name}<br>%{{x:.3g}} % of units: %{{y:.3f}}<extra></extra>",
            )
    style(figure, height=460)
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}, margin_t=60)
    for level in (0, 1):
        figure.add_hline(y=level, line={"color": GREY, "width": 1})
    figure.update_xaxes(title_text="units kept at every site (%)", type="log", tickvals=[0.1, 1, 10, 100])
    named = "completeness (faithfulness of the complement)" if circuit == "complement" else "faithfulness"
    figure.update_yaxes(title_text=f"{named}; dotted: random units")
    return figure


def transfer_heatmap(
    matrix: pd.DataFrame, *, title: str, measure: str = "faithfulness", marks: Mapping[str, Mark] | None = None
) -> go.Figure:
    """Draw a `transfer_matrix`: a row per domain of the circuit, a column per domain of the images."""
    return similarity_heatmap(matrix, title=title, measure=measure, diagonal="same domain", marks=marks)


def _notes(correlations: pd.DataFrame) -> dict[str, str]:
    check_table(correlations, "correlations", ("site", "sample", "pearson", "spearman"), key=("site", "sample"))
    chosen = correlations[correlations["sample"] == "random"]
    return {
        str(site): f'<span style="color:{GREY}">r {pearson:.2f}, ρ {spearman:.2f}</span>'
        for site, pearson, spearman in zip(chosen["site"], chosen["pearson"], chosen["spearman"], strict=True)
    }


def _need_sites(table: pd.DataFrame, name: str, sites: Sequence[str]) -> None:
    if absent := [site for site in sites if site not in set(table["site"])]:
        raise InputError(
            f"The {name} table has no row for the site {', '.join(absent)}; it has "
            f"{', '.join(dict.fromkeys(table['site']))}."
        )
