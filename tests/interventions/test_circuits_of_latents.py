"""Circuits of latents: their error units, curves and transfer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from circuitry import (
    AttributionGraph,
    Task,
    class_logit,
    in_feature_basis,
    left_rule,
)
from circuitry.interventions import ClassScorer, circuit_of, kept_embeddings, transfer_circuits
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
