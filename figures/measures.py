"""Which measures of similarity tell circuits apart that are known to differ? Circuits of the quickstart.

python figures/measures.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.study.charts.measure_panels import measure_panels

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "measures"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    return measure_panels(pd.read_csv(results / "measures.csv"))


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
