"""What a circuit costs by each method, and how small it works, on an ImageNet network and on two small CLIPs.

python figures/scoreboard_cost.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.page import write_figure
from circuitry.study.charts.cost_scatter import cost_against_quality

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "scoreboard"
NAMES = {
    "efficientnet": "EfficientNet-Lite0, photographs",
    "toy": "small CLIP, drawn set",
    "emoji": "small CLIP, emoji",
}


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed tables, baseline mean and metric margin."""
    parts = []
    for folder, name in NAMES.items():
        table = pd.read_csv(results / folder / "summary.csv").query("baseline == 'mean' and metric == 'margin'")
        parts.append(table.assign(setting=name))
    return cost_against_quality(pd.concat(parts, ignore_index=True))


if __name__ == "__main__":
    print(*write_figure(figure(), Path(__file__).with_suffix("")), sep="\n")
