"""Attribution gives the same whatever modes the caller has set, in every precision and thread, on its own device."""

import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import circuitry
from circuitry import (
    AttributionGraph,
    Encoder,
    Patch,
    attribute,
    class_logit,
    left_rule,
    midpoint_rule,
    patch_effects,
    patched,
)
from circuitry.bases import ResidualStream
from circuitry.circuits import direct_effects, direct_vectors, pooling_pairs
from circuitry.encoder import Baseline, Counterfactual, Task
from circuitry.interventions import circuit_of, kept_embeddings
from circuitry.interventions.patches import PatchValue
from tests.support.oracles import setting
from tests.support.stream_scores import edge_scores
from tests.support.towers import TOWERS, make_tower
from tests.support.work import AS_STUDIED, QUIET


def scored(encoder: Encoder, images: Any, weights: Tensor, **more: Any) -> AttributionGraph:
    return circuitry.attribute(encoder, images, class_logit(weights, 1), progress=False, **AS_STUDIED, **more)


OF_HALF_PRECISION = [(tower, dtype) for tower in TOWERS for dtype in (torch.bfloat16, torch.float16)]
OF_HALF_PRECISION.remove(
    ("convnext", torch.float16)
)  # a derivative of its layer norm exceeds 65504, which is refused by name


@pytest.mark.parametrize(("name", "dtype"), OF_HALF_PRECISION)
def test_encoders_of_half_precision_are_attributed(name: str, dtype: torch.dtype) -> None:
    encoder, images, weights = setting(make_tower(name))
    exact = scored(encoder, images, weights, rule=midpoint_rule(2), size=0.1)
    encoder.tower.to(dtype)
    half = scored(encoder, images, weights, rule=midpoint_rule(2), size=0.1)
    assert half.settings["weights"] != exact.settings["weights"]
    scores = [np.concatenate([graph.node_scores[site] for site in encoder.sites]) for graph in (exact, half)]
    assert np.corrcoef(scores[0], scores[1])[0, 1] > 0.9
    assert len(half.edge_scores) == len(encoder.sites) - 2


def test_what_reads_a_tower_of_half_precision_gives_numbers() -> None:
    stream = ResidualStream.of(Encoder.from_tower(make_tower("timm-vit").bfloat16()))
    resnet = Encoder.from_tower(make_tower("resnet").bfloat16())
    images, weight = torch.randn(2, 3, *stream.encoder.image_size), torch.ones(16) / 4
    found = [
        edge_scores(stream, images, class_logit(weight[None], 0), method="exact-readers").into,
        direct_effects(stream, images, weight).effects,
        direct_vectors(stream, images),
        pooling_pairs(resnet, torch.randn(2, 3, *resnet.image_size)).read,
    ]
    for one in found:
        assert np.isfinite(one).all()
        assert np.abs(one).max() > 0


def test_threads_take_turns() -> None:
    encoder, images, weights = setting(make_tower("resnet"))
    twin = Encoder.from_tower(encoder.tower)  # as one in a feature basis, on the same tower

    def cached() -> Tensor:
        return torch.cat([a.flatten() for a in encoder.run_with_cache(images)[1].values()])

    def ablated() -> Tensor:
        with encoder.running(), patched(encoder, [Patch("layer1.0", 0.0)]):
            embedding: Tensor = encoder(images)
        return embedding

    def attributed(which: Encoder) -> Tensor:
        graph = scored(which, images, weights, rule=left_rule(1), sites=("act1", "layer4.0", "attnpool"))
        return torch.from_numpy(np.concatenate([graph.node_scores[site] for site in graph.sites]))

    works: list[Callable[[], Tensor]] = [cached, ablated, lambda: attributed(encoder), lambda: attributed(twin)]
    encoder.tower.train()
    expected = [work() for work in works]
    stages, wrong = encoder.stages, list[str]()

    def repeat(k: int) -> None:
        try:
            wrong.extend(f"{k} differs" for _ in range(6) if not torch.equal(works[k](), expected[k]))
        except Exception as error:
            wrong.append(f"{k}: {error}")

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=repeat, args=(k,)) for k in range(len(works))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not wrong
    assert encoder.stages is stages
    assert encoder.tower.training
    assert encoder.hooked_sites == ()


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
    for room in ("runs.given", "encoder.tensor_batches"):
        monkeypatch.setattr(f"circuitry.{room}.lacking_values", lambda _: None)  # which refuses it
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
