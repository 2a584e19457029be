"""Tables of accuracies of many runs. No torch.

The models never saw held-out classes in the test domain, so accuracy on them is compositional generalization. Only
seeds are averaged; runs that differ in anything else have separate rows, or are refused.
"""

from collections.abc import Sequence

from circuitry.runs import InputError
from circuitry.comparison import check_table
from circuitry.training import CLASS_PARTS, CLASSIFIER, F1, FALSE_ALARMS, MEASURE, OWN_STYLE, SUPERVISED, accuracy_kinds

import pandas as pd

MODEL = ("trained", "model", "base", "sketches", "captions")
"""Columns that identify a kind of model, except its mixture of domains."""
EVALUATION_COLUMNS = (
    *("run", *MODEL, "precision", "setting", "test_domain", "held_out_classes", "seed", "epoch"),
    *("classifier", "domain", "part", "measure", "value", "chance"),
)
"""Needed columns of a table of evaluated runs."""
_NONE = {"base": {"none": "no base set"}, "sketches": {"none": "no ImageNet-Sketch"}}
_KEY = ("run", "held_out_classes", "epoch", "classifier", "domain", "part", "measure")
SETTING_ORDER = (
    *("natural-only", "leave-out", "cg-low", "cg-high", "aligned", "class-interpolation", "domain-interpolation"),
    *("upper-low", "upper-high"),
)
"""Settings by rising diversity, the order of figures; others come last."""
COMPARED_MEASURES = ("top-1", "top-5", "balanced top-1", "balanced top-5", F1)
"""The study's measures of accuracy."""
UPPER, SHARE = "upper-high", 0.25


def settings_table(evaluated: pd.DataFrame, classifier: str = CLASSIFIER, measure: str = MEASURE) -> pd.DataFrame:
    """Return the accuracies of the last checkpoints, by test domain, model and setting, over seeds.

    Args:
        evaluated: The table of `extract_accuracies`.
        classifier: Classifier of CLIP models, e.g. ``all templates``; supervised models have one.
        measure: Measure of `tidy_accuracy`.

    Returns:
        ``test_domain``, `MODEL`, ``setting``, ``held_out_classes``, ``domain``, ``part``, ``mean``, ``sd`` (NaN for one
        seed), ``seeds``, ``values`` (one per seed, as text), for all classified domains.

    Raises:
        InputError: For a classifier or measure without rows, and for runs of one row that differ in precision or
            epochs, or have the same seed.
    """
    rows = last_checkpoints(chosen_rows(evaluated, classifier, measure))
    by = ["test_domain", *MODEL, "setting", "held_out_classes", "domain", "part"]
    table = rows.groupby(by, sort=False)["value"].agg(
        mean="mean", sd="std", seeds="size", values=lambda v: " ".join(f"{x:.4f}" for x in v)
    )
    return _sorted(table.reset_index(), by)


def measures_table(evaluated: pd.DataFrame) -> pd.DataFrame:
    """Return `settings_table` for `COMPARED_MEASURES` and the study's two sets of templates, if they were measured.

    It has only whole parts, and the columns ``classifier`` and ``measure``.
    """
    found = []
    for classifier in sorted(set(evaluated["classifier"]) - {SUPERVISED, OWN_STYLE}):
        for measure in COMPARED_MEASURES:
            if measure in set(evaluated["measure"]):
                table = settings_table(evaluated, classifier, measure).drop(columns="values")
                found.append(table[table["part"].isin(CLASS_PARTS)].assign(classifier=classifier, measure=measure))
    return pd.concat(found, ignore_index=True)


def chosen_rows(evaluated: pd.DataFrame, classifier: str, measure: str) -> pd.DataFrame:
    """Return the rows of a measure and, for CLIP models, of a classifier; see `by_test_domain`.

    Raises:
        InputError: For a classifier or measure without rows.
    """
    check_table(evaluated, "evaluation", EVALUATION_COLUMNS, _KEY)
    known = evaluated["classifier"].isin([classifier, SUPERVISED]) & (evaluated["measure"] == measure)
    if set(evaluated.loc[known, "trained"]) != set(evaluated["trained"]):
        there = (", ".join(sorted(set(evaluated[column]))) for column in ("measure", "classifier"))
        raise InputError(f"The evaluation has no {measure!r} of {classifier!r}: choose {' of '.join(there)}.")
    return by_test_domain(evaluated[known])


def by_test_domain(evaluated: pd.DataFrame) -> pd.DataFrame:
    """Return rows by test domain; models that do not depend on it (natural-only) are repeated for each."""
    check_table(evaluated, "evaluation", EVALUATION_COLUMNS, _KEY)
    tested = sorted(set(evaluated["test_domain"]) - {""})
    if not tested:
        raise InputError("At least one run needs a test domain, but none has one: add such runs.")
    parts = [evaluated[evaluated["test_domain"].isin(["", name])].assign(test_domain=name) for name in tested]
    return pd.concat(parts, ignore_index=True)


def last_checkpoints(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each run's last checkpoint; InputError if runs of one row differ in more than the seed."""
    last = rows[rows["epoch"] == rows.groupby("run")["epoch"].transform("max")]
    by = [*MODEL, "setting", "test_domain", "held_out_classes"]
    for _, group in last.drop_duplicates(["run", *by]).groupby(by, sort=False):
        first = group.iloc[0]
        for other in group.iloc[1:].itertuples():
            for what in ("precision", "epoch"):
                if getattr(other, what) != first[what]:
                    raise InputError(
                        f"Only seeds are averaged, but the runs {first['run']} and {other.run} differ in their {what}, "
                        f"{first[what]} and {getattr(other, what)}: put them into separate folders."
                    )
        if group["seed"].duplicated().any():
            names = ", ".join(group.loc[group["seed"].duplicated(keep=False), "run"])
            raise InputError(
                f"Runs of one setting must differ in their seed, but {names} have the same seed: put them into "
                "separate folders."
            )
    return last


def model_names(table: pd.DataFrame) -> "pd.Series[str]":
    """Return for each row the name of its model among the models of the table; empty if there is one kind.

    Example:
        >>> model_names(accuracy_kinds(evaluated)).unique().tolist()
        ['CLIP, RN50, no base set', 'CLIP, ViT-S-32, no base set', 'CLIP, RN50, cc12m', 'supervised, RN50, no base set']
    """
    differing = [name for name in MODEL if name in table and table[name].nunique() > 1]
    empty = pd.Series("", index=table.index, dtype=str)
    return table[differing].replace(_NONE).agg(", ".join, axis=1) if differing else empty


def _sorted(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    def key(column: "pd.Series[str]") -> "pd.Series[str]":
        return column.map(_rank) if column.name == "setting" else column

    return table.sort_values([name for name in by if name in table], key=key, kind="stable", ignore_index=True)


def _rank(setting: str) -> int:
    family = setting_family(setting)
    return SETTING_ORDER.index(family) if family in SETTING_ORDER else len(SETTING_ORDER)


def setting_family(setting: str) -> str:
    """Return the setting without fraction and domains."""
    return next((known for known in SETTING_ORDER if setting.startswith(known)), setting)


def screened_classes(evaluated: pd.DataFrame, classifier: str = CLASSIFIER) -> pd.DataFrame:
    """Keep the held-out classes that the upper bound learns in the test domain.

    A class is kept if models that saw it in the test domain (`UPPER`) recognise it: accuracy on the class minus the
    share of other classes' images that are taken for it is at least `SHARE`, mean over seeds. Guessing gives 0, and so
    does a model that always answers this class. A class below that would be a zero in every setting.

    Args:
        evaluated: The table of `extract_accuracies`.
        classifier: Which of the classifiers of CLIP models.

    Returns:
        A row per test domain, model and class: `MODEL`, ``test_domain``, ``class``, ``upper`` (its accuracy),
        ``false_alarms``, ``kept``. Without models of the upper bound there are no rows.
    """
    by, found = ["test_domain", *MODEL, "class"], {}
    for column, measure in (("upper", MEASURE), ("false_alarms", FALSE_ALARMS)):
        rows = last_checkpoints(chosen_rows(evaluated, classifier, measure))
        tested = rows["domain"] == rows["test_domain"]
        rows = rows[tested & ~rows["part"].isin(CLASS_PARTS) & (rows["setting"] == UPPER)].rename(
            columns={"part": "class"}
        )
        found[column] = rows.groupby(by, sort=True)["value"].mean()
    table = pd.DataFrame(found).reset_index()
    return table.assign(kept=table["upper"] - table["false_alarms"] >= SHARE)


def kinds_of_runs(
    evaluated: pd.DataFrame,
    classifier: str = CLASSIFIER,
    screened: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return `accuracy_kinds` of the last checkpoints by test domain, `MODEL` and setting, over seeds.

    Each held-out class comes from the runs that held it out, so over rotated held-out sets every class counts once. A
    class that is screened out in a test domain counts for no model there, so that all rows of a test domain count the
    same classes.

    Args:
        evaluated: Table of `extract_accuracies`.
        classifier: Classifier of CLIP models.
        screened: Table of `screened_classes`; classes that some model does not keep are left out (default: all count).
    """
    rows = without_screened(last_checkpoints(by_test_domain(evaluated)), screened)
    by = ["test_domain", *MODEL, "setting"]
    return _sorted(accuracy_kinds(rows, classifier, by), [*by, "domain"])


def without_screened(rows: pd.DataFrame, screened: pd.DataFrame | None) -> pd.DataFrame:
    """Return the rows of classes that every screened model of the test domain keeps, and of those not screened."""
    if screened is None or screened.empty:
        return rows
    out = screened.loc[~screened["kept"], ["test_domain", "class"]].drop_duplicates()
    marked = rows.merge(out.assign(out=True), how="left", left_on=["test_domain", "part"], right_on=list(out))
    return marked[marked["out"].isna()]


def check_like_classes(table: pd.DataFrame) -> None:
    """Refuse rows that a figure would compare although they count other held-out classes.

    Args:
        table: Columns ``test_domain``, `MODEL`, ``setting`` and ``held_out_classes``; rows without held-out classes
            count none.

    Raises:
        InputError: With two settings or models of one test domain, and the classes that only one of them counts.
    """
    rows = table[table["held_out_classes"].fillna("") != ""]
    first: dict[str, tuple[str, set[str]]] = {}
    for key, group in rows.groupby(["test_domain", *MODEL, "setting"], sort=False):
        domain, *model = map(str, key)
        name = ", ".join(model)
        classes = {one for names in group["held_out_classes"] for one in str(names).split(", ")}
        other, theirs = first.setdefault(domain, (name, classes))
        if unlike := sorted(classes ^ theirs):
            raise InputError(
                f"A figure compares rows that count the same held-out classes, but in {domain} the rows of ({other}) "
                f"and ({name}) differ in {', '.join(unlike)}: draw them separately."
            )
