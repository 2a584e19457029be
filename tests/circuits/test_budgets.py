"""How the size of a circuit is shared out over the sites."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitry import InputError
from circuitry.circuits import BUDGETS, strongest_units

RANKED = {
    "a": np.array([0.1, -5.0, 3.0, 0.0, -4.0]),
    "b": np.array([9.0, 0.2]),
    "c": np.zeros(3),
}


def counts(
    share: float, budget: str, scores: Mapping[str, np.ndarray] = RANKED
) -> list[int]:
    return [len(units) for units in strongest_units(scores, share, budget).values()]


def test_the_largest_absolute_scores_are_kept_largest_first_the_first_among_equals() -> (
    None
):
    kept = strongest_units(RANKED, 0.5)
    assert {site: units.tolist() for site, units in kept.items()} == {
        "a": [1, 4, 2],
        "b": [0],
        "c": [0, 1],
    }
    assert all(units.dtype == np.int64 for units in kept.values())


def test_a_global_budget_cuts_all_sites_at_one_score() -> None:
    kept = strongest_units(RANKED, 0.4, "global")
    assert {site: units.tolist() for site, units in kept.items()} == {
        "a": [1, 4, 2],
        "b": [0],
        "c": [],
    }


def test_the_image_keeps_its_share_under_every_budget() -> None:
    scores = {"input": np.array([7.0, 8.0, 9.0]), **RANKED}
    for budget in ("same-share", "global"):
        kept = strongest_units(scores, 0.4, budget)
        assert kept["input"].tolist() == [2, 1]
        assert kept["a"].tolist() == strongest_units(RANKED, 0.4, budget)["a"].tolist()


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=5),
    st.integers(1, 100),
    st.randoms(),
)
def test_as_many_units_are_kept_as_exact_arithmetic_says(
    sizes: list[int], percent: int, random: object
) -> None:
    rng = np.random.default_rng(sizes)
    scores = {str(i): rng.normal(size=n) for i, n in enumerate(sizes)}
    total = -(-percent * sum(sizes) // 100)
    assert counts(percent / 100, "same-share", scores) == [
        -(-percent * n // 100) for n in sizes
    ]
    everywhere = np.sort(np.abs(np.concatenate(list(scores.values()))))[::-1][:total]
    brute = [
        int(np.isin(np.abs(of_site), everywhere).sum()) for of_site in scores.values()
    ]
    assert counts(percent / 100, "global", scores) == brute


@pytest.mark.parametrize(
    ("share", "budget", "named"),
    [
        *((share, "same-share", [str(share)]) for share in (0.0, -0.1, 1.1, math.nan)),
        (0.5, "even", [*BUDGETS, "even"]),
    ],
)
def test_wrong_budgets_are_refused_by_name(
    share: float, budget: str, named: list[str]
) -> None:
    with pytest.raises(InputError) as refused:
        strongest_units(RANKED, share, budget)
    assert all(name in str(refused.value) for name in named)
