"""Accuracy on held-out classes over the share of them that was seen in the test domain.

python figures/class_interpolation.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.study.charts.setting_lines import interpolation_lines
from circuitry.study.run_selections import class_interpolation

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "study" / "generalization"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    return interpolation_lines(
        class_interpolation(pd.read_csv(results / "told_apart.csv")),
        axis="share of the held-out classes seen",
        title="How much of the held-out classes must be seen in the test domain?",
    )


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
