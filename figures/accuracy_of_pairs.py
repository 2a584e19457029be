"""How few pairs of a pooling head and a unit carry the answers of a small CLIP ResNet, by style.

python figures/accuracy_of_pairs.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figures import faithfulness_curves
from circuitry.reports.page import write_figure

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "pooling_pairs"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    table = pd.read_csv(results / "accuracy.csv")
    found = faithfulness_curves(table, measure="accuracy", title="How few pooling pairs carry the answers?")
    return found.update_xaxes(title_text="pairs of a pooling head and a unit that are kept (%)")


if __name__ == "__main__":
    print(*write_figure(figure(), Path(__file__).with_suffix("")), sep="\n")
