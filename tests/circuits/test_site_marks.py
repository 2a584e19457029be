"""Sites that repeat another, and sites that keep few units."""

from dataclasses import replace

import numpy as np
import pytest

from circuitry import AttributionGraph
from circuitry.circuits.site_marks import SiteMarks
from tests.circuits.test_similarity import random_graph


def graph(seed: int, **kept: list[int]) -> AttributionGraph:
    made = random_graph(seed, units=20)
    return replace(made, kept_units=made.kept_units | {site: np.array(units) for site, units in kept.items()})


@pytest.mark.parametrize(
    ("kept", "left_out"),
    [
        ({}, {}),
        ({"a": [1, 2, 3, 4, 5], "b": [5, 3, 1, 2, 4]}, {"b": "repeats a"}),
        ({"b": [1]}, {"b": "keeps 1 unit"}),
        ({"a": [0, 1], "b": [0, 1]}, {"a": "keeps 2 units", "b": "repeats a"}),
        # Few units everywhere are no reason to leave a site out.
        ({"a": [1], "b": [2], "c": [3]}, {}),
        ({"a": [1], "b": [1], "c": [3]}, {"b": "repeats a"}),
    ],
)
def test_sites_that_do_not_count(kept: dict[str, list[int]], left_out: dict[str, str]) -> None:
    marks = SiteMarks()
    for seed in range(3):
        marks.add(graph(seed, **kept))
    assert marks.left_out() == left_out


def test_a_site_repeats_another_only_if_it_does_in_every_graph() -> None:
    marks = SiteMarks()
    marks.add(graph(0, a=[1, 2, 3, 4, 5], b=[1, 2, 3, 4, 5]))
    assert marks.left_out() == {"b": "repeats a"}
    marks.add(graph(0, a=[1, 2, 3, 4, 5], b=[1, 2, 3, 4, 6]))
    assert marks.left_out() == {}
