"""Numbers of a scoreboard against hand-worked ones, scipy and pandas."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from circuitry import AttributionGraph, InputError
from circuitry.interventions import FaithfulnessCurve
from circuitry.judging import Judged, over_classes, rank_agreement, scoreboard_tables, smallest_sizes
from circuitry.judging.scoreboard import areas_of


def graph_of(scores: list[float], kept: list[int]) -> AttributionGraph:
    return AttributionGraph(("a",), {"a": np.array(scores, dtype=float)}, {"a": np.array(kept)}, {}, {}, 1)


def curve_of(kept: list[float]) -> FaithfulnessCurve:
    """One image of the class and one of another, of which the first has a metric of 1 in the whole model."""
    own, n = np.array([True, False]), len(kept)
    by_size = np.stack([np.array(kept), np.zeros(n)], 1)
    zeros = np.zeros((n, 2))
    return FaithfulnessCurve(
        fractions=tuple(np.linspace(0.2, 0.8, n).tolist()),
        ranking="absolute",
        n_units=tuple(range(n)),
        full=np.array([1.0, 0.0]),
        empty=np.zeros(2),
        kept=by_size,
        complement=zeros,
        random=zeros[None],
        own=own,
        group=np.zeros(2, dtype=np.int64),
    )


def test_the_smallest_size_is_that_from_which_on_the_target_is_kept() -> None:
    sizes = [0.2, 0.4, 0.6, 0.8]
    values = {"kept": [0.9, 0.1, 0.7, 1.1], "random": [0.0, 0.0, 0.0, 0.4], "complement": [1.0] * 4}
    curves = pd.concat([pd.DataFrame({"circuit": c, "size": sizes, "value": v}) for c, v in values.items()])
    found = smallest_sizes(curves.sample(frac=1, random_state=0), [0.5, 0.8]).set_index(["circuit", "target"])["value"]
    assert found.to_dict() == {("kept", 0.5): 0.6, ("kept", 0.8): 0.8, ("random", 0.5): 1.0, ("random", 0.8): 1.0}
    always = pd.DataFrame({"circuit": "kept", "size": sizes, "value": 0.9})
    assert smallest_sizes(always, [0.5])["value"].tolist() == [0.2]
    unknown = pd.DataFrame({"circuit": "kept", "size": sizes, "value": [0.9, 0.9, 0.9, np.nan]})
    assert smallest_sizes(unknown, [0.5])["value"].tolist() == [1.0]


def test_areas_are_over_the_sizes_of_the_benchmark_where_the_grid_has_them() -> None:
    own = [0.1, 0.4, 0.2, 0.9]
    alone = {
        "CPR": np.trapezoid(own, np.linspace(0.2, 0.8, 4)),
        "CMD": np.trapezoid(1 - np.array(own), [2, 4, 6, 8]) / 10,
    }
    assert areas_of(curve_of(own), [0.2, 0.4, 0.6, 0.8]) == pytest.approx(alone)
    sizes = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0)
    curve = replace(curve_of([1.0] * 8 + [-5.0] + [1.0] * 2), fractions=sizes)
    assert areas_of(curve, sizes) == pytest.approx({"CPR": 0.999, "CMD": 0.0})


@pytest.mark.parametrize("exact", [{"other": np.zeros(4)}, {"u": np.zeros(3)}])
def test_rank_agreement_is_of_the_same_units(exact: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match="sites u"):
        rank_agreement({"u": np.arange(4.0)}, exact)


def test_rank_agreement_is_the_mean_over_sites_that_vary() -> None:
    rng = np.random.default_rng(0)
    scores = {"a": rng.normal(size=9), "b": rng.normal(size=5), "flat": np.zeros(4)}
    exact = {"a": rng.normal(size=9), "b": rng.normal(size=5), "flat": rng.normal(size=4)}
    by_pandas = [pd.Series(scores[s]).rank().corr(pd.Series(exact[s]).rank()) for s in "ab"]
    assert rank_agreement(scores, exact) == pytest.approx(np.mean(by_pandas))
    assert np.isnan(rank_agreement({"flat": np.zeros(4)}, exact))


def test_means_over_classes_have_students_interval() -> None:
    table = pd.DataFrame({"class": ["x", "y", "z"], "method": "m", "value": [0.2, 0.5, 0.9]})
    row = over_classes(table).iloc[0]
    low, high = stats.t.interval(0.95, 2, table["value"].mean(), stats.sem(table["value"]))
    assert row[["value", "low", "high"]].tolist() == pytest.approx([table["value"].mean(), low, high])
    assert row["n_classes"] == 3
    with pytest.raises(InputError, match="one class"):
        over_classes(pd.concat([table, table]))


def test_tables_of_a_scoreboard() -> None:
    sizes = (0.2, 0.8)
    found: dict[tuple[str, ...], Judged] = {
        ("cat", "patching", "same-share", "zero", "logit"): Judged(
            curve_of([0.0, 0.9]), graph_of([1, 2, 3, 5], [3]), 2.0, 4 * 10**9
        ),
        ("cat", "gradient", "global", "zero", "logit"): Judged(
            curve_of([0.6, 0.9]), graph_of([1, 2, 5, 3], [2]), 1.0, 10**9
        ),
    }
    tables = scoreboard_tables(found, sizes, [0.5], "4 units at 1 site")
    assert all(set(table["counted"]) == {"4 units at 1 site"} for table in tables.values())
    known = tables["by_class"].set_index(["method", "what"])["value"]
    assert known["gradient", "size for 0.5, kept"] == 0.2
    assert known["patching", "size for 0.5, kept"] == 0.8
    assert known["patching", "size for 0.5, random"] == 1
    assert known["gradient", "rank correlation"] == pytest.approx(0.8)
    assert known["patching", "GFLOP"] == 4
    assert known["gradient", "CPR"] == pytest.approx(0.6 * 0.75)
    curves = tables["curves"].set_index(["method", "measure", "circuit", "size"])["value"]
    assert curves["gradient", "selectivity", "kept", 0.2] == 0.6
    assert set(tables["summary"]["n_classes"]) == {1}
