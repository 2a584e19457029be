"""Do numbers of models correlate with how the models generalize? `relate_over_models`, and its sections of a report.

1. A model has one row, or one row for each test domain. Values are ranked within a test domain. The ranks are divided
   by their number plus one and centred, so that differences between test domains are no evidence. If there is one test
   domain, the result is Spearman's correlation.
2. The interval is a jackknife interval over models: each jackknife value leaves out all rows of one model. The range of
   the jackknife values is reported as well.
3. p is the share of orders of the models that give as large a correlation of either sign. All orders are used if they
   are few, and otherwise random orders. A model keeps its rows together. It changes places only with models that have
   rows in the same test domains.
4. The partial correlation removes the ranks of a third number from the ranks of both numbers by least squares. Its p
   comes from orders of the residuals, from which the third number is removed again (Freedman and Lane 1983). It needs
   four models, because residuals of three models are always equal or opposite.

An interval that holds zero, or a p that is not below `LEVEL` after Holm's correction, refutes no correlation: it leaves
the question open.
"""

from collections.abc import Sequence
from itertools import permutations, product
from math import factorial, prod

from circuitry.comparison import LEVEL, holm, jackknife_interval
from circuitry.reports import Finding

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

ROUNDING = 1e-12  # correlations and residuals that differ by less are equal
_EXACT = 50_000  # the most orders that are all used
_DRAWS = 10_000  # random orders, if there are more orders than that
_MODEL = "run"  # column of the model
_STRATUM = "test_domain"  # column of the groups within which values are ranked
# A correlation needs three models; an interval and a partial correlation need four.
FEWEST_MODELS = 3
RELATIONS = (
    "what",
    "with",
    "rho",
    "low",
    "high",
    "least",
    "most",
    "p",
    "p_holm",
    "partial",
    "partial_p",
    "given",
    "n_models",
    "note",
    "about",
)
"""Columns of `relate_over_models`; ``least`` and ``most`` are the range of its jackknife values."""


def relate_over_models(
    points: pd.DataFrame,
    whats: Sequence[str],
    withs: Sequence[str],
    given: str | None = None,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate each number in ``whats`` with each number in ``withs`` over models.

    Args:
        points: A row for each model (``run``) and test domain, with a column for each number.
        given: Column of a third number. The partial correlation is the correlation given this number.
        seed: Seed of the random orders.

    Returns:
        Columns `RELATIONS`, a row for each pair of numbers. ``p_holm`` is corrected for all rows. With fewer than three
        models the correlation is NaN. With three models the interval and the partial correlation are NaN. The note
        marks rows whose p cannot be significant because too few models can change places.
    """
    rows = []
    for what, other in product(whats, withs):
        # Only models that have all numbers count, so that partial and plain correlations are over the same models.
        needed = [what, other]
        if given is not None:
            needed.append(given)
        used = points.dropna(subset=needed)
        n = used[_MODEL].nunique()
        about = f"over {n} models"
        row = {"what": what, "with": other, "n_models": n, "about": about}
        if n >= FEWEST_MODELS:
            row |= _relate(used, what, other, given, seed)
        rows.append(row)
    table = pd.DataFrame(rows, columns=[*RELATIONS, "floor"])
    # Holm multiplies the smallest p by the number of tests: a p that stays above the level even so is impossible.
    impossible = table["p"].isna() | (table["floor"] * table["p"].notna().sum() > LEVEL)
    notes = "cannot be significant with " + table["n_models"].astype(str) + " models"
    notes = notes.where(impossible, "")
    table = table.assign(p_holm=holm(table["p"]), given=given or "", note=notes)
    return table[list(RELATIONS)]


def jackknife_over(
    points: pd.DataFrame,
    whats: Sequence[str],
    withs: Sequence[str],
    column: str,
) -> pd.DataFrame:
    """Return the jackknife intervals of the correlations of `relate_over_models` over the values of a column.

    All models with one value, such as one pair of held-out classes, are left out together.

    Returns:
        Columns what, with, low, high, n_values.
    """
    names = ["what", "with"]
    whole = relate_over_models(points, whats, withs)
    without = list[pd.Series]()
    for value in sorted(set(points[column])):
        table = relate_over_models(points[points[column] != value], whats, withs)
        without.append(table["rho"])
    # [correlations, left-out values]
    left = np.array(without, dtype=float).T
    intervals = np.array(list(map(jackknife_interval, whole["rho"], left)))
    # The jackknife's interval is symmetric, and may pass the ends of the range of a correlation.
    return whole[names].assign(
        low=np.maximum(intervals[:, 0], -1.0),
        high=np.minimum(intervals[:, 1], 1.0),
        n_values=points[column].nunique(),
    )


def picks_the_better(
    points: pd.DataFrame, what: str, accuracy: str, sign: int = 1
) -> tuple[float, int]:
    """Return how often a number picks the better of two models of one stratum, and the number of pairs of models.

    The better model is more accurate. Of two equally accurate models neither is better.

    Args:
        sign: -1 if the smaller number is to pick the better model.
    """
    right = list[bool]()
    for _, models in points.groupby(_STRATUM):
        x = sign * models[what].to_numpy(dtype=float)
        y = models[accuracy].to_numpy(dtype=float)
        # All pairs of models: differences of the number and of the accuracy.
        i, j = np.triu_indices(len(models), 1)
        dx = x[i] - x[j]
        dy = y[i] - y[j]
        comparable = (dy != 0) & ~np.isnan(dx)
        right += (np.sign(dx) == np.sign(dy))[comparable].tolist()
    return (float(np.mean(right)) if right else np.nan), len(right)


def _relate(
    used: pd.DataFrame, what: str, other: str, given: str | None, seed: int
) -> dict[str, float]:
    """Return the numbers of a row of `relate_over_models`, and the smallest p that is possible (``floor``).

    There must be at least `FEWEST_MODELS` models.
    """

    def ranks(rows: pd.DataFrame, name: str) -> np.ndarray:
        strata = rows[_STRATUM].astype(str).to_numpy()
        return centred_ranks(rows[name].to_numpy(dtype=float), strata)

    models = used[_MODEL].unique()
    x = ranks(used, what)
    y = ranks(used, other)
    rho = float(correlation(x, y))
    # Jackknife values: all rows of a model are left out, and the remaining rows are ranked anew.
    without = np.empty(len(models))
    for i, model in enumerate(models):
        rows = used[used[_MODEL] != model]
        without[i] = correlation(ranks(rows, what), ranks(rows, other))
    strata = used[_STRATUM].astype(str).to_numpy()
    orders, floor = _orders(_exchangeable(used[_MODEL].to_numpy(), strata), seed)
    row = {"rho": rho, "floor": floor, "p": permutation_p(x, y, orders)}
    if not np.isnan(without).all():
        row["least"] = float(np.nanmin(without))
        row["most"] = float(np.nanmax(without))
    # Ties may leave rho unchanged whichever model is left out: that is no certainty.
    if len(models) > FEWEST_MODELS and np.ptp(without) > ROUNDING:
        low, high = jackknife_interval(rho, without)
        row["low"] = float(np.maximum(low, -1.0))
        row["high"] = float(np.minimum(high, 1.0))
    if given is not None and len(models) > FEWEST_MODELS:
        z = ranks(used, given)
        rest_x = residuals(x, z)
        rest_y = residuals(y, z)
        row["partial"] = float(correlation(rest_x, rest_y))
        row["partial_p"] = permutation_p(rest_x, rest_y, orders, z)
    return row


def centred_ranks(
    values: Float[np.ndarray, " rows"], strata: np.ndarray
) -> Float[np.ndarray, " rows"]:
    """Return the ranks within each stratum, divided by the size of the stratum plus one, minus their mean."""
    groups = pd.Series(values).groupby(strata)
    # Ranks of a small and of a large stratum have the same scale, so that neither decides alone.
    scaled = groups.rank() / (groups.transform("size") + 1)
    return np.asarray(scaled - scaled.groupby(strata).transform("mean"), dtype=float)


def residuals(
    values: Float[np.ndarray, "*orders rows"], given: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, "*orders rows"]:
    """Return centred values minus their projection on the centred values of a given number."""
    length = float(given @ given)
    remainder = values
    if length > 0:  # a constant explains nothing
        remainder = values - (values @ given)[..., None] / length * given
    # Residuals that are zero up to rounding would otherwise correlate at random.
    return np.where(np.abs(remainder) < ROUNDING, 0.0, remainder)


def correlation(
    x: Float[np.ndarray, "*orders rows"], y: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, "*orders"]:
    """Return the cosine of centred values, which is their correlation; NaN if ``x`` or ``y`` is constant."""
    lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y)
    varies = lengths > ROUNDING
    # Constants are divided by 1 in place of their length, so that nothing is divided by zero.
    return np.where(varies, np.asarray(x @ y) / np.where(varies, lengths, 1.0), np.nan)


def permutation_p(
    x: Float[np.ndarray, " rows"],
    y: Float[np.ndarray, " rows"],
    orders: Int[np.ndarray, "orders rows"],
    given: Float[np.ndarray, " rows"] | None = None,
) -> float:
    """Return the share of orders of ``x`` whose correlation with ``y`` is as large as in the given order.

    Args:
        orders: Indices of rows, one order a line.
        given: Number that is removed from ``x`` in each order; `None` removes nothing.

    Returns:
        The share, or NaN if the correlation in the given order is NaN.
    """
    rho = correlation(x, y)
    if np.isnan(rho):
        return float("nan")
    ordered = x[orders]
    if given is not None:
        # In another order the residuals correlate with the given number, so it is removed again.
        ordered = residuals(ordered, given)
    # Sums in another order differ in the last digits: equal correlations count as large.
    return float((np.abs(correlation(ordered, y)) >= abs(rho) - ROUNDING).mean())


def _exchangeable(
    models: np.ndarray, strata: np.ndarray
) -> list[Int[np.ndarray, "_ _"]]:
    """Return the groups of models that may change places because they have rows in the same strata.

    Returns:
        For each group the indices of rows [models of the group, rows of a model].
    """
    kinds: dict[tuple[str, ...], list[np.ndarray]] = {}
    for name in dict.fromkeys(models):
        rows = np.flatnonzero(models == name)
        # Rows are in the order of their strata, so that rows of two models in one stratum change places.
        rows = rows[np.argsort(strata[rows], kind="stable")]
        kinds.setdefault(tuple(strata[rows]), []).append(rows)
    return [np.array(kinds[kind]) for kind in sorted(kinds)]


def _orders(
    groups: list[Int[np.ndarray, "_ _"]], seed: int
) -> tuple[Int[np.ndarray, "orders rows"], float]:
    """Return orders of the rows in which models change places, and the smallest p that these orders can give.

    The orders are all orders if there are at most `_EXACT`, and otherwise `_DRAWS` random orders.
    """
    rows = np.arange(sum(group.size for group in groups))
    number = prod(factorial(len(group)) for group in groups)
    if number <= _EXACT:
        orders = np.tile(rows, (number, 1))
        every = product(*(permutations(group) for group in groups))
        for i, chosen in enumerate(every):
            for group, order in zip(groups, chosen, strict=True):
                orders[i, group] = order
        # With one row a model, the reversed order of ranks gives as large a correlation of the other sign.
        opposite = all(group.shape[1] == 1 for group in groups)
        return orders, min(1.0, (1 + opposite) / number)
    rng = np.random.default_rng(seed)
    # The first order is the given one: counting it keeps p above zero (Phipson and Smyth 2010).
    orders = np.tile(rows, (_DRAWS + 1, 1))
    for group in groups:
        places = rng.permuted(np.tile(np.arange(len(group)), (_DRAWS, 1)), axis=1)
        orders[1:, group] = group[places]
    return orders, 1 / (_DRAWS + 1)


def models_agree(tests: pd.DataFrame) -> Finding:
    """Say whether models agree which of two domains shares more, from the tests of `compare_models`."""
    n = len(tests)
    clear = int((tests["p_holm"] < LEVEL).sum())
    told = "Partly" if clear else "Cannot be told"
    if clear and clear == n:
        told = "Yes"
    return Finding(
        f"Do models agree which domains share more? {told}: {clear} of {n} differences have p < {LEVEL} (Holm).",
        f"Each of {tests['n_models'].max()} models counts once; five models can give no p below 0.0625.",
        "More models, of other architectures and seeds.",
    )
