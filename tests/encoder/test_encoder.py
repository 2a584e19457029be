"""A tower as a chain of sites: equal to itself, hooked, digested, fed with images, and its tokens."""

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm.models as timm_models
import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from circuitry import Encoder, InputError, Task, mean_baseline
from circuitry.circuits import score_units
from circuitry.encoder import Counterfactual, Stage
from circuitry.encoder.sites import INPUT
from circuitry.encoder.tensor_batches import (
    ImageBatches,
    checked_batches,
    rows_that_fit,
)
from tests.support.towers import make_tower, timm_vit
from tests.support.work import QUIET


def images_for(encoder: Encoder, n: int = 2) -> Tensor:
    return torch.randn(n, 3, *encoder.image_size)


def test_idle_encoder_is_bit_equal_to_its_tower(any_tower: nn.Module) -> None:
    encoder = Encoder.from_tower(any_tower)
    images = images_for(encoder)
    with torch.no_grad():
        assert torch.equal(encoder(images), any_tower(images))


def test_partial_runs_join_to_the_whole_run(any_tower: nn.Module) -> None:
    encoder = Encoder.from_tower(any_tower)
    images = images_for(encoder)
    with torch.no_grad():
        embedding, cache = encoder.run_with_cache(images)
        assert tuple(cache) == encoder.sites
        for before, site in zip(encoder.sites, encoder.sites[1:], strict=False):
            assert torch.equal(
                encoder(cache[before], start=before, stop=site), cache[site]
            )
            assert torch.equal(encoder(cache[site], start=site), embedding)


def test_sites_are_module_paths_of_the_tower(any_tower: nn.Module) -> None:
    encoder = Encoder.from_tower(any_tower)
    for site in encoder.sites[1:]:
        parent = site.rpartition(".")[0]
        assert hasattr(any_tower.get_submodule(parent), site.rpartition(".")[2])


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("resnet", [3, 4, 4, 8, 8, 32, 64, 64, 128, 256, 16]),
        ("vit", [3, 32, 32, 32, 16]),
        ("vit-attentional-pooling", [3, 32, 32, 32, 16]),
        ("swin", [3, 16, 16, 16, 32, 16]),
        ("convnext", [3, 8, 8, 8, 16, 16, 16, 16]),
        ("timm-vit", [3, 16, 16, 16, 16]),
    ],
)
def test_units_lie_on_the_axis_that_the_adapter_says(
    name: str, units: list[int]
) -> None:
    encoder = Encoder.from_tower(make_tower(name))
    with torch.no_grad():
        _, cache = encoder.run_with_cache(images_for(encoder))
    assert [
        cache[site].shape[encoder.unit_dim(site)] for site in encoder.sites
    ] == units


def test_resnet_sites_are_those_of_the_study(resnet: Any) -> None:
    assert Encoder.from_tower(resnet).sites == (
        *("input", "act1", "act2", "act3", "avgpool"),
        *("layer1.0", "layer2.0", "layer2.1", "layer3.0", "layer4.0", "attnpool"),
    )


def test_hooks_write_in_whole_and_partial_runs(resnet: Any) -> None:
    encoder = Encoder.from_tower(resnet)
    images = images_for(encoder)

    def zero(activation: Tensor, hook: object) -> Tensor:
        return torch.zeros_like(activation)

    with torch.no_grad():
        _, cache = encoder.run_with_cache(images)
        by_hand = encoder(torch.zeros_like(cache["layer2.0"]), start="layer2.0")
        whole = encoder.run_with_hooks(images, fwd_hooks=[("layer2.0", zero)])
        partial = encoder.run_with_hooks(
            cache["avgpool"], start="avgpool", fwd_hooks=[("layer2.0", zero)]
        )
        assert torch.equal(whole, by_hand)
        assert torch.equal(partial, by_hand)
        assert torch.equal(
            encoder(images), encoder.run_with_cache(images)[0]
        )  # nothing was left behind
    with (
        pytest.raises(InputError),
        encoder.hooks(fwd_hooks=[("layer4.0", zero), ("act1", zero)]),
    ):
        encoder(images, stop=" ".join(encoder.hooked_sites))
    assert not encoder.hooked_sites


def test_fast_runs_are_equal_but_for_rounding_and_end_with_the_block(
    any_tower: nn.Module,
) -> None:
    encoder = Encoder.from_tower(any_tower.double())
    images = images_for(encoder).double()
    with torch.no_grad():
        plain, cache = encoder.run_with_cache(images)
        with encoder.fast():
            fast, fast_cache = encoder.run_with_cache(images)
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-12)
        for site in encoder.sites:
            torch.testing.assert_close(
                fast_cache[site], cache[site], rtol=1e-10, atol=1e-12
            )
        with pytest.raises(InputError), encoder.fast():
            encoder(torch.zeros(1))
        assert torch.equal(encoder(images), plain)


def test_looking_at_a_tower_in_training_changes_nothing_in_it(resnet: Any) -> None:
    encoder = Encoder.from_tower(resnet)
    images = images_for(encoder, 4)
    embedding, cache = encoder.run_with_cache(images)
    resnet.train()
    resnet.layer1.eval()
    resnet.conv1.weight.requires_grad_(True)
    modes, before = (
        [m.training for m in resnet.modules()],
        {k: v.clone() for k, v in resnet.named_buffers()},
    )
    with encoder.running():
        assert not any(m.training for m in resnet.modules())
        assert not resnet.conv1.weight.requires_grad
    with pytest.raises(InputError), encoder.running():
        encoder(torch.zeros(1))
    assert [resnet.conv1.weight.requires_grad, resnet.conv2.weight.requires_grad] == [
        True,
        False,
    ]
    again, cache_again = encoder.run_with_cache(images)
    means = mean_baseline(encoder, [images])
    others = Counterfactual(images).run(encoder, ["layer2.0"])
    assert all(
        torch.equal(value, before[name]) for name, value in resnet.named_buffers()
    )
    assert [m.training for m in resnet.modules()] == modes
    assert torch.equal(again, embedding)
    assert torch.equal(cache_again["layer2.0"], cache["layer2.0"])
    assert torch.equal(others["layer2.0"], cache["layer2.0"])
    torch.testing.assert_close(
        means.values["layer2.0"], cache["layer2.0"].mean(0, keepdim=True)
    )
    encoder(images)  # a plain run is the tower's own: it trains
    assert not all(
        torch.equal(value, before[name]) for name, value in resnet.named_buffers()
    )


def test_a_cache_still_lets_gradients_reach_the_weights(resnet: Any) -> None:
    encoder = Encoder.from_tower(resnet.requires_grad_(True))
    embedding, _ = encoder.run_with_cache(images_for(encoder))
    assert torch.autograd.grad(embedding.sum(), resnet.conv1.weight)[0].abs().max() > 0


def test_the_digest_is_of_what_the_tower_computes() -> None:
    towers: dict[str, Any] = {
        "plain": make_tower("vit"),
        "same": make_tower("vit"),
        "other weights": make_tower("vit", seed=1),
        "half": make_tower("vit").half(),
        "no pooling": make_tower("vit"),
        "other activation": make_tower("vit"),
        "other heads": make_tower("vit"),
    }
    towers["no pooling"].pool_type = "none"
    towers["other activation"].transformer.resblocks[0].mlp.gelu = QuickGELU()
    towers["other heads"].transformer.resblocks[1].attn.num_heads = 4
    digests = {
        name: Encoder.from_tower(tower).identity.key for name, tower in towers.items()
    }
    assert digests.pop("same") == digests["plain"]
    assert len(set(digests.values())) == len(digests)
    tower: Any = make_tower("resnet")
    encoder = Encoder.from_tower(tower)
    found = [encoder.identity.key]
    for tensor in (tower.bn1.running_mean, tower.conv1.weight):
        tensor.mul_(2)
        found.append(encoder.identity.key)
    assert len(set(found)) == 3


@pytest.mark.parametrize("make_copy", [copy.deepcopy, copy.copy, pickle.dumps])
def test_a_copy_is_refused(make_copy: Callable[[Encoder], object], resnet: Any) -> None:
    encoder = Encoder.from_tower(resnet)
    with pytest.raises(InputError, match=r"Encoder.from_tower\(copy.deepcopy"):
        make_copy(encoder)
    copied = Encoder.from_tower(copy.deepcopy(encoder.tower))
    assert copied.identity.key == encoder.identity.key


def inference_weights() -> Encoder:
    with torch.inference_mode():
        return Encoder.from_tower(make_tower("vit"))


def scored_twice(
    encoder: Encoder, images: Any, change: Callable[[Any], object] = len
) -> None:
    task = Task(encoder, images, lambda e: e[:, 0], work=QUIET)
    for _ in range(2):
        score_units(task, "gradient")
        change(images)


def without_running_statistics() -> nn.Module:
    tower: Any = make_tower("resnet")
    tower.bn1.running_mean = tower.bn1.running_var = None
    return tower  # type: ignore[no-any-return]


loader: Any = DataLoader  # which takes any sequence
UNKNOWN = r"no site 'layer9\.0'; this encoder's sites are input, act1"
REFUSED: tuple[tuple[Callable[[Encoder], object], str], ...] = (
    (lambda one: one(images_for(one), stop="layer9.0"), UNKNOWN),
    (
        lambda one: one.run_with_hooks(
            images_for(one), fwd_hooks=[("layer9.0", lambda x, hook: x)]
        ),
        UNKNOWN,
    ),
    (
        lambda one: one(torch.zeros(1, 32, 16, 16), start="layer1.0", stop="act1"),
        r"'act1' lies before 'layer1\.0'",
    ),
    (
        lambda one: one(torch.zeros(1, 3, 32, 64)),
        r"\[batch, 3, 64, 64\].*\[1, 3, 32, 64\]",
    ),
    (lambda _: Encoder.from_tower(nn.Linear(2, 2)), "Linear.*ModifiedResNet.*Swin"),
    (
        lambda _: Encoder(nn.Linear(1, 1), [Stage(INPUT, nn.Identity(), 1)], (1, 1)),
        "must differ",
    ),
    (lambda _: rows_that_fit(inference_weights(), 1.0), r"torch.inference_mode\(\)"),
    (
        lambda one: scored_twice(
            one, torch.zeros(2, 3, 64, 64), lambda images: images.add_(1)
        ),
        "changed in place",
    ),
    (
        lambda one: scored_twice(
            one, loader(range(4), collate_fn=lambda _: images_for(one))
        ),
        "a second pass",
    ),
    (
        lambda one: scored_twice(one, loader(list(images_for(one, 9)), shuffle=True)),
        "a second pass",
    ),
    (
        lambda _: Encoder.from_tower(without_running_statistics()),
        "bn1.*running statistics",
    ),
)


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_refusals(call: Callable[[Encoder], object], words: str, resnet: Any) -> None:
    with pytest.raises(InputError, match=words):
        call(Encoder.from_tower(resnet))


@pytest.mark.parametrize("way", ["pairs", "single images", "a data set", "an iterator"])
def test_images_come_as_people_have_them(way: str) -> None:
    images = torch.randn(3, 3, 64, 64)
    ways: dict[str, Any] = {
        "pairs": DataLoader(TensorDataset(images, torch.zeros(3)), batch_size=2),
        "single images": list(images),
        "a data set": TensorDataset(images, torch.zeros(3)),
        "an iterator": iter(images),
    }
    batches = ImageBatches(ways[way], Encoder.from_tower(make_tower("resnet")), rows=4)
    for _ in range(2):
        assert torch.equal(torch.cat(list(batches)), images)


CLIPS, SIGLIPS = ((0.48, 0.46, 0.41), (0.27, 0.26, 0.28)), ((0.5,) * 3, (0.5,) * 3)
RAW = ((0.0,) * 3, (1.0,) * 3)
VALUES: tuple[tuple[Any, Callable[[Tensor], Tensor], str], ...] = (
    (None, lambda x: x, "lie between 0 and 1"),
    (None, lambda x: 255 * x, "reach from 0 to 255"),
    (None, lambda x: 2 * x - 1, ""),
    (CLIPS, lambda x: x, "lie between 0 and 1"),
    (CLIPS, lambda x: 2 * x - 1, "lie between -1 and 1"),
    (CLIPS, lambda x: 20 * x, "beyond -1.78 to 2.11"),
    (CLIPS, lambda x: normalised(normalised(x, CLIPS), CLIPS), "beyond -1.78 to 2.11"),
    (
        CLIPS,
        lambda x: normalised(x, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
        "beyond -1.78 to 2.11",
    ),
    (SIGLIPS, lambda x: normalised(x, CLIPS), "beyond -1 to 1"),
    *(
        (stated, lambda x, stated=stated: normalised(x, stated), "")
        for stated in (CLIPS, SIGLIPS, RAW)
    ),
    (CLIPS, lambda x: normalised(x, CLIPS).bfloat16(), ""),
)


def normalised(pixels: Tensor, stated: Any) -> Tensor:
    mean, std = (torch.tensor(one)[:, None, None] for one in stated)
    return (pixels - mean) / std


@pytest.mark.parametrize("kind", ["tensor", "batches", "loader"])
@pytest.mark.parametrize(("stated", "prepare", "where"), VALUES)
def test_values_that_no_preprocessing_gives_are_named_once_in_a_task(
    stated: Any,
    prepare: Any,
    where: str,
    kind: str,
    resnet: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if stated:
        resnet.image_mean, resnet.image_std = stated
    images = prepare(torch.linspace(0, 1, 64 * 64).reshape(64, 64).repeat(2, 3, 1, 1))
    ways: dict[str, Any] = {
        "batches": [images[:1], images[1:]],
        "loader": loader(images),
    }
    for number in (1, 2):
        task = Task(
            Encoder.from_tower(resnet),
            ways.get(kind, images),
            lambda e: e[:, 0],
            work=QUIET,
        )
        assert all(score_units(task, "gradient")["attnpool"].any() for _ in range(2))
        assert len(caplog.messages) == (number if where else 0), caplog.messages
    assert where in caplog.text


def test_a_leak_into_the_others_is_counted_once(
    resnet: Any, caplog: pytest.LogCaptureFixture
) -> None:
    encoder, images = Encoder.from_tower(resnet), torch.randn(5, 3, 64, 64)
    for first in (3, 1):
        task = Task(encoder, images[:3], torch.sum, others=images[first:])
        dataclasses.replace(task, sites=("attnpool",))
    assert ["2 of the 3 images" in message for message in caplog.messages] == [True]


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 3, 8, 8), (3, 4, 4)])
def test_two_images_are_no_image_and_label(shape: tuple[int, ...]) -> None:
    first, second = torch.randn(shape), torch.randn(3, 8, 8)
    with pytest.raises(InputError, match=r"list.*torch\.stack"):
        list(checked_batches([[first, second]]))
    for label in (
        torch.zeros(2),
        torch.zeros(2, 5),
        torch.zeros(2, 8, 8, dtype=torch.long),
        torch.zeros(1, 8, 8),
        3,
    ):
        (found,) = checked_batches([[first, label]])
        assert torch.equal(found.reshape(shape), first)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("vit", ("class token",)),
        ("vit-average-pooling", ("class token",)),
        ("eva02", ("class token",)),
        ("registers-and-layer-scale", ("class token", "register 1", "register 2")),
        ("siglip", ()),
        ("relative-positions", ("class token",)),
    ],
)
def test_a_patch_is_the_token_that_a_change_of_its_pixels_reaches_first(
    name: str, first: tuple[str, ...]
) -> None:
    encoder = Encoder.from_tower(make_tower(name))
    grid = encoder.token_grid
    assert grid.first == first
    images = torch.zeros(1, 3, *encoder.image_size)
    row, column = grid.height - 1, 0
    changed = images.clone()
    side = encoder.image_size[0] // grid.height
    changed[..., row * side : (row + 1) * side, column * side : (column + 1) * side] = 1
    with torch.no_grad():
        a, b = (encoder(x, stop=encoder.sites[1])[0] for x in (images, changed))
    moved = (a != b).any(-1).numpy()
    assert len(moved) == len(grid)
    assert np.argwhere(
        moved[len(first) :].reshape(grid.height, grid.width)
    ).tolist() == [[row, column]]
    assert not moved[: len(first)].any()


def test_other_numbers_and_other_towers_are_refused() -> None:
    grid = Encoder.from_tower(
        timm_vit(class_token=False, reg_tokens=1, global_pool="avg")
    ).token_grid
    assert grid.first == ("register 1",)
    with pytest.raises(InputError, match="ModifiedResNet"):
        len(Encoder.from_tower(make_tower("resnet")).token_grid)
    assert (
        Encoder.from_tower(
            timm_vit(timm_models.Eva, class_token=False, global_pool="avg")
        ).token_grid.first
        == ()
    )
