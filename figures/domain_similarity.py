"""Domain-by-domain edge similarity of the quickstart's circuits, of all images.

python figures/domain_similarity.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.reports.figures import similarity_heatmap

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "quickstart"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    matrix = pd.read_csv(results / "edge_jaccard_matrix.csv", index_col="domain").rename_axis(index=None)
    title = "Which styles share their circuits?"
    return similarity_heatmap(matrix, title=title, measure="edge Jaccard index", clustered=True)


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
