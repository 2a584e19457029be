"""Edited weights against units that plain hooks of torch set to their means, with no code of the package."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import torch
from open_clip.modified_resnet import AttentionPool2d
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import linear, normalize

from circuitry import (
    Baseline,
    Encoder,
    InputError,
    Patch,
    Task,
    class_logit,
    load_clip,
)
from circuitry.gates.patches import PatchValue
from circuitry.models import edited_weights
from tests.support.towers import randomise
from tests.support.work import QUIET

OWN, OTHERS, UNSEEN = torch.randn(
    3, 6, 3, 64, 64, generator=torch.Generator().manual_seed(0)
).clamp(-1.7, 2)
"""Images of the task, further images for the means, and images that the edit never sees."""
Units = Mapping[str, list[int]]
Change = Callable[[str, Tensor], Tensor]
"""Of the name of a module and its activation [..., units, size]."""

CHANNELS = {
    "act2": [1, 4],
    "layer1.0.act1": [0, 7],
    "layer1.0.downsample": [3, 40],
    "layer2.0.avgpool": [2, 23],
    "layer4.0.downsample": [0, 300],
    "layer4.0.avgpool": [5, 6, 90],
}
POOLING = {"attnpool.heads": [1, 4]}
BLOCK = "transformer.resblocks"
HEADS = {f"{BLOCK}.0.attn": [1], f"{BLOCK}.3.attn": [0, 2]}
NEURONS = {f"{BLOCK}.1.mlp": [0, 200, 383], f"{BLOCK}.3.mlp": [17]}
CASES = {
    **{site: ("rn-tiny", {site: units}) for site, units in CHANNELS.items()},
    "pooling heads": ("rn-tiny", POOLING),
    "all of rn-tiny": ("rn-tiny", CHANNELS | POOLING),
    "heads": ("vit-tiny", HEADS),
    "neurons": ("vit-tiny", NEURONS),
    "heads and neurons": ("vit-tiny", HEADS | NEURONS),
    "through a SiLU": ("silu", {"2": [2, 5], "5": [0]}),
}


def silu_net() -> Encoder:
    """Return an encoder in which no batch norm can give the mean of a unit, as a SiLU comes between them."""
    first = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU()]
    second = [nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU()]
    last = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 64)]
    tower = nn.Sequential(*first, *second, *last).eval()
    randomise(tower)
    names = [str(place) for place in range(9)]
    stages = [tuple(names[:3]), tuple(names[3:6]), tuple(names[6:])]
    return Encoder.from_stages(tower, stages, (64, 64), 1)


@pytest.fixture(scope="module")
def encoders() -> dict[str, Encoder]:
    names = "rn-tiny", "vit-tiny"
    made = {name: load_clip(name).in_components().encoder for name in names}
    return made | {"silu": silu_net()}


def mean_of(encoder: Encoder) -> Baseline:
    """Return the means by unit over all images that are not unseen."""
    metric = class_logit(torch.eye(64)[:2], 0)
    asked = Task(encoder, OWN, metric, baseline="mean-unit", others=OTHERS, work=QUIET)
    assert isinstance(asked.baseline, Baseline)
    return asked.baseline


def edited(encoder: Encoder, units: Units, value: PatchValue) -> dict[str, Tensor]:
    """Return the weights that set some units to a value."""
    patches = [Patch(site, value, of_site) for site, of_site in units.items()]
    return edited_weights(encoder, patches, OWN[:4])


def run(tower: nn.Module, images: Tensor, sites: Units, change: Change) -> Tensor:
    """Return the embeddings of a tower when the activations of some modules are changed."""
    with ExitStack() as stack, torch.no_grad():
        for site in sites:
            name = site.replace(".mlp", ".mlp.gelu").removesuffix(".heads")
            module = tower.get_submodule(name)
            hook: Any = of_module
            if isinstance(module, nn.MultiheadAttention):
                hook = of_attention
            if isinstance(module, AttentionPool2d):
                hook = of_pooling
            hook = partial(hook, partial(change, site))
            stack.callback(module.register_forward_hook(hook).remove)
        return normalize(tower(images), dim=-1)


def of_module(change: Any, _: nn.Module, __: object, x: Tensor) -> Tensor:
    """Change what a module gives: neurons [B, position, neuron], or channels [B, C, H, W]."""
    axis = -1 if x.dim() == 3 else 1
    changed: Tensor = change(x.movedim(axis, -1)[..., None])
    return changed[..., 0].movedim(-1, axis)


def of_attention(
    change: Any, module: nn.MultiheadAttention, given: Any, _: object
) -> tuple[Tensor, None]:
    assert module.batch_first
    of_all = linear(given[0], module.in_proj_weight, module.in_proj_bias)
    query, keys, values = of_all.chunk(3, -1)
    heads = heads_of(query, keys, values, module.num_heads)
    return module.out_proj(change(heads).flatten(2)), None


def of_pooling(change: Any, module: Any, given: Any, _: object) -> Tensor:
    tokens = given[0].flatten(2).movedim(1, 2)
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
    tokens = tokens + module.positional_embedding
    query = module.q_proj(tokens[:, :1])
    keys, values = module.k_proj(tokens), module.v_proj(tokens)
    heads = heads_of(query, keys, values, module.num_heads)
    pooled: Tensor = module.c_proj(change(heads)[:, 0].flatten(1))
    return pooled


def heads_of(query: Tensor, keys: Tensor, values: Tensor, n_heads: int) -> Tensor:
    """Return the outputs of heads [B, position, head, size], by the formula of attention."""
    query, keys, values = (
        x.reshape(*x.shape[:2], n_heads, -1) for x in (query, keys, values)
    )
    scores = torch.einsum("bqhd,bkhd->bhqk", query, keys) / query.shape[-1] ** 0.5
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), values)


def means_of(tower: nn.Module, units: Units) -> dict[str, Tensor]:
    """Return the means [units, size] over the task's images and all positions."""
    means = dict[str, Tensor]()

    def record(site: str, x: Tensor) -> Tensor:
        means[site] = x.flatten(0, -3).mean(0)
        return x

    run(tower, torch.cat([OWN, OTHERS]), units, record)
    return means


def ablated(tower: nn.Module, units: Units, means: Mapping[str, Tensor]) -> Tensor:
    """Return embeddings of unseen images when some units are set to their means."""

    def replaced(site: str, x: Tensor) -> Tensor:
        x = x.clone()
        x[..., units[site], :] = means[site][units[site]]
        return x

    return run(tower, UNSEEN, units, replaced)


def with_vectors(encoder: Encoder, means: Mapping[str, Tensor]) -> Baseline:
    """Return the baseline by its name, in which a head has a mean for each of its dimensions."""
    values = dict(mean_of(encoder).values)
    for site, mean in means.items():
        if encoder.kinds[site].is_vector:
            values[site] = values[site].clone()
            # What is carried past the heads comes after them.
            heads = values[site].movedim(encoder.kinds[site].axis, -2)
            heads[..., : len(mean), :] = mean
    return Baseline("mean-unit", values)


@pytest.mark.parametrize(("model", "units"), CASES.values(), ids=CASES.keys())
def test_edited_weights_give_the_embeddings_of_the_ablation(
    encoders: dict[str, Encoder], model: str, units: Units
) -> None:
    encoder, tower = encoders[model], encoders[model].tower
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    means = means_of(tower, units)
    expected = ablated(tower, units, means)
    changed = edited(encoder, units, with_vectors(encoder, means))
    with torch.no_grad():
        given = normalize(functional_call(tower, changed, UNSEEN), dim=-1)
        whole = normalize(tower(UNSEEN), dim=-1)
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-5)
    # The units matter, and the model itself is as it was.
    assert (whole - expected).abs().max() > 1e-3
    assert changed.keys() <= before.keys()
    for name, value in tower.state_dict().items():
        assert torch.equal(value, before[name])


def test_what_was_no_unit_of_the_part_keeps_its_weights(
    encoders: dict[str, Encoder],
) -> None:
    encoder = encoders["rn-tiny"]
    changed = edited(encoder, {"act2": [1, 4]}, mean_of(encoder))
    assert changed.keys() == {"bn2.weight", "bn2.bias"}
    for name, value in changed.items():
        differs = value != encoder.tower.state_dict()[name]
        assert set(differs.nonzero().flatten().tolist()) <= {1, 4}


@pytest.mark.parametrize(
    "patch",
    [
        Patch("act2", 0.0, units=[1]),
        Patch("act2", OTHERS[:1], units=[1]),
        Patch("act2", Baseline("zero", {}), units=[1], positions=[0]),
        Patch("act2", Baseline("own", {"act2": torch.zeros(4, 8, 1, 1)}), units=[1]),
    ],
    ids=["number", "tensor", "positions", "each image"],
)
def test_units_are_written_at_one_baseline_for_all_images(
    encoders: dict[str, Encoder], patch: Patch
) -> None:
    with pytest.raises(InputError, match="'act2', units 1.*give Patch") as told:
        edited_weights(encoders["rn-tiny"], [patch], OWN)
    assert "one baseline for all images" in str(told.value)


@pytest.mark.parametrize("site", ["ln_pre", "proj", "input"])
def test_a_site_that_no_weights_write_is_named(
    encoders: dict[str, Encoder], site: str
) -> None:
    encoder = encoders["vit-tiny"]
    units = {site: [0], f"{BLOCK}.1.mlp": [7]}
    with pytest.raises(InputError) as told:
        edited(encoder, units, mean_of(encoder))
    assert site in str(told.value)
    assert BLOCK not in str(told.value)
