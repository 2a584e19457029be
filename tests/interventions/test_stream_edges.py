"""Edges of the residual stream kept by size, and masks learned on them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from circuitry.circuits.attribution import attribute
from circuitry.circuits.quadrature import left_rule
from circuitry.circuits.residual_edges import score_edges
from circuitry.interventions.edge_cuts import take_edges
from circuitry.interventions.faithfulness import AblationSettings
from circuitry.interventions.gates import GatedRuns
from circuitry.interventions.masks import MaskSettings, learn_masks
from circuitry.interventions.stream_edges import EDGES, EdgeRuns, edge_curve, kept_edge_embeddings
from circuitry.models.components import in_components
from circuitry.models.encoder import Encoder
from circuitry.models.residual import ResidualStream
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work
from tests.support.towers import make_tower


def metric(embedding: Tensor) -> Tensor:
    return embedding[:, 0] * embedding[:, 1] + embedding[:, 2]


def opened(name: str = "timm-vit") -> tuple[ResidualStream, Tensor]:
    encoder = Encoder.from_tower(make_tower(name).double())
    torch.manual_seed(1)
    return ResidualStream.of(encoder), torch.randn(4, 3, *encoder.image_size, dtype=torch.float64)


def test_all_edges_are_the_model_none_the_baseline_and_sizes_follow_the_scores() -> None:
    stream, images = opened()
    other = images.flip(0)
    found = score_edges(stream, images, metric, baseline=other)
    settings = AblationSettings(other, fractions=(0.1, 0.5, 1.0), random_draws=2)
    curve = edge_curve(stream, images[:2], metric, found, replace(settings, baseline=other[:2]))
    with torch.no_grad():
        np.testing.assert_allclose(curve.full, metric(stream.encoder(images[:2])).numpy())
        np.testing.assert_allclose(curve.empty, metric(stream.encoder(other[:2])).numpy())
        keep = stream.edges & (torch.from_numpy(found.scores).abs().nan_to_num() >= _threshold(found.scores, 0.1))
        np.testing.assert_allclose(curve.kept[0], metric(stream.run(images[:2], keep, other[:2])).numpy())
        left = stream.edges & ~keep
        np.testing.assert_allclose(curve.complement[0], metric(stream.run(images[:2], left, other[:2])).numpy())
    np.testing.assert_allclose(curve.faithfulness[-1], 1)
    np.testing.assert_allclose(curve.random[:, -1], np.stack([curve.full] * 2))
    assert curve.n_units == (round(0.1 * int(stream.edges.sum())), round(0.5 * curve.n_units[-1]), curve.n_units[-1])


def _threshold(scores: np.ndarray, fraction: float) -> float:
    strengths = np.sort(np.abs(scores[~np.isnan(scores)]))[::-1]
    return float(strengths[round(fraction * len(strengths)) - 1])


def test_images_in_parts_take_their_own_baseline() -> None:
    stream, images = opened()
    mask = stream.edges.numpy() & (np.arange(stream.edges.shape[1]) % 2 == 0)
    whole = kept_edge_embeddings(stream, images, [mask], baseline=images.flip(0))
    parts = kept_edge_embeddings(stream, images, [mask], baseline=images.flip(0), work=Work(memory_gib=1e-9))
    torch.testing.assert_close(parts, whole)


def test_a_mask_is_learned_on_edges() -> None:
    """Edges are kept that carry the answers: better than as many at random."""
    stream, images = opened("vit")
    own = np.arange(4) < 2
    with stream.components.frozen():
        runs = EdgeRuns(stream, images)
        with torch.no_grad():
            torch.testing.assert_close(
                runs.run({EDGES: torch.ones(runs.n_units[EDGES])}), stream.encoder(images), rtol=1e-6, atol=1e-6
            )
        settings = MaskSettings(steps=30, restarts=1)
        mask = learn_masks(runs, lambda e: e[:, :4], own, 0.3, settings)[0]
        kept = mask.scores[EDGES] >= 0
        assert kept.sum() == round(0.3 * runs.n_units[EDGES])
        rng = np.random.default_rng(0)
        target = runs.embeddings[:, :4]

        def lost(gates: np.ndarray) -> float:
            with torch.no_grad():
                found = runs.run({EDGES: torch.from_numpy(gates).float()})[:, :4]
            return float((found - target).square().sum())

        assert lost(kept) < np.mean([lost(rng.permutation(kept)) for _ in range(10)])


def test_gates_leave_alone_what_is_carried() -> None:
    stream, images = opened()
    encoder = stream.components
    sites = stream.sites[1:]
    with encoder.frozen(), torch.no_grad():
        runs = GatedRuns(encoder, images, sites, images.flip(0))
        assert runs.n_units == dict(zip(sites, (2, 64, 2, 64), strict=True))
        ones = {site: torch.ones(n) for site, n in runs.n_units.items()}
        torch.testing.assert_close(runs.run(ones), encoder(images))
        only = runs.run({sites[1]: torch.zeros(64)})
        _, cache = encoder.run_with_cache(images)
        _, theirs = encoder.run_with_cache(images.flip(0))
        x = encoder.carry(sites[1], encoder.units_of(sites[1], theirs[sites[1]]), cache[sites[1]])
        torch.testing.assert_close(only, encoder(x, start=sites[1]))


def test_what_does_not_fit_is_told() -> None:
    stream, images = opened()
    found = score_edges(stream, images, metric)
    with pytest.raises(InputError, match=r"scores of shape \[15, 6\] were given: score the edges of this tower"):
        edge_curve(stream, images, metric, replace(found, scores=found.scores[:, 1:]))
    with pytest.raises(InputError, match="at least one image and one mask"):
        kept_edge_embeddings(stream, images[:0], [stream.edges.numpy()])
    with pytest.raises(InputError, match="Gated runs need at least one image"):
        EdgeRuns(stream, images[:0])
    graph = attribute(in_components(stream.encoder), images, metric, 0.1, left_rule(1), progress=False)
    with pytest.raises(InputError, match=r"has some from trunk.norm_pre to trunk.blocks.0.mlp: cut edges of heads and"):
        take_edges(graph.circuit(1))
