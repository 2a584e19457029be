"""Charts of the similarities of domains: their order by likeness, and panels by measure and group of classes."""

from collections.abc import Mapping

from circuitry.comparison import check_table
from circuitry.reports.figures import heatmaps, style

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform


def cluster_order(matrix: pd.DataFrame) -> list[str]:
    """Return the domains in an order with similar ones side by side.

    The distance of two domains is that of their rows (root mean square) in the columns of the other domains, so the
    order is the same for similarities and distances. Average linkage with the best order of its leaves; the given order
    for fewer than three domains or a missing number.
    """
    heatmaps.check_matrix(matrix)
    values = matrix.to_numpy(dtype=float)
    values = (values + values.T) / 2
    # Two domains are compared in the columns of the other domains, so not in their own.
    np.fill_diagonal(values, np.nan)
    n = len(values)
    # Two domains have no order, and a missing number leaves a distance undefined.
    if n < 3 or np.isfinite(values).sum() < n * (n - 1):
        return list(matrix.index)
    far = squareform(np.sqrt(np.nanmean(np.square(values[:, None] - values), axis=2)))
    order = leaves_list(optimal_leaf_ordering(linkage(far, "average"), far))
    # An order and its reverse are equally good: the one is taken that begins with the earlier domain.
    if order[0] > order[-1]:
        order = order[::-1]
    return list(matrix.index[order])


def similarity_panels(
    table: pd.DataFrame,
    *,
    title: str,
    groups: Mapping[str, str],
    first: str,
) -> go.Figure:
    """Draw the similarities of domains: a row of panels for each measure, a column for each group of classes.

    Args:
        table: Columns ``measure``, ``group``, ``domain_a``, ``domain_b``, ``value``; each pair of domains once.
        groups: Names of the groups over their panels.
        first: Domain that comes first, before the others by name.
    """
    columns = ("measure", "group", "domain_a", "domain_b", "value")
    check_table(table, "groups", columns, columns[:-1])
    names = {*table["domain_a"], *table["domain_b"]}
    domains = sorted(names, key=lambda name: (name != first, name))
    looks = style.marks_for(domains, None)
    n_groups = table["group"].nunique()
    largest = table.groupby("measure")["value"].max()
    panels = {
        (str(measure), str(group)): rows
        for (measure, group), rows in table.groupby(["measure", "group"], sort=False)
    }
    titles = [
        f"{style.measure_name(measure)}<br>{style.faint(groups[group])}"
        for measure, group in panels
    ]
    figure, places = style.small_multiples(
        titles,
        columns=n_groups,
        height=heatmaps.ROW * len(domains),
        gap=90,
        shared_yaxes=True,
        horizontal_spacing=0.08,
    )
    for ((measure, _), rows), place in zip(panels.items(), places, strict=True):
        # The table has each pair once, the matrix twice.
        half = rows.pivot(index="domain_a", columns="domain_b", values="value")
        matrix = half.combine_first(half.T).reindex(index=domains, columns=domains)
        matrix = matrix.rename_axis(index=None, columns=None)
        name = style.measure_name(measure)
        width = heatmaps.WIDTH_OF_CELLS // n_groups
        heatmaps.add_cells(figure, matrix, name, looks, place, width, largest[measure])
    note = "means over classes; columns in the order of the rows"
    return style.lay_out(figure, title=title, subtitle=note)
