"""Circuits of latents: their error units, curves and transfer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import circuitry
from circuitry import (
    AttributionGraph,
    Task,
    class_logit,
    faithfulness_curve,
    in_feature_basis,
    left_rule,
    mean_baseline,
    midpoint_rule,
)
from circuitry.interventions import AblationSettings, ClassScorer, circuit_of, kept_embeddings, transfer_circuits
from tests.support.feature_bases import attribute, clean_by_hand, decode_by_hand, setting
from tests.support.work import QUIET


def test_only_latents_are_nodes(tmp_path: Path) -> None:
    plain, saes, images, weights = setting("resnet", "relu")
    features = in_feature_basis(plain, saes)
    graph = attribute(features, images, weights, node_fraction=1.0, rule=left_rule(1))
    for site, sae in saes.items():
        assert sorted(graph.kept_units[site]) == list(range(sae.n_features))
        assert graph.error_scores[site].shape == (sae.d,)
        assert graph.n_units(site) == sae.n_features + sae.d
    assert graph.n_units("act1") == 4
    assert f"{next(iter(saes))}/0" in graph.circuit().graph
    graph.save(tmp_path / "graph")
    stored = AttributionGraph.load(tmp_path / "graph")
    assert stored.error_scores.keys() == saes.keys()
    assert all(np.array_equal(stored.error_scores[site], graph.error_scores[site]) for site in saes)
    # Sites that were not asked for have no scores.
    some = attribute(features, images, weights, rule=left_rule(1), sites=("act1", "layer4.0"))
    assert (list(some.node_scores), list(some.error_scores)) == (["act1", "layer4.0"], [])


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_circuits_with_and_without_error(name: str) -> None:
    plain, saes, images, _ = setting(name, "relu")
    features = in_feature_basis(plain, saes)
    site, sae = next(iter(saes.items()))
    kept = [1, 4, 6]
    latents, error, beside = clean_by_hand(plain, sae, images, site)
    alone = torch.zeros_like(latents)
    alone[..., kept] = latents[..., kept]

    def embedded(x: Tensor) -> Tensor:
        with torch.no_grad():
            embedding: Tensor = plain(x.movedim(-1, plain.unit_dim(site)), start=site)
        return embedding

    task = Task(features, images, lambda e: e[:, 0], work=QUIET)
    circuit = circuit_of(task, {site: kept})
    found = kept_embeddings(task, [circuit, replace(circuit, keep_error=True), circuit_of(task, {})])
    decoded = decode_by_hand(sae, alone, beside)
    expected = [embedded(decoded), embedded(decoded + error), plain(images)]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("keep_error", [False, True])
def test_ends_of_the_curve(keep_error: bool) -> None:
    plain, saes, images, _ = setting("vit", "relu", n=4)
    features = in_feature_basis(plain, saes)
    reference = torch.randn_like(images)
    baseline = mean_baseline(features, [reference])
    with torch.no_grad():
        direction = plain(images).mean(0) - plain(reference).mean(0)

    def metric(e: Tensor) -> Tensor:
        out: Tensor = e @ direction
        return out

    graph = circuitry.attribute(features, images, metric, rule=midpoint_rule(1), baseline=baseline, progress=False)
    task = Task(features, images, metric, baseline=baseline, work=QUIET)
    settings = AblationSettings(fractions=(0.1, 1.0), random_draws=2, keep_error=keep_error)
    curve = faithfulness_curve(task, graph, settings)
    with torch.no_grad():
        assert curve.full == pytest.approx(metric(plain(images)).numpy(), rel=1e-9)
    empty_circuit = graph.circuit(None).nothing()
    latents = empty_circuit.complement()  # with all error units
    kept = metric(kept_embeddings(task, [replace(latents, keep_error=keep_error)])[0]).numpy()
    empty = metric(kept_embeddings(task, [empty_circuit])[0]).numpy()
    assert curve.empty == pytest.approx(empty, rel=1e-9)
    assert curve.kept[-1] == pytest.approx(kept, rel=1e-9)
    assert curve.random[:, -1] == pytest.approx(np.stack([kept, kept]), rel=1e-9)
    assert curve.n_units[-1] == latents.count
    assert curve.settings["keep_error"] is keep_error
    if keep_error:
        assert (curve.faithfulness[-1], curve.completeness[-1]) == pytest.approx((1, 0), abs=1e-9)
    else:  # what the latents explain, and what is left to the error
        assert not np.isclose(curve.faithfulness[-1], 1)
        left = metric(kept_embeddings(task, [replace(empty_circuit, keep_error=True)])[0]).numpy()
        assert curve.complement[-1] == pytest.approx(left, rel=1e-9)


def test_transfer_keeps_the_error_where_told() -> None:
    plain, saes, images, weights = setting("vit", "relu")
    features = in_feature_basis(plain, saes)
    graph = replace(
        attribute(features, images, weights, node_fraction=1.0, rule=left_rule(1)), class_name="a", domain="x"
    )
    key = ("a", "x")

    def row(keep_error: bool) -> Any:
        tasks = {key: Task(features, images, class_logit(weights, 1), work=QUIET)}
        circuits = {key: replace(graph.circuit(None), keep_error=keep_error)}
        return transfer_circuits(tasks, circuits, ClassScorer(weights, {"a": 1})).iloc[0]

    assert row(True)["metric"] == row(True)["full_metric"] == pytest.approx(row(False)["full_metric"])
    assert row(False)["metric"] != pytest.approx(row(False)["full_metric"])
    with torch.no_grad():
        assert row(False)["full_metric"] == pytest.approx(float(class_logit(weights, 1)(plain(images)).mean()))
