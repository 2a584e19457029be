"""Do the study's claims hold for the toy's models? The claims in their order, as predictions that could fail.

A claim has one or more measures. A measure is a table of differences between trained models, or within a model: columns
model, test_domain, seed, value. `judged` computes the mean of the values with Student's 95 % interval over models.
Models of one architecture and seed count as one model. Models of several seeds may hold out the same classes. So
`judged` also computes the mean over held-out sets, in which each set counts once with the mean of its models.

A claim is *borne out* if the interval of its first measure lies on the predicted side of zero. It is *refuted* if the
interval lies on the other side. Otherwise it *cannot be told*. The predictions, and the results that would refute them,
were written before the models were trained.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from circuitry.comparison import holm, mean_interval, sign_flip_p
from experiments.study.claims import WHOLE
from experiments.study.run_tables import UPPER, setting_family
from experiments.study.sharing import LABEL_FREE, SHARED, Measured

import numpy as np
import pandas as pd

BORNE_OUT = "borne out"
REFUTED = "refuted"
OPEN = "cannot be told"
KINDS = {"held_out": "among all classes", "alone": "among held-out classes alone"}
"""Accuracies on held-out classes in the test domain."""
QUICKDRAW = "quickdraw"
UNIT = ["model", "test_domain", "seed"]
"""Columns that identify a value of a measure."""
ALL_MODELS = "all"
"""Name of the rows of `judged` over all models."""
BY_SET = "by held-out set"
"""Name of the rows of `judged` over the sets of held-out classes."""


class Measure(NamedTuple):
    """A number about which a claim predicts the sign."""

    name: str
    sign: int
    """1 if the claim predicts a value above zero, -1 if it predicts a value below zero."""
    values: Callable[[Measured], pd.DataFrame]
    """Function that computes the values: columns `UNIT` and value."""
    margin: float = 0.0
    """A value on the other side of zero does not count against the claim unless it is larger than the margin."""


class Claim(NamedTuple):
    """A claim of the study, as a question to which the study answers yes."""

    name: str
    question: str
    predicts: str
    refuted_by: str
    measures: tuple[Measure, ...]


def between(
    setting: str, other: str, column: str
) -> Callable[[Measured], pd.DataFrame]:
    """Return a function that subtracts the ``other`` setting from a setting, in a column of the points."""

    def values(measurements: Measured) -> pd.DataFrame:
        points = measurements.points
        family = points["setting"].map(setting_family)
        wide = points.assign(family=family).pivot_table(column, UNIT, "family")
        # A study without one of the settings has no values.
        wide = wide.reindex(columns=[setting, other])
        return (wide[setting] - wide[other]).dropna().rename("value").reset_index()

    return values


def gap_beyond(column: str) -> Callable[[Measured], pd.DataFrame]:
    """Return a function that computes how much larger the gap below the upper bound is in quickdraw.

    The gap is the upper bound minus cg-high. The mean gap in all other test domains is subtracted from the gap in
    quickdraw.
    """

    def values(measurements: Measured) -> pd.DataFrame:
        gaps = between(UPPER, "cg-high", column)(measurements)
        wide = gaps.pivot(
            index=["model", "seed"], columns="test_domain", values="value"
        )
        others = wide.drop(columns=QUICKDRAW, errors="ignore")
        # An architecture that is tested in quickdraw alone has nothing to compare with.
        if QUICKDRAW not in wide or others.empty:
            return gaps.iloc[:0]
        beyond = (wide[QUICKDRAW] - others.mean(axis=1)).dropna().rename("value")
        return beyond.reset_index().assign(test_domain=QUICKDRAW)

    return values


def beside_others(
    what: str, site: str | None = WHOLE
) -> Callable[[Measured], pd.DataFrame]:
    """Return a function that computes how much more quickdraw shares than the other domains do on average.

    The models are of the setting cg-high with quickdraw as test domain: they saw all domains.

    Args:
        what: A measure of `SHARED` or `LABEL_FREE`.
        site: Site of the numbers; `None` takes the mean over sites.
    """

    def values(measurements: Measured) -> pd.DataFrame:
        points = measurements.points
        points = points[
            (points["setting"] == "cg-high") & (points["test_domain"] == QUICKDRAW)
        ]
        rows = measurements.shared
        rows = rows[(rows["what"] == what) & (rows["test_domain"] == QUICKDRAW)]
        at = rows["site"] == site
        if site is None:
            at = rows["site"] != WHOLE
        # `pivot_table` averages over these sites.
        wide = rows[at].pivot_table(index="run", columns="domain", values="value")
        if QUICKDRAW not in wide:
            return points[UNIT].assign(value=np.nan).iloc[:0]
        others = wide.drop(columns=QUICKDRAW).mean(axis=1)
        beside = (wide[QUICKDRAW] - others).rename("value")
        table = points.merge(beside, left_on="run", right_index=True)
        return table[[*UNIT, "value"]].dropna()

    return values


def of_points(column: str, *settings: str) -> Callable[[Measured], pd.DataFrame]:
    """Return a function that takes the values of a column of the points, for some settings."""

    def values(measurements: Measured) -> pd.DataFrame:
        family = measurements.points["setting"].map(setting_family)
        points = measurements.points[family.isin(settings)]
        return points[[*UNIT, column]].dropna().rename(columns={column: "value"})

    return values


def _accuracies(
    setting: str, other: str, sign: int = 1, margin: float = 0.0
) -> tuple[Measure, ...]:
    """Return the difference of two settings in each of the accuracies `KINDS`."""
    measures = list[Measure]()
    for kind, words in KINDS.items():
        name = f"{setting} minus {other}, {words}"
        values = between(setting, other, kind)
        measures.append(Measure(name, sign, values, margin))
    return tuple(measures)


def _beside(*whats: str, sign: int = -1) -> tuple[Measure, ...]:
    """Return what quickdraw shares minus what the other domains share, by some measures of the whole model."""
    names = SHARED | LABEL_FREE
    return tuple(
        Measure(f"{names[what]}, quickdraw minus the others", sign, beside_others(what))
        for what in whats
    )


CLAIMS = (
    Claim(
        "diversity",
        "Does domain diversity drive robustness?",
        "cg-high (all domains) is above cg-low (photographs and the test domain).",
        "cg-high below cg-low.",
        _accuracies("cg-high", "cg-low"),
    ),
    Claim(
        "unseen-domain",
        "Do other domains help in a domain that was never seen?",
        "leave-out (all domains but the test domain) is above natural-only (photographs).",
        "leave-out below natural-only.",
        _accuracies("leave-out", "natural-only"),
    ),
    Claim(
        "leave-out",
        "Is a domain that was never seen easier than one that lacks the classes?",
        "leave-out is above cg-high.",
        "leave-out below cg-high.",
        _accuracies("leave-out", "cg-high"),
    ),
    Claim(
        "class-interpolation",
        "Does each held-out class that is seen in the test domain help?",
        "A quarter of the images of the held-out classes lies above none (cg-high).",
        "A quarter below none.",
        (
            *_accuracies("class-interpolation", "cg-high"),
            *_accuracies(UPPER, "class-interpolation"),
        ),
    ),
    Claim(
        "domain-interpolation",
        "Does each further domain help?",
        "Two further domains lie above none (cg-low), and four (cg-high) above two.",
        "Two below none.",
        (
            *_accuracies("domain-interpolation", "cg-low"),
            *_accuracies("cg-high", "domain-interpolation"),
        ),
    ),
    Claim(
        "quickdraw",
        "Is quickdraw the exception, where the upper bound stays far away?",
        "The upper bound is farther above cg-high in quickdraw than in sketch.",
        "It is nearer in quickdraw.",
        tuple(
            Measure(f"gap in quickdraw minus in sketch, {told}", 1, gap_beyond(kind))
            for kind, told in KINDS.items()
        ),
    ),
    Claim(
        "embeddings",
        "Does quickdraw lie apart in the embedding space?",
        "Its distance to the other domains is above the mean distance of these.",
        "It lies nearer than they do.",
        _beside("distance", sign=1),
    ),
    Claim(
        "alignment",
        "Do captions without style words bring quickdraw closer?",
        "Its distance to the others falls from cg-high to aligned.",
        "It rises.",
        (
            Measure(
                "distance, aligned minus cg-high",
                -1,
                between("aligned", "cg-high", "distance"),
            ),
        ),
    ),
    Claim(
        "alignment-accuracy",
        "Does alignment of domains bring no generalization?",
        "Accuracy on held-out classes rises by less than five points from cg-high to aligned.",
        "It rises.",
        _accuracies("aligned", "cg-high", -1, margin=0.05),
    ),
    Claim(
        "features",
        "Does quickdraw share the fewest features?",
        "It shares fewer of an autoencoder's features with the others than these do.",
        "It shares more.",
        _beside("features"),
    ),
    Claim(
        "cka",
        "Are representations of quickdraw the least similar?",
        "Its CKA with the others is below theirs at the last site, on held-out classes.",
        "It is above.",
        (
            *_beside("cka"),
            Measure(
                "CKA, mean over sites, quickdraw minus the others",
                -1,
                beside_others("cka", None),
            ),
        ),
    ),
    Claim(
        "units",
        "Do circuits of quickdraw share the fewest units with others?",
        "Its node overlap with the others is below theirs.",
        "It is above.",
        _beside("overlap", "ratio"),
    ),
    Claim(
        "edges",
        "Do circuits of quickdraw share the fewest edges?",
        "Scores of its edges correlate less with those of the others.",
        "They correlate more.",
        _beside("shift", "edges"),
    ),
    Claim(
        "transfer",
        "Do circuits of other domains do less in quickdraw?",
        "They keep fewer of its answers than they do elsewhere.",
        "They keep more.",
        _beside("transfer"),
    ),
    Claim(
        "own-part",
        "Does a model use the part of a held-out class in the test domain that it uses elsewhere?",
        "Without the parts of other domains it loses more of these answers than without random units.",
        "It loses no more.",
        (
            Measure(
                "answers lost, part minus random",
                1,
                of_points("lesion", "leave-out", "cg-low", "cg-high"),
            ),
            Measure(
                "overlap of parts above chance",
                1,
                of_points("part", "leave-out", "cg-low", "cg-high"),
            ),
        ),
    ),
)


def judged(measurements: Measured) -> pd.DataFrame:
    """Judge each measure of each claim: over all models, over each architecture, and over held-out sets.

    Returns:
        Columns claim, measure, models (`ALL_MODELS`, an architecture if there are several, `BY_SET`), sign, value,
        low, high, p (by exchanging the signs of independent means), p_holm (corrected for the first measures of all
        claims over all models), n_models, n_independent, share (of the models or sets that lie on the predicted side),
        verdict.
    """
    models_once = measurements.points.drop_duplicates(UNIT)
    held_out = models_once.set_index(UNIT)["held_out_classes"]
    rows = []
    for claim in CLAIMS:
        for measure in claim.measures:
            values = measure.values(measurements).join(held_out, on=UNIT)
            for models, n_models, numbers, independent in _groups(values):
                about = {
                    "claim": claim.name,
                    "measure": measure.name,
                    "models": models,
                }
                evidence = _evidence(measure, numbers, independent)
                rows.append({**about, **evidence, "n_models": n_models})
    table = pd.DataFrame(rows)
    # Claims are judged by their first measure over all models, so only its p is corrected for the number of claims.
    first = ~table.duplicated(["claim", "models"])
    judging = first & (table["models"] == ALL_MODELS)
    return table.assign(p_holm=holm(table["p"].where(judging)))


def _groups(values: pd.DataFrame) -> Iterator[tuple[str, int, np.ndarray, list[str]]]:
    """Yield the groups of models whose values are averaged.

    Yields:
        The name of the group, the number of its models, its numbers, and for each number the name of the independent
        unit that the number is of: an architecture with a seed, or a held-out set.
    """
    groups = {ALL_MODELS: values}
    architectures = sorted(set(values["model"]))
    # The rows of a single architecture would repeat the rows of all models.
    if len(architectures) > 1:
        for name in architectures:
            groups[name] = values[values["model"] == name]
    for models, rows in groups.items():
        independent = rows["model"] + " " + rows["seed"].astype(str)
        numbers = rows["value"].to_numpy(dtype=float)
        yield models, len(rows), numbers, independent.tolist()
    sets = values.groupby("held_out_classes")["value"].mean()
    yield BY_SET, len(values), sets.to_numpy(dtype=float), list(map(str, sets.index))


def _evidence(
    measure: Measure, numbers: np.ndarray, independent: list[str]
) -> dict[str, object]:
    """Return the mean of the numbers of a measure with its interval, and the verdict on the claim."""
    value, low, high = mean_interval(numbers, independent)
    # Models of one architecture and seed are no independent evidence: each unit counts once.
    means = pd.Series(numbers).groupby(independent).mean().to_numpy(dtype=float)
    # A measure that no model has is unknown, and not zero.
    p = np.nan
    share = np.nan
    if len(numbers):
        p = sign_flip_p(means)
        share = float((measure.sign * numbers > 0).mean())
    return {
        "sign": measure.sign,
        "value": value,
        "low": low,
        "high": high,
        "p": p,
        "n_independent": len(means),
        "share": share,
        "verdict": _verdict(measure, low, high),
    }


def _verdict(measure: Measure, low: float, high: float) -> str:
    """Return the verdict on a claim from the interval of a measure; an unknown interval leaves the claim open."""
    lower, upper = sorted((measure.sign * low, measure.sign * high))
    if lower > -measure.margin:
        return BORNE_OUT
    return REFUTED if upper < 0 else OPEN
