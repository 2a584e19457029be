"""What each head and MLP of a small vision transformer adds to the answer directly, by layer.

python figures/direct_effects.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figures import component_heatmap
from circuitry.reports.page import write_figure

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "components"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    table = pd.read_csv(results / "direct_effects.csv", dtype={"component": str})
    title = "What does each head and MLP add to the answer directly?"
    return component_heatmap(table, title=title, measure="effect on the lead of the class")


if __name__ == "__main__":
    print(*write_figure(figure(), Path(__file__).with_suffix("")), sep="\n")
