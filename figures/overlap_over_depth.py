"""Node overlap of each style's circuits with those of the other styles, over the depth of the quickstart's CLIP.

python figures/overlap_over_depth.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figures.plots import overlap_over_depth
from circuitry.reports.page import write_figure

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "quickstart"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed tables."""
    depth = pd.read_csv(results / "node_overlap_over_depth.csv")
    ceiling = pd.read_csv(results / "node_overlap_ceiling_by_site.csv")
    chance = pd.read_csv(results / "chance_node_overlap.csv")
    return overlap_over_depth(depth, list(chance["site"]), ceiling, chance)


if __name__ == "__main__":
    print(*write_figure(figure(), Path(__file__).with_suffix("")), sep="\n")
