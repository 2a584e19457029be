"""Zero-shot accuracy of the quickstart's CLIP per style: classes seen in it beside those held out of quickdraw.

python figures/accuracy.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.study.charts import accuracy_bars

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "quickstart"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    return accuracy_bars(pd.read_csv(results / "accuracy.csv"), title="Which styles does the model recognise?")


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
