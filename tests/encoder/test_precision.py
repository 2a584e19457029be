"""An encoder that runs in bfloat16: what changes, what stays, and that the precision is told."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import circuitry
from circuitry import Encoder, InputError, Task, in_components
from circuitry.bases import ResidualStream
from circuitry.circuits import (
    AttributionSettings,
    attribute_components,
    score_edges,
    score_units,
)
from circuitry.encoder import counted_sites
from tests.support.metrics import product
from tests.support.towers import make_tower
from tests.support.work import QUIET


@pytest.fixture(params=["resnet", "vit"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return in_components(Encoder.from_tower(make_tower(request.param)))


def test_runs_are_those_of_autocast_and_embeddings_have_the_type_of_the_weights(
    encoder: Encoder,
) -> None:
    images = torch.randn(3, 3, *encoder.image_size)
    lower = encoder.in_precision("bfloat16")
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            expected = encoder(images)
        embeddings = lower(images)
        exact = encoder(images)
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings, expected.float(), rtol=0, atol=0)
    assert not torch.equal(embeddings, exact)
    torch.testing.assert_close(embeddings, exact, rtol=0.05, atol=0.05)
    back = lower.in_precision("float32")
    assert back.in_precision("float32") is back
    with torch.no_grad():
        torch.testing.assert_close(back(images), exact, rtol=0, atol=0)


def test_precision_is_an_entry_of_the_identity_and_roles_do_not_change(
    encoder: Encoder,
) -> None:
    lower = encoder.in_precision("bfloat16")
    differs = {
        name
        for name, value in encoder.identity.items()
        if lower.identity[name] != value
    }
    assert differs == {"precision"}
    assert lower.identity["precision"] == ["bfloat16 autocast"]
    assert counted_sites(lower) == counted_sites(encoder)


@pytest.mark.parametrize("name", ["rn-tiny", "vit-tiny"])
def test_scores_are_near_and_edges_are_equal_for_the_same_units(name: str) -> None:
    clip = circuitry.load_clip(name).in_components()
    images = torch.randn(4, 3, *clip.encoder.image_size)
    metric = circuitry.class_logit(clip.text_weights(["clock", "cup"]), 0)
    units = {site: np.array([0, 1]) for site in counted_sites(clip.encoder)}

    def of(precision: str) -> tuple[np.ndarray, Any]:
        encoder = clip.in_precision(precision).encoder
        task = Task(encoder, images, metric, work=QUIET)
        scores = score_units(task, "conductance", AttributionSettings())
        return np.concatenate([*scores.values()]), score_edges(task, units).scores

    nodes, edges = of("float32")
    lower_nodes, lower_edges = of("bfloat16")
    assert np.corrcoef(nodes, lower_nodes)[0, 1] > 0.99
    for pair, scores in edges.items():
        assert (lower_edges[pair] == scores).all(), pair


def test_a_stream_runs_in_the_type_of_the_weights() -> None:
    encoder = Encoder.from_tower(make_tower("vit"))
    images = torch.randn(2, 3, *encoder.image_size)
    graphs = [
        attribute_components(Task(e, images, product, work=QUIET))
        for e in (encoder, encoder.in_precision("bfloat16"))
    ]
    for pair, scores in graphs[0].edge_scores.items():
        assert (graphs[1].edge_scores[pair] == scores).all()


def test_hooks_of_a_lower_precision_are_refused_where_they_would_be_lost(
    encoder: Encoder,
) -> None:
    lower = encoder.in_precision("bfloat16")
    task = Task(lower, torch.randn(2, 3, *encoder.image_size), product, work=QUIET)
    units = {site: np.array([0, 1]) for site in encoder.sites[-3:-1]}

    def smaller(x: Tensor, hook: Any) -> Tensor:
        return 0.3 * x

    for name in (lower.sites[2], *[*lower.points][:1]):
        with lower.hooks([(name, smaller)]):
            with pytest.raises(InputError, match=rf"{name}.*in_precision\('float32"):
                score_edges(task, units)
            with pytest.raises(InputError, match=rf"{name}.*in_precision\('float32"):
                ResidualStream.of(lower)
    score_edges(task, units)


def test_edges_in_lower_precision_are_scored_by_one_encoder_that_sees_new_weights(
    encoder: Encoder,
) -> None:
    lower = encoder.in_precision("bfloat16")
    assert lower.in_type_of_weights() is lower.in_type_of_weights()
    assert encoder.in_type_of_weights() is encoder
    images = torch.randn(2, 3, *encoder.image_size)
    units = {site: np.array([0, 1]) for site in encoder.sites[-3:-1]}
    tasks = [Task(e, images, product, work=QUIET) for e in (encoder, lower)]
    score_edges(tasks[1], units)
    for weights in encoder.tower.parameters():
        weights.data.mul_(1.1)
    found, expected = (score_edges(task, units).scores for task in tasks)
    for pair, scores in expected.items():
        assert (found[pair] == scores).all()


def test_an_unknown_precision_is_refused(encoder: Encoder) -> None:
    with pytest.raises(InputError, match=r"'float32', 'bfloat16'.*'float64'"):
        encoder.in_precision("float64")
