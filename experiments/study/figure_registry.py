"""Figures by name: each is drawn from a folder of tables. No torch."""

from collections.abc import Callable
from pathlib import Path

from circuitry.reports.figures import similarity_heatmap
from experiments.study.domain_charts import cluster_order

import pandas as pd
import plotly.graph_objects as go

COMMITTED = Path("experiments/results")
"""Folder of the committed tables, in a checkout."""

Draw = Callable[[Path, str], go.Figure]  # from a folder of tables and a title

FIGURES: dict[str, tuple[Draw, str, Path | None]] = {}
"""What draws each figure, its title, and the folder of its committed tables (None: there are none)."""


def figure(title: str, results: str | None = None) -> Callable[[Draw], Draw]:
    """Register the function below as the figure of its name."""

    def register(draw: Draw) -> Draw:
        FIGURES[draw.__name__] = (
            draw,
            title,
            None if results is None else COMMITTED / results,
        )
        return draw

    return register


def table(tables: Path, name: str) -> pd.DataFrame:
    """Read a table."""
    return pd.read_csv(tables / f"{name}.csv")


def matrix(tables: Path, name: str) -> pd.DataFrame:
    """Read a table of domains by domains."""
    return table(tables, name).set_index("domain").rename_axis(index=None)


def heatmap(tables: Path, name: str, title: str, measure: str) -> go.Figure:
    """Draw a table of domains by domains, similar ones beside each other."""
    values = matrix(tables, name)
    order = cluster_order(values)
    return similarity_heatmap(values.loc[order, order], title=title, measure=measure)
