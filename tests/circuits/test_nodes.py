"""Kept units and merged effects; the scores themselves are tested with `attribution`."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitry import InputError
from circuitry.circuits import Completeness
from circuitry.circuits.nodes import NodeEffects, keep_units


def test_the_largest_absolute_scores_are_kept_largest_first() -> None:
    kept = keep_units(np.array([0.1, -5.0, 3.0, 0.0, -4.0]), 0.5)
    assert kept.tolist() == [1, 4, 2]  # ceil(2.5)
    assert kept.dtype == np.int64


def test_equal_scores_are_kept_in_order_of_their_index() -> None:
    scores = np.zeros(40)
    scores[[5, 30]] = 1, -1
    assert keep_units(scores, 0.1).tolist() == [5, 30, 0, 1]


def test_rounding_of_the_fraction_keeps_no_unit_more() -> None:
    assert math.ceil(0.07 * 100) == 8  # what plain floating point says
    assert len(keep_units(np.arange(100.0), 0.07)) == 7


@given(st.integers(1, 400), st.integers(1, 100))
def test_as_many_units_are_kept_as_exact_arithmetic_says(units: int, percent: int) -> None:
    assert len(keep_units(np.arange(float(units)), percent / 100)) == -(-percent * units // 100)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, math.nan])
def test_a_fraction_outside_the_unit_interval_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match=rf"lies in \(0, 1\], but {fraction} was given"):
        keep_units(np.zeros(3), fraction)


def test_merged_effects_are_means_weighted_by_the_number_of_images() -> None:
    one = NodeEffects({"a": np.array([1.0, 2.0]), "b": np.array([0.0])}, {s: Completeness(1, 2) for s in "ab"}, 1)
    three = NodeEffects({"a": np.array([5.0, -2.0]), "b": np.array([4.0])}, {s: Completeness(5, 6) for s in "ab"}, 3)
    merged = NodeEffects.merge([one, three])
    assert merged.n_images == 4
    assert merged.scores["a"].tolist() == [4.0, -1.0]  # (1 + 3 * 5) / 4, (2 - 3 * 2) / 4
    assert merged.scores["b"].tolist() == [3.0]
    assert merged.completeness == {"a": Completeness(4, 5), "b": Completeness(4, 5)}
