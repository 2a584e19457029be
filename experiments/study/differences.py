"""Do the study's claims on generalization hold? Differences between settings, paired by class and seed. No torch.

1. Diversity helps: CG high above CG low, and leave-out above photographs alone.
2. An entirely unseen domain is sometimes easier than one that lacks the classes: leave-out above CG high.
3. Seeing the classes reaches more, most of all in quickdraw: the upper bound above CG high.

Each difference is of accuracy on held-out classes in the test domain, among all classes (``held_out``) and among the
held-out classes alone (``alone``), which does not depend on how readily a model predicts a held-out class.
"""

from circuitry.comparison import mean_interval
from circuitry.reports import Finding, Report
from circuitry.training import AMONG_PART, CLASS_PARTS, CLASSIFIER, MEASURE, SUPERVISED
from experiments.study.run_tables import MODEL, UPPER, by_test_domain, last_checkpoints, model_names, without_screened

import pandas as pd

CONTRASTS = {
    ("cg-high", "cg-low"): "Do further domains help where the classes are held out?",
    ("leave-out", "natural-only"): "Do other domains help in one that was never seen?",
    ("leave-out", "cg-high"): "Is a domain that was never seen easier than one that lacks the classes?",
    (UPPER, "cg-high"): "Does seeing the classes in the domain reach more?",
}
"""Settings that are compared, the first minus the second, and the question that this answers."""
MEASURES = {"held_out": MEASURE, "alone": AMONG_PART}
COLUMNS = (
    *("test_domain", *MODEL, "setting", "minus", "measure"),
    *("difference", "low", "high", "n_classes", "n_seeds"),
)


def paired_differences(
    evaluated: pd.DataFrame, classifier: str = CLASSIFIER, screened: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return the differences of `CONTRASTS` for every test domain and kind of model that has both settings.

    Args:
        evaluated: Table of `extract_accuracies`.
        classifier: Classifier of CLIP models.
        screened: Table of `screened_classes`; classes that some model does not keep are left out (default: all count).

    Returns:
        `COLUMNS`: the mean over classes and seeds of ``setting`` minus that of ``minus``, with Student's 95 % interval
        over classes.
    """
    rows = without_screened(last_checkpoints(by_test_domain(evaluated)), screened)
    of_classes = rows["classifier"].isin([classifier, SUPERVISED]) & ~rows["part"].isin(CLASS_PARTS)
    rows = rows[of_classes & (rows["domain"] == rows["test_domain"])]
    found = []
    for key, group in rows.groupby(["test_domain", *MODEL], sort=False):
        for name, measure in MEASURES.items():
            one = group[group["measure"] == measure]
            wide = one.pivot_table(index=["part", "seed"], columns="setting", values="value")
            for setting, other in (pair for pair in CONTRASTS if {*pair} <= {*wide}):
                pairs = (wide[setting] - wide[other]).dropna()
                if len(pairs):
                    classes, seeds = (pairs.index.get_level_values(level) for level in ("part", "seed"))
                    interval = mean_interval(pairs.to_numpy(), list(classes))
                    found.append((*key, setting, other, name, *interval, classes.nunique(), seeds.nunique()))
    return pd.DataFrame(found, columns=list(COLUMNS))


def difference_findings(differences: pd.DataFrame) -> list[Finding]:
    """Answer the question of each contrast for every kind of model, among the held-out classes alone."""
    found = []
    alone = differences[differences["measure"] == "alone"]
    alone = alone.assign(
        name=model_names(alone), said=with_intervals(100 * alone[["difference", "low", "high"]], "+.1f", "difference")
    )
    for (setting, other), question in CONTRASTS.items():
        rows = alone[(alone["setting"] == setting) & (alone["minus"] == other)]
        for name, group in rows.groupby("name", sort=False):
            above, below = int((group["low"] > 0).sum()), int((group["high"] < 0).sum())
            answer = "Partly" if above or below else "Cannot be told"
            answer = "Yes" if above == len(group) else "No" if below == len(group) else answer
            each = ", ".join(group["said"] + " in " + group["test_domain"])
            model = f" ({name!s})" if name else ""
            found.append(
                Finding(
                    f"{question} {answer}{model}: {setting} minus {other}, points of accuracy: {each}.",
                    f"Among held-out classes alone; {above} of {len(group)} intervals over classes lie above zero, "
                    f"{below} below; paired by class and seed, {group['n_seeds'].max()} seeds.",
                    "Another sign among all classes, which also depends on how readily a held-out class is predicted.",
                )
            )
    return found


def with_intervals(table: pd.DataFrame, spec: str, column: str) -> "pd.Series[str]":
    """Return ``value [low, high]`` of every row; only the value where the interval is unknown, a dash for neither."""
    rows = zip(table[column], table["low"], table["high"], strict=True)
    said = [
        "–" if pd.isna(value) else f"{value:{spec}}" + ("" if pd.isna(low) else f" [{low:{spec}}, {high:{spec}}]")
        for value, low, high in rows
    ]
    return pd.Series(said, table.index, dtype=object)


def add_differences(report: Report, differences: pd.DataFrame) -> None:
    """Add the table of differences."""
    report.section("Differences between settings")
    shown = differences.drop(columns=[name for name in MODEL if differences[name].nunique() < 2])
    report.table(
        shown, "Accuracy on held-out classes in the test domain, setting minus the other, with 95 % intervals."
    )
