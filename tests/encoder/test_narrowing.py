"""Every shortcut against running the whole stage and selecting, in value and in vector-Jacobian products."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from open_clip.modified_resnet import AttentionPool2d, Bottleneck
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from circuitry import Encoder
from circuitry.encoder.narrowing import (
    change_of_units,
    in_order,
    narrow_attention_pool,
    narrow_bottleneck,
    narrow_stage,
    narrowest,
    pooled_heads,
    units_alone,
)
from circuitry.encoder.stages import NarrowStage
from tests.support.towers import make_tower, randomise

Narrow = Callable[[nn.Module, Tensor, Tensor], NarrowStage]


def bottleneck(inplanes: int, stride: int) -> nn.Module:
    block: nn.Module = Bottleneck(
        inplanes, 3, stride
    )  # 12 channels out: from 12 at stride 1 nothing is downsampled
    return block


STAGES: dict[str, tuple[Callable[[], nn.Module], Narrow, int, int]] = {
    "identity shortcut": (lambda: bottleneck(12, 1), narrow_bottleneck, 12, 12),
    "wider": (lambda: bottleneck(5, 1), narrow_bottleneck, 5, 12),
    "strided": (lambda: bottleneck(12, 2), narrow_bottleneck, 12, 12),
    "attention pool": (
        lambda: AttentionPool2d(4, 6, 2, 10),
        narrow_attention_pool,
        6,
        10,
    ),
}


def make(kind: str) -> tuple[nn.Module, Narrow, int, int]:
    torch.manual_seed(1)
    build, narrow, units, out = STAGES[kind]
    stage = build()
    randomise(stage)
    return stage.double().eval(), narrow, units, out


def value_and_gradients(
    narrow: NarrowStage, x: Tensor, step: Tensor, cotangents: Tensor
) -> tuple[Tensor, Tensor]:
    """At a step away from x as well as at x, so that what depends on the step is seen."""
    delta = step.clone().requires_grad_()
    y = narrow(x, delta)
    assert y.shape == cotangents.shape[1:]
    (gradient,) = torch.autograd.grad(y, delta, cotangents, is_grads_batched=True)
    return y.detach(), gradient


@pytest.mark.parametrize("kind", list(STAGES))
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_shortcuts_equal_the_whole_stage(kind: str, data: st.DataObject) -> None:
    stage, shortcut, units, out = make(kind)

    def kept(of: int, what: str) -> Tensor:
        some = st.lists(st.integers(0, of - 1), min_size=1, max_size=of, unique=True)
        return torch.tensor(
            data.draw(st.one_of(some, st.just(list(range(of)))), label=what)
        )

    up, down = kept(units, "up"), kept(out, "down")
    x = torch.randn(2, units, 4, 4, dtype=torch.double)
    step = torch.randn(2, len(up), 4, 4, dtype=torch.double)
    with torch.no_grad():
        shape = stage(x).index_select(1, down).shape
    cotangents = torch.randn(3, *shape, dtype=torch.double)
    expected = value_and_gradients(
        narrow_stage(stage, up, down, 1, 1), x, step, cotangents
    )
    assume(
        all(theirs.abs().max() > 1e-3 for theirs in expected)
    )  # not of units that the last ReLU puts to zero
    found = value_and_gradients(shortcut(stage, up, down), x, step, cotangents)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", list(STAGES))
def test_the_stage_is_left_as_it_was(kind: str) -> None:
    stage, shortcut, units, out = make(kind)
    x = torch.randn(2, units, 4, 4, dtype=torch.double)
    modules, state = (
        list(stage.named_modules()),
        {k: v.clone() for k, v in stage.state_dict().items()},
    )
    trained = [p.requires_grad for p in stage.parameters()]
    with torch.no_grad():
        before = stage(x)
        narrow = shortcut(stage, torch.tensor([0, 2]), torch.tensor([out - 1]))
        narrow(x, torch.ones(2, 2, 4, 4, dtype=torch.double))
        assert torch.equal(stage(x), before)
    assert list(stage.named_modules()) == modules
    assert [p.requires_grad for p in stage.parameters()] == trained
    assert stage.state_dict().keys() == state.keys()
    assert all(torch.equal(stage.state_dict()[k], v) for k, v in state.items())


@pytest.mark.parametrize("name", ["vit", "swin", "convnext"])
def test_any_two_sites_run_all_the_stages_between(name: str) -> None:
    encoder = Encoder.from_tower(make_tower(name))
    first, last = encoder.sites[1], encoder.sites[3]
    up, down = torch.tensor([2, 0]), torch.tensor([3, 1, 0])
    stages = encoder.stages[1:3]
    up_dim, down_dim = encoder.unit_dim(first), encoder.unit_dim(last)
    with torch.no_grad():
        x = encoder(torch.randn(2, 3, *encoder.image_size), stop=first)
        step = torch.randn_like(x.index_select(up_dim, up))
        moved = x.clone()
        moved.movedim(up_dim, 0)[up] += step.movedim(up_dim, 0)
        whole = encoder(moved, start=first, stop=last).index_select(down_dim, down)
        torch.testing.assert_close(narrowest(stages, up, down, up_dim)(x, step), whole)


def steps() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return steps on 6 channels: those whose units are computed alone, and those that are run as a whole."""
    torch.manual_seed(2)
    conv, depthwise = nn.Conv2d(6, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
    norms = [nn.BatchNorm2d(8), BatchNormAct2d(8), BatchNormAct2d(8, apply_act=False)]
    pool = AttentionPool2d(4, 6, 2, 10)
    grouped, project = nn.Conv2d(6, 8, 3, groups=2), nn.Conv2d(6, 8, 1)
    layers = nn.ModuleList([conv, depthwise, *norms, pool, grouped, project])
    randomise(layers)
    layers.double().eval().requires_grad_(False)
    return {
        "plain": in_order(conv, norms[0], nn.ReLU(), nn.AvgPool2d(2)),
        "sequence": nn.Sequential(nn.AvgPool2d(2), project, norms[0]),
        "inverted": in_order(conv, norms[1], depthwise, norms[0]),
        "addition": in_order(conv, norms[2]),
        "alone": project,
        "by unit": nn.GELU(),
        "grouped": in_order(grouped, nn.ReLU()),
        "unknown": in_order(conv, lambda x: x.softmax(1), norms[0]),
        "nothing": in_order(),
        "heads": partial(pooled_heads, pool),
    }


STEPS = steps()
AFFINE = ("addition", "alone")


@pytest.mark.parametrize("name", list(STEPS))
def test_units_of_a_step_alone_are_those_of_the_whole_step(name: str) -> None:
    x = torch.randn(2, 6, 4, 4, dtype=torch.double)
    x = x if name != "inverted" else torch.randn(2, 6, 6, 6, dtype=torch.double)
    units = torch.tensor([1, 0])
    whole = STEPS[name](x)
    torch.testing.assert_close(units_alone(STEPS[name], units)(x), whole[:, units])
    torch.testing.assert_close(STEPS[name](x), whole)
    last = units_alone(STEPS[name], units[1:], -1)(x)
    torch.testing.assert_close(last, whole[..., units[1:]])


@pytest.mark.parametrize("name", list(STEPS))
def test_a_change_of_some_units_is_written_alone_where_that_is_affine(
    name: str,
) -> None:
    units = torch.tensor([4, 1])
    change = change_of_units(STEPS[name], units)
    assert (change is not None) == (name in AFFINE)
    if change is not None:
        x = torch.randn(2, 6, 4, 4, dtype=torch.double)
        step = torch.randn(2, 2, 4, 4, dtype=torch.double)
        moved = STEPS[name](x.index_add(1, units, step)) - STEPS[name](x)
        torch.testing.assert_close(change(step), moved)
