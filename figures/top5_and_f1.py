"""Accuracy on held-out classes in the test domain by the measures of the study, by setting.

python figures/top5_and_f1.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.study.charts.setting_lines import setting_dots
from circuitry.study.generalization import CLASSIFIER
from circuitry.study.run_selections import main_settings

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "study" / "generalization"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    table = pd.read_csv(results / "measures.csv")
    table = main_settings(table[(table["part"] == "held-out") & (table["classifier"] == CLASSIFIER)])
    return setting_dots(
        table.assign(panel=table["test_domain"], series=table["measure"], value=table["mean"]),
        axis="held-out classes",
        title="Is it the measure?",
        span=(-0.03, 1.03),
    )


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
