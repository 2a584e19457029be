"""Planted circuits that the methods find, and the numbers of a scoreboard."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from circuitry import AttributionGraph, InputError, Task, attribute, left_rule
from circuitry.gates import patch_effects
from circuitry.interventions import FaithfulnessCurve
from experiments.judging.planted import (
    PlantedCircuit,
    edge_movements,
    planted_attention,
    planted_convolution,
    score_methods,
)
from experiments.judging.scoreboard import (
    Judged,
    areas_of,
    over_classes,
    paired_differences,
    rank_agreement,
    scoreboard_tables,
    smallest_size,
)
from tests.support.circuits import curve_of
from tests.support.work import QUIET

BUILDERS = (planted_convolution, planted_attention)


@cache
def scored(build: Callable[[], PlantedCircuit]) -> pd.DataFrame:
    return score_methods(build())


@pytest.mark.parametrize("build", BUILDERS)
def test_without_noise_exactly_the_planted_units_matter(build: object) -> None:
    planted: PlantedCircuit = build(noise=0.0)  # type: ignore[operator]
    images = planted.images(8, 0)
    task = Task(
        planted.encoder, images, planted.metric, sites=tuple(planted.nodes), work=QUIET
    )
    effects = patch_effects(task)
    for site, units in planted.nodes.items():
        assert np.flatnonzero(np.abs(effects.scores[site]) > 1e-3).tolist() == list(
            units
        )
    movements = edge_movements(task)
    for pair, edges in planted.edges.items():
        moved = zip(*np.nonzero(movements[pair] > 1e-6), strict=True)
        into = {(d, u) for d, u in moved if d in planted.nodes[pair[1]]}
        # In the residual stream the planted unit also carries on itself.
        assert {edge for edge in into if edge[0] != edge[1] or edge in edges} == set(
            edges
        )


def test_the_saturated_unit_has_no_gradient() -> None:
    planted = planted_convolution(noise=0.0)
    graph = attribute(
        planted.encoder,
        planted.images(4, 0),
        planted.metric,
        rule=left_rule(1),
        progress=False,
    )
    exact = patch_effects(
        Task(
            planted.encoder,
            planted.images(4, 0),
            planted.metric,
            sites=["conv1"],
            work=QUIET,
        )
    )
    assert exact.scores["conv1"][1] == pytest.approx(1, abs=1e-5)
    assert graph.node_scores["conv1"][1] == 0
    assert graph.node_scores["conv1"][0] > 0


@pytest.mark.parametrize("build", BUILDERS)
def test_methods_find_what_was_planted(build: Callable[[], PlantedCircuit]) -> None:
    table = scored(build)
    means = table.groupby(["method", "kind"])["auroc"].mean()
    rules = {"left 10", "Gauss-Radau 5", "midpoint 10", "gradient x activation"}
    assert set(table["method"]) == rules | {
        "exact patching",
        "conductance",
        "learned masks",
        "edge cuts",
    }
    assert means["exact patching"].min() > 0.99
    for method, least in (
        ("left 10", 0.95),
        ("midpoint 10", 0.95),
        ("Gauss-Radau 5", 0.9),
    ):  # the last has 0.95
        assert means[method, "node"] > least
        assert (
            means[method, "edge"] > 0.8
        )  # attention that follows a joint path to zero is the weak spot
    worst = table.groupby(["method", "kind"])["auroc"].min()
    assert worst["learned masks", "node"] > 0.95
    assert worst["edge cuts", "edge"] > 0.95  # into attention, too
    assert (
        worst["learned masks", "edge"] > 0.9
    )  # noise lets a loud copy of red into what attention reads
    assert means["gradient x activation", "edge"] == 0.5  # blind: all scores are zero


def test_areas_are_mann_whitney() -> None:
    planted = planted_convolution(noise=0.5)
    exact = patch_effects(
        Task(planted.encoder, planted.images(16, 0), planted.metric, work=QUIET)
    )
    areas = (
        score_methods(planted)
        .query("method == 'exact patching' and kind == 'node'")
        .set_index("site")["auroc"]
    )
    assert list(areas.index) == list(planted.nodes)
    for site, area in areas.items():
        sizes, truth = (
            np.abs(exact.scores[str(site)]),
            np.zeros(len(exact.scores[str(site)]), dtype=bool),
        )
        truth[list(planted.nodes[str(site)])] = True
        u = stats.mannwhitneyu(sizes[truth], sizes[~truth]).statistic
        assert area == pytest.approx(u / (truth.sum() * (~truth).sum()))
    assert areas.min() < 1


def graph_of(scores: list[float], kept: list[int]) -> AttributionGraph:
    return AttributionGraph(
        ("a",),
        {"a": np.array(scores, dtype=float)},
        {},
        1,
        kept_units={"a": np.array(kept)},
    )


def curve(kept: list[float]) -> FaithfulnessCurve:
    """One image of the class and one of another, of which the first has a metric of 1 in the whole model."""
    full, own, values = (
        np.array([1.0, 0.0]),
        np.array([True, False]),
        np.outer(kept, [1, 0]),
    )
    sizes = np.linspace(0.2, 0.8, len(kept)).tolist()
    return curve_of(
        values, sizes, "absolute", full=full, own=own, random=0 * values[None]
    )


def test_the_smallest_size_is_that_from_which_on_the_target_is_reached() -> None:
    sizes = [0.8, 0.2, 0.6, 0.4]
    for reached, smallest in (
        (".X.X", 1),
        ("XX.X", 0.8),
        ("X.XX", 0.4),
        ("XXXX", 0.2),
        ("....", 1),
    ):
        assert smallest_size(sizes, [mark == "X" for mark in reached]) == smallest


def test_areas_are_over_the_sizes_of_the_benchmark_where_the_grid_has_them() -> None:
    own = [0.1, 0.4, 0.2, 0.9]
    few = [0.2, 0.4, 0.6, 0.8]
    alone = {"CPR": np.trapezoid(own, few), "CMD": np.trapezoid(1 - np.array(own), few)}
    assert areas_of(curve(own), few) == pytest.approx(alone)
    sizes = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0)
    eleven = replace(curve([1.0] * 8 + [-5.0] + [1.0] * 2), sizes=sizes)
    assert areas_of(eleven, sizes) == pytest.approx({"CPR": 0.999, "CMD": 0.0})


@pytest.mark.parametrize("exact", [{"other": np.zeros(4)}, {"u": np.zeros(3)}])
def test_rank_agreement_is_of_the_same_units(exact: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match="sites u"):
        rank_agreement({"u": np.arange(4.0)}, exact)


def test_rank_agreement_is_the_mean_over_sites_that_vary() -> None:
    rng = np.random.default_rng(0)
    scores = {"a": rng.normal(size=9), "b": rng.normal(size=5), "flat": np.zeros(4)}
    exact = {
        "a": rng.normal(size=9),
        "b": rng.normal(size=5),
        "flat": rng.normal(size=4),
    }
    by_pandas = [
        pd.Series(scores[s]).rank().corr(pd.Series(exact[s]).rank()) for s in "ab"
    ]
    assert rank_agreement(scores, exact) == pytest.approx(np.mean(by_pandas))
    assert np.isnan(rank_agreement({"flat": np.zeros(4)}, exact))


def test_sizes_are_told_by_the_median_class_and_how_many_reach_the_target() -> None:
    table = pd.DataFrame(
        {
            "class": list("wxyz"),
            "what": "size to work, kept",
            "value": [0.2, 0.5, 1.0, 0.9],
        }
    )
    row = over_classes(table).iloc[0]
    assert row[["value", "least", "most", "n_classes", "n_reached"]].tolist() == [
        0.7,
        0.2,
        1.0,
        4,
        3,
    ]
    with pytest.raises(InputError, match="one value of each class"):
        over_classes(pd.concat([table, table]))


def test_methods_are_compared_class_by_class() -> None:
    values = {
        "masks": [0.2, 0.3, 0.3, 0.5, 0.2, 0.4],
        "path": [0.4, 0.6, 0.3, 0.8, 0.9, 0.8],
    }
    named = {
        "budget": "global",
        "baseline": "mean",
        "metric": "margin",
        "what": "size to work, kept",
    }
    parts = [
        pd.DataFrame({"class": list("uvwxyz"), "value": v, "method": m, **named})
        for m, v in values.items()
    ]
    (row,) = paired_differences(pd.concat(parts)).to_dict("records")
    assert (row["a"], row["b"]) == ("masks (global)", "path (global)")
    assert row["median"] == pytest.approx(-0.3)
    assert (row["n_less"], row["n_equal"], row["n_more"]) == (5, 1, 0)
    assert row["p"] == pytest.approx(2 * 0.5**5)  # of five signs, all alike


def test_tables_of_a_scoreboard() -> None:
    sizes = (0.2, 0.8)
    found: dict[tuple[str, ...], Judged] = {
        ("cat", "patching", "same-share", "zero", "logit"): Judged(
            curve([0.0, 0.9]), graph_of([1, 2, 3, 5], [3]), 2.0, 4 * 10**9
        ),
        ("cat", "gradient", "global", "zero", "logit"): Judged(
            curve([0.6, 0.9]), graph_of([1, 2, 5, 3], [2]), 1.0, 10**9
        ),
    }
    tables = scoreboard_tables(found, sizes, [0.5], "4 units at 1 site")
    assert all(
        set(table["counted"]) == {"4 units at 1 site"} for table in tables.values()
    )
    known = tables["by_class"].set_index(["method", "what"])["value"]
    assert known["gradient", "size for 0.5 selectivity, kept"] == 0.2
    assert known["patching", "size for 0.5 selectivity, kept"] == 0.8
    assert known["patching", "size for 0.5 selectivity, random"] == 1
    assert known["gradient", "rank correlation"] == pytest.approx(0.8)
    assert known["patching", "GFLOP"] == 4
    assert known["gradient", "CPR"] == pytest.approx(0.6 * 0.75)
    curves = tables["curves"].set_index(["method", "measure", "circuit", "size"])[
        "value"
    ]
    assert curves["gradient", "selectivity", "kept", 0.2] == 0.6
    assert set(tables["summary"]["n_classes"]) == {1}
