"""How accurate are the models of a study on classes that were held out? Tables over many runs, without torch.

The models never saw held-out classes in the test domain, so accuracy on these classes is compositional generalization.
Only seeds are averaged. Runs that differ in anything else have separate rows, or are refused.

The logit accuracy in the test domain, plotted against the logit accuracy on photographs, lies on a line for models that
were trained on photographs alone. The height of another model above this line is its effective robustness (Taori et al.
2020, arXiv 2007.00644).

Differences between settings answer the questions of `CONTRASTS`. An interval of the differences that lies below zero
answers No. Each difference is of accuracy on held-out classes in the test domain, in two ways: among all classes
(``held_out``), and among the held-out classes alone (``alone``). The latter does not depend on how readily a model
predicts a held-out class.
"""

from collections.abc import Sequence
from itertools import product

from circuitry.runs import InputError
from circuitry.comparison import mean_interval
from circuitry.reports import Finding, Report, with_intervals
from circuitry.training import (
    AMONG_GROUP,
    CLASS_GROUPS,
    CLASSIFIER,
    F1,
    FALSE_ALARMS,
    MEASURE,
    OWN_STYLE,
    SUPERVISED,
    accuracy_kinds,
)

import numpy as np
import pandas as pd

MODEL = ("trained", "model", "base", "sketches", "captions")
"""Columns that identify a kind of model, except its mixture of domains."""
# Panels and rows name a model in words; "none" alone would not say which column it is of.
_NONE = {"base": {"none": "no base set"}, "sketches": {"none": "no ImageNet-Sketch"}}
SETTING_ORDER = (
    "natural-only",
    "leave-out",
    "cg-low",
    "cg-high",
    "aligned",
    "class-interpolation",
    "domain-interpolation",
    "upper-low",
    "upper-high",
)
"""Settings in the order of figures, which is the order of rising diversity."""
COMPARED_MEASURES = (
    "top-1",
    "top-5",
    "balanced top-1",
    "balanced top-5",
    F1,
)
"""The study's measures of accuracy."""
# The upper bound saw the held-out classes in the test domain.
UPPER = "upper-high"
# A class counts if the upper bound comes this far from guessing to perfect accuracy on it.
SHARE = 0.25


def settings_table(
    evaluated: pd.DataFrame, classifier: str = CLASSIFIER, measure: str = MEASURE
) -> pd.DataFrame:
    """Return the accuracies of the last checkpoints, averaged over seeds.

    Returns:
        A row for each test domain, model, setting, domain and group of classes, with the columns mean, sd, seeds
        (their number) and values (the accuracy of each seed, as text).
    """
    rows = last_checkpoints(chosen_rows(evaluated, classifier, measure))
    by = ["test_domain", *MODEL, "setting", "held_out_classes", "domain", "group"]
    table = rows.groupby(by, sort=False)["value"].agg(
        mean="mean",
        sd="std",
        seeds="size",
        values=lambda v: " ".join(f"{x:.4f}" for x in v),
    )
    return _sorted(table.reset_index(), by)


def measures_table(evaluated: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `settings_table` for each classifier of CLIP models and each of `COMPARED_MEASURES`.

    Measures that were not evaluated are left out.
    """
    classifiers = sorted(set(evaluated["classifier"]) - {SUPERVISED, OWN_STYLE})
    measured = set(evaluated["measure"])
    tables = list[pd.DataFrame]()
    for classifier, measure in product(classifiers, COMPARED_MEASURES):
        if measure not in measured:
            continue
        table = settings_table(evaluated, classifier, measure).drop(columns="values")
        # Rows of single classes would make the table a hundred times as long.
        of_groups = table[table["group"].isin(CLASS_GROUPS)]
        tables.append(of_groups.assign(classifier=classifier, measure=measure))
    return pd.concat(tables, ignore_index=True)


def chosen_rows(evaluated: pd.DataFrame, classifier: str, measure: str) -> pd.DataFrame:
    """Return the rows of a measure, repeated as `by_test_domain` does; of CLIP models, the rows of a classifier.

    Raises:
        InputError: CLIP models or supervised models have no such rows.
    """
    chosen = evaluated[
        evaluated["classifier"].isin([classifier, SUPERVISED])
        & (evaluated["measure"] == measure)
    ]
    # A kind of model without such rows would vanish from the table without a word.
    if set(chosen["trained"]) != set(evaluated["trained"]):
        measures = ", ".join(sorted(set(evaluated["measure"])))
        classifiers = ", ".join(sorted(set(evaluated["classifier"])))
        raise InputError(
            f"The evaluation has no {measure!r} of {classifier!r}: choose {measures} of {classifiers}."
        )
    return by_test_domain(chosen)


def by_test_domain(evaluated: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each test domain; rows of models without a test domain (natural-only) are in all of them."""
    tested = sorted(set(evaluated["test_domain"]) - {""})
    if not tested:
        raise InputError(
            "At least one run needs a test domain, but none has one: add such runs."
        )
    tables = list[pd.DataFrame]()
    for name in tested:
        rows = evaluated[evaluated["test_domain"].isin(["", name])]
        tables.append(rows.assign(test_domain=name))
    return pd.concat(tables, ignore_index=True)


def last_checkpoints(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each run's last checkpoint.

    Raises:
        InputError: Runs of one kind of model, setting and test domain differ in more than the seed.
    """
    last = rows[rows["epoch"] == rows.groupby("run")["epoch"].transform("max")]
    by = [*MODEL, "setting", "test_domain", "held_out_classes"]
    # Each group is one row of a table: its mean is over seeds, so nothing else may differ.
    for _, group in last.drop_duplicates(["run", *by]).groupby(by, sort=False):
        for what in ("precision", "epoch"):
            unlike = group.drop_duplicates(what)[:2]
            if len(unlike) > 1:
                raise InputError(
                    f"Only seeds are averaged, but the runs {' and '.join(unlike['run'])} differ in their {what}, "
                    f"{' and '.join(map(str, unlike[what]))}: put them into separate folders."
                )
        if group["seed"].duplicated().any():
            names = ", ".join(group.loc[group["seed"].duplicated(keep=False), "run"])
            raise InputError(
                f"Runs of one setting, here {names}, have one seed each: put them into separate folders."
            )
    return last


def model_names(table: pd.DataFrame) -> "pd.Series[str]":
    """Return the name of the model of each row: the columns of `MODEL` in which models of the table differ.

    All names are empty if the table has one kind of model.
    """
    differing = [name for name in MODEL if name in table and table[name].nunique() > 1]
    # `agg` over no columns returns a table instead of a series.
    if not differing:
        return pd.Series("", index=table.index, dtype=str)
    return table[differing].replace(_NONE).agg(", ".join, axis=1)


def _sorted(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Sort a table by those of some columns that it has; settings by `SETTING_ORDER`."""
    # Settings are in the order of their diversity, not of the alphabet.
    place = table["setting"].map(lambda name: SETTING_ORDER.index(setting_family(name)))
    keys = ["place" if name == "setting" else name for name in by if name in table]
    return (
        table.assign(place=place)
        .sort_values(keys, kind="stable", ignore_index=True)
        .drop(columns="place")
    )


def setting_family(setting: str) -> str:
    """Return a setting of `SETTING_ORDER`, without the fraction and the domains that its name may end with."""
    return next(filter(setting.startswith, SETTING_ORDER), setting)


def screened_classes(evaluated: pd.DataFrame) -> pd.DataFrame:
    """Say which held-out classes the upper bound learns in the test domain.

    A class is kept if models that saw it in the test domain (`UPPER`) recognise it. That is, the accuracy on the class
    (``upper``) minus the share of images of other classes that are classified as this class (``false_alarms``) is at
    least `SHARE`, mean over seeds. The difference is 0 for a model that guesses, and for a model that always answers
    this class.

    Returns:
        A row for each test domain, kind of model and class: columns upper, false_alarms, kept.
    """
    by = ["test_domain", *MODEL, "class"]
    means = {}
    for column, measure in (("upper", MEASURE), ("false_alarms", FALSE_ALARMS)):
        rows = last_checkpoints(chosen_rows(evaluated, CLASSIFIER, measure))
        tested = rows["domain"] == rows["test_domain"]
        # The column ``group`` holds single classes beside the groups `CLASS_GROUPS`.
        single = ~rows["group"].isin(CLASS_GROUPS)
        of_class = rows[tested & single & (rows["setting"] == UPPER)]
        of_class = of_class.rename(columns={"group": "class"})
        means[column] = of_class.groupby(by, sort=True)["value"].mean()
    table = pd.DataFrame(means).reset_index()
    return table.assign(kept=table["upper"] - table["false_alarms"] >= SHARE)


def kinds_of_runs(
    evaluated: pd.DataFrame, screened: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return `accuracy_kinds` of the last checkpoints by test domain, `MODEL` and setting, over seeds.

    The accuracy on a held-out class is from the runs that held this class out. So if seeds hold out different sets of
    classes, every class counts once.

    Args:
        screened: Table of `screened_classes`: classes that it does not keep are left out (default: none are).
    """
    rows = counted_rows(evaluated, screened)
    by = ["test_domain", *MODEL, "setting"]
    return _sorted(accuracy_kinds(rows, CLASSIFIER, by), [*by, "domain"])


def counted_rows(
    evaluated: pd.DataFrame, screened: pd.DataFrame | None
) -> pd.DataFrame:
    """Return the rows of last checkpoints, without classes that the upper bound of their kind of model does not learn.

    A kind of model (`MODEL`) is judged by its own upper bound. If a kind has no upper bound, it is judged by the upper
    bounds of the kinds that differ from it in the fewest columns. So models of aligned captions are judged by models of
    standard captions, and a transformer may be judged by a ResNet.
    """
    rows = last_checkpoints(by_test_domain(evaluated))
    if screened is None or screened.empty:
        return rows
    kinds = rows[list(MODEL)].drop_duplicates()
    missed = pd.concat(
        [_missed_classes(screened, kind) for _, kind in kinds.iterrows()]
    )
    place = ["test_domain", *MODEL]
    # A left join marks the rows of missed classes, and leaves all rows in their order.
    marked = rows.merge(
        missed.assign(missed=True),
        how="left",
        left_on=[*place, "group"],
        right_on=[*place, "class"],
    )
    return marked[marked["missed"].isna()]


def _missed_classes(screened: pd.DataFrame, kind: "pd.Series[str]") -> pd.DataFrame:
    """Return the classes that do not count for a kind of model: columns test_domain, class and `MODEL`."""
    differing = screened[list(MODEL)].ne(kind).sum(axis=1)
    # Zero for the kind itself, where it has an upper bound in the test domain.
    nearest = differing == differing.groupby(screened["test_domain"]).transform("min")
    missed = screened.loc[nearest & ~screened["kept"], ["test_domain", "class"]]
    return missed.drop_duplicates().assign(**kind)


def check_like_classes(table: pd.DataFrame, apart: Sequence[str] = ()) -> None:
    """Refuse a table if rows that a figure compares count different held-out classes.

    Args:
        apart: Columns whose values a figure does not compare, because each value has a panel of its own.
    """
    rows = table[table["held_out_classes"].fillna("") != ""]
    for place, compared in rows.groupby(["test_domain", *apart], sort=False):
        counted = dict[str, set[str]]()
        for key, group in compared.groupby([*MODEL, "setting"], sort=False):
            # A row lists its classes in one text, and each seed may hold out other classes.
            listed = ", ".join(group["held_out_classes"])
            counted[", ".join(map(str, key))] = set(listed.split(", "))
        (first, classes), *others = counted.items()
        for name, theirs in others:
            unlike = classes ^ theirs
            if unlike:
                raise InputError(
                    f"A figure compares rows that count the same held-out classes, but in {place[0]} the rows of "
                    f"({first}) and ({name}) differ in {', '.join(sorted(unlike))}: draw them separately."
                )


# Values of the column ``line``, which figures write into panels without a line.
FITTED = "fitted"
NO_MODELS = "undefined: there are no models trained on photographs alone"
ONE_POINT = (
    "undefined: models trained on photographs alone are all equally good on photographs"
)
NOTHING = "undefined: models trained on photographs alone do not exceed guessing here"


def logit(
    accuracy: "pd.Series[float]", n_images: "pd.Series[int] | float"
) -> "pd.Series[float]":
    """Return the log odds of accuracies.

    The log odds of the accuracies 0 and 1 are infinite, so these accuracies are moved inwards by half an image.
    """
    inside = accuracy.clip(0.5 / n_images, 1 - 0.5 / n_images)
    return (inside / (1 - inside)).map(np.log)


def effective_robustness(
    evaluated: pd.DataFrame, natural: str = "real"
) -> pd.DataFrame:
    """Return accuracy on held-out classes in the test domain and in the natural one, for every checkpoint.

    For each test domain and kind of model, a line is fitted by least squares to the `logit` accuracies of models that
    were trained on photographs alone.

    Returns:
        A row for each checkpoint. ``natural`` and ``test`` are its accuracies, ``expected`` is the accuracy on the
        line, ``effective`` is test - expected. ``line`` is `FITTED`, or says why there is no line; then ``expected``
        and ``effective`` are NaN. ``photographs`` is the name of the natural domain.
    """
    rows = chosen_rows(evaluated, CLASSIFIER, MEASURE)
    rows = rows[rows["group"] == "held-out"]
    rows = rows.rename(columns={"value": "accuracy", "n_images": "n"})
    keys = [
        "test_domain",
        *MODEL,
        "setting",
        "held_out_classes",
        "run",
        "seed",
        "epoch",
    ]
    photographs = rows[rows["domain"] == natural]
    tested = rows[rows["domain"] == rows["test_domain"]]
    table = photographs.merge(tested, on=keys, suffixes=("_natural", "_test"))
    if table.empty:
        raise InputError(
            f"Effective robustness needs runs with held-out classes that classified images of their test domain and of "
            f"{natural!r}, but there are none: evaluate such runs, or name another natural domain."
        )
    names = {"accuracy_natural": "natural", "accuracy_test": "test"}
    table = table.rename(columns=names)
    x = logit(table["natural"], table["n_natural"])
    y = logit(table["test"], table["n_test"])
    table = table.assign(line=FITTED, expected=np.nan, photographs=natural)
    for _, group in table.groupby(["test_domain", *MODEL]):
        # The line goes through models of photographs alone; all other models lie above or below it.
        line = group.index[group["setting"] == "natural-only"]
        reason = _undefined(group.loc[line])
        if reason is not None:
            table.loc[group.index, "line"] = reason
        else:
            slope, offset = np.polyfit(x[line], y[line], 1)
            # The inverse of `logit` leads back from the line to an accuracy.
            expected = 1 / (1 + np.exp(-(slope * x[group.index] + offset)))
            table.loc[group.index, "expected"] = expected
    table["effective"] = table["test"] - table["expected"]
    values = ["natural", "test", "line", "expected", "effective"]
    return table[[*keys, *values, "n_natural", "n_test", "photographs"]]


def _undefined(reference: pd.DataFrame) -> str | None:
    """Return the reason why no line can be fitted to the reference models; None if a line can be fitted."""
    if reference.empty:
        return NO_MODELS
    # A line through models that guess would be a line of noise.
    if (reference["test"] <= reference["chance_test"]).all():
        return NOTHING
    # Points above each other have no slope.
    return ONE_POINT if reference["natural"].nunique() == 1 else None


CONTRASTS = {
    ("cg-high", "cg-low"): "Do further domains help where the classes are held out?",
    ("leave-out", "natural-only"): "Do other domains help in one that was never seen?",
    (
        "leave-out",
        "cg-high",
    ): "Is a domain that was never seen easier than one that lacks the classes?",
    (UPPER, "cg-high"): "Does seeing the classes in the domain reach more?",
}
"""Takes two settings. Returns the question that the accuracy of the first minus that of the second answers."""


def paired_differences(
    evaluated: pd.DataFrame, screened: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return the differences of `CONTRASTS` for every test domain and kind of model that has both settings.

    A difference is the accuracy of ``setting`` minus the accuracy of ``minus``, mean over classes and seeds, with
    Student's 95 % interval over classes.

    Returns:
        Columns test_domain, `MODEL`, setting, minus, measure (``held_out``: among all classes, ``alone``: among
        held-out classes), difference, low, high, n_classes, n_seeds.
    """
    rows = counted_rows(evaluated, screened)
    clip_or_supervised = rows["classifier"].isin([CLASSIFIER, SUPERVISED])
    single = ~rows["group"].isin(CLASS_GROUPS)
    tested = rows["domain"] == rows["test_domain"]
    rows = rows[clip_or_supervised & single & tested]
    measures = {"held_out": MEASURE, "alone": AMONG_GROUP}
    table = list[tuple[object, ...]]()
    for key, group in rows.groupby(["test_domain", *MODEL], sort=False):
        for name, measure in measures.items():
            # A row for each class and seed, so that a subtraction pairs settings.
            wide = group[group["measure"] == measure].pivot_table(
                index=["group", "seed"], columns="setting", values="value"
            )
            for setting, other in CONTRASTS:
                if not {setting, other} <= {*wide}:
                    continue
                pairs = (wide[setting] - wide[other]).dropna()
                if pairs.empty:
                    continue
                classes = pairs.index.get_level_values("group")
                n_seeds = pairs.index.get_level_values("seed").nunique()
                # Seeds of one class are no independent values: their mean counts as one value.
                interval = mean_interval(pairs.to_numpy(), list(classes))
                sizes = (classes.nunique(), n_seeds)
                table.append((*key, setting, other, name, *interval, *sizes))
    values = ("difference", "low", "high", "n_classes", "n_seeds")
    return pd.DataFrame(
        table, columns=["test_domain", *MODEL, "setting", "minus", "measure", *values]
    )


def difference_findings(differences: pd.DataFrame) -> list[Finding]:
    """Answer the question of each contrast for every kind of model, by accuracy among the held-out classes alone.

    Yes: the intervals of all test domains lie above zero. No: all lie below zero. Partly: some lie above or below.
    """
    findings = list[Finding]()
    alone = differences[differences["measure"] == "alone"]
    points = 100 * alone[["difference", "low", "high"]]
    said = with_intervals(points, "+.1f", "difference")
    alone = alone.assign(name=model_names(alone), said=said)
    for (setting, other), question in CONTRASTS.items():
        rows = alone[(alone["setting"] == setting) & (alone["minus"] == other)]
        for name, group in rows.groupby("name", sort=False):
            above = int((group["low"] > 0).sum())
            below = int((group["high"] < 0).sum())
            # An interval that holds zero is no evidence for a "No".
            if above == len(group):
                answer = "Yes"
            elif below == len(group):
                answer = "No"
            elif above or below:
                answer = "Partly"
            else:
                answer = "Cannot be told"
            each = ", ".join(group["said"] + " in " + group["test_domain"])
            # The name is empty if there is one kind of model.
            model = f" ({name!s})" if name else ""
            findings.append(
                Finding(
                    f"{question} {answer}{model}: {setting} minus {other}, points of accuracy: {each}.",
                    f"Among held-out classes alone; {above} of {len(group)} intervals over classes lie above zero, "
                    f"{below} below; paired by class and seed, {group['n_seeds'].max()} seeds.",
                    "Another sign among all classes, which also depends on how readily a held-out class is predicted.",
                )
            )
    return findings


def add_differences(report: Report, differences: pd.DataFrame) -> None:
    """Add the section with the table of `paired_differences`."""
    report.section("Differences between settings")
    # Columns in which no two models differ would only take room.
    alike = [name for name in MODEL if differences[name].nunique() < 2]
    report.table(
        differences.drop(columns=alike),
        "Accuracy on held-out classes in the test domain, setting minus the other; 95 % intervals.",
    )
