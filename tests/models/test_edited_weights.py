"""Models after removing units, and edited weights, against units that plain hooks of torch set to their means.

The hooks and the towers that read the checkpoints have no code of the package.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.modified_resnet import AttentionPool2d
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import linear, normalize

from circuitry import (
    Baseline,
    Circuit,
    Clip,
    Encoder,
    InputError,
    Patch,
    Task,
    class_logit,
    explain,
    find_circuit,
    load_clip,
    mean_baseline,
    own_part,
    patched,
)
from circuitry.bases import ResidualStream
from circuitry.gates.patches import PatchValue
from circuitry.models import edited_weights
from circuitry.models.open_clip_models import SHIPPED_CONFIGS, register_model
from tests.support.towers import randomise
from tests.support.work import QUIET

OWN, OTHERS, UNSEEN = torch.randn(
    3, 6, 3, 64, 64, generator=torch.Generator().manual_seed(0)
).clamp(-1.7, 2)
"""Images of the task, further images for the means, and images that the edit never sees."""
ALL = torch.cat([OWN, OTHERS])
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
    "before the blocks": ("vit-tiny", {"ln_pre": [0, 5]}),
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
            name = f"{site}.gelu" if site.endswith(".mlp") else site
            name = name.removesuffix(".heads")
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


def means_of(
    tower: nn.Module, units: Units, images: Tensor | None = None
) -> dict[str, Tensor]:
    """Return the means [units, size] over images (default: the task's) and all positions."""
    means = dict[str, Tensor]()

    def record(site: str, x: Tensor) -> Tensor:
        means[site] = x.flatten(0, -3).mean(0)
        return x

    run(tower, ALL if images is None else images, units, record)
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
    with pytest.raises(InputError, match=r"'act2', units 1.*give Patch") as told:
        edited_weights(encoders["rn-tiny"], [patch], OWN)
    assert "one baseline for all images" in str(told.value)


@pytest.mark.parametrize("site", ["proj", "input"])
def test_a_site_that_no_weights_write_is_named(
    encoders: dict[str, Encoder], site: str
) -> None:
    encoder = encoders["vit-tiny"]
    units = {site: [0], f"{BLOCK}.1.mlp": [7]}
    with pytest.raises(InputError) as told:
        edited(encoder, units, mean_of(encoder))
    assert site in str(told.value)
    assert BLOCK not in str(told.value)


TIMM = {
    "resnet10t": {"trunk.layer1.0.act1": [0, 5], "trunk.layer3.0.downsample": [2]},
    "convnext_atto": {"trunk.stages.1.blocks.0.mlp.act": [3, 50], "trunk.stem": [2]},
    "efficientnet_lite0": {"trunk.blocks.2.1.bn2": [0, 7]},
    "efficientnet_b0": {"trunk.blocks.2.1.se": [0, 7]},
}
"""Units of towers of timm, by the name of the architecture."""


@pytest.fixture(scope="module")
def clips() -> dict[str, Clip]:
    open_clip.add_model_config(SHIPPED_CONFIGS)
    return {name: load_clip(name) for name in ("rn-tiny", "vit-tiny")}


def by_unit(means: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the same mean for all dimensions of a head, as the package's means by unit have."""
    return {s: m.mean(-1, keepdim=True).expand_as(m) for s, m in means.items()}


def embedded(tower: nn.Module) -> Tensor:
    with torch.no_grad():
        return normalize(tower(UNSEEN), dim=-1)


ON_CLIPS = {name: case for name, case in CASES.items() if case[0] != "silu"}


@pytest.mark.parametrize(("name", "units"), ON_CLIPS.values(), ids=ON_CLIPS.keys())
def test_a_model_without_units_and_its_checkpoint_answer_as_hooks_do(
    clips: dict[str, Clip], name: str, units: Units, tmp_path: Path
) -> None:
    clip = clips[name]
    tower = clip.encoder.tower
    means = by_unit(means_of(tower, units))
    expected = ablated(tower, units, means)
    removed = clip.without(units, ALL)
    torch.testing.assert_close(embedded(removed.encoder), expected, rtol=0, atol=1e-5)
    assert (embedded(clip.encoder) - expected).abs().max() > 1e-3
    n_units = sum(map(len, units.values()))
    assert f"{n_units} units removed" in repr(removed)
    assert removed.digest != clip.digest
    path = tmp_path / "edited.pt"
    assert removed.save(path) < 1e-5
    alone = open_clip.create_model(name, pretrained=str(path)).eval().visual
    torch.testing.assert_close(embedded(alone), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", TIMM)
def test_units_of_towers_of_timm_are_written_as_far_as_weights_can(
    name: str, tmp_path: Path
) -> None:
    config = tmp_path / f"circuitry-test-{name}.json"
    vision = {"timm_model_name": name, "timm_pool": "", "timm_proj": "linear"}
    text = {"context_length": 8, "vocab_size": 49408, "width": 16, "layers": 1}
    settings = {
        "embed_dim": 16,
        "vision_cfg": vision | {"image_size": 64},
        "text_cfg": text | {"heads": 2},
    }
    config.write_text(json.dumps(settings))
    whole = open_clip.create_model(register_model(config)).eval()
    randomise(whole)
    weights = tmp_path / "whole.pt"
    torch.save(whole.state_dict(), weights)
    clip = load_clip(config, weights)
    removed = clip.without(TIMM[name], OWN)
    units = TIMM[name]
    means = means_of(whole.visual, units, OWN)
    expected = ablated(whole.visual, units, means)
    torch.testing.assert_close(embedded(removed.encoder), expected, rtol=0, atol=1e-5)
    path = tmp_path / "edited.pt"
    removed.save(path)
    alone = open_clip.create_model(config.stem, pretrained=str(path)).eval()
    moved = (embedded(whole.visual) - expected).abs().max()
    left = (embedded(alone.visual) - expected).abs().max()
    assert left < moved / 50


def test_what_no_weights_write_is_said_in_one_sentence(
    clips: dict[str, Clip], tmp_path: Path
) -> None:
    stream = clips["vit-tiny"].without({f"{BLOCK}.1": [3]}, OWN)
    with pytest.raises(InputError, match=f"{BLOCK}.1 cannot be written as weights"):
        stream.save(tmp_path / "edited.pt")
    assert not list(tmp_path.iterdir())


def test_how_far_means_by_position_are_off_is_measured(
    clips: dict[str, Clip], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = clips["rn-tiny"].in_components()
    units = {"act2": [1, 4, 5]}
    means = mean_baseline(clip.encoder, OWN, progress=False)
    removed = clip.without(units, means)

    def replaced(site: str, x: Tensor) -> Tensor:
        x = x.clone()
        of_site = means.values[site].movedim(1, -1)[..., None]
        x[..., units[site], :] = of_site[..., units[site], :]
        return x

    expected = run(clip.encoder.tower, UNSEEN, units, replaced)
    torch.testing.assert_close(embedded(removed.encoder), expected, rtol=0, atol=1e-5)
    path = tmp_path / "edited.pt"
    said = removed.save(path, UNSEEN)
    alone = open_clip.create_model("rn-tiny", pretrained=str(path)).eval().visual
    off = float((embedded(alone) - expected).norm(dim=-1).max())
    assert said == pytest.approx(off, abs=1e-5)
    assert said > 1e-3
    assert f"{said:.3f}" in caplog.text
    # The means over positions are what the checkpoint has.
    at_means = ablated(
        clip.encoder.tower, units, means_of(clip.encoder.tower, units, OWN)
    )
    torch.testing.assert_close(embedded(alone), at_means, rtol=0, atol=1e-5)


def task_of(clip: Clip) -> Task:
    """Return a task in which the model recognises the images as of class 0."""
    encoder = clip.encoder
    with torch.no_grad():
        own, others = normalize(encoder(OWN)), normalize(encoder(OTHERS))
    weights = torch.stack([own.mean(0), others.mean(0)])
    metric = class_logit(normalize(weights), 0)
    return Task(encoder, OWN, metric, baseline="mean-unit", others=OTHERS, work=QUIET)


def lesioned(task: Task, part: Circuit) -> Tensor:
    """Return embeddings of unseen images when the units of a part are at the baseline."""
    patches = [
        Patch(site, task.baseline, units)
        for site, units in part.units.items()
        if len(units)
    ]
    with patched(task.encoder, patches):
        return embedded(task.encoder)


@pytest.mark.parametrize("name", ["rn-tiny", "vit-tiny"])
def test_a_part_is_removed_and_the_package_takes_what_is_left(
    clips: dict[str, Clip], name: str, tmp_path: Path
) -> None:
    task = task_of(clips[name].in_components())
    part = own_part(task, share=0.01)
    removed = clips[name].without(part, task.baseline)
    again = task_of(removed)
    second = own_part(again, share=0.01)
    kept = find_circuit(again, size=0.05)
    assert kept.count
    for site, units in part.units.items():
        assert not np.intersect1d(second.units.get(site, []), units).size
        # A unit at its baseline has no effect.
        np.testing.assert_allclose(second.source.node_scores[site][units], 0, atol=1e-6)
    twice = removed.without(second, again.baseline)
    torch.testing.assert_close(embedded(twice.encoder), lesioned(again, second))
    twice.save(tmp_path / "twice.pt")
    alone = open_clip.create_model(name, pretrained=str(tmp_path / "twice.pt")).eval()
    given = embedded(alone.visual)
    torch.testing.assert_close(given, embedded(twice.encoder), rtol=0, atol=1e-5)
    copy = own_part(task, share=0.01, without=[part])
    both = clips[name].without([part, copy], task.baseline)
    assert sum(map(len, both.removed_units.values())) == 2 * part.count
    answer = explain(removed, OWN[0], ["car", "cup"], n_units=3)
    assert len(answer.units) == 3
    in_short = removed.in_precision("bfloat16")
    assert in_short.in_components().encoder is in_short.encoder
    assert torch.equal(removed.text_weights(["cup"]), twice.text_weights(["cup"]))


def test_a_residual_stream_of_a_model_without_a_part_is_refused(
    clips: dict[str, Clip],
) -> None:
    removed = clips["vit-tiny"].without(HEADS, OWN)
    with pytest.raises(InputError):
        ResidualStream.of(removed.encoder)


def part_of(clip: Clip, baseline: Any = "zero") -> Circuit:
    task = replace(task_of(clip), baseline=baseline)
    return find_circuit(task, size=0.01)


REFUSED: dict[str, tuple[Callable[[dict[str, Clip]], Any], Any, str]] = {
    "another model": (
        lambda c: part_of(c["vit-tiny"].in_components()),
        "zero",
        "the part that is removed and this model differ in weights",
    ),
    "means of another model": (
        lambda _: CHANNELS,
        lambda c: mean_baseline(c["vit-tiny"].encoder, OWN, progress=False),
        "'mean-position' and the encoder differ in weights",
    ),
    "means that nobody knows": (
        lambda c: part_of(c["rn-tiny"], "mean-unit"),
        None,
        "'mean-unit' is a mean over images",
    ),
    "a baseline for each image": (
        lambda _: CHANNELS,
        lambda _: Baseline("own", {"act2": torch.zeros(4, 8, 1, 1)}),
        "'own' has one for every image",
    ),
    "no site": (lambda _: {"act7": [0]}, "zero", "'act7'"),
    "no such unit": (lambda _: {"act2": [99999]}, "zero", "'act2'.*99999"),
    "no unit": (lambda _: {"act2": []}, "zero", "none were given"),
    "no part": (lambda _: "dog", "zero", "'dog'"),
}


@pytest.mark.parametrize(("part", "baseline", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_removed_is_said_in_one_sentence(
    clips: dict[str, Clip],
    part: Callable[[dict[str, Clip]], Any],
    baseline: Any,
    words: str,
) -> None:
    value = baseline(clips) if callable(baseline) else baseline
    with pytest.raises(InputError, match=words):
        clips["rn-tiny"].without(part(clips), value)


def test_a_unit_is_removed_once(clips: dict[str, Clip]) -> None:
    removed = clips["rn-tiny"].without({"act2": [1, 2]}, "zero")
    with pytest.raises(InputError, match="2 at 'act2' is not in this model"):
        removed.without({"act2": [2, 3]}, "zero")
