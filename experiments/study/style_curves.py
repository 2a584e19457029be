"""Curves of edits over their strength: right answers on the held-out pair against right answers on seen classes."""

from circuitry.comparison import mean_interval
from circuitry.reports.figures import style
from experiments.study import claims
from experiments.study.style_edits import (
    AT_A_STRENGTH,
    MOVED,
    PART,
    RANDOM,
    STACKED,
    WHOLE,
)

import numpy as np
import pandas as pd
import plotly.graph_objects as go

DRAWN = (PART, RANDOM, "direction of the style's text", "LEACE", MOVED, STACKED)
"""The edits that are drawn."""
USEFUL = (93, 47)
"""The range of right answers on seen classes that is drawn, in percent."""
KEYS = ["model", "setting", "test_domain", "edit"]
LOSSES = (0.05, 0.10)
"""Losses of right answers on seen classes, on test pictures, at which edits are compared."""


def over_strength(answers: pd.DataFrame) -> pd.DataFrame:
    """Return right answers in the style over the strength of each edit, of each model.

    Args:
        answers: Table of `style_effects`, of all models.

    Returns:
        Columns `KEYS`, `claims.PAIR`, strength, pair, seen: right answers on the held-out pair and on seen classes. The
        strength 0 is the whole model.
    """
    in_style = answers["domain"] == answers["test_domain"]
    at_a_strength = answers["rule"].str.startswith(AT_A_STRENGTH)
    whole = answers["edit"] == WHOLE
    # Where texts and folders were both tried, texts tell the style.
    first = answers["told"] == answers.groupby("run")["told"].transform("max")
    rows = answers[in_style & first & (at_a_strength | whole)].fillna({"strength": 0.0})
    group = rows["class"].where(rows["class"] == claims.SEEN, "pair")
    keys = [*KEYS, claims.PAIR, "strength"]
    by_group = rows.groupby([*keys, group])["right"].mean()
    return by_group.unstack("class").reset_index()


def curves(points: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over pairs of `over_strength`: `KEYS`, strength, seen, value, low, high, n_pairs.

    The interval is Student's 95 % interval of right answers on the held-out pair.
    """
    table = list[dict[str, object]]()
    keys = [*KEYS, "strength"]
    for key, rows in points.groupby(keys):
        value, low, high = mean_interval(rows["pair"].to_numpy())
        numbers = {"value": value, "low": low, "high": high, "n_pairs": len(rows)}
        about = dict(zip(keys, key, strict=True))
        table.append({**about, "seen": rows["seen"].mean(), **numbers})
    return pd.DataFrame(table)


def at_equal_loss(points: pd.DataFrame) -> pd.DataFrame:
    """Return right answers on the pair where seen classes have lost as much on test pictures, of each model.

    Between two strengths they are interpolated. An edit whose strongest step costs less counts in this step.

    Args:
        points: Table of `over_strength`.

    Returns:
        Columns `KEYS`, `claims.PAIR`, loss, value.
    """
    table = list[dict[str, object]]()
    models = [name for name in [*KEYS, claims.PAIR] if name != "edit"]
    for key, of_model in points.groupby(models):
        about = dict(zip(models, key, strict=True))
        whole = of_model[of_model["edit"] == WHOLE].iloc[0]
        for edit, rows in of_model[of_model["edit"] != WHOLE].groupby("edit"):
            along = rows[rows["strength"] > 0].sort_values("strength")
            # Test pictures are few, so a stronger edit may cost less: the largest loss so far counts.
            lost = np.maximum.accumulate([0.0, *(whole["seen"] - along["seen"])])
            right = [whole["pair"], *along["pair"]]
            for loss in LOSSES:
                value = _first_at(lost, right, loss)
                table.append({**about, "edit": edit, "loss": loss, "value": value})
    return pd.DataFrame(table)


def _first_at(lost: np.ndarray, right: list[float], loss: float) -> float:
    """Return the right answers where a loss, which never falls, first reaches a value."""
    reached = np.flatnonzero(lost >= loss - 1e-9)
    if not len(reached):
        return right[-1]
    place = int(reached[0])
    part = (loss - lost[place - 1]) / (lost[place] - lost[place - 1])
    return float(right[place - 1] + part * (right[place] - right[place - 1]))


def recovery(
    points: pd.DataFrame, far: str, title: str = "Held-out pair against seen classes"
) -> go.Figure:
    """Draw right answers on the held-out pair against right answers on seen classes, a line for each edit.

    Along a line the edit gets stronger. There is a panel for each test domain.

    Args:
        points: Table of `curves`, of one model and setting.
        far: The domain whose panel comes first.
    """
    domains = sorted(set(points["test_domain"]), key=lambda name: (name != far, name))
    marks = dict(zip(DRAWN, style.MARKS, strict=False))
    figure, places = style.small_multiples(
        domains,
        columns=len(domains),
        height=380,
        shared_yaxes=True,
        horizontal_spacing=0.03,
    )
    for domain, place in zip(domains, places, strict=True):
        of_domain = points[points["test_domain"] == domain]
        for edit, mark in marks.items():
            rows = of_domain[of_domain["edit"].isin([edit, WHOLE])]
            drawn = rows.sort_values("strength").set_index("strength")
            drawn = 100 * drawn[["seen", "value", "low", "high"]]
            look = mark.line(drawn)
            # Intervals of all lines would cover each other.
            if edit != PART:
                del look["error_y"]
            figure.add_scatter(
                x=drawn["seen"],
                y=drawn["value"],
                customdata=drawn.index,
                hovertemplate=f"{edit}, strength %{{customdata:g}}: %{{y:.0f}} %<extra></extra>",
                showlegend=False,
                **look,
                **place,
            )
    for edit, mark in marks.items():
        style.add_key(
            figure,
            edit,
            mode="lines+markers",
            line={"color": mark.colour},
            marker=mark.marker(9),
        )
    subtitle = (
        "Along each line the edit gets stronger; all lines begin at the whole model"
    )
    style.lay_out(figure, title=title, subtitle=subtitle, legend=True)
    # Where seen classes are right less often, an edit is of no use.
    figure.update_xaxes(range=USEFUL, title_text="right on seen classes, %")
    figure.update_yaxes(title_text="right on the held-out pair, %", row=1, col=1)
    return figure.update_yaxes(range=[-3, 103])
