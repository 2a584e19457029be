"""The study's claims in order, as predictions about the toy's models that could fail.

A claim has one or more measures. A measure is a table of differences between trained models, or within them: columns
model, test_domain, seed, value. `judged` takes their mean with Student's 95 % interval over models; models of one
architecture and seed count as one. Models of several seeds may hold out the same classes, so beside it stands the mean
over held-out sets, each with the mean of its models: the least that could be drawn again. A claim is *borne out* if the
interval of its first measure lies on the predicted side of zero, *refuted* if it lies on the other, else it *cannot be
told*. What is predicted, and what would refute it, was written before the models were trained.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from circuitry.comparison import holm, mean_interval, sign_flip_p
from experiments.study.run_tables import UPPER, setting_family
from experiments.study.sharing import LABEL_FREE, SHARED, WHOLE, Measured

import numpy as np
import pandas as pd

BORNE_OUT, REFUTED, OPEN = "borne out", "refuted", "cannot be told"
KINDS = {"held_out": "among all classes", "alone": "among held-out classes alone"}
"""Accuracies on held-out classes in the test domain."""
QUICKDRAW = "quickdraw"
UNIT = ["model", "test_domain", "seed"]
ALL_MODELS, BY_SET = "all", "by held-out set"
"""Rows of `judged`: over all models, and over the sets of held-out classes."""


class Measure(NamedTuple):
    """One number that a claim is about."""

    name: str
    sign: int
    """1 where the claim predicts a value above zero, -1 below."""
    values: Callable[[Measured], pd.DataFrame]
    margin: float = 0.0
    """A value on the other side that is no larger than this does not count against the claim."""


class Claim(NamedTuple):
    """One of the study's claims, as a question that it answers by yes."""

    name: str
    question: str
    predicts: str
    refuted_by: str
    measures: tuple[Measure, ...]


def between(
    setting: str, other: str, column: str
) -> Callable[[Measured], pd.DataFrame]:
    """Return the difference of two settings in a column of points, by model, test domain and seed."""

    def values(found: Measured) -> pd.DataFrame:
        points = found.points.assign(family=found.points["setting"].map(setting_family))
        wide = points.pivot_table(index=UNIT, columns="family", values=column)
        wide = wide.reindex(columns=sorted({*wide.columns, setting, other}))
        return (wide[setting] - wide[other]).dropna().rename("value").reset_index()

    return values


def gap_beyond(column: str) -> Callable[[Measured], pd.DataFrame]:
    """Return how much farther the upper bound is from cg-high in quickdraw than in the other test domains."""

    def values(found: Measured) -> pd.DataFrame:
        gaps = between(UPPER, "cg-high", column)(found)
        wide = gaps.pivot(
            index=["model", "seed"], columns="test_domain", values="value"
        )
        others = wide.drop(columns=QUICKDRAW, errors="ignore")
        if QUICKDRAW not in wide or others.empty:
            return gaps.iloc[:0]
        beyond = (
            (wide[QUICKDRAW] - others.mean(axis=1))
            .dropna()
            .rename("value")
            .reset_index()
        )
        return beyond.assign(test_domain=QUICKDRAW)

    return values


def beside_others(
    what: str, site: str | None = WHOLE
) -> Callable[[Measured], pd.DataFrame]:
    """Return what quickdraw shares less the mean of the other domains, in models that saw all domains.

    These are of cg-high with quickdraw as test domain. Without a site: of the mean over sites.
    """

    def values(found: Measured) -> pd.DataFrame:
        points = found.points[
            (found.points["setting"] == "cg-high")
            & (found.points["test_domain"] == QUICKDRAW)
        ]
        shared = found.shared[
            (found.shared["what"] == what) & (found.shared["test_domain"] == QUICKDRAW)
        ]
        at = (
            shared[shared["site"] == site]
            if site is not None
            else shared[shared["site"] != WHOLE]
        )
        wide = at.pivot_table(index="run", columns="domain", values="value")
        if QUICKDRAW not in wide:
            return points[UNIT].assign(value=np.nan).iloc[:0]
        beside = (wide[QUICKDRAW] - wide.drop(columns=QUICKDRAW).mean(axis=1)).rename(
            "value"
        )
        return points.merge(beside, left_on="run", right_index=True)[
            [*UNIT, "value"]
        ].dropna()

    return values


def of_points(column: str, *settings: str) -> Callable[[Measured], pd.DataFrame]:
    """Return a column of points of some settings as it is."""

    def values(found: Measured) -> pd.DataFrame:
        points = found.points[
            found.points["setting"].map(setting_family).isin(settings)
        ]
        return points[[*UNIT, column]].dropna().rename(columns={column: "value"})

    return values


def _accuracies(
    setting: str, other: str, sign: int = 1, margin: float = 0.0
) -> tuple[Measure, ...]:
    return tuple(
        Measure(
            f"{setting} minus {other}, {told}",
            sign,
            between(setting, other, kind),
            margin,
        )
        for kind, told in KINDS.items()
    )


def _beside(*whats: str, sign: int = -1) -> tuple[Measure, ...]:
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


def judged(found: Measured) -> pd.DataFrame:
    """Return rows for each measure of each claim: over all models, for each architecture, and over held-out sets.

    Returns:
        Columns claim, measure, models (`ALL_MODELS`, an architecture where there are several, `BY_SET`), sign, value,
        low, high, p (signs of the means of what is independent exchanged), p_holm (over the first measures of all
        models), n_models, n_independent, share (on the predicted side, of models or sets), verdict.
    """
    held_out = found.points.drop_duplicates(UNIT).set_index(UNIT)["held_out_classes"]
    rows = []
    for claim in CLAIMS:
        for place, measure in enumerate(claim.measures):
            values = measure.values(found).join(held_out, on=UNIT)
            for models, numbers, independent in _groups(values):
                about = {
                    "claim": claim.name,
                    "measure": measure.name,
                    "first": place == 0,
                    "models": models,
                }
                rows.append(
                    about
                    | _evidence(measure, numbers, independent)
                    | {"n_models": len(_of(values, models))}
                )
    table = pd.DataFrame(rows)
    told = table["first"] & (table["models"] == ALL_MODELS)
    return table.assign(p_holm=holm(table["p"].where(told))).drop(columns="first")


def _of(values: pd.DataFrame, models: str) -> pd.DataFrame:
    """Return the values of an architecture, or all."""
    return (
        values if models in (ALL_MODELS, BY_SET) else values[values["model"] == models]
    )


def _groups(values: pd.DataFrame) -> Iterator[tuple[str, np.ndarray, list[str]]]:
    """Yield which models are taken, their numbers, and for each number what it is of that is independent."""
    architectures = sorted(set(values["model"]))
    for models in (ALL_MODELS, *(architectures if len(architectures) > 1 else [])):
        taken = _of(values, models)
        yield (
            models,
            taken["value"].to_numpy(dtype=float),
            (taken["model"] + " " + taken["seed"].astype(str)).tolist(),
        )
    sets = values.groupby("held_out_classes")["value"].mean()
    yield BY_SET, sets.to_numpy(dtype=float), list(map(str, sets.index))


def _evidence(
    measure: Measure, numbers: np.ndarray, independent: list[str]
) -> dict[str, object]:
    """Return the mean of numbers with its interval, and what it says of the claim."""
    value, low, high = mean_interval(numbers, independent)
    means = pd.Series(numbers).groupby(independent).mean().to_numpy(dtype=float)
    return {
        "sign": measure.sign,
        "value": value,
        "low": low,
        "high": high,
        "p": sign_flip_p(means) if len(means) else np.nan,
        "n_independent": len(means),
        "share": float((measure.sign * numbers > 0).mean()) if len(numbers) else np.nan,
        "verdict": _verdict(measure, low, high),
    }


def _verdict(measure: Measure, low: float, high: float) -> str:
    """Return what the interval of a measure says of its claim."""
    lower, upper = sorted((measure.sign * low, measure.sign * high))
    return BORNE_OUT if lower > -measure.margin else REFUTED if upper < 0 else OPEN
