"""Planted circuits: the truth is true, the methods find it, and the guard catches one that does not."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from circuitry import Task, attribute, left_rule
from circuitry.interventions import patch_effects
from circuitry.judging import PlantedCircuit, planted_attention, planted_convolution, score_methods
from circuitry.judging.planted import edge_movements
from tests.support.work import QUIET

BUILDERS = (planted_convolution, planted_attention)


@cache
def scored(build: Callable[[], PlantedCircuit]) -> pd.DataFrame:
    return score_methods(build())


@pytest.mark.parametrize("build", BUILDERS)
def test_without_noise_exactly_the_planted_units_matter(build: object) -> None:
    planted: PlantedCircuit = build(noise=0.0)  # type: ignore[operator]
    images = planted.images(8, 0)
    task = Task(planted.encoder, images, planted.metric, sites=tuple(planted.nodes), work=QUIET)
    effects = patch_effects(task)
    for site, units in planted.nodes.items():
        assert np.flatnonzero(np.abs(effects.scores[site]) > 1e-3).tolist() == list(units)
    movements = edge_movements(task)
    for pair, edges in planted.edges.items():
        moved = zip(*np.nonzero(movements[pair] > 1e-6), strict=True)
        into = {(d, u) for d, u in moved if d in planted.nodes[pair[1]]}
        # In the residual stream the planted unit also carries on itself.
        assert {edge for edge in into if edge[0] != edge[1] or edge in edges} == set(edges)


def test_the_saturated_unit_has_no_gradient() -> None:
    planted = planted_convolution(noise=0.0)
    graph = attribute(planted.encoder, planted.images(4, 0), planted.metric, rule=left_rule(1), progress=False)
    exact = patch_effects(Task(planted.encoder, planted.images(4, 0), planted.metric, sites=["conv1"], work=QUIET))
    assert exact.scores["conv1"][1] == pytest.approx(1, abs=1e-5)
    assert graph.node_scores["conv1"][1] == 0
    assert graph.node_scores["conv1"][0] > 0


@pytest.mark.parametrize("build", BUILDERS)
def test_methods_find_what_was_planted(build: Callable[[], PlantedCircuit]) -> None:
    table = scored(build)
    means = table.groupby(["method", "kind"])["auroc"].mean()
    rules = {"left 10", "Gauss-Radau 5", "midpoint 10", "gradient x activation"}
    assert set(table["method"]) == rules | {"exact patching", "input path", "learned masks", "edge cuts"}
    assert means["exact patching"].min() > 0.99
    for method, least in (("left 10", 0.95), ("midpoint 10", 0.95), ("Gauss-Radau 5", 0.9)):  # the last has 0.95
        assert means[method, "node"] > least
        assert means[method, "edge"] > 0.8  # attention that follows a joint path to zero is the weak spot
    worst = table.groupby(["method", "kind"])["auroc"].min()
    assert worst["learned masks", "node"] > 0.95
    assert worst["edge cuts", "edge"] > 0.95  # into attention, too
    assert worst["learned masks", "edge"] > 0.9  # noise lets a loud copy of red into what attention reads
    assert means["gradient x activation", "edge"] == 0.5  # blind: all scores are zero


def test_the_saturated_unit_is_lost_without_a_path() -> None:
    table = scored(planted_convolution).query("site == 'conv1'").set_index("method")["auroc"]
    assert table["gradient x activation"] < 0.9
    assert table.drop("gradient x activation").min() == 1


def test_areas_are_mann_whitney() -> None:
    planted = planted_convolution(noise=0.5)
    exact = patch_effects(Task(planted.encoder, planted.images(16, 0), planted.metric, work=QUIET))
    areas = score_methods(planted).query("method == 'exact patching' and kind == 'node'").set_index("site")["auroc"]
    assert list(areas.index) == list(planted.nodes)
    for site, area in areas.items():
        sizes, truth = np.abs(exact.scores[str(site)]), np.zeros(len(exact.scores[str(site)]), dtype=bool)
        truth[list(planted.nodes[str(site)])] = True
        u = stats.mannwhitneyu(sizes[truth], sizes[~truth]).statistic
        assert area == pytest.approx(u / (truth.sum() * (~truth).sum()))
    assert areas.min() < 1
