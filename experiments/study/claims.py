"""How a list of claims is judged: measures of models, ways to count, estimator, interval, verdict.

`real_claims` and `style_claims` are the lists, each written before its models were measured.

1. A way to count (`Choices`) picks rows of the tables of all models; see `counted`.
2. A measure of a claim computes a value for each model, test domain, pair of held-out classes, and held-out class.
3. Values are averaged over all but the unit of independence, which is the pair. The estimate is the mean over pairs
   with Student's interval; p is by exchanging the signs of the means of pairs.
4. The interval gives the verdict on the claim in this way to count. Holm's method corrects p over the first measures
   of all claims, in the way that was written first.
5. A claim is a headline if it is decided, if the corrected p is small, and if the verdict is the same in all ways,
   of which there is at least one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from circuitry.comparison import holm, mean_interval, sign_flip_p
from circuitry.training import FALSE_ALARMS, MEASURE
from experiments.study.run_tables import UPPER

import numpy as np
import pandas as pd
from scipy import stats

BORNE_OUT = "borne out"
REFUTED = "refuted"
OPEN = "cannot be told"
AS_WRITTEN = "as written"
PAIR = "held_out"
TRAINED_WORDS = "trained words"
WHOLE = "whole"
"""Value of the column ``site`` for numbers of the whole model."""
SEEN = "seen"
"""Name of all seen classes in the column ``class``."""
LEARNED = 0.25
"""A held-out class is learned by an upper bound whose accuracy on it, less its false alarms, is at least this, mean
over seeds."""
LEVEL = 0.05
COMPOSITIONAL = (
    "natural-only",
    "leave-out",
    "cg-low",
    "cg-high",
    "aligned",
    "domain-interpolation",
)
"""Settings that never show a held-out class in the test domain."""
CASE = ["model", "test_domain", "seed", PAIR]
"""Columns that identify the models that a contrast compares."""


class Tables(NamedTuple):
    """The tables that all claims are computed from."""

    accuracies: pd.DataFrame
    """A row for each model, checkpoint, domain, class and measure: columns run, model, setting, test_domain, seed,
    held_out (the classes), epoch, texts, domain, class (a held-out class, or `SEEN`), measure (`MEASURE`,
    `AMONG_GROUP` or `FALSE_ALARMS`), value, chance, n_images. Settings are families (`setting_family`). A model that
    serves several test domains has rows for each."""
    shared: pd.DataFrame
    """What each domain of a model shares with all other domains: columns run, model, setting, test_domain, seed,
    held_out, what, site (`WHOLE` for numbers of the whole model), domain, value."""
    far: str
    """The domain furthest from all others, as quickdraw is in DomainNet."""


@dataclass(frozen=True)
class Choices:
    """One way to count. The defaults are the way that was written first."""

    among: str = MEASURE
    texts: str = TRAINED_WORDS
    learned_only: bool = False
    """Count only held-out classes that the upper bound of the same architecture learns in the test domain."""
    first_checkpoint: bool = False
    unit: str = PAIR
    """Column of the unit of independence: held_out, class or test_domain."""
    test_domain: str | None = None
    without_model: str | None = None
    instead: Mapping[str, str] | None = None
    """Measures of what is shared that take the place of others, by the name of the measure that a claim has."""
    shared_in: str | None = None
    """Setting whose models are asked what domains share (default: the setting of the claim)."""


class Measure(NamedTuple):
    """A number about which a claim predicts the sign."""

    name: str
    sign: int
    """1 if the claim predicts a value above zero, -1 if it predicts a value below zero."""
    values: Callable[["Counted"], pd.DataFrame]
    """Function that computes the values: columns `CASE`, value, and class for values of single classes."""
    margin: float = 0.0
    """A value on the other side of zero does not count against the claim unless it is larger than the margin."""
    of_accuracy: bool = True
    """Whether the values depend on the choices about accuracy."""
    what: str | None = None
    """The measure of what is shared."""
    shared_in: str | None = None
    """The setting whose models are asked what their domains share."""


class Claim(NamedTuple):
    """A claim of the study, as a question to which the study answers yes."""

    name: str
    question: str
    predicts: str
    refuted_by: str
    measures: tuple[Measure, ...]
    """The first measure judges the claim."""


class Counted(NamedTuple):
    """The numbers of all models, counted in one way."""

    accuracies: pd.DataFrame
    """Accuracies on held-out classes in the test domain: columns `CASE`, class, setting, value."""
    shared: pd.DataFrame
    """The table ``shared`` of `Tables`, where measures in place of others have their names."""
    far: str
    shared_in: str | None
    """The setting of `Choices`."""


def counted(tables: Tables, choices: Choices) -> Counted:
    """Count the numbers of all models in one way, except for the choice of a test domain."""
    chosen = accuracies(tables, choices)
    shared = tables.shared
    if choices.without_model is not None:
        chosen = chosen[chosen["model"] != choices.without_model]
        shared = shared[shared["model"] != choices.without_model]
    if choices.instead is not None:
        names = {new: old for old, new in choices.instead.items()}
        shared = shared[shared["what"].isin(names)]
        shared = shared.assign(what=shared["what"].map(names))
    return Counted(chosen, shared, tables.far, choices.shared_in)


def accuracies(tables: Tables, choices: Choices) -> pd.DataFrame:
    """Return accuracies on held-out classes in the test domain, by a way to count.

    Returns:
        Columns `CASE`, class, setting, value.
    """
    rows = tables.accuracies
    rows = rows[(rows["texts"] == choices.texts) & (rows["class"] != SEEN)]
    rows = rows[rows["domain"] == rows["test_domain"]]
    if choices.learned_only:
        rows = rows.merge(_learned(rows))
    rows = rows[(rows["measure"] == choices.among) & (rows["epoch"] > 0)]
    of_run = rows.groupby("run")["epoch"]
    epoch = of_run.transform("min" if choices.first_checkpoint else "max")
    rows = rows[rows["epoch"] == epoch]
    return rows[[*CASE, "class", "setting", "value"]]


def _learned(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the classes that upper bounds learn: columns model, test_domain, class."""
    by = ["model", "test_domain", "class"]
    last = rows["epoch"] == rows.groupby("run")["epoch"].transform("max")
    upper = rows[last & (rows["setting"] == UPPER)]
    means = upper.pivot_table(index=by, columns="measure", values="value")
    means = means.reindex(columns=[MEASURE, FALSE_ALARMS])
    learned = means[MEASURE] - means[FALSE_ALARMS] >= LEARNED
    return means[learned].reset_index()[by]


Values = Callable[[Counted], pd.DataFrame]


def between(setting: str, other: str) -> Values:
    """Return a function that subtracts the accuracies of another setting from those of a setting."""

    def values(numbers: Counted) -> pd.DataFrame:
        index = [*CASE, "class"]
        wide = numbers.accuracies.pivot_table("value", index, "setting")
        # A study without one of the settings has no values.
        wide = wide.reindex(columns=[setting, other])
        return (wide[setting] - wide[other]).dropna().rename("value").reset_index()

    return values


def shared_in_far(numbers: Counted, what: str) -> pd.DataFrame:
    """Return what each domain shares by a measure, in models whose test domain is the far domain.

    CKA is the mean over sites, all other measures are of the whole model.
    """
    rows = numbers.shared
    rows = rows[(rows["what"] == what) & (rows["test_domain"] == numbers.far)]
    whole = rows["site"] == WHOLE
    return rows[~whole] if what == "cka" else rows[whole]


def correlation(what: str) -> Values:
    """Return a function that correlates what the test domain shares with accuracy, within the models of a pair.

    The models are of `COMPOSITIONAL`. Ranks are taken among the models of one architecture, pair and test domain; the
    value is Spearman's correlation, if at least four models have both numbers.
    """

    def values(numbers: Counted) -> pd.DataFrame:
        by = [*CASE, "setting"]
        accuracy = numbers.accuracies.groupby(by)["value"].mean()
        rows = shared_in_far(numbers, what)
        rows = rows[rows["domain"] == numbers.far]
        shared = rows.groupby(by)["value"].mean()
        both = pd.DataFrame({"accuracy": accuracy, "shared": shared}).dropna()
        both = both[both.index.get_level_values("setting").isin(COMPOSITIONAL)]
        found = list[tuple[object, ...]]()
        for case, models in both.groupby(level=CASE):
            varies = (models.nunique() > 1).all()
            if len(models) >= 4 and varies:
                rho = stats.spearmanr(models["shared"], models["accuracy"]).statistic
                found.append((*case, float(rho)))
        return pd.DataFrame(found, columns=[*CASE, "value"])

    return values


def judged(
    tables: Tables,
    claims: Sequence[Claim],
    ways: Mapping[str, Choices],
) -> pd.DataFrame:
    """Judge each measure of each claim in every way to count.

    Args:
        claims: The claims.
        ways: The ways to count by name. `AS_WRITTEN` is the way that was written first, and stands in front.

    Returns:
        Columns claim, measure, first (whether the measure judges the claim), way, sign, value, low, high, p, p_holm (of
        first measures as written), n_units, n_models, share (of the units on the predicted side), verdict.
    """
    rows = list[dict[str, object]]()
    plain = ways[AS_WRITTEN]
    for way, choices in ways.items():
        numbers = counted(tables, choices)
        for claim in claims:
            for place, measure in enumerate(claim.measures):
                values = measure.values(numbers)
                # What is shared has no values of single classes.
                if not _applies(choices, plain, measure) or choices.unit not in values:
                    continue
                if choices.test_domain is not None:
                    in_domain = values["test_domain"] == choices.test_domain
                    # This is no other way to count if no value is of another test domain.
                    if in_domain.all():
                        continue
                    values = values[in_domain]
                means = values.groupby(choices.unit)["value"].mean()
                # One test domain or one pair has no spread.
                if way != AS_WRITTEN and len(means) < 2:
                    continue
                about: dict[str, object] = {
                    "claim": claim.name,
                    "measure": measure.name,
                    "first": place == 0,
                    "way": way,
                    "n_models": len(values.drop_duplicates(CASE)),
                }
                evidence = _evidence(measure, means.to_numpy(dtype=float))
                rows.append(about | evidence)
    table = pd.DataFrame(rows)
    judging = table["first"] & (table["way"] == AS_WRITTEN)
    # The rows of a claim stand together, in the order of the claims.
    order = {claim.name: place for place, claim in enumerate(claims)}
    table = table.assign(p_holm=holm(table["p"].where(judging)))
    return table.sort_values(
        "claim", key=lambda names: names.map(order), kind="stable", ignore_index=True
    )


_OF_ACCURACY = ("among", "texts", "learned_only", "first_checkpoint")


def _applies(choices: Choices, plain: Choices, measure: Measure) -> bool:
    """Return whether a way to count can change the values of a measure, which were written first in a plain way."""
    of_accuracy = any(
        getattr(choices, name) != getattr(plain, name) for name in _OF_ACCURACY
    )
    if of_accuracy:
        return measure.of_accuracy
    if choices.instead is not None:
        return measure.what in choices.instead
    if choices.shared_in is not None:
        return measure.shared_in not in (None, choices.shared_in)
    return True


def _evidence(measure: Measure, means: np.ndarray) -> dict[str, object]:
    """Return the mean over units with its interval, and the verdict."""
    # A measure that no model has is unknown, and not zero.
    evidence: dict[str, object] = {"sign": measure.sign, "n_units": len(means)}
    if len(means) == 0:
        unknown = dict.fromkeys(("value", "low", "high", "p", "share"), np.nan)
        return evidence | unknown | {"verdict": OPEN}
    value, low, high = mean_interval(means)
    return evidence | {
        "value": value,
        "low": low,
        "high": high,
        "p": sign_flip_p(means),
        "share": float((measure.sign * means > 0).mean()),
        "verdict": _verdict(measure, low, high),
    }


def _verdict(measure: Measure, low: float, high: float) -> str:
    """Return the verdict on a claim from the interval of a measure; an unknown interval leaves the claim open."""
    lower, upper = sorted((measure.sign * low, measure.sign * high))
    if lower > -measure.margin:
        return BORNE_OUT
    return REFUTED if upper < 0 else OPEN


def verdicts(judgements: pd.DataFrame) -> pd.DataFrame:
    """Return the verdict on each claim, in how many ways to count it stands, and whether it is a headline.

    Returns:
        Columns claim, measure, value, low, high, p_holm, n_units, n_models, verdict, n_same, n_ways, headline, other
        (the ways with another verdict, with this verdict).
    """
    rows = list[dict[str, object]]()
    of_claims = judgements[judgements["first"]]
    for claim, ways in of_claims.groupby("claim", sort=False):
        written = ways[ways["way"] == AS_WRITTEN].iloc[0]
        same = ways["verdict"] == written["verdict"]
        decided = written["verdict"] != OPEN and written["p_holm"] < LEVEL
        n_ways = len(ways) - 1
        other = ways.loc[~same, "way"] + " (" + ways.loc[~same, "verdict"] + ")"
        kept = ("measure", "value", "low", "high", "p_holm", "n_units", "n_models")
        rows.append(
            {
                "claim": claim,
                **written[list(kept)],
                "verdict": written["verdict"],
                "n_same": int(same.sum()) - 1,
                "n_ways": n_ways,
                "headline": bool(decided and n_ways and same.all()),
                "other": "; ".join(other),
            }
        )
    return pd.DataFrame(rows)
