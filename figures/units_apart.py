"""Units that the circuits of quickdraw share with those of the other styles, and those among themselves.

python figures/units_apart.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.reports.figures import overlap_over_depth

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "study" / "circuits"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    table = pd.read_csv(results / "domain_apart_over_depth.csv").query("group == 'all'")
    sites = list(dict.fromkeys(table["site"]))
    return overlap_over_depth(table, sites, title="Where do the circuits of one style part from the others?")


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
