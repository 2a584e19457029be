"""Accuracy in the test domain by setting and base set of captioned photographs.

python figures/base_sets.py
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
    title = "Does more natural data help?"
    return settings_bars(side_by_side(pd.read_csv(results / "told_apart.csv"), "base"), title=title)


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
