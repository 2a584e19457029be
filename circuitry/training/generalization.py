"""Did a model generalize? Accuracies of many runs side by side, and effective robustness. No torch.

Held-out classes were never seen in the test domain: accuracy on them is compositional generalization. Models trained on
photographs alone lie on a line of accuracy in the test domain against that on photographs, in logits; how far a model
lies above it is its effective robustness (Taori et al. 2020, arXiv 2007.00644).
"""

import numpy as np
import pandas as pd

from circuitry.comparison.table import check_table
from circuitry.runs.errors import InputError

COLUMNS = ("run", "setting", "test_domain", "seed", "epoch", "classifier", "domain", "part", "measure", "value")
"""What a table of evaluated runs has at least."""
MEASURE = "balanced top-1"
SETTINGS = (
    *("natural-only", "leave-out", "cg-low", "cg-high", "aligned", "class-interpolation", "domain-interpolation"),
    *("upper-low", "upper-high"),
)
"""Settings from little to much diversity, the order of figures; others come last."""


def settings_table(evaluated: pd.DataFrame, classifier: str, measure: str = MEASURE) -> pd.DataFrame:
    """Return the accuracies of the last checkpoints, by test domain and setting, over seeds.

    Args:
        evaluated: What `extract_accuracies` returns.
        classifier: Which of its classifiers, e.g. ``all templates``.
        measure: Which of its measures.

    Returns:
        ``test_domain``, ``setting``, ``domain``, ``part``, ``mean``, ``sd`` (NaN for one seed), ``seeds``, ``values``
        (one per seed, as text), for the test domain and the other domains that were classified.

    Raises:
        InputError: When there is nothing of this classifier and measure.
    """
    rows = _by_test_domain(evaluated, classifier, measure)
    last = rows[rows["epoch"] == rows.groupby("run")["epoch"].transform("max")]
    groups = last.groupby(["test_domain", "setting", "domain", "part"], sort=False)["value"]
    table = groups.agg(
        mean="mean", sd="std", seeds="size", values=lambda v: " ".join(f"{x:.4f}" for x in v)
    ).reset_index()
    return table.sort_values(
        ["test_domain", "setting", "domain", "part"],
        key=lambda column: column.map(_rank) if column.name == "setting" else column,
        ignore_index=True,
    )


def _rank(setting: str) -> int:
    return next((i for i, known in enumerate(SETTINGS) if setting.startswith(known)), len(SETTINGS))


def _by_test_domain(evaluated: pd.DataFrame, classifier: str, measure: str) -> pd.DataFrame:
    """Return the rows of a measure by test domain: of models that do not depend on it (natural-only) once for each."""
    check_table(evaluated, "evaluation", COLUMNS, ("run", "epoch", "classifier", "domain", "part", "measure"))
    rows = evaluated[(evaluated["classifier"] == classifier) & (evaluated["measure"] == measure)]
    if rows.empty:
        there = (", ".join(sorted(set(evaluated[column]))) for column in ("measure", "classifier"))
        raise InputError(f"The evaluation has no {measure!r} of {classifier!r}; it has {' of '.join(there)}.")
    tested = sorted(set(rows["test_domain"]) - {""})
    if not tested:
        raise InputError("None of the runs was trained for a test domain; add some that were.")
    parts = [rows[rows["test_domain"].isin(["", name])].assign(test_domain=name) for name in tested]
    return pd.concat(parts, ignore_index=True)


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
    classifier: str,
    *,
    part: str = "held-out",
    measure: str = MEASURE,
    natural: str = "real",
    reference: str = "natural-only",
) -> pd.DataFrame:
    """Return accuracy in the test domain against that in the natural one, for every checkpoint.

    The line through the ``reference`` models is fitted by least squares to `logit` of accuracies.

    Args:
        evaluated: What `extract_accuracies` returns.
        classifier, measure: Which of its numbers.
        part: ``held-out``, ``seen`` or ``all``.
        natural: Domain of photographs.
        reference: Setting whose models make the line.

    Returns:
        ``test_domain``, ``setting``, ``run``, ``seed``, ``epoch``; the accuracies ``natural`` and ``test``, and of how
        many images they are (``n_natural``, ``n_test``); ``expected`` on the line and ``effective`` = test - expected,
        NaN where there are not two different reference points.

    Raises:
        InputError: When there is nothing of this classifier, measure and part, or of the natural domain.
    """
    rows = _by_test_domain(evaluated, classifier, measure)
    keys = ["test_domain", "setting", "run", "seed", "epoch"]
    rows = rows[rows["part"] == part].rename(columns={"n_images": "n"})
    photographs, tested = rows["domain"] == natural, rows["domain"] == rows["test_domain"]
    columns = [*keys, "value", "n"]
    table = rows.loc[photographs, columns].merge(rows.loc[tested, columns], on=keys, suffixes=("_natural", "_test"))
    if table.empty:
        raise InputError(f"No run was classified both in its test domain and in {natural!r} for the part {part!r}.")
    table = table.rename(columns={"value_natural": "natural", "value_test": "test"})
    x, y = (logit(table[name], table[f"n_{name}"]) for name in ("natural", "test"))
    table["expected"] = np.nan
    for _, group in table.groupby("test_domain"):
        line = group.index[group["setting"] == reference]
        if x[line].nunique() > 1:
            slope, offset = np.polyfit(x[line], y[line], 1)
            table.loc[group.index, "expected"] = 1 / (1 + np.exp(-(slope * x[group.index] + offset)))
    table["effective"] = table["test"] - table["expected"]
    return table[[*keys, "natural", "test", "expected", "effective", "n_natural", "n_test"]]
