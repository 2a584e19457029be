"""Nothing leaves the encoder's device by mistake: runs on PyTorch's meta device, where no GPU is at hand.

Tensors there have a device, a shape and a type but no values, and mixing them with tensors of the CPU is an error, as
on a GPU. What is copied to the CPU on purpose becomes zeros here. Values on CUDA and MPS were not checked.
"""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from circuitry import Encoder, Patch, Task, attribute, class_logit, midpoint_rule, patch_effects, patched
from circuitry.encoder import Baseline, Counterfactual
from circuitry.interventions import circuit_of, kept_embeddings
from circuitry.interventions.patches import PatchValue
from tests.support.towers import make_tower
from tests.support.work import QUIET

META = torch.device("meta")


@pytest.fixture(params=["resnet", "vit", "swin"])
def on_meta(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Encoder:
    """An encoder on the meta device; what is copied from there to the CPU is zeros, and every check passes."""

    def zeros(tensor: Tensor) -> Tensor:
        return torch.zeros(tensor.shape, dtype=tensor.dtype)

    monkeypatch.setattr(Tensor, "cpu", zeros)
    monkeypatch.setattr(Tensor, "__float__", lambda _: 0.0, raising=False)
    monkeypatch.setattr(Tensor, "__bool__", lambda _: True, raising=False)
    monkeypatch.setattr(Tensor, "item", lambda _: 0.0)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # the meta device has no autocast
    return Encoder.from_tower(make_tower(request.param).to(META))


def images(encoder: Encoder) -> Tensor:
    return torch.randn(3, 3, *encoder.image_size)  # on the CPU, as they are read


def metric() -> Any:
    return class_logit(F.normalize(torch.randn(4, 16, device=META), dim=-1), 1)


def mean(encoder: Encoder) -> Baseline:
    with torch.no_grad():
        _, cache = encoder.run_with_cache(images(encoder).to(META))
    return Baseline("mean", {site: torch.zeros(a.shape[1:])[None] for site, a in cache.items()})


def test_the_meta_device_sees_a_stray_tensor() -> None:
    with pytest.raises(RuntimeError, match=r"(?i)device"):
        torch.zeros(2, device=META) @ torch.zeros(2)


def test_attribution_stays_on_its_device(on_meta: Encoder) -> None:
    for baseline in ("zero", mean(on_meta)):
        graph = attribute(on_meta, images(on_meta), metric(), 0.2, midpoint_rule(2), baseline, progress=False)
        assert graph.n_images == 3
        assert len(graph.edge_scores) == len(on_meta.sites) - 2


@pytest.mark.parametrize("by", ["unit", "position", "site"])
def test_patching_stays_on_its_device(on_meta: Encoder, by: str) -> None:
    sites = on_meta.sites[-2:]
    for baseline in (mean(on_meta), images(on_meta)):
        task = Task(on_meta, images(on_meta), metric(), baseline=baseline, sites=sites, work=QUIET)
        found = patch_effects(task, by=by)
        assert tuple(found.scores) == sites


def test_circuits_stay_on_their_device(on_meta: Encoder) -> None:
    circuits = [{site: np.arange(2) for site in on_meta.sites[1:]}, {on_meta.sites[-1]: np.arange(3)}]
    for baseline in (mean(on_meta), images(on_meta)):
        task = Task(on_meta, images(on_meta), metric(), baseline=baseline, work=QUIET)
        embeddings = kept_embeddings(task, [circuit_of(task, units) for units in circuits])
        assert embeddings.device == META
        assert embeddings.shape == (2, 3, 16)


@pytest.mark.parametrize("kind", ["constant", "stored", "counterfactual"])
def test_patches_stay_on_their_device(on_meta: Encoder, kind: str) -> None:
    site, batch = on_meta.sites[-2], images(on_meta)
    values: dict[str, PatchValue] = {"constant": 0.5, "stored": mean(on_meta), "counterfactual": Counterfactual(batch)}
    with patched(on_meta, [Patch(site, values[kind], units=[0, 2])]):
        assert on_meta(batch.to(META)).device == META
