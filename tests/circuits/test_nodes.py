"""Merged effects; the scores themselves are tested with `attribution`."""

import numpy as np

from circuitry.circuits import Completeness
from circuitry.circuits.nodes import NodeEffects


def test_merged_effects_are_means_weighted_by_the_number_of_images() -> None:
    one = NodeEffects({"a": np.array([1.0, 2.0]), "b": np.array([0.0])}, {s: Completeness(1, 2) for s in "ab"}, 1)
    three = NodeEffects({"a": np.array([5.0, -2.0]), "b": np.array([4.0])}, {s: Completeness(5, 6) for s in "ab"}, 3)
    merged = NodeEffects.merge([one, three])
    assert merged.n_images == 4
    assert merged.scores["a"].tolist() == [4.0, -1.0]  # (1 + 3 * 5) / 4, (2 - 3 * 2) / 4
    assert merged.scores["b"].tolist() == [3.0]
    assert merged.completeness == {"a": Completeness(4, 5), "b": Completeness(4, 5)}
