"""Faithfulness of the quickstart's circuits over their size, per style, beside random units.

python figures/faithfulness_curves.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.reports.figures import faithfulness_curves

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "faithfulness"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    return faithfulness_curves(
        pd.read_csv(results / "faithfulness_absolute.csv"), title="How much of a model does a circuit need?"
    )


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
