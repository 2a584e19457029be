"""Effective robustness: accuracy in the test domain beyond that expected from photographs. No torch.

Logit accuracies of models trained on photographs alone, in the test domain against photographs, lie on a line. The
height of another model above this line is its effective robustness (Taori et al. 2020, arXiv 2007.00644).
"""

from circuitry.runs import InputError
from circuitry.training import CLASSIFIER, MEASURE
from experiments.study.run_tables import MODEL, chosen_rows

import numpy as np
import pandas as pd

FITTED = "fitted"
NO_MODELS = "undefined: there are no models trained on photographs alone"
ONE_POINT = "undefined: models trained on photographs alone are all equally good on photographs"
NOTHING = "undefined: models trained on photographs alone do not exceed guessing here"


def logit(accuracy: "pd.Series[float]", n_images: "pd.Series[int] | float") -> "pd.Series[float]":
    """Return the log odds of accuracies; those of 0 and 1, whose logits are infinite, are moved in by half an image.

    Example:
        >>> logit(pd.Series([0.5, 1.0]), pd.Series([10, 10])).round(2).tolist()
        [0.0, 2.94]
    """
    inside = accuracy.clip(0.5 / n_images, 1 - 0.5 / n_images)
    return (inside / (1 - inside)).map(np.log)


def effective_robustness(
    evaluated: pd.DataFrame,
    classifier: str = CLASSIFIER,
    *,
    measure: str = MEASURE,
    natural: str = "real",
) -> pd.DataFrame:
    """Return accuracy on held-out classes in the test domain and in the natural one, for every checkpoint.

    A line is fitted by least squares to the `logit` accuracies of models trained on photographs alone, one for each
    test domain and kind of model. If none of these models exceeds guessing in the test domain, there is no line.

    Args:
        evaluated: The table of `extract_accuracies`.
        classifier, measure: Which of its numbers.
        natural: Domain of photographs.

    Returns:
        ``test_domain``, `MODEL`, ``setting``, ``held_out_classes``, ``run``, ``seed``, ``epoch``; the accuracies
        ``natural`` and ``test``, and their numbers of images (``n_natural``, ``n_test``); ``line``, ``fitted`` or why
        there is none; ``expected`` on the line and ``effective`` = test - expected, NaN without a line.

    Raises:
        InputError: For a classifier, measure or natural domain without rows.
    """
    rows = chosen_rows(evaluated, classifier, measure)
    keys = ["test_domain", *MODEL, "setting", "held_out_classes", "run", "seed", "epoch"]
    rows = rows[rows["part"] == "held-out"].rename(columns={"n_images": "n"})
    photographs, tested = rows["domain"] == natural, rows["domain"] == rows["test_domain"]
    columns = [*keys, "value", "n"]
    there = rows.loc[tested, [*columns, "chance"]]
    table = rows.loc[photographs, columns].merge(there, on=keys, suffixes=("_natural", "_test"))
    if table.empty:
        raise InputError(
            f"Effective robustness needs runs with held-out classes that classified images of their test domain and of "
            f"{natural!r}, but there are none: evaluate such runs, or name another natural domain."
        )
    table = table.rename(columns={"value_natural": "natural", "value_test": "test"})
    x, y = (logit(table[name], table[f"n_{name}"]) for name in ("natural", "test"))
    table = table.assign(line=FITTED, expected=np.nan)
    for _, group in table.groupby(["test_domain", *MODEL]):
        line = group.index[group["setting"] == "natural-only"]
        if reason := _undefined(group.loc[line]):
            table.loc[group.index, "line"] = reason
        else:
            slope, offset = np.polyfit(x[line], y[line], 1)
            table.loc[group.index, "expected"] = 1 / (1 + np.exp(-(slope * x[group.index] + offset)))
    table["effective"] = table["test"] - table["expected"]
    return table[[*keys, "natural", "test", "line", "expected", "effective", "n_natural", "n_test"]]


def _undefined(reference: pd.DataFrame) -> str | None:
    """Return why no line goes through the reference models, None where one does."""
    if reference.empty:
        return NO_MODELS
    if (reference["test"] <= reference["chance"]).all():
        return NOTHING
    return ONE_POINT if reference["natural"].nunique() == 1 else None
