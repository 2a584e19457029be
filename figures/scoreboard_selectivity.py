"""Selectivity over the size of circuits by each method, on an ImageNet network.

python figures/scoreboard_selectivity.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.page import write_figure
from circuitry.study.sections.scoreboards import size_curves

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "scoreboard"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table, baseline mean and metric margin."""
    table = pd.read_csv(results / "efficientnet" / "curves.csv")
    table = table.query("baseline == 'mean' and metric == 'margin' and measure == 'selectivity'")
    return size_curves(table, "selectivity", "Which circuits tell a class from others? EfficientNet-Lite0, photographs")


if __name__ == "__main__":
    print(*write_figure(figure(), Path(__file__).with_suffix("")), sep="\n")
