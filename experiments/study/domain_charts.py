"""Charts of the similarities of domains.

They order domains so that similar domains are neighbours, and draw a panel for each measure and group of classes.
"""

from collections.abc import Mapping

from circuitry.comparison import check_table
from circuitry.reports.figures import heatmaps, style

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform


def cluster_order(matrix: pd.DataFrame) -> list[str]:
    """Return the domains in an order in which similar domains are neighbours.

    The distance of two domains is the root mean square difference of their rows in the columns of the other domains.
    The order is therefore the same for a matrix of similarities and for a matrix of distances. It is the optimal order
    of the leaves of a clustering with average linkage.

    Args:
        matrix: Similarities or distances [domains, domains].

    Returns:
        The names of the domains. If there are fewer than three domains, or if a number is missing, they are in the
        order of the matrix.
    """
    heatmaps.check_matrix(matrix)
    values = matrix.to_numpy(dtype=float)
    # Both directions of a pair count alike.
    values = (values + values.T) / 2
    # Two domains are compared in the columns of the other domains, so not in their own.
    np.fill_diagonal(values, np.nan)
    n = len(values)
    # Two domains have no order, and a missing number leaves a distance undefined.
    if n < 3 or np.isfinite(values).sum() < n * (n - 1):
        return list(matrix.index)
    far = squareform(np.sqrt(np.nanmean(np.square(values[:, None] - values), axis=2)))
    order = leaves_list(optimal_leaf_ordering(linkage(far, "average"), far))
    # An order and its reverse are equally good, so the order that begins with the earlier domain is taken.
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
        table: Columns ``measure``, ``group``, ``domain_a``, ``domain_b``, ``value``. Each pair of domains has one row.
        title: Title of the figure.
        groups: A dictionary from each group to its name in the titles of panels.
        first: Domain of the first row and column. The other domains follow in alphabetical order.
    """
    columns = ("measure", "group", "domain_a", "domain_b", "value")
    check_table(table, "groups", columns, columns[:-1])
    names = {*table["domain_a"], *table["domain_b"]}
    domains = sorted(names, key=lambda name: (name != first, name))
    looks = style.marks_for(domains, None)
    n_groups = table["group"].nunique()
    largest = table.groupby("measure")["value"].max()
    panels = table.groupby(["measure", "group"], sort=False)
    titles = [
        f"{style.measure_name(str(measure))}<br>{style.faint(groups[str(group)])}"
        for (measure, group), _ in panels
    ]
    figure, places = style.small_multiples(
        titles,
        columns=n_groups,
        height=heatmaps.ROW * len(domains),
        gap=90,
        shared_yaxes=True,
        horizontal_spacing=0.08,
    )
    for ((measure, _), rows), place in zip(panels, places, strict=True):
        # The table has each pair once, the matrix twice.
        half = rows.pivot(index="domain_a", columns="domain_b", values="value")
        matrix = half.combine_first(half.T).reindex(index=domains, columns=domains)
        matrix = matrix.rename_axis(index=None, columns=None)
        measure = str(measure)
        name = style.measure_name(measure)
        width = heatmaps.WIDTH_OF_CELLS // n_groups
        heatmaps.add_cells(figure, matrix, name, looks, place, width, largest[measure])
    note = "means over classes; columns in the order of the rows"
    return style.lay_out(figure, title=title, subtitle=note)
