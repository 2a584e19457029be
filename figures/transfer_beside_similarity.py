"""Circuits of one style on images of another, beside what the circuits share, at the site where the two agree most.

python figures/transfer_beside_similarity.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.reports.figures import transfer_beside_similarity

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "transfer"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed tables."""
    correlations = pd.read_csv(results / "correlations.csv").set_index("sites")["selectivity: rho"]
    site = str(correlations.drop("all").idxmax())
    table = pd.read_csv(results / "matrices.csv").query("sites == @site")
    similarity = pd.read_csv(results / "edge_jaccard_matrix.csv", index_col="domain").rename_axis(index=None)
    return transfer_beside_similarity(
        table.pivot(index="circuit of", columns="images of", values="selectivity"),
        similarity,
        measure=f"selectivity at {site}",
        clustered=True,
    )


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
