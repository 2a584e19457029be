"""Charts of grids of numbers: domains against domains, positions of an image, pixels. Drawing computes nothing."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from einops import reduce
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from circuitry.reports.figures import style
from circuitry.runs.errors import InputError

SIGNED = [(0.0, style.NEGATIVE), (0.5, style.NEUTRAL), (1.0, style.POSITIVE)]
"""Colours of numbers that have a sign."""

ROW, ROWS_AT_LEAST = 48, 3
"""Height of a row of cells in pixels; fewer rows than this share the room of as many."""

WIDTH_OF_CELLS, WIDTH_OF_CHARACTER = 800, 8
"""Pixels that the columns of all panels have together on a page, and that a character of their names takes."""

IMAGE_SIDE, MAP_SIDE = 112, 32
"""Pixels a side, at most, of images and maps as they are drawn."""


def similarity_heatmap(
    matrix: pd.DataFrame,
    *,
    title: str,
    measure: str,
    diagonal: str = "two parts of a domain's images",
    clustered: bool = False,
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw a square matrix over domains with its numbers; a dotted diagonal, if any, is the ceiling.

    Args:
        matrix: Index = columns = domains; where the diagonal is empty, nothing is dotted. The names of index and
            columns, where given, become the titles of the axes (say "circuit of", "images of").
        measure: What the numbers are, for the line under the heading.
        diagonal: What the numbers on the diagonal are, for the same line.
        clustered: Whether to order domains by `cluster_order` (default: the matrix's order).

    Raises:
        InputError: for index and columns that differ, or hold a domain twice, or for no domain.
    """
    check_matrix(matrix)
    if clustered:
        order = cluster_order(matrix)
        matrix = matrix.loc[order, order]
    figure, (place,) = style.small_multiples([""], columns=1, height=ROW * max(len(matrix), ROWS_AT_LEAST))
    _add_matrix(figure, matrix, measure, style.marks_for(matrix.index, marks), place, WIDTH_OF_CELLS)
    note = f"; dotted: {diagonal}" if _has_diagonal(matrix) else ""
    return style.lay_out(figure, title=title, subtitle=measure + note)


def check_matrix(matrix: pd.DataFrame) -> None:
    """Refuse a matrix that is not square over domains."""
    rows, columns = list(matrix.index), list(matrix.columns)
    if not rows or rows != columns or not matrix.index.is_unique:
        listed = (", ".join(dict.fromkeys(map(str, names))) or "none" for names in (rows, columns))
        raise InputError(
            "The matrix needs the same domains, each once and in the same order, as rows and as columns; "
            f"it has rows {' and columns '.join(listed)}."
        )


def cluster_order(matrix: pd.DataFrame) -> list[str]:
    """Return the domains in an order with similar ones side by side.

    The distance of two domains is that of their rows (root mean square) in the columns of the other domains, so the
    order is the same for similarities and distances. Average linkage with the best order of its leaves; the given order
    for fewer than three domains or a missing number.
    """
    check_matrix(matrix)
    values = matrix.to_numpy(dtype=float)
    values = (values + values.T) / 2
    np.fill_diagonal(values, np.nan)  # so that two domains are compared in the columns of the others
    n = len(values)
    if n < 3 or np.isfinite(values).sum() < n * (n - 1):
        return list(matrix.index)
    far = squareform(np.sqrt(np.nanmean(np.square(values[:, None] - values), axis=2)))
    order = leaves_list(optimal_leaf_ordering(linkage(far, "average"), far))
    return [matrix.index[i] for i in (order if order[0] < order[-1] else order[::-1])]


def _has_diagonal(matrix: pd.DataFrame) -> bool:
    return bool(np.isfinite(np.diagonal(matrix.to_numpy(dtype=float))).any())


def _add_matrix(
    figure: go.Figure,
    matrix: pd.DataFrame,
    measure: str,
    looks: Mapping[str, style.Mark],
    place: Mapping[str, int],
    width: int,
) -> None:
    """Draw the cells with their numbers into a panel of that width, with a colour bar at its right."""
    domains, values = list(matrix.index), matrix.to_numpy(dtype=float)
    top = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    signed = bool((values < 0).any())
    heat = go.Heatmap(
        x=domains,
        y=domains,
        z=values,
        zmin=-top if signed else 0.0,
        zmax=top,
        colorscale=SIGNED if signed else [(0.0, style.NEUTRAL), (1.0, style.POSITIVE)],
        colorbar={"x": figure.get_subplot(**place).xaxis.domain[1], "thickness": 10, "outlinewidth": 0},
        texttemplate="%{z:.2f}",
        textfont={"size": 13, "color": style.INK},
        xgap=2,
        ygap=2,
        hoverongaps=False,
        hovertemplate=f"<b>%{{y}}, %{{x}}</b><br>{measure} %{{z:.3f}}<extra></extra>",
    )
    figure.add_trace(heat, **place)
    for i in map(int, np.flatnonzero(np.isfinite(values.diagonal()))):
        corners = {"x0": i - 0.46, "x1": i + 0.46, "y0": i - 0.46, "y1": i + 0.46}
        figure.add_shape(type="rect", **corners, line={"color": style.INK, "dash": "dot", "width": 1.5}, **place)
    plain = {"tickvals": domains, "showgrid": False, "showline": False, **place}
    names = [style.marked(domain, looks[domain]) for domain in domains]
    figure.update_yaxes(**plain, ticktext=names, title_text=matrix.index.name, autorange="reversed")
    fits = WIDTH_OF_CHARACTER * (2 + max(map(len, domains))) < width / len(domains)
    below = names if fits else [f'<span style="color:{looks[d].colour}">{looks[d].glyph}</span>' for d in domains]
    # Turned names would turn the symbols, which distinguish the domains.
    figure.update_xaxes(**plain, ticktext=below, title_text=matrix.columns.name, tickangle=0)


def transfer_beside_similarity(
    transfer: pd.DataFrame,
    similarity: pd.DataFrame,
    *,
    measure: str = "faithfulness",
    similarity_measure: str = "edge Jaccard index",
    similarity_diagonal: str = "two parts of a domain's images",
    title: str = "Do circuits transfer between similar domains?",
    clustered: bool = False,
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw a `transfer_matrix` (rows: circuit of, columns: images of) beside the structural similarity of circuits.

    Args:
        transfer: From `transfer_matrix`.
        similarity: From `domain_matrix`, of the same domains.
        measure: What transfer is measured by.
        similarity_measure: What similarity is measured by.
        similarity_diagonal: What the numbers on the diagonal of similarity are.
        clustered: Whether both have the order of `cluster_order` of similarity; default: that of transfer.

    Raises:
        InputError: for a matrix that is not square over domains.
    """
    check_matrix(transfer)
    domains = cluster_order(similarity) if clustered else list(transfer.index)
    both = (
        (transfer.loc[domains, domains], measure, "own domain's circuit"),
        (similarity.loc[domains, domains], similarity_measure, similarity_diagonal),
    )
    titles = [f"{name}<br>{style.faint(f'dotted: {dotted}')}" if _has_diagonal(m) else name for m, name, dotted in both]
    height = ROW * max(len(domains), ROWS_AT_LEAST)
    figure, places = style.small_multiples(titles, columns=2, height=height, horizontal_spacing=0.2)
    for (matrix, name, _), place in zip(both, places, strict=True):
        _add_matrix(figure, matrix, name, style.marks_for(domains, marks), place, WIDTH_OF_CELLS // 2)
    return style.lay_out(figure, title=title)


def component_heatmap(table: pd.DataFrame, *, title: str, measure: str, middle: float | None = None) -> go.Figure:
    """Draw a number for every component of every layer of a transformer: heads, then what else there is, by layer.

    Args:
        table: Columns block, component (a head's number, or another name such as ``mlp``) and the measure.
        measure: The column to draw.
        middle: The number between the two colours (default: 0).

    Raises:
        InputError: for a table without these columns, or none of its rows.
    """
    if table.empty or {"block", "component", measure} - set(table):
        raise InputError(
            f"A heatmap of components needs rows with block, component and {measure}, but a table of "
            f"{', '.join(map(str, table)) or 'no columns'} with {len(table)} rows was given."
        )
    names = sorted(set(table["component"]), key=lambda name: (not name.isdigit(), name.zfill(4)))
    cells = table.pivot(index="component", columns="block", values=measure).loc[names]
    centre = middle or 0.0
    top = float(np.nanmax(np.abs(cells.to_numpy() - centre))) or 1.0
    heat = go.Heatmap(
        x=[f"layer {block}" for block in cells.columns],
        y=[f"head {name}" if name.isdigit() else name for name in names],
        z=cells.to_numpy(),
        zmin=centre - top,
        zmax=centre + top,
        colorscale=SIGNED,
        colorbar={"thickness": 10, "outlinewidth": 0},
        texttemplate="%{z:.3f}",
        textfont={"size": 13, "color": style.INK},
        xgap=2,
        ygap=2,
        hoverongaps=False,
        hovertemplate=f"<b>%{{x}}, %{{y}}</b><br>{measure} %{{z:.4f}}<extra></extra>",
    )
    figure = go.Figure(heat)
    height = 160 + ROW * max(len(names), ROWS_AT_LEAST)
    style.lay_out(figure, title=title, subtitle=measure, height=height)
    figure.update_xaxes(showgrid=False)
    return figure.update_yaxes(showgrid=False, autorange="reversed")


def position_heatmap(effects: np.ndarray, image: np.ndarray, *, title: str, measure: str) -> go.Figure:
    """Draw the effects of a site's positions over the image they come from.

    Args:
        effects: [height, width] of a site, e.g. ``PatchEffects.scores[site]``; the tokens of a transformer go in as
            a grid, without the class token: `TokenGrid.patches`.
        image: The image as bytes [height, width, 3], of any size.
        measure: What the numbers are, with their unit.

    Raises:
        InputError: for effects that are no grid, or an image of another kind.
    """
    if effects.ndim != 2:
        raise InputError(
            f"Effects over an image are a grid [height, width], but have shape {list(effects.shape)}: drop the class "
            "token and reshape the others."
        )
    style.check_image(image)
    height, width = image.shape[:2]
    step_down, step_right = height / effects.shape[0], width / effects.shape[1]
    top = float(np.nanmax(np.abs(effects))) or 1.0
    figure, places = style.small_multiples(["", ""], columns=2, height=320, horizontal_spacing=0.04)
    for place in places:
        figure.add_trace(go.Image(z=image, hoverinfo="skip"), **place)
    heat = go.Heatmap(
        z=effects,
        x0=step_right / 2 - 0.5,
        dx=step_right,
        y0=step_down / 2 - 0.5,
        dy=step_down,
        zmin=-top,
        zmax=top,
        colorscale=SIGNED,
        opacity=0.7,
        colorbar={"title": {"text": measure, "side": "right"}, "thickness": 12, "exponentformat": "power"},
        hovertemplate=f"{measure} %{{z:.4f}}<extra></extra>",
    )
    figure.add_trace(heat, **places[1])
    style.lay_out(figure, title=title, subtitle=measure)
    figure.update_xaxes(range=[-0.5, width - 0.5])
    figure.update_yaxes(range=[height - 0.5, -0.5])
    return _as_pictures(figure)


def _as_pictures(figure: go.Figure) -> go.Figure:
    """Hide the axes of all panels and give their pixels one size in both directions."""
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, constrain="domain")
    figure.for_each_yaxis(lambda axis: axis.update(scaleanchor=axis.anchor))
    return figure


def pixel_maps(
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    *,
    names: Sequence[str],
) -> go.Figure:
    """Draw pixel attributions beside their images: a row per image, a column per map, each map on its own scale.

    Args:
        images: Bytes [images, height, width, 3], drawn with at most 112 pixels a side.
        maps: Arrays [images, height, width] by the title of their column, drawn as means over blocks, at most 32 a
            side: strides and kinks leave a grid that hides the picture.
        names: Names of the rows.

    Raises:
        InputError: for images of another kind, or maps and names that do not fit them.
    """
    fits = images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8 and len(names) == len(images)
    if not fits or any(values.shape != images.shape[:3] for values in maps.values()):
        shapes = ", ".join(str(list(values.shape)) for values in maps.values())
        raise InputError(
            "Pixel maps need images of bytes [images, height, width, 3], a name for each and maps [images, height, "
            f"width], but images {images.dtype} {list(images.shape)}, {len(names)} names and maps {shapes} were given."
        )
    columns = 1 + len(maps)
    titles = ["image", *maps] + [""] * columns * (len(images) - 1)
    figure, places = style.small_multiples(
        titles, columns=columns, height=190, gap=6, row_titles=list(names), horizontal_spacing=0.02
    )
    for i, place in enumerate(places):
        row, column = divmod(i, columns)
        if column == 0:
            drawn = go.Image(z=_small(images[row], IMAGE_SIDE).astype(np.uint8), hoverinfo="skip")
        else:
            small = _small(list(maps.values())[column - 1][row], MAP_SIDE)
            top = float(np.quantile(np.abs(small), 0.995)) or 1.0  # a few outliers would leave the rest pale
            drawn = go.Heatmap(z=small, zmin=-top, zmax=top, colorscale=SIGNED, showscale=False)
            drawn.hovertemplate = "%{z:.2g}<extra></extra>"
        figure.add_trace(drawn, **place)
        height, width = np.shape(drawn.z)[:2]
        figure.update_xaxes(range=[-0.5, width - 0.5], **place)
        figure.update_yaxes(range=[height - 0.5, -0.5], **place)
    style.lay_out(figure, title="Pixels for the class (blue) and against it (orange)")
    figure.update_layout(margin={"l": 10, "r": 30, "b": 10})
    return _as_pictures(figure)


def _small(picture: np.ndarray, most: int) -> np.ndarray:
    """Return means over square blocks so that no side has more than ``most`` pixels, without an unfilled last block."""
    step = -(-max(picture.shape[:2]) // most)
    height, width = (size // step * step for size in picture.shape[:2])
    return reduce(picture[:height, :width], "(h a) (w b) ... -> h w ...", np.mean, a=step, b=step)
