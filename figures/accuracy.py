"""Zero-shot accuracy of the quickstart's CLIP per style: classes seen in it beside those held out of quickdraw.

python figures/accuracy.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figures.bars import accuracy_bars
from circuitry.reports.page import write_figure

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "quickstart"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    return accuracy_bars(pd.read_csv(results / "accuracy.csv"), title="Which styles does the model recognise?")


if __name__ == "__main__":
    print(*write_figure(figure(), Path(__file__).with_suffix("")), sep="\n")
