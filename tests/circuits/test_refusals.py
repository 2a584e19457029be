"""What attribution cannot work with is refused in one sentence that names it, and never becomes a graph."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import circuitry
from circuitry import Encoder, InputError, class_logit, left_rule
from circuitry.circuits.attribution import attribute_parts
from circuitry.circuits.settings import AttributionSettings
from circuitry.models.baselines import Baseline
from circuitry.models.batches import ImageBatches
from circuitry.models.stages import Stage
from tests.support.oracles import setting
from tests.support.towers import make_tower


@pytest.fixture
def vit() -> tuple[Encoder, Tensor, Tensor]:
    return setting(make_tower("vit"))


def test_a_metric_that_is_not_finite_is_named(vit: tuple[Encoder, Tensor, Tensor]) -> None:
    encoder, images, _ = vit

    def broken(e: Tensor) -> Tensor:
        return e.sum(1) * float("nan")

    with pytest.raises(InputError, match=r"the metric '.*broken' is NaN or infinite for one of 3 embeddings"):
        circuitry.attribute(encoder, images, broken, rule=left_rule(1), progress=False)
    with pytest.raises(InputError, match=r"the metric '.*broken' is NaN or infinite"):
        attribute_parts(encoder, images, broken, AttributionSettings(), np.arange(3), progress=False)


def test_a_metric_that_is_not_finite_at_the_baseline_is_named(vit: tuple[Encoder, Tensor, Tensor]) -> None:
    encoder, images, _ = vit
    with pytest.raises(InputError, match=r"is NaN or infinite for one of 1 embeddings"):
        circuitry.attribute(encoder, images, lambda e: 1 / e.norm(dim=1), rule=left_rule(1), progress=False)


def test_a_baseline_at_a_site_that_there_is_not_is_refused(vit: tuple[Encoder, Tensor, Tensor]) -> None:
    encoder, images, weights = vit
    baseline = Baseline("median", {"layer99": torch.zeros(1, 4)})
    with pytest.raises(InputError, match=r"There is no site 'layer99'; this encoder's sites are input, "):
        circuitry.attribute(encoder, images, class_logit(weights, 0), baseline=baseline, progress=False)


def test_a_gradient_that_is_not_finite_names_the_site(vit: tuple[Encoder, Tensor, Tensor]) -> None:
    encoder, images, _ = vit

    def flat(e: Tensor) -> Tensor:
        return (e.sum(1) * 0).sqrt()

    for rule in (left_rule(1), circuitry.midpoint_rule(1)):
        with pytest.raises(InputError, match=r"metric '.*flat' by the activation at site 'input' is NaN"):
            circuitry.attribute(encoder, images, flat, rule=rule, progress=False)


def test_edges_that_are_not_finite_name_the_pair() -> None:
    """Activations of 1e20 are finite in single precision, their squared movements are not."""
    stages = (Stage("act1", lambda x: 1e20 * x, 1), Stage("act2", lambda x: 2 * x, 1), Stage("embedding", _unit_sum, 1))
    encoder = Encoder(torch.nn.Linear(1, 1), stages, (2, 2))
    with pytest.raises(InputError, match="Scores of edges from 'act1' to 'act2' are NaN or infinite"):
        circuitry.attribute(encoder, torch.ones(1, 3, 2, 2), lambda e: e[:, 0], progress=False)


def _unit_sum(x: Tensor) -> Tensor:
    return (x * 1e-20).sum((2, 3))


@pytest.mark.parametrize("way", ["a tensor", "a list", "nothing", "parts"])
def test_no_images_are_refused(vit: tuple[Encoder, Tensor, Tensor], way: str) -> None:
    encoder, images, weights = vit
    metric, none = class_logit(weights, 1), images[:0]
    given: Any = {"a tensor": none, "a list": [none, none]}.get(way, [])

    def run() -> object:
        if way == "parts":
            return attribute_parts(encoder, none, metric, AttributionSettings(), np.arange(0), progress=False)
        return circuitry.attribute(encoder, given, metric, progress=False)

    with pytest.raises(InputError, match="at least one image, but there were none"):
        run()


def test_wrong_types_get_a_sentence(vit: tuple[Encoder, Tensor, Tensor]) -> None:
    encoder, images, weights = vit
    metric = class_logit(weights, 1)
    attribute: Any = circuitry.attribute.__wrapped__  # type: ignore[attr-defined]  # as users have it, without beartype
    for first, last in ((encoder.tower, metric), (None, metric), (encoder, None), (encoder, "logit")):
        with pytest.raises(InputError, match=r"takes an Encoder, such as clip.encoder, and a metric, .*were given"):
            attribute(first, images, last, progress=False)
    pairs = DataLoader(TensorDataset(images, torch.zeros(3)), batch_size=2)
    batches: Any = ImageBatches.__init__.__wrapped__  # type: ignore[attr-defined]
    for given, kind in ((pairs, "list"), (images.numpy(), "ndarray"), (iter([np.zeros(3)]), "ndarray"), (None, "None")):
        made = ImageBatches.__new__(ImageBatches)
        with pytest.raises(InputError, match=f"an iterable of such batches, but {kind}.* was given"):
            list(batches(made, given, encoder, 2) or made)


def test_all_scores_may_be_zero(vit: tuple[Encoder, Tensor, Tensor]) -> None:
    encoder, images, _ = vit
    graph = circuitry.attribute(encoder, images, lambda e: 0 * e.sum(1), progress=False)
    assert all((scores == 0).all() for scores in graph.node_scores.values())
