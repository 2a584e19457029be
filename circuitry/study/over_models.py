"""Does one number of a model go with another, over models? Rank correlation with the model as the unit.

1. A model has one row, or one for each test domain; ranks are taken within a test domain, divided by their number plus
   one and centred, so that what test domains have in common is no evidence. With one test domain this is Spearman's
   correlation.
2. The interval is the jackknife's over models, all rows of a model left out together; the range of these values is
   told, too.
3. p is the share of orders of the models that give as large a correlation of either sign: all orders where there are
   few, else random ones. A model keeps its rows together, and changes places with models that have rows in the same
   test domains.
4. The partial correlation takes the ranks of a third number out of both by least squares; its p is from orders of what
   is left, from which the third number is taken out again (Freedman and Lane 1983). It needs four models: what is left
   of three is alike or opposite, whatever they are.
"""

from collections.abc import Sequence
from itertools import permutations, product
from math import factorial, prod

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from circuitry.comparison.part_array import known_ratio
from circuitry.comparison.significance import LEVEL, ROUNDING, holm
from circuitry.comparison.statistics import jackknife_interval

EXACT = 50_000
"""Up to so many orders all are gone through."""
FEWEST = 3
"""Models from which on there is a correlation."""
FEWEST_GIVEN = FEWEST + 1
"""Models from which on there is a correlation given a third number."""
RELATIONS = (
    *("what", "with", "rho", "low", "high", "least", "most", "p", "p_holm"),
    *("partial", "partial_p", "given", "n_models", "note", "about"),
)
"""Columns of `relate_over_models`; least and most are the correlation without one model."""


def relate_over_models(
    points: pd.DataFrame,
    whats: Sequence[str],
    withs: Sequence[str],
    given: str | None = None,
    *,
    model: str = "run",
    stratum: str = "test_domain",
    draws: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Relate each of some numbers of models with each of others.

    Args:
        points: A row per model, and per stratum where there are several.
        whats, withs: Columns of numbers; rows that lack one of the two are left out.
        given: Column whose part in both is taken out for the partial correlation.
        model, stratum: Columns that name the model and what ranks are taken within.
        draws: Random orders where there are too many to go through.
        seed: Seed of these.

    Returns:
        Columns `RELATIONS`; p_holm is corrected for all rows. Fewer than three models have no correlation, fewer than
        four no interval and no partial correlation; the note says where no p could be significant, because too few
        models can change places.

    Example:
        >>> relate_over_models(points, ["circuits", "cka"], ["held_out", "alone"], given="in_domain")
    """
    rows = []
    for what, other in product(whats, withs):
        used = points.dropna(subset=[what, other, *([] if given is None else [given])])
        rows.append((what, other, *_relate(used, what, other, given, (model, stratum), draws, seed)))
    names = ["what", "with", "rho", "low", "high", "least", "most", "p", "partial", "partial_p", "n_models", "floor"]
    table = pd.DataFrame(rows, columns=names)
    tests = int(table["p"].notna().sum())
    impossible = table["p"].isna() | (table["floor"] * tests > LEVEL)
    notes = [f"cannot be significant with {n} models" if no else "" for n, no in zip(table["n_models"], impossible)]  # noqa: B905
    about = [f"over {n} models" for n in table["n_models"]]
    return table.assign(p_holm=holm(table["p"]), given=given or "", note=notes, about=about)[list(RELATIONS)]


def _relate(
    used: pd.DataFrame, what: str, other: str, given: str | None, names: tuple[str, str], draws: int, seed: int
) -> tuple[float | int, ...]:
    model, stratum = names
    models = list(dict.fromkeys(used[model]))
    nothing = float("nan")
    if len(models) < FEWEST:
        return (*(nothing,) * 8, len(models), nothing)
    strata = used[stratum].astype(str).to_numpy()
    x, y = (centred_ranks(used[name].to_numpy(dtype=float), strata) for name in (what, other))
    rho = float(correlation(x, y))
    without = []
    for one in models:
        kept = used[used[model] != one]
        of = kept[stratum].astype(str).to_numpy()
        without.append(float(correlation(*(centred_ranks(kept[n].to_numpy(dtype=float), of) for n in (what, other)))))
    each = np.array(without)
    varies = len(models) > FEWEST and np.ptp(each) > ROUNDING  # ties may leave it where it is, which is no certainty
    low, high = jackknife_interval(rho, each) if varies else (nothing, nothing)
    orders, floor = _orders(_exchangeable(used[model].to_numpy(), strata), draws, seed)
    partial = partial_p = nothing
    if given is not None and len(models) >= FEWEST_GIVEN:
        z = centred_ranks(used[given].to_numpy(dtype=float), strata)
        rest_x, rest_y = residuals(x, z), residuals(y, z)
        partial, partial_p = float(correlation(rest_x, rest_y)), permutation_p(rest_x, rest_y, orders, z)
    known = each[~np.isnan(each)]
    least, most = (float(known.min()), float(known.max())) if len(known) else (nothing, nothing)
    ends = float(np.maximum(low, -1.0)), float(np.minimum(high, 1.0))
    p = permutation_p(x, y, orders)
    return (rho, *ends, least, most, p, partial, partial_p, len(models), floor)


def centred_ranks(values: Float[np.ndarray, " rows"], strata: np.ndarray) -> Float[np.ndarray, " rows"]:
    """Return ranks within each stratum, divided by its size plus one, less their mean."""
    ranks = pd.Series(values).groupby(strata).rank()
    sizes = pd.Series(values).groupby(strata).transform("size")
    scaled = ranks / (sizes + 1)
    return np.asarray(scaled - scaled.groupby(strata).transform("mean"), dtype=float)


def residuals(
    values: Float[np.ndarray, "*orders rows"], given: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, "*orders rows"]:
    """Return what is left of centred values when their part along others is taken out."""
    length = float(given @ given)
    left: np.ndarray = values - (values @ given)[..., None] / length * given if length > 0 else values
    return np.where(np.abs(left) < ROUNDING, 0.0, left)


def correlation(x: Float[np.ndarray, "*orders rows"], y: Float[np.ndarray, " rows"]) -> Float[np.ndarray, "*orders"]:
    """Return the cosine of centred values; NaN where one of them does not vary."""
    lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y)
    return known_ratio(np.asarray(x @ y), np.where(lengths > ROUNDING, lengths, 0.0))


def permutation_p(
    x: Float[np.ndarray, " rows"],
    y: Float[np.ndarray, " rows"],
    orders: Int[np.ndarray, "orders rows"],
    given: Float[np.ndarray, " rows"] | None = None,
) -> float:
    """Return the share of orders of ``x`` with as large a correlation with ``y``; NaN where the correlation is.

    ``given`` is taken out of each order of ``x``: what is left of x is no longer without it when it is reordered.
    """
    rho = correlation(x, y)
    if np.isnan(rho):
        return float("nan")
    ordered = x[orders] if given is None else residuals(x[orders], given)
    return float((np.abs(correlation(ordered, y)) >= abs(rho) - ROUNDING).mean())


def _exchangeable(models: np.ndarray, strata: np.ndarray) -> list[Int[np.ndarray, "_ _"]]:
    """Return the rows of models that may change places, model by model: of those with rows in the same strata."""
    kinds: dict[tuple[str, ...], list[np.ndarray]] = {}
    for name in dict.fromkeys(models):
        mine = np.flatnonzero(models == name)
        mine = mine[np.argsort(strata[mine], kind="stable")]
        kinds.setdefault(tuple(strata[mine]), []).append(mine)
    return [np.array(kinds[kind]) for kind in sorted(kinds)]


def _orders(
    groups: list[Int[np.ndarray, "_ _"]], draws: int, seed: int
) -> tuple[Int[np.ndarray, "orders rows"], float]:
    """Return orders of the rows in which models change places, and the smallest p that they can give.

    All orders, or random ones with the one that is there. Turning all strata round gives the opposite correlation, as
    large, where each model has one row; else the order that is there may be alone.
    """
    rows, number = np.arange(sum(group.size for group in groups)), prod(factorial(len(group)) for group in groups)
    if number <= EXACT:
        found = np.tile(rows, (number, 1))
        for i, chosen in enumerate(product(*(permutations(group) for group in groups))):
            for group, order in zip(groups, chosen, strict=True):
                found[i, group] = order
        opposite = all(group.shape[1] == 1 for group in groups)
        return found, min(1.0, (2 if opposite else 1) / number)
    rng, found = np.random.default_rng(seed), np.tile(rows, (draws + 1, 1))
    for group in groups:
        places = rng.permuted(np.tile(np.arange(len(group)), (draws, 1)), axis=1)
        found[1:, group] = group[places]
    return found, 1 / (draws + 1)
