"""How many features of a sparse autoencoder domains share, with those of parts of their images on the diagonal.

python figures/feature_sharing.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.reports.figures import similarity_heatmap

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "shared_features"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed tables."""
    matrix = pd.read_csv(results / "feature_sharing_matrix.csv", index_col="domain").rename_axis(index=None)
    levels = pd.read_csv(results / "feature_sharing_levels.csv", index_col="what")["value"]
    title = "Which styles share their features?"
    drawn = similarity_heatmap(matrix, title=title, measure="feature sharing", clustered=True)
    low = ", ".join(f"{what} {levels[what]:.2f}" for what in ("two classes in two domains", "random features"))
    return drawn.update_layout(title_subtitle_text=f"{drawn.layout.title.subtitle.text}; {low}")


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
