"""Images of the toy's CLIP (and class prompts, where mapped) in the plane, with standard and with aligned captions.

python figures/embedding_map.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.reports.figures import embedding_maps

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "embedding_separation"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    return embedding_maps(
        pd.read_csv(results / "map.csv"), title="Do captions that name no style bring the styles together?"
    )


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
