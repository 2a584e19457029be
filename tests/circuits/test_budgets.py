"""Units of a circuit by score and budget: counts worked out by hand and by brute force."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitry import InputError
from circuitry.circuits import BUDGETS, shares_of, strongest_units
from circuitry.circuits.budgets import Budget

SCORES = {"a": np.array([0.1, -5.0, 3.0, 0.0, -4.0]), "b": np.array([9.0, 0.2]), "c": np.zeros(3)}


def counts(share: float, budget: Budget, scores: Mapping[str, np.ndarray] = SCORES) -> list[int]:
    return [len(units) for units in strongest_units(scores, share, budget).values()]


def test_the_largest_absolute_scores_are_kept_largest_first_the_first_among_equals() -> None:
    kept = strongest_units(SCORES, 0.5)
    assert {site: units.tolist() for site, units in kept.items()} == {"a": [1, 4, 2], "b": [0], "c": [0, 1]}
    assert all(units.dtype == np.int64 for units in kept.values())


def test_a_global_budget_cuts_all_sites_at_one_score() -> None:
    assert {site: units.tolist() for site, units in strongest_units(SCORES, 0.4, "global").items()} == {
        "a": [1, 4, 2],
        "b": [0],
        "c": [],
    }


@pytest.mark.parametrize(
    ("share", "table", "found"),
    [
        (0.5, {"a": 0.6, "b": 1.0, "c": 0.0}, [3, 2, 0]),  # its own size: the table itself
        (0.3, {"a": 0.6, "b": 1.0, "c": 0.0}, [2, 1, 0]),  # 3 of 5: 1.8 and 1.2
        (0.7, {"a": 0.6, "b": 1.0, "c": 0.0}, [5, 2, 0]),  # b is full at once, a takes the rest
        (0.8, {"a": 1.0, "b": 0.5, "c": 0.5}, [5, 1, 2]),  # a is full: 3 of 5 are left for b and c, 1.2 and 1.8
        (1.0, {"a": 0.1, "b": 0.2, "c": 0.3}, [5, 2, 3]),
    ],
)
def test_a_table_is_scaled_to_the_size(share: float, table: dict[str, float], found: list[int]) -> None:
    assert counts(share, table) == found


def test_a_circuit_takes_the_counts_of_another() -> None:
    mask = {"a": np.array([0, 3, 4]), "b": np.array([], dtype=int), "c": np.array([1])}
    table = shares_of(mask, {"a": 5, "b": 2, "c": 3})
    assert table == {"a": 0.6, "b": 0.0, "c": 1 / 3}
    assert counts(0.4, table) == [3, 0, 1]


def test_the_image_keeps_its_share_under_every_budget() -> None:
    scores = {"input": np.array([7.0, 8.0, 9.0]), **SCORES}
    for budget in ("same-share", "global", dict.fromkeys(SCORES, 1.0)):
        kept = strongest_units(scores, 0.4, budget)
        assert kept["input"].tolist() == [2, 1]
        assert kept["a"].tolist() == strongest_units(SCORES, 0.4, budget)["a"].tolist()


def test_rounding_of_the_share_keeps_no_unit_more() -> None:
    assert math.ceil(0.07 * 100) == 8  # what plain floating point says
    assert counts(0.07, "same-share", {"a": np.arange(100.0)}) == [7]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(1, 100), st.randoms())
def test_as_many_units_are_kept_as_exact_arithmetic_says(sizes: list[int], percent: int, random: object) -> None:
    rng = np.random.default_rng(sizes)
    scores = {str(i): rng.normal(size=n) for i, n in enumerate(sizes)}
    total = -(-percent * sum(sizes) // 100)
    assert counts(percent / 100, "same-share", scores) == [-(-percent * n // 100) for n in sizes]
    everywhere = np.sort(np.abs(np.concatenate(list(scores.values()))))[::-1][:total]
    brute = [int(np.isin(np.abs(of_site), everywhere).sum()) for of_site in scores.values()]
    assert counts(percent / 100, "global", scores) == brute
    shares = dict(zip(scores, rng.uniform(0.1, 1, len(sizes)).tolist(), strict=True))
    found = counts(percent / 100, shares, scores)
    assert sum(found) == total
    full = [n == size for n, size in zip(found, sizes, strict=True)]
    factors = [n / size / share for n, size, share in zip(found, sizes, shares.values(), strict=True)]
    ranges = [((n - 1) / s / a, (n + 1) / s / a) for n, s, a in zip(found, sizes, shares.values(), strict=True)]
    free = [r for r, is_full in zip(ranges, full, strict=True) if not is_full]
    if free:  # one factor fits all sites that are not full, but for the rounding of each to a whole unit
        assert max(low for low, _ in free) <= min(high for _, high in free)
        assert all(high >= min(factors) for _, high in ranges)


@pytest.mark.parametrize(
    ("share", "budget", "named"),
    [
        *((share, "same-share", [str(share)]) for share in (0.0, -0.1, 1.1, math.nan)),
        (0.5, "even", [*BUDGETS, "even"]),
        (0.5, "learned", [*BUDGETS, "find_circuit"]),
        (0.5, {"a": 0.5, "b": 0.5}, ["c"]),
        (0.5, {"a": 0.5, "b": 0.5, "c": 1.5}, ["c", "1.5"]),
        (0.5, {"a": 0.5, "b": 0.5, "c": math.nan}, ["c", "nan"]),
        (0.5, {"a": 0.0, "b": 1.0, "c": 0.0}, ["5 units"]),
    ],
)
def test_wrong_budgets_are_refused_by_name(share: float, budget: Budget, named: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        strongest_units(SCORES, share, budget)
    assert all(name in str(refused.value) for name in named)
