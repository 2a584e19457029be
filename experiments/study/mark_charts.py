"""Curves of edits of a mark over their strength: the worst group against the mean over pictures as in training."""

from circuitry.reports.figures import style
from experiments.study.mark_edits import (
    NO_MARK,
    OF_EMBEDDINGS,
    PART,
    PRUNED,
    RANDOM,
    RULE,
    RULES,
)
from experiments.study.style_edits import LEACE, MOVED, REFITTED, WHOLE

import pandas as pd
import plotly.graph_objects as go

DRAWN = (
    PART,
    RANDOM,
    PRUNED,
    OF_EMBEDDINGS[LEACE],
    OF_EMBEDDINGS[MOVED],
    OF_EMBEDDINGS[REFITTED],
)
"""The edits that are drawn."""
USEFUL = (72, 100)
"""The range of means that is drawn, in percent."""


def over_strength(models: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each edit in each strength, from weak to strong; the first is the whole model.

    Args:
        models: Table of `mark_claims.over_groups`.
    """
    edited = models[~models["edit"].isin([WHOLE, NO_MARK])]
    whole = models[(models["edit"] == WHOLE) & (models["rule"] == RULE)]
    # The whole model begins the curve of each edit.
    edits = edited[["run", "edit"]].drop_duplicates()
    begins = edits.merge(whole.drop(columns="edit"), on="run")
    rows = pd.concat([begins.assign(strength=0.0), edited], ignore_index=True)
    # Random units by a rule have the size of the part in place of a strength.
    known = rows.dropna(subset="strength")
    once = known.drop_duplicates(["run", "edit", "strength"])
    return once.sort_values(["seed", "edit", "strength"], ignore_index=True)


def worst_against_mean(models: pd.DataFrame, title: str) -> go.Figure:
    """Draw the worst group against the mean over pictures as in training, a line for each edit and a panel a model.

    Along a line the edit gets stronger. The cross is a model that never saw the mark, the dashed line the loss that the
    first rule allows.

    Args:
        models: Table of `mark_claims.over_groups`.
    """
    curves = over_strength(models)
    names = models.drop_duplicates("run")["marked"].tolist()
    marks = style.assign_looks(DRAWN, style.MARKS, "edits")
    figure, places = style.small_multiples(
        names,
        columns=2,
        height=300,
        gap=100,
        shared_yaxes=True,
        horizontal_spacing=0.03,
    )
    for name, place in zip(names, places, strict=True):
        of_model = curves[curves["marked"] == name]
        for edit, mark in marks.items():
            drawn = of_model[of_model["edit"] == edit]
            figure.add_scatter(
                x=100 * drawn["as_trained"],
                y=100 * drawn["worst"],
                customdata=drawn["strength"],
                hovertemplate=f"{edit}, strength %{{customdata:g}}: %{{y:.0f}} %<extra></extra>",
                mode="lines+markers",
                line={"color": mark.colour, "width": 1.8},
                marker=mark.marker(7, line={"color": "white", "width": 1}),
                showlegend=False,
                **place,
            )
        never = models[(models["marked"] == name) & (models["edit"] == NO_MARK)]
        style.add_points(
            figure,
            100 * never[["as_trained", "worst"]],
            "as_trained",
            "worst",
            (),
            f"{NO_MARK}: %{{y:.0f}} %",
            marker={"symbol": "x", "size": 11, "color": style.INK},
            **place,
        )
        before = 100 * (of_model.iloc[0]["as_trained"] - RULES[RULE])
        figure.add_vline(
            x=before, line={"color": style.GREY, "dash": "dash", "width": 1}, **place
        )
    for edit, mark in marks.items():
        style.add_key(
            figure,
            edit,
            mode="lines+markers",
            line={"color": mark.colour},
            marker=mark.marker(9),
        )
    style.add_key(
        figure,
        NO_MARK,
        mode="markers",
        marker={"symbol": "x", "size": 11, "color": style.INK},
    )
    subtitle = "Each panel is a model, named by its marked class. Along each line the edit gets stronger"
    style.lay_out(figure, title=title, subtitle=subtitle, legend=True)
    figure.update_xaxes(range=USEFUL, title_text="right as in training, %")
    figure.update_yaxes(range=[-3, 103])
    return figure.update_yaxes(title_text="right in the worst group, %", col=1)
