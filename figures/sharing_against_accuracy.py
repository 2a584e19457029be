"""Accuracy of models among held-out classes alone, against what their test domain shares with the others.

The committed tables are of the toy study: 21 tiny models, one seed.

python figures/sharing_against_accuracy.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.page import write_figure
from circuitry.study.charts.relation_panels import relation_panels
from circuitry.study.sections.relations import LABEL_FREE, SHARED

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "shared_circuitry"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed tables."""
    points, relations = (pd.read_csv(results / f"{name}.csv") for name in ("points", "relations"))
    title = "Do models generalize where domains share circuitry?"
    return relation_panels(points, relations, SHARED | LABEL_FREE, "alone", title=title)


if __name__ == "__main__":
    print(*write_figure(figure(), Path(__file__).with_suffix("")), sep="\n")
