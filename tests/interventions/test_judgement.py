"""Tests of a circuit: a planted circuit passes, a wrong one does not, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor

from circuitry import AttributionGraph, Encoder, Task, attribute, left_rule
from circuitry.encoder import Stage
from circuitry.interventions import judge_circuit
from circuitry.judging import PlantedCircuit, planted_convolution
from tests.support.work import QUIET

PLANTED = planted_convolution(noise=0.0)


def graph_of(kept: dict[str, Any], planted: PlantedCircuit = PLANTED) -> AttributionGraph:
    graph = attribute(planted.encoder, planted.images(4, 0), planted.metric, 0.5, left_rule(1), progress=False)
    units = {site: np.array(some, dtype=np.int64) for site, some in kept.items()}
    return replace(graph, kept_units={"input": np.zeros(0, np.int64)} | units, edge_scores={})


def task_of(planted: PlantedCircuit = PLANTED, **given: Any) -> Task:
    return Task(planted.encoder, planted.images(12, 1), planted.metric, work=QUIET, **given)


def test_the_planted_circuit_passes() -> None:
    rows = judge_circuit(task_of(), graph_of(PLANTED.nodes).circuit(None)).set_index("test")
    assert list(rows.index) == ["circuit", "complement", "sufficiency", "necessity", "minimality (units)"]
    assert rows.loc["circuit", "value"] == pytest.approx(1, abs=1e-5)
    assert rows.loc["complement", "value"] == pytest.approx(0, abs=1e-5)
    assert rows.loc["sufficiency", "value"] == 1
    assert rows.loc["sufficiency", "p"] == pytest.approx(stats.binom.sf(39, 40, 0.9))
    # A random circuit may hold the one unit of the head that matters, too; taken away, nothing is left either.
    assert rows["value"].astype(float).between(0.5, 1)["necessity"]
    assert not rows.loc["necessity", "holds"]
    assert rows["holds"].drop("necessity").all()


def test_a_wrong_circuit_fails_and_a_unit_without_effect_is_found() -> None:
    wrong = graph_of({"conv1": (2, 3), "conv2": (2, 3), "head": (1,)})
    assert not judge_circuit(task_of(), wrong.circuit(None))["holds"].any()
    with_one_more = graph_of({**PLANTED.nodes, "conv1": (0, 1, 2)})
    table = judge_circuit(task_of(), with_one_more.circuit(None)).set_index("test")
    assert table.loc["minimality (units)", "value"] == pytest.approx(5 / 6)
    assert not table.loc["minimality (units)", "holds"]
    without = judge_circuit(task_of(), with_one_more.circuit(None), minimality=False).set_index("test")
    assert without.equals(table.drop("minimality (units)"))


def test_edges_and_images_of_other_classes() -> None:
    graph = attribute(PLANTED.encoder, PLANTED.images(4, 0), PLANTED.metric, 0.25, progress=False)
    bright = PLANTED.images(8, 1) + torch.tensor([1.0, 0, 0])[:, None, None]
    task = replace(task_of(), images=bright, others=PLANTED.images(8, 2))
    table = judge_circuit(task, graph.circuit(1)).set_index("test")
    assert (table["measure"] == "selectivity").all()
    assert table.loc["circuit", "value"] == pytest.approx(1, abs=1e-4)
    assert table.loc["minimality (edges)", "n"] == graph.circuit(1).graph.number_of_edges()


def test_a_circuit_may_keep_no_unit_of_a_site() -> None:
    graph = attribute(PLANTED.encoder, PLANTED.images(4, 0), PLANTED.metric, 0.3, budget="global", progress=False)
    empty = graph_of({site: [] if site == "conv1" else units for site, units in graph.kept_units.items()})
    assert len({len(units) for units in graph.kept_units.values()}) > 1
    assert judge_circuit(task_of(), graph.circuit(None))["value"].notna().all()
    table = judge_circuit(task_of(), empty.circuit(None)).set_index("test")
    assert table.loc["circuit", "value"] == pytest.approx(0, abs=1e-5)  # conv1 is at its baseline
    assert not table.loc["sufficiency", "holds"]


def judged_weights(weights: Tensor, kept: list[int]) -> pd.DataFrame:
    """Judge some of the units that bring their weight of a number of the image to the metric: 2 or 3, of others 1."""
    stages = (
        Stage("units", lambda x: x[:, 0].flatten(1) * weights, 1),
        Stage("embedding", lambda u: u.sum(1, keepdim=True), 1),
    )
    encoder = Encoder(torch.nn.Linear(1, 1), stages, (1, 1))
    images, others = (
        torch.tensor(numbers)[:, None, None, None].expand(-1, 3, 1, 1) for numbers in ([2.0, 3.0, 2.0], [1.0, 1.0])
    )
    task = Task(encoder, images, lambda e: e[:, 0], sites=["units"], others=others, work=QUIET)
    scores = {"input": np.zeros(1), "units": weights.numpy()}
    graph = AttributionGraph(tuple(scores), scores, {"units": np.array(kept)}, {}, {}, 1)
    return judge_circuit(task, graph.circuit(None), minimality=False).set_index("test")


def test_what_random_units_reach_does_not_hold() -> None:
    # Of 20 equal units any six recover 0.3.
    table = judged_weights(torch.ones(20), list(range(6)))
    assert table[["value", "low", "random_low", "random_high"]].to_numpy()[0] == pytest.approx([0.3] * 4)
    assert table[["random_low", "random_high"]].to_numpy()[3] == pytest.approx([0.7] * 2)
    assert not table["holds"].any()


@pytest.mark.parametrize(("weight", "holds"), [(0.07, False), (0.5, True)])
def test_better_than_random_is_not_yet_sufficient(weight: float, holds: bool) -> None:
    # One of 5,000 units; random ones do nothing.
    table = judged_weights(torch.tensor([weight, 1 - weight] + [0.0] * 4998), [0])
    assert table[["value", "random_low", "random_high"]].to_numpy()[0] == pytest.approx([weight, 0, 0])
    assert table.loc["sufficiency", "p"] == pytest.approx(stats.binom.sf(39, 40, 0.9))  # below 0.05
    assert table.loc[["circuit", "sufficiency"], "holds"].tolist() == [holds] * 2
