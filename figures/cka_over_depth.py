"""CKA of each style's class means with those of the other styles, over the depth of the quickstart's CLIP.

python figures/cka_over_depth.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.reports.figures import cka_over_depth

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "representations"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed tables of all classes."""
    domains, ceilings = (
        pd.read_csv(results / f"{name}.csv").query("group == 'all'") for name in ("cka_over_depth", "cka_ceilings")
    )
    return cka_over_depth(
        domains,
        ceilings,
        title="Where do the styles look alike to the model?",
    )


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
