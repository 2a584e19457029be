"""Does one number of a model go with another, over models? Rank correlation with the model as the unit.

1. A model has one row, or one for each test domain. Ranks are taken within a test domain, divided by their number plus
   one and centred, so that differences between test domains are no evidence. With one test domain the result is
   Spearman's correlation.
2. The interval is the jackknife's over models, which leaves out all rows of a model together; the range of the
   jackknife values is reported as well.
3. p is the share of orders of the models that give as large a correlation of either sign: all orders if they are few,
   else random ones. A model keeps its rows together, and changes places with models that have rows in the same test
   domains.
4. The partial correlation removes the ranks of a third number from both by least squares; its p comes from orders of
   the residuals, from which the third number is removed again (Freedman and Lane 1983). It needs four models: residuals
   of three are always equal or opposite.
"""

from collections.abc import Sequence
from itertools import permutations, product
from math import factorial, prod

from circuitry.comparison import LEVEL, holm, jackknife_interval

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

ROUNDING = 1e-12
"""Correlations and residuals that differ by less are equal."""
_EXACT, _DRAWS = 50_000, 10_000
"""Up to the first number of orders all are used, else as many random ones as the second."""
_MODEL, _STRATUM = "run", "test_domain"
"""Columns of the model, and of the groups within which ranks are taken."""
FEWEST_MODELS = 3
"""A correlation needs so many models."""
FEWEST_GIVEN = FEWEST_MODELS + 1
"""A partial correlation needs so many models."""
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
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate each of some numbers of models with each of others.

    Args:
        points: A row per model (``run``) and ``test_domain``.
        whats, withs: Columns of numbers; rows that lack one of the two are left out.
        given: Column that is removed from both for the partial correlation.
        seed: Seed of random orders.

    Returns:
        Columns `RELATIONS`; p_holm is corrected for all rows. Fewer than three models have no correlation, fewer than
        four no interval and no partial correlation. The note marks rows whose p cannot be significant because too few
        models can change places.

    Example:
        >>> relate_over_models(points, ["circuits", "cka"], ["held_out", "alone"], given="in_domain")
    """
    rows = []
    for what, other in product(whats, withs):
        used = points.dropna(subset=[what, other, *([] if given is None else [given])])
        rows.append((what, other, *_relate(used, what, other, given, seed)))
    names = ["what", "with", "rho", "low", "high", "least", "most", "p", "partial", "partial_p", "n_models", "floor"]
    table = pd.DataFrame(rows, columns=names)
    tests = int(table["p"].notna().sum())
    impossible = table["p"].isna() | (table["floor"] * tests > LEVEL)
    notes = [f"cannot be significant with {n} models" if no else "" for n, no in zip(table["n_models"], impossible)]  # noqa: B905
    about = [f"over {n} models" for n in table["n_models"]]
    return table.assign(p_holm=holm(table["p"]), given=given or "", note=notes, about=about)[list(RELATIONS)]


def _relate(used: pd.DataFrame, what: str, other: str, given: str | None, seed: int) -> tuple[float | int, ...]:
    models = list(dict.fromkeys(used[_MODEL]))
    nothing = float("nan")
    if len(models) < FEWEST_MODELS:
        return (*(nothing,) * 8, len(models), nothing)
    strata = used[_STRATUM].astype(str).to_numpy()
    x, y = (centred_ranks(used[name].to_numpy(dtype=float), strata) for name in (what, other))
    rho = float(correlation(x, y))
    without = []
    for one in models:
        kept = used[used[_MODEL] != one]
        of = kept[_STRATUM].astype(str).to_numpy()
        without.append(float(correlation(*(centred_ranks(kept[n].to_numpy(dtype=float), of) for n in (what, other)))))
    each = np.array(without)
    varies = len(models) > FEWEST_MODELS and np.ptp(each) > ROUNDING  # ties may leave rho unchanged: not certainty
    low, high = jackknife_interval(rho, each) if varies else (nothing, nothing)
    orders, floor = _orders(_exchangeable(used[_MODEL].to_numpy(), strata), seed)
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
    """Return the residuals of centred values after a projection on others."""
    length = float(given @ given)
    left: np.ndarray = values - (values @ given)[..., None] / length * given if length > 0 else values
    return np.where(np.abs(left) < ROUNDING, 0.0, left)


def correlation(x: Float[np.ndarray, "*orders rows"], y: Float[np.ndarray, " rows"]) -> Float[np.ndarray, "*orders"]:
    """Return the cosine of centred values; NaN if one of them is constant."""
    lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y)
    known = lengths > ROUNDING
    return np.where(known, np.asarray(x @ y) / np.where(known, lengths, 1.0), np.nan)


def permutation_p(
    x: Float[np.ndarray, " rows"],
    y: Float[np.ndarray, " rows"],
    orders: Int[np.ndarray, "orders rows"],
    given: Float[np.ndarray, " rows"] | None = None,
) -> float:
    """Return the share of orders of ``x`` whose correlation with ``y`` is as large; NaN if the correlation is NaN.

    ``given`` is removed from each order of ``x``, since reordered residuals are correlated with it again.
    """
    rho = correlation(x, y)
    if np.isnan(rho):
        return float("nan")
    ordered = x[orders] if given is None else residuals(x[orders], given)
    return float((np.abs(correlation(ordered, y)) >= abs(rho) - ROUNDING).mean())


def _exchangeable(models: np.ndarray, strata: np.ndarray) -> list[Int[np.ndarray, "_ _"]]:
    """Return groups of models with rows in the same strata, which may change places: the rows of each model."""
    kinds: dict[tuple[str, ...], list[np.ndarray]] = {}
    for name in dict.fromkeys(models):
        mine = np.flatnonzero(models == name)
        mine = mine[np.argsort(strata[mine], kind="stable")]
        kinds.setdefault(tuple(strata[mine]), []).append(mine)
    return [np.array(kinds[kind]) for kind in sorted(kinds)]


def _orders(groups: list[Int[np.ndarray, "_ _"]], seed: int) -> tuple[Int[np.ndarray, "orders rows"], float]:
    """Return orders of the rows in which models change places, and the smallest p that they can give.

    All orders, or random ones and the given one. If each model has one row, the reversed order gives the opposite
    correlation, so p is at least two orders' share; else the given order may be the only one of its size.
    """
    rows, number = np.arange(sum(group.size for group in groups)), prod(factorial(len(group)) for group in groups)
    if number <= _EXACT:
        found = np.tile(rows, (number, 1))
        for i, chosen in enumerate(product(*(permutations(group) for group in groups))):
            for group, order in zip(groups, chosen, strict=True):
                found[i, group] = order
        opposite = all(group.shape[1] == 1 for group in groups)
        return found, min(1.0, (2 if opposite else 1) / number)
    rng, found = np.random.default_rng(seed), np.tile(rows, (_DRAWS + 1, 1))
    for group in groups:
        places = rng.permuted(np.tile(np.arange(len(group)), (_DRAWS, 1)), axis=1)
        found[1:, group] = group[places]
    return found, 1 / (_DRAWS + 1)
