"""Charts of grids of numbers: domains against domains, components by layer."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from circuitry.circuits.component_effects import DirectEffects
from circuitry.comparison.table import check_table
from circuitry.reports.figures import style
from circuitry.reports.figures.style import measure_name
from circuitry.runs.errors import InputError

SIGNED = [(0.0, style.NEGATIVE), (0.5, style.NEUTRAL), (1.0, style.POSITIVE)]
"""Colours of numbers that have a sign."""

ROW, ROWS_AT_LEAST = 48, 3
"""Height of a row of cells in pixels; fewer rows than this share the room of as many."""

_CELLS = {
    "textfont": {"size": 13, "color": style.INK},
    "xgap": 2,
    "ygap": 2,
    "hoverongaps": False,
}

WIDTH_OF_CELLS, WIDTH_OF_CHARACTER = 800, 8
"""Pixels that the columns of all panels have together on a page, and that a character of their names takes."""


def similarity_heatmap(
    matrix: pd.DataFrame,
    *,
    title: str,
    measure: str,
    diagonal: str = "two parts of a domain's images",
    clustered: bool = False,
    marks: Mapping[str, style.Mark] | None = None,
    counts: pd.DataFrame | None = None,
) -> go.Figure:
    """Draw a square matrix over domains with its numbers; a dotted diagonal, if any, is the ceiling.

    Args:
        matrix: Index = columns = domains; where the diagonal is empty, nothing is dotted. The names of index and
            columns, where given, become the titles of the axes (say "circuit of", "images of").
        measure: Meaning of the numbers, for the line under the heading.
        diagonal: Meaning of the numbers on the diagonal, for the same line.
        clustered: Whether to order domains by `cluster_order` (default: the matrix's order).
        counts: How many values are behind each number, for a second line in its cell; rows and columns as the matrix.
    """
    check_matrix(matrix)
    if clustered:
        order = cluster_order(matrix)
        matrix = matrix.loc[order, order]
    figure, (place,) = style.small_multiples(
        [""], columns=1, height=ROW * max(len(matrix), ROWS_AT_LEAST)
    )
    add_cells(
        figure,
        matrix,
        measure,
        style.marks_for(matrix.index, marks),
        place,
        WIDTH_OF_CELLS,
    )
    if counts is not None:
        told = counts.loc[matrix.index, matrix.columns].to_numpy()
        figure.update_traces(
            text=told,
            texttemplate="%{z:.2f}<br>n = %{text:.0f}",
            selector={"type": "heatmap"},
        )
    note = f"; dotted: {diagonal}" if _has_diagonal(matrix) else ""
    return style.lay_out(figure, title=title, subtitle=measure + note)


def similarity_panels(
    table: pd.DataFrame,
    *,
    title: str,
    groups: Mapping[str, str] | None = None,
    first: str | None = None,
) -> go.Figure:
    """Draw the similarities of domains: a row of panels for each measure, a column for each group of classes.

    Args:
        table: Columns ``measure``, ``group``, ``domain_a``, ``domain_b``, ``value``; each pair of domains once.
        groups: Names of the groups over their panels (default: their own).
        first: Domain that comes first, before the others by name.
    """
    columns = ("measure", "group", "domain_a", "domain_b", "value")
    check_table(table, "groups", columns, columns[:-1])
    domains = sorted(
        {*table["domain_a"], *table["domain_b"]}, key=lambda name: (name != first, name)
    )
    looks, named = style.marks_for(domains, None), groups or {}
    by_panel = table.groupby(["measure", "group"], sort=False)
    panels = [(str(measure), str(group), rows) for (measure, group), rows in by_panel]
    titles = [
        f"{measure_name(measure)}<br>{style.faint(named.get(group, group))}"
        for measure, group, _ in panels
    ]
    wide, tops = (
        table["group"].nunique(),
        table.groupby("measure")["value"].max().to_dict(),
    )
    figure, places = style.small_multiples(
        titles,
        columns=wide,
        height=ROW * len(domains),
        gap=90,
        shared_yaxes=True,
        horizontal_spacing=0.08,
    )
    for (measure, _, rows), place in zip(panels, places, strict=True):
        half = rows.pivot(index="domain_a", columns="domain_b", values="value").reindex(
            index=domains, columns=domains
        )
        matrix = (
            half.combine_first(half.T)
            .loc[domains, domains]
            .rename_axis(index=None, columns=None)
        )
        add_cells(
            figure,
            matrix,
            measure_name(measure),
            looks,
            place,
            WIDTH_OF_CELLS // wide,
            tops[measure],
        )
    return style.lay_out(
        figure,
        title=title,
        subtitle="means over classes; columns in the order of the rows",
    )


def check_matrix(matrix: pd.DataFrame) -> None:
    """Refuse a matrix that is not square over domains, or holds no numbers."""
    if words := [
        name
        for name, column in matrix.items()
        if not pd.api.types.is_numeric_dtype(column.infer_objects())
    ]:
        raise InputError(
            f"The matrix needs numbers, but the column {words[0]} holds words: correct it."
        )
    rows, columns = list(matrix.index), list(matrix.columns)
    if not rows or rows != columns or not matrix.index.is_unique:
        listed = (
            ", ".join(dict.fromkeys(map(str, names))) or "none"
            for names in (rows, columns)
        )
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
    np.fill_diagonal(
        values, np.nan
    )  # so that two domains are compared in the columns of the others
    n = len(values)
    if n < 3 or np.isfinite(values).sum() < n * (n - 1):
        return list(matrix.index)
    far = squareform(np.sqrt(np.nanmean(np.square(values[:, None] - values), axis=2)))
    order = leaves_list(optimal_leaf_ordering(linkage(far, "average"), far))
    return [matrix.index[i] for i in (order if order[0] < order[-1] else order[::-1])]


def _has_diagonal(matrix: pd.DataFrame) -> bool:
    return bool(np.isfinite(np.diagonal(matrix.to_numpy(dtype=float))).any())


def add_cells(
    figure: go.Figure,
    matrix: pd.DataFrame,
    measure: str,
    looks: Mapping[str, style.Mark],
    place: Mapping[str, int],
    width: int,
    top: float | None = None,
) -> None:
    """Draw the cells with their numbers into a panel of that width, with a colour bar at its right.

    The darkest colour is ``top`` (default: the largest absolute number).
    """
    domains, values = list(matrix.index), matrix.to_numpy(dtype=float)
    if top is None:
        top = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    signed = bool((values < 0).any())
    panel = figure.get_subplot(**place)
    low, high = panel.yaxis.domain
    beside = {"y": (low + high) / 2, "len": high - low}
    heat = go.Heatmap(
        x=domains,
        y=domains,
        z=values,
        zmin=-top if signed else 0.0,
        zmax=top,
        colorscale=SIGNED if signed else [(0.0, style.NEUTRAL), (1.0, style.POSITIVE)],
        colorbar={
            "x": panel.xaxis.domain[1],
            **beside,
            "thickness": 10,
            "outlinewidth": 0,
        },
        texttemplate="%{z:.2f}",
        **_CELLS,
        hovertemplate=f"<b>%{{y}}, %{{x}}</b><br>{measure} %{{z:.3f}}<extra></extra>",
    )
    figure.add_trace(heat, **place)
    for i in map(int, np.flatnonzero(np.isfinite(values.diagonal()))):
        corners = {"x0": i - 0.46, "x1": i + 0.46, "y0": i - 0.46, "y1": i + 0.46}
        figure.add_shape(
            type="rect",
            **corners,
            line={"color": style.INK, "dash": "dot", "width": 1.5},
            **place,
        )
    plain = {"tickvals": domains, "showgrid": False, "showline": False, **place}
    names = [style.marked(domain, looks[domain]) for domain in domains]
    figure.update_yaxes(
        **plain, ticktext=names, title_text=matrix.index.name, autorange="reversed"
    )
    fits = WIDTH_OF_CHARACTER * (2 + max(map(len, domains))) < width / len(domains)
    below = (
        names
        if fits
        else [
            f'<span style="color:{looks[d].colour}">{looks[d].glyph}</span>'
            for d in domains
        ]
    )
    # Turned names would turn the symbols, which distinguish the domains.
    figure.update_xaxes(
        **plain, ticktext=below, title_text=matrix.columns.name, tickangle=0
    )


def transfer_beside_similarity(
    transfer: pd.DataFrame,
    similarity: pd.DataFrame,
    *,
    measure: str = "faithfulness",
    similarity_measure: str = "edge Jaccard index",
    similarity_diagonal: str = "two parts of a domain's images",
    title: str = "Do circuits transfer between similar domains?",
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw a `transfer_matrix` (rows: circuit of, columns: images of) beside the structural similarity of circuits.

    Args:
        similarity: From `domain_matrix`, of the same domains.
        similarity_diagonal: Meaning of the numbers on the diagonal of similarity.
    """
    check_matrix(transfer)
    check_matrix(similarity)
    domains = list(transfer.index)
    both = (
        (transfer.loc[domains, domains], measure, "own domain's circuit"),
        (similarity.loc[domains, domains], similarity_measure, similarity_diagonal),
    )
    titles = [
        f"{name}<br>{style.faint(f'dotted: {dotted}')}" if _has_diagonal(m) else name
        for m, name, dotted in both
    ]
    height = ROW * max(len(domains), ROWS_AT_LEAST)
    figure, places = style.small_multiples(
        titles, columns=2, height=height, horizontal_spacing=0.2
    )
    for (matrix, name, _), place in zip(both, places, strict=True):
        add_cells(
            figure,
            matrix,
            name,
            style.marks_for(domains, marks),
            place,
            WIDTH_OF_CELLS // 2,
        )
    return style.lay_out(figure, title=title)


def component_heatmap(effects: DirectEffects) -> go.Figure:
    """Draw the mean direct effects of the heads and MLPs of every layer of a transformer."""
    means = zip(effects.writers, effects.effects.mean(0), strict=True)
    rows = [
        (*name.split(".", 2)[1:], effect)
        for name, effect in means
        if name.startswith("blocks.")
    ]
    table = pd.DataFrame(rows, columns=["block", "component", "effect"]).astype(
        {"block": int}
    )
    table["component"] = table["component"].str.replace("attn.", "head ")
    names = sorted(
        set(table["component"]), key=lambda name: (name == "mlp", len(name), name)
    )
    cells = table.pivot(index="component", columns="block", values="effect").loc[names]
    top = float(np.nanmax(np.abs(cells.to_numpy()))) or 1.0
    heat = go.Heatmap(
        x=[f"layer {block}" for block in cells.columns],
        y=names,
        z=cells.to_numpy(),
        zmin=-top,
        zmax=top,
        colorscale=SIGNED,
        colorbar={"thickness": 10, "outlinewidth": 0},
        texttemplate="%{z:.2g}",
        **_CELLS,
        hovertemplate="<b>%{x}, %{y}</b><br>mean direct effect %{z:.4f}<extra></extra>",
    )
    figure = go.Figure(heat)
    height = 160 + ROW * max(len(names), ROWS_AT_LEAST)
    style.lay_out(
        figure,
        title="Direct effects of heads and MLPs",
        subtitle="mean direct effect",
        height=height,
    )
    figure.update_xaxes(showgrid=False)
    return figure.update_yaxes(showgrid=False, autorange="reversed")
