"""How many features of a sparse autoencoder the test domain shares with the others, by setting.

python figures/sharing_by_setting.py
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from circuitry.reports.figure_script import run_figure
from circuitry.study.charts.setting_lines import setting_dots

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "study" / "sharing"


def figure(results: Path = RESULTS) -> go.Figure:
    """Draw the committed table."""
    table = pd.read_csv(results / "sharing_over_settings.csv")
    series = {"the test domain": "score", "the other domains, mean": "others"}
    rows = [table.assign(series=name, value=table[column]) for name, column in series.items()]
    return setting_dots(
        pd.concat(rows).assign(panel=lambda both: both["test_domain"]),
        axis="features shared with the other domains",
        title="Do more diverse models share more features between domains?",
    )


if __name__ == "__main__":
    run_figure(figure, RESULTS, __file__, __doc__)
