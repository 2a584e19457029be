"""Accuracy in the test domain with and without ImageNet-Sketch, which has other classes, by setting.

python figures/imagenet_sketch.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.study.charts import settings_bars
from circuitry.study.run_selections import side_by_side

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "study" / "generalization"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    title = "Do sketches of other classes help?"
    return settings_bars(side_by_side(pd.read_csv(results / "told_apart.csv"), "sketches"), title=title)


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
