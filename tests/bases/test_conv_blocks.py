"""Hidden channels of convolutional blocks as units: equal to hooks on its own modules, and without leaks."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuitry.bases import in_components
from circuitry.encoder import (
    Chain,
    ConvBlock,
    Encoder,
    Stage,
    Task,
    linked_stages,
    register_architecture,
)
from circuitry.encoder.adapters import _READERS
from circuitry.encoder.narrowing import in_order
from circuitry.gates import Patch, patched
from circuitry.interventions import circuit_of, kept_embeddings
from tests.support.library_towers import NETS, library_tower
from tests.support.metrics import product as metric
from tests.support.towers import TOWERS, make_tower

EVERY = (*TOWERS, *(name for name in NETS if name not in TOWERS))


def tower_called(name: str) -> nn.Module:
    """Return a tower in double precision."""
    made: nn.Module = make_tower(name) if name in TOWERS else library_tower(name)[0]
    return made.double()


def wrapped(name: str) -> tuple[Encoder, Encoder, Tensor]:
    encoder = Encoder.from_tower(tower_called(name))
    torch.manual_seed(1)
    return (
        encoder,
        in_components(encoder),
        torch.randn(3, 3, *encoder.image_size).double(),
    )


@pytest.mark.parametrize(
    "name", [name for name in EVERY if name not in ("swin", "timm-fastvit")]
)
def test_with_no_component_kept_all_images_have_one_output(name: str) -> None:
    encoder, components, images = wrapped(name)
    first_block = next(
        i for i, site in enumerate(components.sites) if site not in encoder.sites
    )
    inside = [
        s
        for i, s in enumerate(components.sites)
        if i and (i < first_block or s not in encoder.sites)
    ]
    task = Task(components, images, metric)
    with torch.no_grad():
        found = components(images)
        assert (found - encoder(images)).abs().max() < 1e-12 * found.abs().max()
    empty = kept_embeddings(task, [circuit_of(task, {site: [] for site in inside})])[0]
    assert (empty - empty[:1]).abs().max() < 1e-6 * found.std(0).max()


def cut(tower: nn.Module, path: str, unit: int, images: Tensor) -> Tensor:
    """Return the tower's output with a channel of a module's output at zero, by PyTorch's own hook."""

    def zero(_: nn.Module, given: object, out: Tensor) -> Tensor:
        out = out.clone()
        out[:, unit] = 0
        return out

    handle = tower.get_submodule(path).register_forward_hook(zero)
    try:
        with torch.no_grad():
            found: Tensor = tower(images)
    finally:
        handle.remove()
    return found


@pytest.mark.parametrize(
    ("name", "site", "path"),
    [
        ("resnet", "layer2.0.act1", "layer2.0.act1"),
        ("resnet", "layer2.0.avgpool", "layer2.0.avgpool"),
        ("resnet", "layer2.0.downsample", "layer2.0.downsample"),
        ("resnet", "layer2.1.act2", "layer2.1.act2"),
        ("efficientnet", "blocks.0.0.bn1", "blocks.0.0.bn1"),
        ("efficientnet", "blocks.1.1.bn2", "blocks.1.1.bn2"),
        ("efficientnet", "blocks.2.0.se", "blocks.2.0.se"),
        ("timm-resnet", "layer2.0.act1", "layer2.0.act1"),
        ("timm-regnet", "s2.b1.conv2", "s2.b1.conv2"),
        ("timm-regnet", "s2.b1.downsample", "s2.b1.downsample"),
        ("timm-mobilenet", "blocks.5.0.bn1", "blocks.5.0.bn1"),
        (
            "torchvision-regnet",
            "trunk_output.block2.block2-1.f.b",
            "trunk_output.block2.block2-1.f.b",
        ),
        ("torchvision-efficientnet", "features.2.0.block.2", "features.2.0.block.2"),
        ("torchvision-mobilenet-v2", "features.3.conv.1", "features.3.conv.1"),
        ("torchvision-mobilenet-v3", "features.5.block.2", "features.5.block.2"),
    ],
)
def test_cutting_a_hidden_channel_is_cutting_it_by_a_hook(
    name: str, site: str, path: str
) -> None:
    encoder, components, images = wrapped(name)
    for unit in (0, 3):
        with torch.no_grad(), patched(components, [Patch(site, 0.0, units=[unit])]):
            found = components(images)
        whole = encoder(images)
        assert (
            found - cut(encoder.tower, path, unit, images)
        ).abs().max() < 1e-12 * whole.abs().max()
        assert site in components.sites


@pytest.mark.parametrize(
    ("name", "site"),
    [("convnext", "trunk.stages.2.blocks.1.mlp.act"), ("timm-convnext", "")],
)
def test_neurons_of_convnext_are_cut_as_by_a_hook(name: str, site: str) -> None:
    encoder, components, images = wrapped(name)
    site = site or "stages.2.blocks.0.mlp.act"
    mlp: Any = encoder.tower.get_submodule(site.rsplit(".", 1)[0])
    axis = 1 if encoder.tower.get_submodule(site.rsplit(".", 2)[0]).use_conv_mlp else -1
    handle = mlp.act.register_forward_hook(
        lambda _, given, out: out.index_fill(axis, torch.tensor([1]), 0)
    )
    whole = encoder.tower(images)
    handle.remove()
    with torch.no_grad(), patched(components, [Patch(site, 0.0, units=[1])]):
        assert (components(images) - whole).abs().max() < 1e-12 * whole.abs().max()


def test_a_head_of_attention_pooling_is_its_columns_of_the_last_projection() -> None:
    encoder, components, images = wrapped("resnet")
    pool: Any = encoder.tower.attnpool
    width = pool.c_proj.in_features // pool.num_heads
    with torch.no_grad():
        with patched(components, [Patch("attnpool.heads", 0.0, units=[1])]):
            found = components(images)
        pool.c_proj.weight[:, width : 2 * width] = 0
        assert (found - encoder.tower(images)).abs().max() < 1e-12 * found.abs().max()


class Mine(nn.Module):
    """A tower of two blocks of a user's own kind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.first, self.second = (
            nn.ModuleDict({"up": nn.Conv2d(4, 6, 1), "down": nn.Conv2d(6, 4, 1)})
            for _ in "12"
        )

    def block(self, block: nn.ModuleDict, x: Tensor) -> Tensor:
        made: Tensor = x + block["down"](block["up"](x).relu())
        return made

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.second, self.block(self.first, self.stem(x))).mean(
            (2, 3)
        )


def test_a_user_names_blocks_of_another_kind_in_the_chain_of_a_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(tower: nn.Module) -> Chain | None:
        if not isinstance(tower, Mine):
            return None
        modules = {"first": tower.first, "second": tower.second}
        stages = [
            Stage(site, partial(tower.block, one), 1) for site, one in modules.items()
        ]
        pool = Stage("pool", lambda x: x.mean((2, 3)), 1)
        blocks = {
            site: ConvBlock(
                [("up", in_order(one["up"], F.relu))], one["down"], ("", nn.Identity())
            )
            for site, one in modules.items()
        }
        return Chain((*linked_stages(tower, ["stem"]), *stages, pool), (4, 4), blocks)

    monkeypatch.setattr("circuitry.encoder.adapters._READERS", dict(_READERS))
    register_architecture("Mine", read)
    encoder = Encoder.from_tower(Mine().eval().requires_grad_(False))
    components, images = in_components(encoder), torch.randn(2, 3, 4, 4)
    assert components.sites == ("input", "stem", "first.up", "second.up", "pool")
    assert torch.allclose(components(images), encoder(images))
