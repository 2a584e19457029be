"""Heads and neurons as units: equal to the tower, and to hooks on its own modules."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers import Attention
from torch import Tensor, nn

from circuitry.bases import ResidualStream, in_components
from circuitry.bases.components import BLOCK_POINTS
from circuitry.bases.residual import adds_up
from circuitry.circuits import attribute, midpoint_rule
from circuitry.encoder import Baseline, Encoder, Task, mean_baseline
from circuitry.gates import Patch, patch_effects, patched
from circuitry.interventions import ablate_all_but, circuit_of, kept_embeddings
from circuitry.runs import InputError
from tests.support.differences import assert_same_differences
from tests.support.metrics import product as metric
from tests.support.stream_scores import run_stream
from tests.support.towers import CUSTOM, FURTHER, make_tower
from tests.support.work import AS_STUDIED

VITS = ("vit", "vit-average-pooling", "vit-attentional-pooling", "timm-vit", "eva02")


def wrapped(tower: nn.Module) -> tuple[Encoder, Encoder, Tensor]:
    encoder = Encoder.from_tower(tower)
    torch.manual_seed(1)
    return encoder, in_components(encoder), torch.randn(3, 3, *encoder.image_size)


@pytest.mark.parametrize(
    "name", [*VITS, *(name for name in CUSTOM if name != "cosine")]
)
def test_outputs_are_those_of_the_tower(name: str) -> None:
    encoder, heads, images = wrapped(make_tower(name))
    with torch.no_grad():
        expected = encoder.tower(images)
        fused = heads(images)
        embedding, cache = heads.run_with_cache(
            images
        )  # looks at patterns: the plain way
        again = [heads(cache[site], start=site) for site in heads.sites]
    for found in (fused, embedding, *again):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert all(f"blocks.1.{point}" in cache for point in BLOCK_POINTS)
    pattern = cache["blocks.1.attn.hook_pattern"]
    torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern[..., 0]))
    torch.testing.assert_close(
        pattern, cache["blocks.1.attn.hook_attn_scores"].softmax(-1)
    )
    middle, end, attended, post = (
        cache[f"blocks.1.hook_{p}"]
        for p in ("resid_mid", "resid_post", "attn_out", "mlp_out")
    )
    torch.testing.assert_close(end, middle + post)
    torch.testing.assert_close(middle, cache["blocks.0.hook_resid_post"] + attended)


def test_patterns_and_the_residual_stream_are_those_of_pytorchs_own_attention() -> None:
    encoder, heads, images = wrapped(make_tower("vit"))
    tower: Any = encoder.tower
    with torch.no_grad():
        _, plain = encoder.run_with_cache(images)
        _, cache = heads.run_with_cache(images)
        before = plain["transformer.resblocks.0"]
        normed = tower.transformer.resblocks[1].ln_1(before)
        out, pattern = tower.transformer.resblocks[1].attn(
            normed, normed, normed, average_attn_weights=False
        )
    torch.testing.assert_close(cache["blocks.0.hook_resid_post"], before)
    torch.testing.assert_close(cache["blocks.1.hook_resid_pre"], before)
    torch.testing.assert_close(cache["blocks.1.attn.hook_pattern"], pattern)
    torch.testing.assert_close(cache["blocks.1.hook_attn_out"], out)


def test_sites_are_heads_and_neurons_and_carry_the_residual_stream_past_them() -> None:
    _, heads, images = wrapped(make_tower("timm-vit"))
    assert heads.sites == (
        *("input", "trunk.norm_pre", "trunk.blocks.0.attn", "trunk.blocks.0.mlp"),
        *("trunk.blocks.1.attn", "trunk.blocks.1.mlp", "head"),
    )
    _, cache = heads.run_with_cache(images)
    for site, point in (("attn", "attn.hook_z"), ("mlp", "mlp.hook_post")):
        whole = cache[f"trunk.blocks.1.{site}"]
        units = heads.units_of(f"trunk.blocks.1.{site}", whole)
        assert torch.equal(units, cache[f"blocks.1.{point}"])
        changed = heads.carry(f"trunk.blocks.1.{site}", torch.zeros_like(whole), whole)
        assert not heads.units_of(f"trunk.blocks.1.{site}", changed).any()
        assert torch.equal(changed[..., -1], whole[..., -1]) == (site == "mlp")
    assert heads.unit_dim("trunk.blocks.0.attn") == 2


def by_hand(
    tower: Any,
    block: int,
    part: str,
    change: Callable[[Tensor], Tensor],
    images: Tensor,
) -> Tensor:
    """The embedding with a function applied to what the output layer of attention or MLP of a timm block reads."""
    module = (
        tower.trunk.blocks[block].attn.proj
        if part == "attn"
        else tower.trunk.blocks[block].mlp.fc2
    )
    with module.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]),)):
        found: Tensor = tower(images)
    return found


@pytest.mark.parametrize(("part", "size", "n_units"), [("attn", 8, 2), ("mlp", 1, 64)])
def test_patching_a_head_or_a_neuron_equals_a_hook(
    part: str, size: int, n_units: int
) -> None:
    encoder, heads, images = wrapped(make_tower("timm-vit"))
    site = f"trunk.blocks.0.{part}"
    effects = patch_effects(Task(heads, images, metric, sites=[site])).scores[site]
    assert effects.shape == (n_units,)
    with torch.no_grad():
        clean, of_units, exact = (
            metric(encoder.tower(images)),
            list[float](),
            list[float](),
        )
        for unit in range(0, n_units, max(1, n_units // 4)):

            def without(x: Tensor, unit: int = unit) -> Tensor:
                x = x.clone()
                x[..., unit * size : (unit + 1) * size] = 0
                return x

            exact.append(
                float(
                    (
                        clean - metric(by_hand(encoder.tower, 0, part, without, images))
                    ).mean()
                )
            )
            of_units.append(effects[unit])
        assert_same_differences(of_units, exact, of=[clean])
        nothing = by_hand(encoder.tower, 0, part, torch.zeros_like, images)
        with patched(heads, Patch(site, 0.0)):
            torch.testing.assert_close(heads(images), nothing, rtol=1e-5, atol=1e-6)
        circuit = circuit_of(Task(heads, images, metric), {site: [1]})
        with patched(heads, ablate_all_but(heads, circuit)):
            one_left = heads(images)
        alone = kept_embeddings(Task(heads, images, metric), [circuit])[0]
    torch.testing.assert_close(one_left, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("part", "size"), [("attn", 8), ("mlp", 1)])
def test_node_scores_are_integrated_gradients_of_heads_and_neurons(
    part: str, size: int
) -> None:
    encoder, heads, images = wrapped(make_tower("timm-vit").double())
    images, site = images.double(), f"trunk.blocks.0.{part}"
    graph = attribute(
        heads, images, metric, rule=midpoint_rule(4), progress=False, **AS_STUDIED
    )
    total: Any = 0.0
    for t in (0.125, 0.375, 0.625, 0.875):
        seen: list[Tensor] = []

        def scaled(x: Tensor, t: float = t, seen: list[Tensor] = seen) -> Tensor:
            seen.append(x.detach())
            seen.append(((1 - t) * x.detach()).requires_grad_())
            return seen[1]

        value = metric(by_hand(encoder.tower, 0, part, scaled, images)).sum()
        (gradient,) = torch.autograd.grad(value, seen[1])
        total = total + (seen[0] * gradient).sum((0, 1)) / 4
    expected = total.reshape(-1, size).sum(1) / len(images)
    np.testing.assert_allclose(
        graph.node_scores[site], expected.numpy(), rtol=1e-9, atol=1e-12
    )
    assert all(
        graph.edge_scores[pair].shape[0] == len(graph.kept_units[pair[1]])
        for pair in graph.edge_scores
    )


def test_a_mean_baseline_moves_heads_alone() -> None:
    _, heads, images = wrapped(make_tower("timm-vit"))
    site = "trunk.blocks.0.attn"
    baseline = mean_baseline(heads, images)
    assert set(baseline.values) == set(heads.sites)
    clean = heads(images, stop=site)
    put = baseline.activations(heads, {site: clean})[site]
    assert torch.equal(put[:, :, 2:], clean[:, :, 2:])
    torch.testing.assert_close(
        put[:, :, :2], clean[:, :, :2].mean(0, keepdim=True).expand_as(put[:, :, :2])
    )
    written = Baseline("own", {site: torch.full_like(clean[:1], 7.0)}).activations(
        heads, {site: clean}
    )[site]
    assert torch.equal(written[:, :, 2:], clean[:, :, 2:])


def test_everything_kept_is_the_tower_and_a_unit_that_is_carried_is_refused() -> None:
    encoder, heads, images = wrapped(make_tower("vit"))
    site = "transformer.resblocks.0.attn"
    kept = circuit_of(Task(heads, images, metric), {site: [0, 1]})
    with torch.no_grad():
        alone = kept_embeddings(Task(heads, images, metric), [kept])[0]
        torch.testing.assert_close(alone, encoder(images), rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="0 to 1, but 2 "):
        circuit_of(Task(heads, images, metric), {site: [2]})
    with pytest.raises(InputError, match="0 to 1, but 2 "):
        patch_effects(Task(heads, images, metric), units={site: [2]})


def test_hook_points_that_are_not_there_are_told() -> None:
    name = "blocks.0.attn.hook_result"
    _, heads, images = wrapped(make_tower("vit"))
    words = f"no site '{name}'; this encoder's sites are input, ln_pre.*; hooks also act at blocks.0.hook_resid_pre, "
    with pytest.raises(InputError, match=words):
        heads.run_with_hooks(images, fwd_hooks=[(name, lambda x, hook: None)])
    with pytest.raises(InputError, match=words):
        heads.run_with_cache(images, names_filter=["blocks.0.attn.hook_z", name])


def with_block(**parts: nn.Module) -> Encoder:
    tower: Any = make_tower("timm-vit")
    for name, part in parts.items():
        setattr(tower.trunk.blocks[0], name, part)
    return Encoder.from_tower(tower)


def without_a_block() -> Encoder:
    tower: Any = make_tower("timm-vit")
    tower.trunk.blocks[0] = nn.Identity()
    return Encoder.from_tower(tower)


MLP = nn.Sequential(nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 16))
WITHOUT_GELU = nn.Sequential(
    OrderedDict(c_fc=nn.Linear(16, 8), relu=nn.ReLU(), c_proj=nn.Linear(8, 16))
)
UNKNOWN: tuple[tuple[Callable[[], Encoder], str], ...] = (
    (
        lambda: Encoder.from_tower(make_tower("swin")),
        "TimmModel no block is known.*register_architecture",
    ),
    (
        without_a_block,
        "known of open_clip's ResidualAttentionBlock.* a Identity with NoneType and NoneType",
    ),
    (lambda: with_block(mlp=MLP), "a Block with Attention and Sequential"),
    (lambda: with_block(mlp=WITHOUT_GELU), "a Block with Attention and Sequential"),
    (
        lambda: with_block(attn=Attention(16, 2, gated=True)),
        "behind a gate on attention are not known: use this",
    ),
    (
        lambda: with_block(attn=Attention(16, 2, attn_head_dim=16)),
        r"stream \(16\), but this tower has 2 heads of 16",
    ),
)


@pytest.mark.parametrize(("make", "words"), UNKNOWN)
def test_towers_without_known_blocks_are_refused(
    make: Callable[[], Encoder], words: str
) -> None:
    encoder = make()
    with pytest.raises(InputError, match=words):
        in_components(encoder)


OTHER_KERNELS = ("quick-gelu", "vitamin")
"""PyTorch's multi-head module mixes by another kernel than other attention; gates that lie apart round otherwise."""


@pytest.mark.parametrize("kind", FURTHER)
def test_further_kinds_of_blocks_and_pooling_give_the_towers_outputs(kind: str) -> None:
    encoder, heads, images = wrapped(make_tower(kind))
    with torch.no_grad():
        expected = encoder.tower(images)
        assert torch.equal(encoder(images), expected)
        found = heads(images)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(found, expected) or kind in OTHER_KERNELS
        embedding, _ = heads.run_with_cache(images)  # looks at patterns: the plain way
        torch.testing.assert_close(embedding, expected, rtol=1e-5, atol=1e-6)
        if adds_up(encoder):
            stream = ResidualStream.of(encoder)
            torch.testing.assert_close(
                run_stream(stream, images, stream.edges), expected, rtol=1e-4, atol=1e-5
            )
    assert adds_up(encoder) == ("norms-behind" not in kind)


def test_scaled_cosine_attention_is_taken_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        torch, "bmm", torch.matmul
    )  # open_clip gives bmm four axes, which it refuses
    encoder, heads, images = wrapped(make_tower("cosine"))
    with torch.no_grad():
        expected = encoder.tower(images)
        assert torch.equal(encoder(images), expected)
        torch.testing.assert_close(heads(images), expected, rtol=1e-5, atol=1e-6)


def test_a_cache_takes_the_short_names_of_transformer_lens() -> None:
    _, heads, images = wrapped(make_tower("timm-vit"))
    _, cache = heads.run_with_cache(images)
    for short, full in (
        ("pattern", "attn.hook_pattern"),
        ("z", "attn.hook_z"),
        ("resid_post", "hook_resid_post"),
    ):
        assert torch.equal(cache[short, 1], cache[f"blocks.1.{full}"])  # type: ignore[index]
    with pytest.raises(
        KeyError, match=r"blocks\.7\.hook_pattern.*blocks\.[01]\.attn\.hook_pattern"
    ):
        cache["pattern", 7]  # type: ignore[index]
    with pytest.raises(InputError, match=r"'trunk.blocks.0.attm'.*trunk.blocks.0.attn"):
        cache["trunk.blocks.0.attm"]
