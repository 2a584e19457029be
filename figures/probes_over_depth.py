"""What a linear probe reads off over the depth of the quickstart's CLIP: class, style, and class across styles.

python figures/probes_over_depth.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.reports.figures import probes_over_depth

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "representations"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    return probes_over_depth(pd.read_csv(results / "probes.csv"), title="What can be read off the activations?")


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
