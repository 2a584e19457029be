"""Accuracy on held-out classes in the test domain against that on photographs, every checkpoint of the toy's models.

python figures/effective_robustness.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.study.charts import robustness_scatter

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "generalization"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    return robustness_scatter(
        pd.read_csv(results / "robustness.csv"), title="Does accuracy on photographs foretell accuracy on drawings?"
    )


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
