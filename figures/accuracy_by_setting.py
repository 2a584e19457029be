"""Accuracy on held-out and other classes of the test domain, by what a tiny CLIP was trained on.

python figures/accuracy_by_setting.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.reports.figures import domain_marks
from circuitry.study.charts import settings_bars
from circuitry.study.mixtures.subsampling import DOMAINNET_ROUND
from circuitry.study.run_selections import main_settings

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "generalization"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    title = "What must a model have seen to recognise new classes of a style?"
    return settings_bars(
        main_settings(pd.read_csv(results / "told_apart.csv")), title=title, marks=domain_marks(DOMAINNET_ROUND)
    )


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
