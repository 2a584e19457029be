"""Faithfulness of the quickstart's circuits over their size, per style, beside random units.

python figures/faithfulness_curves.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figures.lines import faithfulness_curves
from circuitry.reports.page import write_figure

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "faithfulness"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    return faithfulness_curves(
        pd.read_csv(results / "faithfulness_absolute.csv"), title="How much of a model does a circuit need?"
    )


if __name__ == "__main__":
    print(*write_figure(figure(), Path(__file__).with_suffix("")), sep="\n")
