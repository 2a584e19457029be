"""Patches against TransformerLens hooks written by hand, and the laws of an intervention."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from circuitry import Encoder, mean_baseline
from circuitry.encoder import Counterfactual
from circuitry.interventions import Patch, patched
from circuitry.interventions.patches import PatchValue
from tests.support.towers import make_tower


def setting(tower: nn.Module, n: int = 3) -> tuple[Encoder, Tensor]:
    encoder = Encoder.from_tower(tower)
    return encoder, torch.randn(n, 3, *encoder.image_size)


def hooks_left(encoder: Encoder) -> int:
    return sum(len(point.fwd_hooks) + len(point._forward_hooks) for point in encoder.hook_dict.values())


@torch.no_grad()
def test_a_patch_equals_a_hook_written_by_hand(any_tower: nn.Module) -> None:
    encoder, images = setting(any_tower)
    others = torch.randn_like(images)
    means = mean_baseline(encoder, [others])
    _, cache = encoder.run_with_cache(others)
    _, cache_of_one = encoder.run_with_cache(others[1:2])  # by itself: another batch size rounds differently
    for site in (encoder.sites[1], encoder.sites[-2], encoder.sites[-1]):
        dim = encoder.unit_dim(site)
        # Each kind of value, and what the hook puts at units 2 and 3 for it.
        there, mean = cache[site], means.values[site]
        kinds: list[tuple[PatchValue, Callable[[Tensor], Tensor]]] = [
            (0, torch.zeros_like),
            (1.5, partial(torch.full_like, fill_value=1.5)),
            (means, mean.expand_as),
            (Counterfactual(others), there.expand_as),
            (Counterfactual(others[1:2]), cache_of_one[site].expand_as),
            (there.roll(1, 0), there.roll(1, 0).expand_as),
            (lambda a: 2 * a + 1, lambda a: 2 * a + 1),
        ]
        for value, by_hand in kinds:

            def hook(a: Tensor, hook: object, by_hand: Callable[[Tensor], Tensor] = by_hand, dim: int = dim) -> Tensor:
                out, new = a.clone(), by_hand(a)
                for unit in (2, 3):
                    out.select(dim, unit).copy_(new.select(dim, unit))
                return out

            expected = encoder.run_with_hooks(images, fwd_hooks=[(site, hook)])
            with patched(encoder, [Patch(site, value, units=[2, 3])]):
                assert torch.equal(encoder(images), expected)
            assert not torch.equal(expected, encoder(images))


@torch.no_grad()
def test_positions_count_row_by_row(resnet: nn.Module) -> None:
    encoder, images = setting(resnet)
    with patched(encoder, [Patch("layer1.0", 7.0, units=[4, 1], positions=np.array([0, 16 + 3]))]):
        a = encoder(images, stop="layer1.0")
    clean = encoder(images, stop="layer1.0")
    expected = clean.clone()
    for unit in (1, 4):
        expected[:, unit, 0, 0] = expected[:, unit, 1, 3] = 7
    assert clean.shape[2:] == (16, 16)
    assert torch.equal(a, expected)
    vit, images = setting(make_tower("vit"))
    with patched(vit, [Patch("ln_pre", -1.0, positions=[0])]):
        a = vit(images, stop="ln_pre")
    assert torch.equal(a[:, 0], torch.full_like(a[:, 0], -1))
    assert torch.equal(a[:, 1:], vit(images, stop="ln_pre")[:, 1:])
    swin, images = setting(make_tower("swin"))
    site = "trunk.patch_embed"  # [B, 8, 8, units]
    with patched(swin, [Patch(site, 5, units=[2], positions=[8 + 3])]):
        a = swin(images, stop=site)
    different = (a != swin(images, stop=site)).nonzero()
    assert different.tolist() == [[i, 1, 3, 2] for i in range(3)]
    with patched(resnet_encoder := Encoder.from_tower(resnet), [Patch("attnpool", 5.0, units=[1], positions=[0])]):
        assert torch.equal(resnet_encoder(torch.randn(2, 3, 64, 64))[:, 1], torch.tensor([5.0, 5.0]))


@torch.no_grad()
def test_several_patches_at_once_in_whole_and_partial_runs(resnet: nn.Module) -> None:
    encoder, images = setting(resnet)
    patches = [
        Patch("layer1.0", 0.0, units=[1]),
        Patch("layer1.0", lambda a: a + 10, units=[2, 3]),
        Patch("layer1.0", 9.0, units=[2], positions=[]),
        Patch("layer3.0", 1.0, positions=[5]),
    ]

    def first(a: Tensor, hook: object) -> Tensor:
        a = a.clone()
        a[:, 1] = 0
        a[:, 2:4] += 10
        return a

    def second(a: Tensor, hook: object) -> Tensor:
        a = a.clone()
        a[:, :, 1, 1] = 1
        return a

    expected = encoder.run_with_hooks(images, fwd_hooks=[("layer1.0", first), ("layer3.0", second)])
    start = encoder(images, stop="layer1.0")
    with patched(encoder, patches):
        assert torch.equal(encoder(images), expected)
        assert torch.equal(encoder(start, start="layer1.0"), expected)
        embedding, cache = encoder.run_with_cache(images)  # the other uses of hooks go on working inside
        assert torch.equal(embedding, expected)
        assert torch.equal(cache["layer1.0"], first(start, None))
        assert torch.equal(encoder(images), expected)
    assert hooks_left(encoder) == 0


TOWER = make_tower("resnet")


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_a_patch_never_changes_an_earlier_site(data: st.DataObject) -> None:
    encoder, images = setting(TOWER, n=2)
    index = data.draw(st.integers(0, len(encoder.sites) - 1))
    site = encoder.sites[index]
    with torch.no_grad():
        _, clean = encoder.run_with_cache(images)
        units = data.draw(st.lists(st.integers(0, clean[site].shape[1] - 1), min_size=1, unique=True))
        with patched(encoder, [Patch(site, 100.0, units=units)]):
            _, cache = encoder.run_with_cache(images)
    for earlier in encoder.sites[:index]:
        assert torch.equal(cache[earlier], clean[earlier])
    others = sorted(set(range(clean[site].shape[1])) - set(units))
    assert torch.equal(cache[site][:, others], clean[site][:, others])
    assert (cache[site][:, units] == 100).all()


def test_gradients_pass_around_the_patch(resnet: nn.Module) -> None:
    encoder, images = setting(resnet)
    x = encoder(images, stop="layer4.0").requires_grad_()
    with patched(encoder, [Patch("layer4.0", 0.0, units=[3])]):
        (gradient,) = torch.autograd.grad(encoder(x, start="layer4.0").sum(), x)
    assert gradient[:, 3].abs().max() == 0
    assert gradient[:, 4].abs().max() > 0
