"""How much of what two samples of one style share do two styles share? Edges of circuits of emoji in seven styles.

python figures/emoji_ratios.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.reports.figures import similarity_heatmap

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "emoji"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    matrix = pd.read_csv(results / "edge_jaccard_ratio_matrix.csv", index_col="domain").rename_axis(index=None)
    title = "Which styles of emoji share their circuits?"
    return similarity_heatmap(matrix, title=title, measure="edge Jaccard index, ratio to the ceiling", clustered=True)


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
