"""How well a class is told from others with only its circuit kept at one site, over depth, per style.

python figures/selectivity_over_depth.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.reports.figures import overlap_over_depth

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "faithfulness"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    table = pd.read_csv(results / "selectivity_one_site.csv").rename(columns={"sites": "site"})
    kept = table[table["circuit"] == "kept"]
    random = table[table["circuit"] == "random"].groupby("site", sort=False)["value"].mean().reset_index()
    return overlap_over_depth(
        kept,
        list(dict.fromkeys(kept["site"])),
        chance=random,
        measure="selectivity, one site ablated",
        chance_label="random units",
        title="Where is the circuit of a class enough to tell it from others?",
    )


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
