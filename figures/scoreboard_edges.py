"""Selectivity over the number of edges by each method, between the heads and MLPs of a vision transformer.

python figures/scoreboard_edges.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.page import write_figure
from circuitry.study.sections.scoreboards import size_curves

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "scoreboard" / "components"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table: of attribution one gradient, whose corrections and path are no better."""
    table = pd.read_csv(results / "curves.csv")
    table = table.query("measure == 'selectivity' and method in ['gradient', 'exact', 'learned']")
    drawn = size_curves(table, "selectivity", "Which edges tell a class from others? Vision transformer, drawn images")
    drawn.for_each_trace(lambda trace: trace.update(name=trace.name.replace("random units", "random edges")))
    return drawn.update_xaxes(title_text="edges kept (%)")


if __name__ == "__main__":
    print(*write_figure(figure(), Path(__file__).with_suffix("")), sep="\n")
