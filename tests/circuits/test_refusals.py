"""Whatever attribution, its edges and its comparisons cannot work with is refused in a sentence that names it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from circuitry import (
    AttributionGraph,
    Circuit,
    Encoder,
    InputError,
    Task,
    compare,
    compare_domains,
    left_rule,
)
from circuitry import attribute as attribute_images
from circuitry import circuits as c
from circuitry.bases import ResidualStream
from circuitry.circuits.consensus import find_consensus
from circuitry.encoder import Baseline, Stage, mean_baseline
from tests.circuits.test_graph import small_graph
from tests.circuits.test_measures import FIRST, SECOND, random_graph
from tests.support.metrics import product as metric
from tests.support.stream_scores import edge_scores
from tests.support.towers import make_tower
from tests.support.work import AS_STUDIED, QUIET

Call = Callable[[], object]
RESNET, VIT, TIMM, LINEAR_TO_NONE = (
    Encoder.from_tower(make_tower(name))
    for name in ("resnet", "vit", "timm-vit", "vit-attentional-pooling")
)
IMAGES = {
    encoder: torch.randn(3, 3, *encoder.image_size)
    for encoder in (RESNET, VIT, TIMM, LINEAR_TO_NONE)
}


def attribute(
    encoder: Encoder = RESNET, images: Any = None, metric: Any = metric, **settings: Any
) -> AttributionGraph:
    given = IMAGES[encoder] if images is None else images
    return attribute_images(
        encoder,
        given,
        metric,
        progress=False,
        **({"rule": left_rule(1), **AS_STUDIED} | settings),
    )


def folds(
    numbers: Any, images: Tensor = IMAGES[VIT], metric: Any = metric, **given: Any
) -> object:
    return c.attribute_folds(
        Task(VIT, images, metric, work=QUIET, **given), c.AttributionSettings(), numbers
    )


def squared_steps_overflow() -> Encoder:
    """Activations of 1e20 are finite in single precision, their squared movements are not."""
    last = Stage("embedding", lambda x: (x * 1e-20).sum((2, 3)), 1)
    stages = (
        Stage("act1", lambda x: 1e20 * x, 1),
        Stage("act2", lambda x: 2 * x, 1),
        last,
    )
    return Encoder(nn.Linear(1, 1), stages, (2, 2))


def with_norm_over_tokens() -> ResidualStream:
    tower: Any = make_tower("timm-vit")
    tower.trunk.norm = nn.GroupNorm(1, 17)
    return ResidualStream.of(Encoder.from_tower(tower))


STREAM, NONE = [("embed", "blocks.1.mlp")], torch.zeros(0, 3, 64, 64)
ATTRIBUTION: list[tuple[Call, str]] = [
    (lambda: attribute(size=1.5), r"\(0, 1\] as size, but 1.5 "),
    (lambda: attribute(baseline="mean"), r"mean_baseline\(encoder, images\), but 'mean' was given"),
    (lambda: attribute(sites=("act2", "act1")), "in the encoder's order, but act2, act1 was given; the order is input"),
    (lambda: attribute(sites=("act9",)), "no site 'act9'"),
    (lambda: attribute(sites=()), "but none was given"),
    (lambda: attribute(edges="gradient"), "gradient"),
    (lambda: attribute(images=[]), "one image"),
    (lambda: attribute(images=NONE), "one image"),
    (lambda: attribute(images=IMAGES[RESNET][..., :32, :32]), r"given \[3, 3, 32, 32\]"),
    (lambda: attribute(images=IMAGES[RESNET] * float("nan")), "at site 'input' are not finite"),
    (lambda: attribute(metric=lambda e: e.sum()), r"one number per image \[3\], but this one returned \[\]"),
    (lambda: attribute(metric=lambda e: e.sum(1) * float("nan")), "is NaN or infinite for one of 3 embeddings"),
    (lambda: attribute(VIT, metric=lambda e: 1 / e.norm(dim=1)), "is NaN or infinite for one of 1 embeddings"),
    (lambda: attribute(metric=lambda e: (e.sum(1) * 0).sqrt()), "activation at site 'input' is NaN"),
    (lambda: attribute(metric=lambda e: e.detach().sum(1)), "returned has none: compute it from the embedding"),
    (lambda: c.attribute_components(Task(VIT, IMAGES[VIT], lambda e: e.detach().sum(1))), "compute it from the embedd"),
    (lambda: attribute(baseline=Baseline("mine", {"layer99": torch.zeros(1, 4)})), "no site 'layer99'"),
    (lambda: attribute(baseline=Baseline("mine", {"act2": torch.zeros(1, 4, 16, 16)})), r"'act2'.*\[3, 4, 32, 32\]"),
    (lambda: attribute(baseline=torch.zeros(3, 3, 32, 32)), r"\[batch, 3, 64, 64\], but was given \[3, 3, 32, 32\]"),
    (lambda: attribute(baseline=torch.zeros(2, 3, 64, 64)), "'counterfactual' has 2 activations at site 'input' for"),
    (lambda: attribute_images(squared_steps_overflow(), torch.ones(1, 3, 2, 2), lambda e: e[:, 0], **AS_STUDIED),
     "Scores of edges from 'act1' to 'act2' are NaN or infinite"),
    (lambda: folds(np.array([0, 1])), "in one fold, but 3 images and 2 folds were given"),
    (lambda: folds(np.arange(3), metric=lambda e: e.sum(1) * float("nan")), "NaN or infinite"),
    (lambda: folds(np.arange(3), baseline=torch.zeros(2, 3, 32, 32)), "2 activations .* for 3 images: give one for ev"),
    (lambda: mean_baseline(RESNET, []), "at least one image"),
    (lambda: left_rule(0), "points, but 0"),
    (lambda: c.parse_rule("simpson-4"), "Unknown quadrature rule .*left-10, midpoint-10, gauss-legendre-10, gauss-ra"),
    (lambda: c.parse_rule("left-99999999999"), "1 to 1000 points"),
    (lambda: c.QuadratureRule("odd", (0.0, 1.0), (1.0,)), r"'odd' has .*\(0.0, 1.0\) and weights \(1.0,\)"),
    (lambda: c.QuadratureRule("half", (0.5,), (0.5,)), r"weights \(0\.5,\)"),
]  # fmt: skip
STREAMS: list[tuple[Call, str]] = [
    (
        lambda: c.attribute_components(Task(VIT, IMAGES[VIT], metric), method="atp"),
        "'exact-readers', .*'atp'",
    ),
    (
        lambda: edge_scores(
            with_norm_over_tokens(), IMAGES[TIMM], metric, method="relp"
        ),
        "a GroupNorm: .*gradient",
    ),
    (
        lambda: edge_scores(
            ResidualStream.of(VIT), IMAGES[VIT], lambda e: (e[:, 0] - e[:, 0]).sqrt()
        ),
        "of edges are Na",
    ),
    (
        lambda: c.direct_effects(
            ResidualStream.of(LINEAR_TO_NONE), IMAGES[LINEAR_TO_NONE], torch.ones(16)
        ),
        "proj of th",
    ),
    (
        lambda: c.direct_effects(ResidualStream.of(TIMM), IMAGES[TIMM], torch.ones(3)),
        r"16 numbers .* shape \[3\]",
    ),
    (
        lambda: c.direct_effects(
            ResidualStream.of(TIMM), IMAGES[TIMM][:0], torch.ones(16)
        ),
        "at least one image",
    ),
    (lambda: c.pooling_pairs(TIMM, IMAGES[TIMM]), "TimmModel .* direct_effects"),
]
COMPARED: list[tuple[Call, str]] = [
    (lambda: compare([FIRST, FIRST]), "class_name and domain"),
    (
        lambda: compare([random_graph(0), random_graph(1)]),
        "Two graphs of class 'axe' in domain 'real'",
    ),
    (
        lambda: compare(
            [random_graph(0), random_graph(1, domain="b")], classes=["cat"]
        ),
        "cat; the classes are axe",
    ),
    (lambda: compare([random_graph(0)]), "two"),
    (
        lambda: compare_domains({("axe", "real"): random_graph(0)}),
        "class in at least two domains",
    ),
    (lambda: c.similarity(FIRST, SECOND, "jaccard"), "'jaccard'.*edge_jaccard"),
    (lambda: c.Measure("wl_kernel", -1), r"depth.* -1"),
    (lambda: c.chance_overlap(5, 6, 1), "5 units .* 6 and 1 were given"),
    (lambda: find_consensus(FIRST.circuit(), [FIRST], {}), r"two folds .* 1 was given"),
    (lambda: small_graph().circuit(0), "edges_per_node, but 0 "),
    (
        lambda: Circuit(small_graph(), {"body": np.array([0])}),
        "body; the sites are conv, head",
    ),
    (
        lambda: Circuit(small_graph(), {"conv": np.array([1, 4])}),
        "'conv' has units 0 to 3",
    ),
    (
        lambda: Circuit(small_graph(), {"conv": np.array([1])}, small_graph().edges),
        r"Edges\.among",
    ),
]


@pytest.mark.parametrize(("call", "named"), [*ATTRIBUTION, *STREAMS, *COMPARED])
def test_refusals(call: Call, named: str) -> None:
    with pytest.raises(InputError, match=named):
        call()


def test_a_graph_is_no_circuit(tmp_path: Path) -> None:
    small_graph().save(tmp_path / "graph")
    with pytest.raises(
        InputError, match=r"graph and no circuit.*AttributionGraph.load\(path\).circuit"
    ):
        Circuit.load(tmp_path / "graph")


def test_weights_that_are_not_finite_name_the_site() -> None:
    tower: Any = make_tower("resnet")
    tower.layer2[0].conv2.weight[0, 0, 0, 0] = float("inf")
    with pytest.raises(InputError, match=r"at site 'layer2.0' are not finite"):
        attribute(Encoder.from_tower(tower), IMAGES[RESNET])


def test_all_scores_may_be_zero() -> None:
    graph = attribute(VIT, metric=lambda e: 0 * e.sum(1))
    assert all((scores == 0).all() for scores in graph.node_scores.values())
