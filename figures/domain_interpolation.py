"""Accuracy on held-out classes over the number of domains trained on beside photographs and the test domain.

python figures/domain_interpolation.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.study.charts.setting_lines import interpolation_lines
from circuitry.study.run_selections import domain_interpolation

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "study" / "generalization"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    return interpolation_lines(
        domain_interpolation(pd.read_csv(results / "told_apart.csv")),
        axis="further domains trained on",
        title="Do further domains help, and which?",
        joined=False,
    )


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
