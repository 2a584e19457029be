"""Counted operations against a count on paper."""

import pytest
import torch
from torch import Tensor, nn

from circuitry import Encoder, attribute, class_logit, midpoint_rule
from circuitry.bases import ResidualStream, in_feature_basis
from circuitry.circuits import AttributionSettings, count_operations
from circuitry.circuits.cost import OperationCounter
from circuitry.encoder import Stage
from tests.support.feature_bases import setting
from tests.support.towers import make_tower


def two_layers() -> Encoder:
    """Input [B,3,1,2] -> 5 units -> 2: forward 2 (6 x 5) = 60, then 2 (5 x 2) = 20 operations an image."""
    first, last = torch.randn(6, 5), torch.randn(5, 2)
    stages = (Stage("hidden", lambda x: x.flatten(1) @ first, 1), Stage("out", lambda x: x @ last, 1))
    return Encoder(nn.Linear(1, 1), stages, (1, 2))


def total(embedding: Tensor) -> Tensor:
    return embedding.sum(1)


@pytest.mark.parametrize("points", [1, 3])
def test_operations_by_hand(points: int) -> None:
    settings = AttributionSettings(rule=midpoint_rule(points), node_fraction=0.4)
    found = count_operations(two_layers(), total, settings)
    # Nodes: one clean run, one run from the baseline of each site, and for each point forward and backward.
    assert found.nodes == 80 + (80 + 20) + points * 2 * (80 + 20)
    # Edges from 2 of 5 hidden units to 1 of 2: a clean run, then the last stage forward and once backward.
    assert found.edges == 80 + points * (20 + 20)


@pytest.mark.parametrize("units", ["latents", "components"])
def test_an_attribution_takes_what_is_counted(units: str) -> None:
    if units == "latents":
        plain, saes, _, weights = setting("resnet", "relu")
        encoder = in_feature_basis(plain, saes)
    else:
        encoder, weights = ResidualStream.of(Encoder.from_tower(make_tower("vit"))).components, torch.eye(16)
    metric = class_logit(weights, 1)
    settings = AttributionSettings(rule=midpoint_rule(2), node_fraction=0.2)
    image = torch.randn(1, 3, *encoder.image_size, dtype=encoder.dtype)
    found = count_operations(encoder, metric, settings)
    with OperationCounter() as counter:
        attribute(encoder, image, metric, settings.node_fraction, settings.rule, progress=False)
    assert found.nodes + found.edges == counter.total
    assert min(found) > 0
