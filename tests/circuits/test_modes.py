"""Attribution gives the same whatever modes the caller has set, in every precision and thread, on its own device."""

import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import circuitry
from circuitry import (
    AttributionGraph,
    Encoder,
    Patch,
    class_logit,
    left_rule,
    midpoint_rule,
    patched,
)
from circuitry.bases import ResidualStream
from circuitry.circuits import direct_effects, direct_vectors, pooling_pairs
from tests.support.oracles import setting
from tests.support.stream_scores import edge_scores
from tests.support.towers import TOWERS, make_tower
from tests.support.work import AS_STUDIED


def scored(
    encoder: Encoder, images: Any, weights: Tensor, **more: Any
) -> AttributionGraph:
    return circuitry.attribute(
        encoder, images, class_logit(weights, 1), progress=False, **AS_STUDIED, **more
    )


OF_HALF_PRECISION = [
    (tower, dtype) for tower in TOWERS for dtype in (torch.bfloat16, torch.float16)
]
OF_HALF_PRECISION.remove(
    ("convnext", torch.float16)
)  # a derivative of its layer norm exceeds 65504, which is refused by name


@pytest.mark.parametrize(("name", "dtype"), OF_HALF_PRECISION)
def test_encoders_of_half_precision_are_attributed(
    name: str, dtype: torch.dtype
) -> None:
    encoder, images, weights = setting(make_tower(name))
    exact = scored(encoder, images, weights, rule=midpoint_rule(2), size=0.1)
    encoder.tower.to(dtype)
    half = scored(encoder, images, weights, rule=midpoint_rule(2), size=0.1)
    assert half.settings["weights"] != exact.settings["weights"]
    scores = [
        np.concatenate([graph.node_scores[site] for site in encoder.sites])
        for graph in (exact, half)
    ]
    assert np.corrcoef(scores[0], scores[1])[0, 1] > 0.9
    assert len(half.edge_scores) == len(encoder.sites) - 2


def test_what_reads_a_tower_of_half_precision_gives_numbers() -> None:
    stream = ResidualStream.of(Encoder.from_tower(make_tower("timm-vit").bfloat16()))
    resnet = Encoder.from_tower(make_tower("resnet").bfloat16())
    images, weight = torch.randn(2, 3, *stream.encoder.image_size), torch.ones(16) / 4
    found = [
        edge_scores(
            stream, images, class_logit(weight[None], 0), method="exact-readers"
        ).into,
        direct_effects(stream, images, weight).effects,
        direct_vectors(stream, images),
        pooling_pairs(resnet, torch.randn(2, 3, *resnet.image_size)).read,
    ]
    for one in found:
        assert np.isfinite(one).all()
        assert np.abs(one).max() > 0


def test_threads_take_turns() -> None:
    encoder, images, weights = setting(make_tower("resnet"))
    twin = Encoder.from_tower(
        encoder.tower
    )  # as one in a feature basis, on the same tower

    def cached() -> Tensor:
        return torch.cat(
            [a.flatten() for a in encoder.run_with_cache(images)[1].values()]
        )

    def ablated() -> Tensor:
        with encoder.running(), patched(encoder, [Patch("layer1.0", 0.0)]):
            embedding: Tensor = encoder(images)
        return embedding

    def attributed(which: Encoder) -> Tensor:
        graph = scored(
            which,
            images,
            weights,
            rule=left_rule(1),
            sites=("act1", "layer4.0", "attnpool"),
        )
        return torch.from_numpy(
            np.concatenate([graph.node_scores[site] for site in graph.sites])
        )

    works: list[Callable[[], Tensor]] = [
        cached,
        ablated,
        lambda: attributed(encoder),
        lambda: attributed(twin),
    ]
    encoder.tower.train()
    expected = [work() for work in works]
    stages, wrong = encoder.stages, list[str]()

    def repeat(k: int) -> None:
        try:
            wrong.extend(
                f"{k} differs"
                for _ in range(6)
                if not torch.equal(works[k](), expected[k])
            )
        except Exception as error:
            wrong.append(f"{k}: {error}")

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [
            threading.Thread(target=repeat, args=(k,)) for k in range(len(works))
        ]
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
