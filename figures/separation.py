"""How far the toy's domains lie apart with standard and with aligned captions, and accuracy beside it.

python figures/separation.py
"""

import json
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.reports.figures import separation_panels
from circuitry.study.sections.separations import PANELS, panel_references

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "embedding_separation"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed tables."""
    summary = pd.read_csv(results / "summary.csv").query("domain != 'all'")
    n_classes = json.loads((results / "provenance.json").read_text())["classes"]
    references = panel_references(summary, n_classes)
    title = "How far do the styles lie apart, and does accuracy follow?"
    return separation_panels(summary, PANELS, pd.read_csv(results / "by_seed.csv"), references, title=title)


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
