"""CKA of quickdraw with the other styles and of those among themselves, over the depth of a model.

python figures/cka_apart.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.reports.figures import overlap_over_depth

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "representations"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    table = pd.read_csv(results / "cka_apart.csv").query("group == 'all' and kernel == 'linear'")
    sites = list(dict.fromkeys(table["site"]))
    title = "Where does one style part from the others?"
    return overlap_over_depth(table, sites, measure="CKA, linear kernel", title=title)


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
