"""What attribution cannot work with is refused in one sentence that names it, and never becomes a graph."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

import circuitry
from circuitry import Encoder, InputError, class_logit, left_rule
from circuitry.circuits import (
    AttributionSettings,
    attribute_components,
    attribute_parts,
    direct_effects,
    direct_vectors,
    edges_by_position,
    moves_between_positions,
    similarity,
)
from circuitry.encoder import Baseline, Stage, Task
from circuitry.encoder.tensor_batches import ImageBatches
from tests.support.oracles import setting
from tests.support.towers import make_tower
from tests.support.work import QUIET


@pytest.fixture
def vit() -> tuple[Encoder, Tensor, Tensor]:
    return setting(make_tower("vit"))


def test_a_metric_that_is_not_finite_is_named(vit: tuple[Encoder, Tensor, Tensor]) -> None:
    encoder, images, _ = vit

    def broken(e: Tensor) -> Tensor:
        return e.sum(1) * float("nan")

    with pytest.raises(InputError, match=r"the metric '.*broken' is NaN or infinite for one of 3 embeddings"):
        circuitry.attribute(encoder, images, broken, rule=left_rule(1), progress=False)
    with pytest.raises(InputError, match=r"the metric '.*broken' is NaN or infinite"):
        attribute_parts(Task(encoder, images, broken, work=QUIET), AttributionSettings(), np.arange(3))


def test_a_metric_that_is_not_finite_at_the_baseline_is_named(vit: tuple[Encoder, Tensor, Tensor]) -> None:
    encoder, images, _ = vit
    with pytest.raises(InputError, match=r"is NaN or infinite for one of 1 embeddings"):
        circuitry.attribute(encoder, images, lambda e: 1 / e.norm(dim=1), rule=left_rule(1), progress=False)


def test_a_baseline_at_a_site_that_there_is_not_is_refused(vit: tuple[Encoder, Tensor, Tensor]) -> None:
    encoder, images, weights = vit
    baseline = Baseline("median", {"layer99": torch.zeros(1, 4)})
    with pytest.raises(InputError, match=r"There is no site 'layer99'; this encoder's sites are input, "):
        circuitry.attribute(encoder, images, class_logit(weights, 0), baseline=baseline, progress=False)


def test_a_gradient_that_is_not_finite_names_the_site(vit: tuple[Encoder, Tensor, Tensor]) -> None:
    encoder, images, _ = vit

    def flat(e: Tensor) -> Tensor:
        return (e.sum(1) * 0).sqrt()

    for rule in (left_rule(1), circuitry.midpoint_rule(1)):
        with pytest.raises(InputError, match=r"metric '.*flat' by the activation at site 'input' is NaN"):
            circuitry.attribute(encoder, images, flat, rule=rule, progress=False)


def test_edges_that_are_not_finite_name_the_pair() -> None:
    """Activations of 1e20 are finite in single precision, their squared movements are not."""
    stages = (Stage("act1", lambda x: 1e20 * x, 1), Stage("act2", lambda x: 2 * x, 1), Stage("embedding", _unit_sum, 1))
    encoder = Encoder(torch.nn.Linear(1, 1), stages, (2, 2))
    with pytest.raises(InputError, match="Scores of edges from 'act1' to 'act2' are NaN or infinite"):
        circuitry.attribute(encoder, torch.ones(1, 3, 2, 2), lambda e: e[:, 0], progress=False)


def _unit_sum(x: Tensor) -> Tensor:
    return (x * 1e-20).sum((2, 3))


@pytest.mark.parametrize("way", ["a tensor", "a list", "nothing", "parts"])
def test_no_images_are_refused(vit: tuple[Encoder, Tensor, Tensor], way: str) -> None:
    encoder, images, weights = vit
    metric, none = class_logit(weights, 1), images[:0]
    given: Any = {"a tensor": none, "a list": [none, none]}.get(way, [])

    def run() -> object:
        if way == "parts":
            return attribute_parts(Task(encoder, none, metric, work=QUIET), AttributionSettings(), np.arange(0))
        return circuitry.attribute(encoder, given, metric, progress=False)

    with pytest.raises(InputError, match="one image"):
        run()


def test_wrong_types_get_a_sentence(vit: tuple[Encoder, Tensor, Tensor], unchecked: None) -> None:
    encoder, images, weights = vit
    metric = class_logit(weights, 1)
    make: Any = Task
    for first, last, words in (
        (encoder.tower, metric, r"Encoder as encoder, but VisionTransformer.*clip\.encoder"),
        (None, metric, "Encoder as encoder, but None"),
        (encoder, None, "function as metric, but None"),
        (encoder, "logit", "function as metric, but .*'logit'"),
    ):
        with pytest.raises(InputError, match=words):
            make(first, images, last)
    batches: Any = ImageBatches
    for given, kind in ((images.numpy(), "ndarray"), (iter([np.zeros(3)]), "ndarray"), (None, "None")):
        with pytest.raises(InputError, match=f"an iterable of such batches, but {kind}.* was given"):
            list(batches(given, encoder, 2))


def test_all_scores_may_be_zero(vit: tuple[Encoder, Tensor, Tensor]) -> None:
    encoder, images, _ = vit
    graph = circuitry.attribute(encoder, images, lambda e: 0 * e.sum(1), progress=False)
    assert all((scores == 0).all() for scores in graph.node_scores.values())


def test_an_encoder_is_no_task_and_no_residual_stream(vit: tuple[Encoder, Tensor, Tensor], unchecked: None) -> None:
    encoder, images, weights = vit
    edges, wrong = [("embed", "blocks.1.mlp")], cast(Any, encoder)
    for of_task in (
        lambda: attribute_components(wrong),
        lambda: edges_by_position(wrong, edges),
        lambda: moves_between_positions(wrong, edges),
    ):
        with pytest.raises(InputError, match=r"Task as task.*Encoder.*Task\(clip.encoder"):
            of_task()
    for of_stream in (lambda: direct_effects(wrong, images, weights[0]), lambda: direct_vectors(wrong, images)):
        with pytest.raises(InputError, match=r"ResidualStream as stream.*Encoder.*ResidualStream.of\(clip.enc"):
            of_stream()


def test_graphs_and_circuits_are_told_apart(vit: tuple[Encoder, Tensor, Tensor], unchecked: None) -> None:
    encoder, images, weights = vit
    graph: Any = circuitry.attribute(encoder, images, class_logit(weights, 1), rule=left_rule(1), progress=False)
    circuit: Any = graph.circuit(2)
    for of_graphs in (
        lambda: circuitry.node_overlap(circuit, circuit),
        lambda: similarity(circuit, circuit, "cosine"),
        lambda: circuitry.compare([circuit, circuit]),
    ):
        with pytest.raises(InputError, match=r"AttributionGraph as \S*, but Circuit was given: .*\(circuit.source\)"):
            of_graphs()
    for of_circuits in (circuitry.edge_jaccard, circuitry.wl_kernel):
        with pytest.raises(InputError, match=r"Circuit as a, but Attr.* out of a graph with graph.circuit\(3\)"):
            of_circuits(graph, graph)
    with pytest.raises(InputError, match=r"whole number as edges_per_node, but .* was given: give a whole number such"):
        graph.circuit(1.5)
    assert len(graph.circuit(np.int64(2)).graph) == len(circuit.graph)


def test_settings_take_rules_and_calls_their_names(vit: tuple[Encoder, Tensor, Tensor], unchecked: None) -> None:
    encoder, images, weights = vit
    metric = class_logit(weights, 1)
    for wrong in (cast(Any, "left-10"), cast(Any, 10)):
        for name in ("rule", "edge_rule"):
            with pytest.raises(InputError, match=rf"QuadratureRule as {name}, but .* left_rule\(10\) and its"):
                AttributionSettings(**{name: wrong})
    for given, words in ((cast(Any, 10), "rule.*10"), ("left", "'left'.*left-10")):
        with pytest.raises(InputError, match=words):
            circuitry.attribute(encoder, images, metric, rule=given)
        with pytest.raises(InputError, match=words):
            attribute_components(Task(encoder, images, metric), rule=given)


def test_one_name_is_no_list(vit: tuple[Encoder, Tensor, Tensor], unchecked: None) -> None:
    encoder, images, weights = vit
    site, measure = cast(Any, "embedding"), cast(Any, "edge_jaccard")
    for call in (
        lambda: circuitry.attribute(encoder, images, class_logit(weights, 1), sites=site),
        lambda: circuitry.Task(encoder, images, class_logit(weights, 1), sites=site),
    ):
        with pytest.raises(InputError, match=r"list of sites.*'embedding' was given: write \['embedd"):
            call()
    with pytest.raises(InputError, match=r"list of measures.* the string .* was given: write \['edge_jaccard'\]"):
        circuitry.compare_domains({}, measures=measure)


def test_a_metric_without_a_gradient_is_named(vit: tuple[Encoder, Tensor, Tensor]) -> None:
    encoder, images, _ = vit

    def cut_off(e: Tensor) -> Tensor:
        return e.detach().sum(1)

    for rule in (left_rule(1), circuitry.midpoint_rule(1)):
        with pytest.raises(InputError, match=r"what '.*cut_off' returned has none: compute it from the embedding"):
            circuitry.attribute(encoder, images, cut_off, rule=rule, progress=False)
    with pytest.raises(InputError, match=r"what '.*cut_off' returned has none: compute it from the embedding"):
        attribute_components(Task(encoder, images, cut_off, work=QUIET))
