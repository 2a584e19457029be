"""Every unit of captum's nets, a ResNet and a ViT against captum's layer methods, and the numbers of captum's tests."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from captum import attr
from captum.testing.helpers.basic_models import (
    BasicModel_ConvNet,
    BasicModel_MultiLayer,
)
from torch import Tensor, nn

from circuitry import Encoder, Task
from circuitry.circuits import AttributionSettings, gauss_legendre_rule, score_units
from tests.support.assert_same import assert_same
from tests.support.metrics import product
from tests.support.towers import make_tower
from tests.support.work import QUIET

LAYERS = (
    "conv1",
    "relu1",
    "pool1",
    "conv2",
    "relu2",
    "pool2",
    (nn.Flatten(), "fc1"),
    "relu3",
    "fc2",
    "softmax",
)


def opened(kind: str) -> tuple[Encoder, Any, dict[str, nn.Module]]:
    """Return an encoder, its metric of images, and the module whose output each site is, as captum wants them."""
    if kind == "captum":
        torch.manual_seed(0)
        net: Any = BasicModel_ConvNet()
        net.conv1 = nn.Conv2d(3, 2, 3)  # of colours
        (
            nn.init.normal_(net.fc1.weight),
            nn.init.normal_(net.fc2.weight),
        )  # all ones give all classes the same
        encoder = Encoder.from_stages(
            net.double().requires_grad_(False), LAYERS, (10, 10)
        )
        return (
            encoder,
            lambda x: product(net(x)),
            {site: net.get_submodule(site) for site in encoder.sites[1:]},
        )
    encoder = Encoder.from_tower(make_tower(kind).double())
    places: dict[str, nn.Module] = {site: nn.Identity() for site in encoder.sites[1:]}

    def forward(x: Tensor) -> Tensor:
        for before, site in pairwise(encoder.sites):
            x = places[site](encoder(x, start=before, stop=site))
        return product(x)

    return encoder, forward, places


def integrated(forward: Any, layer: nn.Module, x: Tensor, other: Tensor) -> Any:
    return attr.LayerIntegratedGradients(forward, layer).attribute(
        x, other, n_steps=7, method="gausslegendre"
    )


def conductance(forward: Any, layer: nn.Module, x: Tensor, other: Tensor) -> Any:
    # Captum takes the gradient at the start of each interval: the mean of both directions is the trapezoid.
    method = attr.LayerConductance(forward, layer)
    there, back = (
        method.attribute(*ends, n_steps=5, method="riemann_trapezoid")
        for ends in ((x, other), (other, x))
    )
    return (there - back) / 2


def ablation(forward: Any, layer: nn.Module, x: Tensor, other: Tensor) -> Any:
    end = attr.LayerActivation(forward, layer).attribute(other)
    dim = 2 if end.dim() == 3 else 1  # of tokens, else of feature maps and vectors
    units = (
        torch.arange(end.shape[dim])
        .expand(end[:1].movedim(dim, -1).shape)
        .movedim(-1, dim)
    )
    effects = attr.LayerFeatureAblation(forward, layer).attribute(
        x, layer_baselines=end, layer_mask=units
    )
    return (
        effects * end.shape[dim] / units.numel()
    )  # every position has the effect of the unit


def gradient(forward: Any, layer: nn.Module, x: Tensor, other: Tensor) -> Any:
    return attr.LayerGradientXActivation(forward, layer).attribute(x)


ORACLES = {
    "site-path": integrated,
    "conductance": conductance,
    "patching": ablation,
    "gradient": gradient,
}


@pytest.mark.parametrize("kind", ["captum", "resnet", "vit"])
@pytest.mark.parametrize("method", ORACLES)
def test_every_unit_has_captums_score(kind: str, method: str) -> None:
    encoder, forward, layers = opened(kind)
    images, others = torch.randn(2, 3, 3, *encoder.image_size, dtype=torch.double)
    task = Task(
        encoder,
        images,
        product,
        baseline="zero" if method == "gradient" else others,
        work=QUIET,
    )
    found = score_units(task, method, AttributionSettings(rule=gauss_legendre_rule(7)))
    assert tuple(found) == tuple(layers)
    for site, layer in layers.items():
        effects = ORACLES[method](forward, layer, images, others).movedim(
            encoder.unit_dim(site), 1
        )
        expected = effects.unsqueeze(2).flatten(2).sum(2).mean(0)
        assert_same(
            found[site], expected, 1e-5, rtol=1e-6
        )  # captum's rules are in single precision


def test_captums_hand_worked_net() -> None:
    # The sum of the image less 10, and three times the sum and 1; behind a ReLU the class is their sum less 1. From an
    # empty image to (0, 100, 0) the first unit is off up to 10, the middle of the first of five intervals: trapezoids
    # are exact, and its part is 90. So are they of the image: 100 by each of three units, and 90.
    net = nn.Sequential(nn.Flatten(), BasicModel_MultiLayer())
    encoder = Encoder.from_stages(
        net, [("0", "1.linear0"), "1.linear1", "1.relu", "1.linear2"], (1, 1)
    )
    image = torch.tensor([0.0, 100, 0])[None, :, None, None]
    task = Task(
        encoder, image, lambda e: e[:, 0], baseline=torch.zeros_like(image), work=QUIET
    )
    expected = dict(
        zip(
            encoder.sites[1:],
            ([0, 390, 0], [90, *[100] * 3], [90, *[100] * 3], [390, 0]),
            strict=True,
        )
    )
    found = score_units(task, "conductance")
    assert found == {
        site: pytest.approx(np.array(scores), abs=1e-4)
        for site, scores in expected.items()
    }
    assert score_units(task, "site-path")["1.relu"] == pytest.approx(
        [90, 100, 100, 100]
    )
    assert score_units(task, "patching")["1.linear1"] == pytest.approx(
        [90, 100, 100, 100]
    )
