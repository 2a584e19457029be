"""Everything answers for the model as it is now, however its weights were changed, or refuses."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuitry import (
    Clip,
    Encoder,
    InputError,
    Patch,
    Task,
    attribute,
    class_logit,
    in_components,
    in_feature_basis,
    mean_baseline,
    patch_effects,
    patched,
)
from circuitry.bases import ResidualStream
from circuitry.bases.gated_stream import run_gated
from circuitry.circuits import direct_effects, direct_vectors, pooling_pairs
from circuitry.encoder import Counterfactual
from circuitry.models import FolderBaseline
from circuitry.questions import Extraction, ExtractionSettings
from experiments.representations.embeddings import embed_images
from tests.study.representations.test_embeddings import draw
from tests.support.assert_same import assert_same
from tests.support.feature_bases import make_sae
from tests.support.tiny_clip import Tiny
from tests.support.towers import timm_vit
from tests.support.work import QUIET


def through_numpy(weight: Tensor) -> None:
    weight.detach().numpy()[...] *= 2


CHANGES: dict[str, Callable[[Any], Any]] = {
    "data": lambda tower: tower.conv1.weight.data.mul_(2),
    "numpy": lambda tower: through_numpy(tower.conv1.weight),
    "new data": lambda tower: setattr(
        tower.conv1.weight, "data", 2 * tower.conv1.weight.data
    ),
    "buffer": lambda tower: tower.bn1.running_mean.data.add_(1),
    "buffer through numpy": lambda tower: through_numpy(tower.bn2.running_var),
    "module": lambda tower: setattr(tower, "act1", nn.GELU()),
    "setting": lambda tower: setattr(tower.bn1, "eps", 0.5),
}
"""Ways to change a tower, most of which PyTorch does not count."""


@pytest.mark.parametrize("change", CHANGES)
def test_digests_see_every_change(change: str, tiny: Tiny) -> None:
    clip = tiny.load()
    before = clip.encoder.identity.key, clip.digest
    CHANGES[change](clip.encoder.tower)
    assert clip.encoder.identity.key != before[0]
    assert clip.digest != before[1]


def test_a_tower_whose_modules_were_replaced_is_refused(resnet: Any) -> None:
    encoder = Encoder.from_tower(resnet)
    resnet.layer1[0].conv2 = nn.Conv2d(8, 8, 3, padding=1)
    with pytest.raises(InputError, match=r"'layer1\.0.*Encoder\.from_tower"):
        encoder(torch.zeros(1, 3, 64, 64))
    assert Encoder.from_tower(resnet)(torch.zeros(1, 3, 64, 64)).shape == (1, 16)


@pytest.mark.parametrize("layer", ["attn.qkv", "attn.proj", "mlp.fc2"])
def test_a_stream_has_the_weights_of_now(layer: str) -> None:
    tower: Any = timm_vit().eval().requires_grad_(False)
    stream, images = (
        ResidualStream.of(Encoder.from_tower(tower)),
        torch.randn(2, 3, 16, 16),
    )

    def answers(one: ResidualStream) -> dict[str, Any]:
        found = direct_effects(one, images, torch.ones(16) / 4)
        by_head = {
            f"{name} {i}": w
            for name in ("write", "neuron")
            for i, w in enumerate(getattr(one, f"{name}_weights"))
        }
        read = {f"read {i}": weights for i, (weights, _) in enumerate(one.read_weights)}
        vectors = direct_vectors(one, images)
        return (
            by_head
            | read
            | {"effects": found.effects, "vectors": vectors, "logits": found.logits}
        )

    before = answers(stream)
    tower.trunk.blocks[1].get_submodule(layer).weight.data.mul_(3)
    now = answers(stream)
    assert_same(
        now,
        answers(ResidualStream.of(Encoder.from_tower(tower))),
        at_least=1e-4,
        rtol=0,
    )
    assert sum(not np.allclose(now[key], before[key]) for key in now) >= 2
    np.testing.assert_allclose(
        now["effects"].sum(1) + direct_effects(stream, images, torch.ones(16) / 4).rest,
        now["logits"],
        atol=1e-5,
    )


def test_means_are_taken_anew(tiny: Tiny, tmp_path: Path) -> None:
    clip, data = tiny.load(), draw(tmp_path)
    named = FolderBaseline("mean-unit", clip, data)
    settings = ExtractionSettings(n_images=1, texts=["{}"], baseline="mean-unit")
    work = Extraction(clip, data, tmp_path / "out", settings)
    before, ours = named.of("axe", "ink", 1), work.baseline.of("axe", "ink", 1)
    assert named.of("cat", "photo", 1) is before
    assert work.baseline.of("cat", "photo", 1) is ours
    weights = clip.identity["weights"]
    CHANGES["data"](clip.encoder.tower)
    assert named.of("axe", "ink", 1).digest != before.digest
    assert work.baseline.of("axe", "ink", 1).digest != ours.digest
    for again in (lambda: work.run(QUIET), lambda: work.read(data.records)):
        with pytest.raises(
            InputError, match=f"weights.*{weights}.*{clip.identity['weights']}"
        ):
            again()


def test_the_basis_is_that_of_the_autoencoder_now(resnet: Any) -> None:
    sae = make_sae(16, dtype=torch.float32)
    encoder = in_feature_basis(Encoder.from_tower(resnet), {"attnpool": sae})
    before, baseline = encoder.basis, Counterfactual(torch.zeros(1, 3, 64, 64))
    first = baseline.digest
    sae.w_enc.mul_(2)
    baseline.images.add_(1)
    assert encoder.basis != before
    assert baseline.digest != first


def twice(_: nn.Module, __: Any, out: Any) -> Any:
    return 2 * out if isinstance(out, Tensor) else (2 * out[0], *out[1:])


def other_forward(module: nn.Module) -> Callable[[], None]:
    """As accelerate does it."""
    forward = module.forward
    module.forward = lambda *args, **kwargs: twice(
        module, args, forward(*args, **kwargs)
    )
    return lambda: delattr(module, "forward")


HOOKS: dict[str, Callable[[nn.Module], Callable[[], None]]] = {
    "forward hook": lambda module: module.register_forward_hook(twice).remove,
    "pre-hook": lambda module: (
        module.register_forward_pre_hook(
            lambda _, inputs: (2 * inputs[0], *inputs[1:])
        ).remove
    ),
    "backward hook": lambda module: (
        module.register_full_backward_hook(lambda _, gradient, __: gradient).remove
    ),
    "forward": other_forward,
}
PLACES = (
    "",
    "trunk.blocks",
    "trunk.blocks.1",
    "trunk.blocks.1.attn",
    "trunk.blocks.1.mlp",
    "trunk.norm",
)


@pytest.mark.parametrize(
    ("place", "hook"),
    [
        *((place, "forward hook") for place in PLACES),
        *(("trunk.blocks.1", hook) for hook in HOOKS),
    ],
)
def test_what_would_act_on_some_runs_is_refused_by_all(place: str, hook: str) -> None:
    tower: Any = timm_vit().eval()
    encoder, images, metric = (
        Encoder.from_tower(tower),
        torch.randn(1, 3, 16, 16),
        class_logit(torch.eye(4, 16), 1),
    )
    components, stream = in_components(encoder), ResidualStream.of(encoder)
    heads = Task(components, images, metric, sites=["trunk.blocks.1.attn"], work=QUIET)
    calls: list[Callable[[], Any]] = [
        lambda: encoder(images),
        lambda: encoder(
            torch.zeros(1, 5, 16), start="trunk.blocks.0", stop="trunk.blocks.1"
        ),
        lambda: components.run_with_cache(images),
        lambda: mean_baseline(encoder, images),
        lambda: attribute(
            components, images, metric, sites=["trunk.blocks.1.attn"], progress=False
        ),
        lambda: patch_effects(heads),
        lambda: direct_effects(stream, images, torch.ones(16)),
        lambda: direct_vectors(stream, images),
        lambda: stream.write_weights,
        lambda: Counterfactual(images).run(encoder, encoder.sites),
    ]
    remove = HOOKS[hook](tower.get_submodule(place))
    for call in calls:
        with pytest.raises(
            InputError, match=rf"{place or 'TimmModel'}.*(hooks|forward)"
        ):
            call()
    remove()
    assert torch.equal(encoder(images), tower(images))


def test_hooks_on_a_text_encoder_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    clip: Clip = tiny.load()
    clip.model.get_submodule("ln_final").register_forward_hook(twice)
    with pytest.raises(InputError, match="ln_final"):
        clip.text_weights(["axe"], cache_dir=tmp_path)


def test_pairs_add_up_under_patches_before_them_and_are_refused_behind_them(
    resnet: Any,
) -> None:
    encoder, images = Encoder.from_tower(resnet), torch.randn(2, 3, 64, 64)
    with torch.no_grad(), patched(encoder, Patch("layer4.0", 0.5, units=[1, 3])):
        assert_same(
            pooling_pairs(encoder, images).embeddings, encoder(images), at_least=0.1
        )
    with (
        patched(encoder, Patch("attnpool", 0.5, units=[1])),
        pytest.raises(InputError, match="attnpool"),
    ):
        pooling_pairs(encoder, images)


@pytest.mark.parametrize(
    "site", ["trunk.blocks.1.attn", "blocks.0.hook_mlp_out", "head"]
)
def test_hooks_that_runs_of_a_stream_would_bypass_are_refused(site: str) -> None:
    stream, images = (
        ResidualStream.of(Encoder.from_tower(timm_vit().eval())),
        torch.randn(1, 3, 16, 16),
    )
    with stream.components.hooks(
        fwd_hooks=[(site, lambda activation, hook: 2 * activation)]
    ):
        for call in (
            lambda: direct_effects(stream, images, torch.ones(16)),
            lambda: direct_vectors(stream, images),
            lambda: run_gated(stream, torch.zeros(1, 1, 1), {}, {}, at_once=1),
        ):
            with pytest.raises(InputError, match=site):
                call()
    with stream.components.hooks(
        fwd_hooks=[("trunk.norm_pre", lambda activation, hook: 2 * activation)]
    ):
        found = direct_effects(stream, images, F.normalize(torch.ones(16), dim=0))
        whole = stream.components(images)[0]
    assert_same(
        found.logits, F.normalize(whole[None]) @ torch.ones(16) / 4, at_least=1e-3
    )
    assert_same(
        found.effects.sum(1) + found.rest, found.logits, at_least=1e-3, rtol=1e-4
    )


def test_caches_see_every_change(tiny: Tiny, tmp_path: Path) -> None:
    clip, data = tiny.load(), draw(tmp_path / "data")
    model: Any = clip.model

    def answers() -> list[np.ndarray]:
        texts = clip.text_weights(["axe", "cat"], cache_dir=tmp_path)
        return [
            texts.numpy(),
            embed_images(clip, data, cache_dir=tmp_path, work=QUIET).vectors,
        ]

    before: Any = answers()
    model.text_projection.data.neg_()
    through_numpy(model.ln_final.bias)
    model.visual.attnpool.c_proj.weight.data.neg_()
    texts, images = answers()
    assert not np.allclose(texts, before[0], atol=1e-2)
    assert not np.allclose(images, before[1], atol=1e-2)


def test_direct_effects_leave_the_tower_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tower: Any = timm_vit().eval()
    stream, images = (
        ResidualStream.of(Encoder.from_tower(tower)),
        torch.randn(1, 3, 16, 16),
    )
    before = tower(images)

    def fail(*_: object) -> Tensor:
        raise ZeroDivisionError

    monkeypatch.setattr(
        import_module("circuitry.circuits.direct_decomposition"), "scale_of", fail
    )
    for call in (
        lambda: direct_effects(stream, images, torch.ones(16)),
        lambda: direct_vectors(stream, images),
    ):
        with pytest.raises(ZeroDivisionError):
            call()
    assert not any(
        module._forward_hooks or "forward" in vars(module) for module in tower.modules()
    )
    assert torch.equal(tower(images), before)
