"""Figures of causal checks, from finished tables and arrays. Drawing computes nothing.

1. `effects_over_depth` and `position_heatmap` for `PatchEffects`;
2. `attribution_against_patching` for an `AttributionCheck`;
3. `faithfulness_curves` for tables of `FaithfulnessCurve`;
4. `transfer_beside_similarity` for a `transfer_matrix`;
5. `pixel_maps` for pixel attributions.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from circuitry.comparison.table import check_table
from circuitry.reports.figures.plots import NEGATIVE, NEUTRAL, POSITIVE, similarity_heatmap
from circuitry.reports.figures.style import GREY, INK, Mark, band, marks_for, style
from circuitry.runs.errors import InputError

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
    curves: pd.DataFrame,
    *,
    circuit: str = "kept",
    measure: str = "faithfulness",
    marks: Mapping[str, Mark] | None = None,
) -> go.Figure:
    """Draw faithfulness or selectivity over circuit size, a line with its band per domain, random units dotted.

    Args:
        curves: columns ``domain``, ``circuit`` (``kept``, ``complement``, ``random``), ``fraction``, ``value``,
            ``low``, ``high``: tables of ``FaithfulnessCurve`` of one ranking and measure; see `curves_by_domain`.
        circuit: whose curve is drawn: ``kept``, or ``complement`` for completeness.
        measure: what the values are.
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
    named = f"{measure} of the complement" if circuit == "complement" else measure
    figure.update_yaxes(title_text=f"{named}; dotted: random units")
    return figure


def transfer_beside_similarity(
    transfer: pd.DataFrame,
    similarity: pd.DataFrame,
    *,
    measure: str = "faithfulness",
    similarity_measure: str = "edge Jaccard index",
    marks: Mapping[str, Mark] | None = None,
) -> go.Figure:
    """Draw a `transfer_matrix` (rows: circuit of, columns: images of) beside the structural similarity of circuits.

    Args:
        transfer: from `transfer_matrix`.
        similarity: from `domain_matrix`, of the same domains.
        measure: what transfer is measured by.
        similarity_measure: what similarity is measured by.
        marks: the look of every domain; by default ``domain_marks`` of the matrix's.
    """
    domains = list(transfer.index)
    left = similarity_heatmap(transfer, title="", measure=measure, marks=marks)
    right = similarity_heatmap(similarity.loc[domains, domains], title="", measure=similarity_measure, marks=marks)
    titles = (measure, similarity_measure)
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles, horizontal_spacing=0.16)
    for column, one in enumerate((left, right), start=1):
        figure.add_trace(one.data[0], row=1, col=column)
        for shape in one.layout.shapes:
            figure.add_shape(shape, row=1, col=column)
    style(figure, height=190 + 42 * max(len(domains), 4))
    for column, one in enumerate((left, right), start=1):
        x, y = one.layout.xaxis, one.layout.yaxis
        figure.update_xaxes(
            tickvals=x.tickvals, ticktext=x.ticktext, tickangle=-35, title_text=x.title.text, row=1, col=column
        )
        figure.update_yaxes(
            tickvals=y.tickvals, ticktext=y.ticktext, title_text=y.title.text, autorange="reversed", row=1, col=column
        )
    figure.update_xaxes(showgrid=False, showline=False)
    figure.update_yaxes(showgrid=False, showline=False)
    figure.update_layout(margin_t=50)
    return figure


def pixel_maps(images: np.ndarray, maps: Mapping[str, np.ndarray], *, names: Sequence[str]) -> go.Figure:
    """Draw pixel attributions beside their images: a row per image, a column per map, each map on its own scale.

    Args:
        images: bytes [images, height, width, 3], drawn with at most 112 pixels a side.
        maps: arrays [images, height, width] by the title of their column, drawn as means over blocks, at most 32 a
            side: strides and kinks leave a grid that hides the picture.
        names: names of the rows.

    Raises:
        InputError: images of another kind, or maps and names that do not fit them.
    """
    fits = images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8 and len(names) == len(images)
    if not fits or any(values.shape != images.shape[:3] for values in maps.values()):
        shapes = ", ".join(str(list(values.shape)) for values in maps.values())
        raise InputError(
            "Pixel maps need images of bytes [images, height, width, 3], a name for each and maps [images, height, "
            f"width], but images {images.dtype} {list(images.shape)}, {len(names)} names and maps {shapes} were given."
        )
    figure = make_subplots(
        rows=len(images),
        cols=1 + len(maps),
        column_titles=["image", *maps],
        row_titles=list(names),
        horizontal_spacing=0.02,
        vertical_spacing=0.03,
    )
    for row, image in enumerate(images):
        small = _small(image, 112)
        figure.add_trace(go.Image(z=small.astype(np.uint8), hoverinfo="skip"), row=row + 1, col=1)
        for column, values in enumerate(maps.values(), start=2):
            found = _small(values[row], 32)
            top = float(np.quantile(np.abs(found), 0.995)) or 1.0
            heat = go.Heatmap(z=found, zmin=-top, zmax=top, colorscale=SIGNED, showscale=False)
            heat.hovertemplate = "%{z:.2g}<extra></extra>"
            figure.add_trace(heat, row=row + 1, col=column)
    style(figure, height=60 + 190 * len(images))
    for column in range(1, 2 + len(maps)):
        height, width = (small if column == 1 else found).shape[:2]
        figure.update_xaxes(visible=False, range=[-0.5, width - 0.5], constrain="domain", col=column)
        figure.update_yaxes(visible=False, range=[height - 0.5, -0.5], constrain="domain", col=column)
    for i in range(1, len(images) * (1 + len(maps)) + 1):
        figure.layout[f"yaxis{i if i > 1 else ''}"].scaleanchor = f"x{i if i > 1 else ''}"
    figure.update_layout(margin={"l": 10, "r": 30, "t": 40, "b": 10})
    return figure


def _small(picture: np.ndarray, most: int) -> np.ndarray:
    """Means over square blocks, so that no side has more than ``most`` pixels; what does not fill a block is cut."""
    step = -(-max(picture.shape[:2]) // most)
    height, width = (size // step for size in picture.shape[:2])
    blocks = picture[: height * step, : width * step].reshape(height, step, width, step, -1)
    means: np.ndarray = blocks.mean((1, 3))
    return means if picture.ndim == 3 else means[..., 0]


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
