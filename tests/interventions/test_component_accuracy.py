"""Accuracy with components at their mean, against hooks on the tower's own modules."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from circuitry.bases import ResidualStream
from circuitry.encoder import Encoder
from circuitry.interventions import mean_ablation_accuracy
from tests.support.towers import make_tower


def test_accuracies_are_those_of_hooks_that_put_means() -> None:
    tower: Any = make_tower("timm-vit")
    stream = ResidualStream.of(Encoder.from_tower(tower))
    torch.manual_seed(1)
    images, weights = torch.randn(40, 3, *stream.encoder.image_size), torch.randn(5, 16)
    with torch.no_grad():
        middle = torch.nn.functional.normalize(tower(images).mean(0), dim=0)
        weights -= (weights @ middle)[:, None] * middle  # so that images are told apart by what is not the same in all
        labels = (tower(images) @ weights.T).argmax(1).numpy()
    found = mean_ablation_accuracy(stream, images, labels, weights).set_index(["block", "component"])["accuracy"]
    assert found[-1, "none"] == 1
    assert list(found.index[1:5]) == [(0, "0"), (0, "1"), (0, "heads"), (0, "mlp")]
    for block, component, module, columns in (
        (0, "1", tower.trunk.blocks[0].attn.proj, slice(8, 16)),
        (1, "heads", tower.trunk.blocks[1].attn.proj, slice(0, 16)),
        (1, "mlp", tower.trunk.blocks[1].mlp.fc2, slice(None)),
    ):

        def put(_: object, inputs: tuple[Tensor], columns: slice = columns) -> tuple[Tensor]:
            x = inputs[0].clone()
            x[..., columns] = x[..., columns].mean(0)
            return (x,)

        handle = module.register_forward_pre_hook(put)
        with torch.no_grad():
            right = (tower(images) @ weights.T).argmax(1).numpy() == labels
        handle.remove()
        assert found[block, component] == pytest.approx(np.mean(right))
    assert found.min() < 1
