"""Tests of a circuit: a planted circuit passes, a wrong one does not, and each row by an independent computation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from circuitry import InputError, left_rule
from circuitry.circuits import AttributionGraph, attribute
from circuitry.interventions import JudgementSettings, judge_circuit
from circuitry.study import PlantedCircuit, planted_convolution
from tests.support.work import QUIET


def graph_of(planted: PlantedCircuit, kept: dict[str, tuple[int, ...]]) -> AttributionGraph:
    graph = attribute(planted.encoder, planted.images(4, 0), planted.metric, 0.5, left_rule(1), progress=False)
    units = {site: np.array(some, dtype=np.int64) for site, some in kept.items()}
    return replace(graph, kept_units={"input": np.zeros(0, np.int64)} | units, edge_scores={}, settings={})


def test_the_planted_circuit_passes() -> None:
    planted = planted_convolution(noise=0.0)
    images = planted.images(12, 1)
    table = judge_circuit(planted.encoder, images, planted.metric, graph_of(planted, planted.nodes), work=QUIET)
    rows = table.set_index("test")
    assert list(rows.index) == ["circuit", "complement", "sufficiency", "necessity", "minimality (units)"]
    assert rows.loc["circuit", "value"] == pytest.approx(1, abs=1e-5)
    assert rows.loc["complement", "value"] == pytest.approx(0, abs=1e-5)
    assert rows.loc["sufficiency", "value"] == 1
    assert rows.loc["sufficiency", "p"] == pytest.approx(stats.binom.sf(39, 40, 0.9))
    # A random circuit may hold the one unit of the head that matters, too; taken away, nothing is left either.
    assert rows["value"].astype(float).between(0.5, 1)["necessity"]
    assert not rows.loc["necessity", "holds"]
    assert rows["holds"].drop("necessity").all()


def test_a_wrong_circuit_fails_and_an_idle_unit_is_told() -> None:
    planted = planted_convolution(noise=0.0)
    images = planted.images(12, 1)
    wrong = graph_of(planted, {"conv1": (2, 3), "conv2": (2, 3), "head": (1,)})
    failed = judge_circuit(planted.encoder, images, planted.metric, wrong, work=QUIET).set_index("test")["holds"]
    assert not failed[["circuit", "complement", "sufficiency", "necessity", "minimality (units)"]].any()
    idle = graph_of(planted, {**planted.nodes, "conv1": (0, 1, 2)})
    table = judge_circuit(planted.encoder, images, planted.metric, idle, work=QUIET).set_index("test")
    assert table.loc["minimality (units)", "value"] == pytest.approx(5 / 6)
    assert not table.loc["minimality (units)", "holds"]


def test_edges_and_images_of_other_classes() -> None:
    planted = planted_convolution(noise=0.0)
    graph = attribute(planted.encoder, planted.images(4, 0), planted.metric, 0.25, progress=False)
    bright = planted.images(8, 1) + torch.tensor([1.0, 0, 0])[:, None, None]
    table = judge_circuit(
        planted.encoder,
        bright,
        planted.metric,
        graph,
        others=planted.images(8, 2),
        circuit=graph.circuit(1),
        work=QUIET,
    ).set_index("test")
    assert (table["measure"] == "selectivity").all()
    assert table.loc["circuit", "value"] == pytest.approx(1, abs=1e-4)
    assert table.loc["minimality (edges)", "n"] == graph.circuit(1).graph.number_of_edges()


def test_refusals() -> None:
    planted = planted_convolution()
    with pytest.raises(InputError, match=r"Beating all of 20 random circuits is not significant .* draw at least 29"):
        JudgementSettings(draws=20)
    with pytest.raises(InputError, match=r"at least one random circuit"):
        JudgementSettings(draws=0)
    nothing = graph_of(planted, {"conv1": (), "conv2": (), "head": ()})
    harmful = attribute(planted.encoder, planted.images(4, 0), planted.metric, 0.25, left_rule(1), progress=False)
    harmful = replace(harmful, edge_scores={pair: -np.abs(scores) for pair, scores in harmful.edge_scores.items()})
    with pytest.raises(
        InputError, match=r"has no edges to test: give one whose edges have scores above 0, or test its"
    ):
        judge_circuit(
            planted.encoder, planted.images(2, 0), planted.metric, harmful, circuit=harmful.circuit(3), work=QUIET
        )
    with pytest.raises(InputError, match=r"has no units: there is nothing to test"):
        judge_circuit(planted.encoder, planted.images(2, 0), planted.metric, nothing, work=QUIET)
    other = attribute(planted_convolution(seed=1).encoder, planted.images(2, 0), planted.metric, progress=False)
    with pytest.raises(
        InputError, match=r"The circuit is of the encoder with digest .* give the encoder that it was found"
    ):
        judge_circuit(planted.encoder, planted.images(2, 0), planted.metric, other, work=QUIET)
