"""Heatmaps: matrices of numbers over domains, and effects of components by layer."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from circuitry.circuits.component_effects import DirectEffects
from circuitry.gates.effects_of_patches import PatchEffects
from circuitry.reports.figures import style
from circuitry.runs.errors import InputError, number_of

SIGNED = [(0.0, style.NEGATIVE), (0.5, style.NEUTRAL), (1.0, style.POSITIVE)]
"""Colour scale of numbers that may be negative."""

ROW = 48
"""Height of a row of cells in pixels."""
ROWS_AT_LEAST = 3
"""A figure with fewer rows is as high as a figure with this many rows."""

MOST_NUMBERS_IN_A_ROW = 16
"""In a heat map with more columns, numbers do not fit into the cells."""
MEANING_OF_EFFECT = {
    "noise": "fall of the metric when the baseline is written",
    "denoise": "rise of the metric when the clean activation is written",
}
"""What the effect of a patch is, by its direction."""

WIDTH_OF_CELLS = 800
"""Width in pixels of the columns of all panels together."""
WIDTH_OF_CHARACTER = 8
"""Width in pixels of one character in the name of a column."""


def similarity_heatmap(
    matrix: pd.DataFrame,
    *,
    title: str,
    measure: str,
    diagonal: str = "two folds of a domain's images",
    marks: Mapping[str, style.Mark] | None = None,
    counts: pd.DataFrame | None = None,
) -> go.Figure:
    """Draw a matrix over domains as a heat map with a number in each cell.

    The cells on the diagonal get a dotted frame, unless the diagonal has no numbers.

    Args:
        matrix: A row and a column for each domain. The names of the index and of the columns become the titles of the
            axes, such as "circuit of" and "images of".
        measure: Meaning of the numbers, for the line under the heading.
        diagonal: Meaning of the numbers on the diagonal, for the same line.
        counts: For each cell, the number of values whose mean the cell shows, as a matrix with the same rows and
            columns. It is written as a second line in the cell.

    Example:
        >>> names = ["real", "sketch"]
        >>> matrix = pd.DataFrame([[0.9, 0.3], [0.3, 0.8]], index=names, columns=names)
        >>> similarity_heatmap(matrix, title="Shared edges", measure="Jaccard index").layout.title.text
        'Shared edges'
    """
    check_matrix(matrix)
    height = ROW * max(len(matrix), ROWS_AT_LEAST)
    figure, (place,) = style.small_multiples([""], columns=1, height=height)
    looks = style.marks_for(matrix.index, marks)
    add_cells(figure, matrix, measure, looks, place, WIDTH_OF_CELLS)
    if counts is not None:
        figure.update_traces(
            text=counts.loc[matrix.index, matrix.columns].to_numpy(),
            texttemplate="%{z:.2f}<br>n = %{text:.0f}",
            selector={"type": "heatmap"},
        )
    if np.isfinite(np.diagonal(matrix.to_numpy(dtype=float))).any():
        measure += f"; dotted: {diagonal}"
    return style.lay_out(figure, title=title, subtitle=measure)


def component_heatmap(effects: DirectEffects) -> go.Figure:
    """Draw the mean direct effects of the heads and MLPs of every layer of a transformer.

    Example:
        >>> writers = ("embed", "blocks.0.attn.0", "blocks.0.mlp")
        >>> effects = circuitry.circuits.DirectEffects(writers, np.ones((1, 3)), np.zeros(1), np.zeros(1))
        >>> component_heatmap(effects).layout.title.text
        'Direct effects of heads and MLPs'
    """
    # The embedding of the patches belongs to no layer, and drops out.
    names = pd.Series(effects.writers).str.extract(r"^blocks\.(\d+)\.(.*)$")
    table = names.set_axis(["block", "component"], axis=1)
    table = table.assign(effect=effects.effects.mean(0)).dropna(subset="block")
    table["block"] = table["block"].astype(int)
    table["component"] = table["component"].str.replace("attn.", "head ")
    cells = table.pivot(index="component", columns="block", values="effect")
    # Heads by number (the length comes before the text: 2 before 10), and MLPs below them.
    order = sorted(cells.index, key=lambda name: (name == "mlp", len(name), name))
    cells = cells.loc[order].rename(columns="layer {}".format)
    return _rows_of_cells(
        cells, "Direct effects of heads and MLPs", "mean direct effect"
    )


def patching_heatmap(effects: PatchEffects) -> go.Figure:
    """Draw effects of patches as a heat map: sites below each other, and their units or positions side by side.

    A site with fewer units or positions than another has empty cells. The positions of a feature map are counted row by
    row.

    Raises:
        InputError: if nothing was patched.

    Example:
        >>> exact = circuitry.patch_effects(task, by="position")
        >>> patching_heatmap(exact).layout.title.text
        'Effects of patches by position'
    """
    cells = effects.matrix()
    if cells.empty:
        raise InputError(
            "A heat map of patches needs at least one effect, but no unit was patched: give patch_effects units."
        )
    return _rows_of_cells(
        cells,
        f"Effects of patches by {effects.by}",
        f"{MEANING_OF_EFFECT[effects.direction]}, mean over {number_of(effects.n_images, 'image')}",
    )


def _rows_of_cells(cells: pd.DataFrame, title: str, measure: str) -> go.Figure:
    """Draw a table as a heat map on a signed scale. A narrow table gets its numbers in its cells.

    Args:
        cells: The table, with its first row at the top.
        measure: Meaning of the numbers.
    """
    top = float(np.nanmax(np.abs(cells.to_numpy()))) or 1.0
    hover = f"<b>%{{x}}, %{{y}}</b><br>{measure} %{{z:.4f}}"
    fits = cells.shape[1] <= MOST_NUMBERS_IN_A_ROW
    numbers = {"texttemplate": "%{z:.2g}"} if fits else {}
    figure = go.Figure(_grid(cells, top, True, hover, **numbers))
    style.lay_out(
        figure,
        title=title,
        subtitle=measure,
        height=160 + ROW * max(len(cells), ROWS_AT_LEAST),
    )
    figure.update_xaxes(showgrid=False)
    # The first row of a table is at the top, but plotly draws it at the bottom.
    return figure.update_yaxes(showgrid=False, autorange="reversed")


def check_matrix(matrix: pd.DataFrame) -> None:
    """Raise `InputError` unless a matrix has numbers, and the same domains as rows and as columns."""
    # Objects may still be numbers, as in a matrix that was read or filled cell by cell.
    for name, column in matrix.items():
        if not pd.api.types.is_numeric_dtype(column.infer_objects()):
            raise InputError(
                f"The matrix needs numbers, but the column {name} holds words: correct it."
            )
    same_names = matrix.index.equals(matrix.columns)
    if matrix.empty or not same_names or not matrix.index.is_unique:
        rows = ", ".join(matrix.index.astype(str).unique()) or "none"
        columns = ", ".join(matrix.columns.astype(str).unique()) or "none"
        raise InputError(
            "The matrix needs the same domains, each once and in the same order, as rows and as columns; "
            f"it has rows {rows} and columns {columns}."
        )


def add_cells(
    figure: go.Figure,
    matrix: pd.DataFrame,
    measure: str,
    looks: Mapping[str, style.Mark],
    place: Mapping[str, int],
    width: int,
    top: float | None = None,
) -> None:
    """Draw a matrix into a panel as a heat map with numbers, with a colour bar to the right of the panel.

    Args:
        measure: Name of the numbers.
        looks: The mark of each domain.
        place: Row and column of the panel in the figure.
        width: Width of the panel in pixels.
        top: Number that has the strongest colour (default: the largest absolute number of the matrix).
    """
    domains = list(matrix.index)
    values = matrix.to_numpy(dtype=float)
    if top is None:
        # If the matrix has no number, no cell has a colour, whatever the scale.
        top = 1.0
        if np.isfinite(values).any():
            top = float(np.nanmax(np.abs(values)))
    hover = f"<b>%{{y}}, %{{x}}</b><br>{measure} %{{z:.3f}}"
    signed = bool((values < 0).any())
    heat = _grid(matrix, top, signed, hover, texttemplate="%{z:.2f}")
    # The colour bar stands beside its own panel; by default all bars would be at the right end of the figure.
    panel = figure.get_subplot(**place)
    low, high = panel.yaxis.domain
    right = panel.xaxis.domain[1]
    heat.update(colorbar={"x": right, "y": (low + high) / 2, "len": high - low})
    figure.add_trace(heat, **place)
    for i in map(int, np.flatnonzero(np.isfinite(values.diagonal()))):
        # A little inside of the cell, whose sides are at i - 0.5 and i + 0.5.
        low = i - 0.46
        high = i + 0.46
        figure.add_shape(
            type="rect",
            x0=low,
            x1=high,
            y0=low,
            y1=high,
            line={"color": style.INK, "dash": "dot", "width": 1.5},
            **place,
        )
    names = [style.marked(domain, looks[domain]) for domain in domains]
    # If names do not fit below their columns, only symbols stand there. The rows still have the names.
    below = names
    longest = WIDTH_OF_CHARACTER * (2 + max(map(len, domains)))
    if longest >= width / len(domains):
        below = [style.marked("", looks[domain]).rstrip() for domain in domains]
    axis = {"tickvals": domains, "showgrid": False, "showline": False, **place}
    axis_title = matrix.index.name
    figure.update_yaxes(
        **axis, ticktext=names, title_text=axis_title, autorange="reversed"
    )
    axis_title = matrix.columns.name
    # Turned names would turn the symbols, which distinguish the domains.
    figure.update_xaxes(**axis, ticktext=below, title_text=axis_title, tickangle=0)


def _grid(
    values: pd.DataFrame, top: float, signed: bool, hover: str, **looks: object
) -> go.Heatmap:
    """Return a heatmap of a table.

    Args:
        top: Number that has the strongest colour.
        signed: Whether the colour scale begins at -``top``. Otherwise it begins at 0.
        hover: Hover text of a cell, as a plotly template.
        looks: Further options of plotly's heatmap.
    """
    unsigned = [(0.0, style.NEUTRAL), (1.0, style.POSITIVE)]
    return go.Heatmap(
        x=list(values.columns),
        y=list(values.index),
        z=values.to_numpy(dtype=float),
        zmin=-top if signed else 0.0,
        zmax=top,
        colorscale=SIGNED if signed else unsigned,
        colorbar={"thickness": 10, "outlinewidth": 0},
        textfont={"size": 13, "color": style.INK},
        xgap=2,
        ygap=2,
        hoverongaps=False,
        hovertemplate=f"{hover}<extra></extra>",
        **looks,
    )
