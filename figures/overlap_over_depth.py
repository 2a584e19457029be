"""Node overlap of each style's circuits with those of the other styles, over the depth of the quickstart's CLIP.

python figures/overlap_over_depth.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.reports.figures import overlap_over_depth

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "quickstart"

KEPT = {"act1": 1, "act2": 1}
"""The first sites have 6 channels, of which a circuit of a tenth keeps one: overlaps there are means of 0 and 1."""


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed tables."""
    depth = pd.read_csv(results / "node_overlap_over_depth.csv")
    ceiling = pd.read_csv(results / "node_overlap_ceiling_by_site.csv")
    chance = pd.read_csv(results / "chance_node_overlap.csv")
    chance["kept"] = chance["site"].map(KEPT)
    title = "Do styles use the same units of the model?"
    return overlap_over_depth(depth, list(chance["site"]), ceiling, chance, title=title)


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
