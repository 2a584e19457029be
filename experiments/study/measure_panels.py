"""How well measures of similarity do on cases with a known answer, drawn from a finished table.

A panel for each case and a row for each measure; the dotted line is guessing.
"""

from circuitry.comparison import check_table
from circuitry.reports.figures import style

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots


def measure_panels(table: pd.DataFrame, *, title: str) -> go.Figure:
    """Draw the value of every measure in every case.

    Args:
        table: Columns ``measure``, ``case``, ``statistic``, ``value``, ``guessing`` (what guessing would reach) and
            ``n`` (pairs, or orders).
        title: Heading.
    """
    check_table(table, "table", ("measure", "case", "statistic", "value", "guessing", "n"), key=("measure", "case"))
    cases = list(dict.fromkeys(table["case"]))
    measures = list(dict.fromkeys(table["measure"]))[::-1]
    figure = make_subplots(1, len(cases), shared_yaxes=True, subplot_titles=cases, horizontal_spacing=0.04)
    for column, case in enumerate(cases, start=1):
        rows = table[table["case"] == case].set_index("measure").reindex(measures)
        figure.add_scatter(
            x=rows["value"],
            y=[name.replace("_", " ") for name in measures],
            mode="markers+text",
            marker={"color": style.INK, "size": 9},
            text=[f"{value:.2f}" for value in rows["value"]],
            textposition=["middle left" if value > 0.5 else "middle right" for value in rows["value"]],
            customdata=rows[["n"]],
            hovertemplate="%{y}: %{x:.3f}, n = %{customdata[0]}<extra></extra>",
            showlegend=False,
            row=1,
            col=column,
        )
        figure.add_vline(x=rows["guessing"].iloc[0], line={"dash": "dot", "color": style.GREY}, row=1, col=column)
        figure.update_xaxes(title_text=rows["statistic"].iloc[0], range=[-0.05, 1.08], row=1, col=column)
    return style.lay_out(figure, title=title, height=420)
