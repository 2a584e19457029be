"""Top images and heat maps against forward hooks on the tower's own modules, and one image at a time."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from circuitry import Encoder, Task, class_logit, in_components, in_feature_basis
from circuitry.cards import top_images, unit_kind
from tests.support.assert_same import assert_same
from tests.support.feature_bases import encode_by_hand, make_sae
from tests.support.oracles import brute_force_nodes, setting
from tests.support.towers import make_tower
from tests.support.work import QUIET

UNITS = {"layer1.0": np.array([0, 3, 5]), "layer3.0": np.array([1, 2])}
NAMES = [f"image {i}" for i in range(11)]


def tasks(
    encoder: Encoder, images: Tensor, weights: Tensor, cuts: tuple[int, ...] = (4,)
) -> list[tuple[list[str], Task]]:
    """The first class has the first images, which come in batches of sizes ``cuts``."""
    parts = [NAMES[:6], NAMES[6:]]
    batches = [torch.split(images[:6], cuts[0]), images[6:]]
    metrics = [class_logit(weights, 1)] * 2
    given = [Task(encoder, some, metric, work=QUIET) for some, metric in zip(batches, metrics, strict=True)]
    return list(zip(parts, given, strict=True))


def hooked(tower: nn.Module, images: Tensor, module: str) -> Tensor:
    found: list[Tensor] = []
    handle = tower.get_submodule(module).register_forward_hook(lambda *args: found.append(args[2].detach()))
    with torch.no_grad():
        tower.eval()(images)
    handle.remove()
    return found[0]


def shrunk(one: np.ndarray, side: int = 8) -> np.ndarray:
    factor = math.ceil(len(one) / side)
    n = math.ceil(len(one) / factor)
    cells = [
        [one[i * factor : (i + 1) * factor, j * factor : (j + 1) * factor].max() for j in range(n)] for i in range(n)
    ]
    return np.array(cells)


def test_images_and_heat_are_those_of_hooks(resnet: nn.Module) -> None:
    encoder, images, weights = setting(resnet, 11)
    units = {"layer1.0": np.arange(16), "layer3.0": np.arange(16)}
    found, shown = top_images(tasks(encoder, images, weights), units, k=3)["activation"], 0
    for site in units:
        maps = hooked(resnet, images, site).numpy()
        for unit in units[site]:
            strength = maps[:, unit].max((1, 2))
            best = [i for i in np.argsort(-strength)[:3] if strength[i] > 0]
            top = found[site, int(unit)]
            assert top.ids == tuple(NAMES[i] for i in best)
            if best:
                assert_same(top.values, strength[best], at_least=1e-3)
                assert top.heat is not None
                heat = np.stack([np.round(shrunk(maps[i, unit]).clip(0) / strength.max() * 255) for i in best])
                assert np.abs(top.heat - heat).max() <= 1  # a rounding at a half may fall on the other side
                assert top.heat[0].max() == 255
                shown += 1
    assert shown > 10


def test_images_by_effect_are_those_of_single_scores(resnet: nn.Module) -> None:
    encoder, images, weights = setting(resnet, 11)
    found = top_images(tasks(encoder, images, weights), {"layer3.0": np.arange(32)}, k=3)["effect"]
    one_by_one = [brute_force_nodes(encoder, images[i : i + 1], weights, "layer3.0", 1) for i in range(11)]
    effects, shown = np.stack(one_by_one), 0
    for (_, unit), top in found.items():
        best = [i for i in np.argsort(-effects[:, unit])[:3] if effects[i, unit] > 0]
        assert top.ids == tuple(NAMES[i] for i in best)
        if best:
            assert_same(top.values, effects[best, unit], at_least=1e-6, rtol=1e-3)
            shown += 1
    assert shown > 10


def test_the_cut_into_batches_changes_nothing(resnet: nn.Module) -> None:
    encoder, images, weights = setting(resnet, 11)
    first, *others = (top_images(tasks(encoder, images, weights, cuts), UNITS, k=4) for cuts in ((6,), (1,), (4,)))
    for other in others:
        for by, tops in first.items():
            for unit, top in tops.items():
                assert other[by][unit].ids == top.ids
                np.testing.assert_allclose(other[by][unit].values, top.values, rtol=1e-4)


def test_equal_images_keep_their_order_and_silent_units_have_none() -> None:
    encoder, images, weights = setting(make_tower("resnet"), 1)
    task = Task(encoder, images.expand(11, -1, -1, -1).clone(), class_logit(weights, 0), work=QUIET)
    everything = {"layer1.0": np.arange(len(hooked(encoder.tower, images, "layer1.0")[0]))}
    with encoder.hooks(fwd_hooks=[("layer1.0", lambda x, hook: x.clone().index_fill_(1, torch.tensor([0]), -1.0))]):
        found = top_images([(NAMES, task)], everything, k=3)["activation"]
    assert found["layer1.0", 0].ids == ()
    assert any(top.ids == tuple(NAMES[:3]) for top in found.values())


def test_heads_have_the_length_of_z_and_maps_without_the_class_token() -> None:
    encoder, images, weights = setting(make_tower("vit"), 5)
    heads = in_components(encoder)
    site, patches = "transformer.resblocks.1.attn", 16
    task = Task(heads, images, class_logit(weights, 0), work=QUIET)
    found = top_images([(NAMES[:5], task)], {site: np.array([1]), "transformer.resblocks.0.mlp": np.array([7])}, k=5)
    _, cache = heads.run_with_cache(images)
    z = cache["blocks.1.attn.hook_z"][:, :, 1].norm(dim=-1).numpy()
    top = found["activation"][site, 1]
    assert top.ids == tuple(NAMES[i] for i in np.argsort(-z.max(1)))
    assert_same(top.values, np.sort(z.max(1))[::-1], at_least=1e-3)
    assert top.heat is not None
    assert top.heat.shape == (5, 4, 4)
    first = z[NAMES.index(top.ids[0]), 1:] / z.max() * 255
    assert np.abs(top.heat[0].reshape(patches) - np.round(first)).max() <= 1
    kinds = [unit_kind(heads, name) for name in (site, "transformer.resblocks.0.mlp")]
    assert kinds == ["head", "neuron"]


def test_latents_are_units(resnet: nn.Module) -> None:
    encoder, images, weights = setting(resnet, 5)
    channels = hooked(resnet, images, "layer3.0")
    sae = make_sae(channels.shape[1], dtype=torch.float)
    latents = in_feature_basis(encoder, {"layer3.0": sae})
    task = Task(latents, images, class_logit(weights, 0), work=QUIET)
    units = np.arange(sae.n_features)
    found = top_images([(NAMES[:5], task)], {"layer3.0": units}, k=1)["activation"]
    strength = encode_by_hand(sae, channels.movedim(1, -1)).flatten(1, 2).amax(1).numpy()
    assert_same([found["layer3.0", int(unit)].values.sum() for unit in units], strength.max(0), at_least=1e-3)
    assert unit_kind(latents, "layer3.0") == "latent"


@pytest.mark.parametrize("tower", ["swin", "convnext", "timm-vit", "clip-efficientnet"])
def test_every_tower_has_maps_where_units_have_places(tower: str) -> None:
    encoder, images, weights = setting(make_tower(tower), 2)
    units = {site: np.array([0]) for site in encoder.sites[1:]}
    task = Task(encoder, images, class_logit(weights, 0), work=QUIET)
    found = top_images([(NAMES[:2], task)], units, k=1)
    with torch.no_grad():
        _, cache = encoder.run_with_cache(images)
    tops = {site: found["activation"][site, 0] for site in units}
    for site, top in tops.items():
        placed = cache[site][:1].numel() > cache[site].shape[encoder.unit_dim(site)]
        assert top.heat is None or (placed and max(top.heat.shape) <= 8)
    assert any(top.heat is not None for top in tops.values())
    assert found["activation"][encoder.sites[-1], 0].heat is None
