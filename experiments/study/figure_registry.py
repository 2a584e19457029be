"""The register of figures: each figure has a name and is drawn from a folder of tables. Does not import torch."""

from collections.abc import Callable
from pathlib import Path

from circuitry.reports.figures import similarity_heatmap
from experiments.study.domain_charts import cluster_order

import pandas as pd
import plotly.graph_objects as go

COMMITTED = Path("experiments/results")
"""Folder of the committed tables, in a checkout."""

Draw = Callable[[Path, str], go.Figure]  # takes a folder of tables and a title

FIGURES: dict[str, tuple[Draw, str, Path | None]] = {}
"""A dictionary from the name of each figure to the function that draws it, its title, and the folder of its committed
tables. The folder is None if no tables are committed."""


def figure(title: str, results: str | None = None) -> Callable[[Draw], Draw]:
    """Register the decorated function as a figure, which has the name of the function.

    Args:
        title: Title of the figure.
        results: Folder of the committed tables below `COMMITTED`; None if no tables are committed.
    """
    folder = None if results is None else COMMITTED / results

    def register(draw: Draw) -> Draw:
        FIGURES[draw.__name__] = (draw, title, folder)
        # The function stays as it is, so that other figures can call it.
        return draw

    return register


def table(tables: Path, name: str) -> pd.DataFrame:
    """Read the table of a name in a folder of tables."""
    return pd.read_csv(tables / f"{name}.csv")


def heatmap(tables: Path, name: str, title: str, measure: str) -> go.Figure:
    """Draw a table that has a row and a column for each domain; similar domains are neighbours."""
    values = table(tables, name).set_index("domain").rename_axis(index=None)
    order = cluster_order(values)
    return similarity_heatmap(values.loc[order, order], title=title, measure=measure)
