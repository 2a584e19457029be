"""Accuracy on held-out classes beside its possible causes, of one model or of groups of them. No torch."""

from collections.abc import Sequence
from typing import Annotated

import pandas as pd

from circuitry.comparison.table import with_columns
from circuitry.training.accuracy import AMONG_PART, CENTRED, FALLS_ON_HELD_OUT, MEASURE, harmonic_mean

CLASSIFIER, OWN_STYLE, SUPERVISED = "all templates", "own style", "supervised"
CLASS_PARTS = ("all", "seen", "held-out")

AccuracyTable = Annotated[pd.DataFrame, with_columns("classifier", "domain", "part", "measure", "value", "chance")]
"""Accuracies of one model or of runs."""


def accuracy_kinds(accuracy: AccuracyTable, classifier: str = CLASSIFIER, by: Sequence[str] = ()) -> pd.DataFrame:
    """Return accuracy on held-out classes beside its possible causes: a row per domain, and group of models.

    Every held-out class has equal weight. Values are means over the seeds of a group.

    Args:
        accuracy: Table of `tidy_accuracy`, for groups with their columns and ``seed``.
        classifier: Classifier of CLIP models.
        by: Columns of the groups (default: there is one model).

    Returns:
        The columns of the groups and ``domain``; balanced top-1 accuracy of ``all``, ``seen`` and ``held_out`` classes
        and the ``harmonic_mean`` of the last two; for held-out classes ``alone`` (only they compete), ``own_style``
        (class texts in the images' own style), ``centred`` (scores of each class centred within the domain) and
        ``predicted_held_out`` (share of their images predicted as any held-out class); ``chance``, ``chance_alone``;
        ``sd`` of ``held_out`` over ``seeds``; the ``held_out_classes`` that count (joined by ", ") and their number
        ``n_classes``. NaN marks own style of supervised models, and everything about held-out classes if there are
        none.

    Example:
        >>> accuracy_kinds(zero_shot_accuracy(clip, images, held_out=("axe", "lion")))
    """
    rows, by = accuracy if by else accuracy.assign(seed=0), [*by, "domain"]
    main = rows[rows["classifier"].isin([classifier, SUPERVISED])]
    held = main[~main["part"].isin(CLASS_PARTS)]
    own = rows[(rows["classifier"] == OWN_STYLE) & ~rows["part"].isin(CLASS_PARTS)]

    def mean(of: pd.DataFrame, measure: str, column: str = "value") -> "pd.Series[float]":
        return of[of["measure"] == measure].groupby([*by, "seed"], sort=False)[column].mean()

    table = pd.DataFrame(
        {
            "all": mean(main[main["part"] == "all"], MEASURE),
            "seen": mean(main[main["part"] == "seen"], MEASURE),
            "held_out": mean(held, MEASURE),
            "alone": mean(held, AMONG_PART),
            "own_style": mean(own, MEASURE),
            "centred": mean(held, CENTRED),
            "predicted_held_out": mean(held, FALLS_ON_HELD_OUT),
            "chance": mean(main, MEASURE, "chance"),
            "chance_alone": mean(held, AMONG_PART, "chance"),
        }
    ).assign(harmonic_mean=lambda t: harmonic_mean(t["seen"], t["held_out"]))
    groups = table.groupby(by, sort=False)
    found = groups.mean().assign(sd=groups["held_out"].std(), seeds=groups.size())
    classes = held.groupby(by)["part"]
    names = classes.agg(lambda parts: ", ".join(sorted(set(parts))))
    found = found.assign(n_classes=classes.nunique(), held_out_classes=names)
    found = found.fillna({"n_classes": 0, "held_out_classes": ""}).astype({"n_classes": int}).reset_index()
    return found if len(by) > 1 else found.sort_values("domain", kind="stable", ignore_index=True)
