"""Objects taken for one another are refused in a sentence that says how to get the one that is meant."""

from types import SimpleNamespace
from typing import Any

import pytest

from circuitry import CausalChecks, Clip, InputError, attribute, class_logit, faithfulness_curve, left_rule
from circuitry.data import DomainFolder
from circuitry.interventions import (
    AblationSettings,
    FoundCircuit,
    cut_each,
    cut_embeddings,
    edges_among,
    find_circuit,
    judge_circuit,
    learn_edges,
    measure_edges,
    propose_circuits,
    strongest_edge_sets,
    take_edges,
)
from tests.support.oracles import setting
from tests.support.towers import make_tower
from tests.support.work import QUIET

pytestmark = pytest.mark.usefixtures("unchecked")

A_GRAPH = r"Expected an AttributionGraph as graph, but {} was given: give the graph of what find_circuit returns \("
A_SET = r"Expected a Mapping as edges, but {} was given: make a set of edges with take_edges\(circuit\) or edges_among"
AN_ENCODER = "Expected an Encoder as encoder, but {} was given: give clip.encoder of a Clip, or stream.components of a"
SETTINGS = r"AblationSettings as settings, but Tensor was given: .* images of other classes by name, others="


@pytest.fixture
def given() -> Any:
    encoder, images, weights = setting(make_tower("resnet"), 2)
    metric = class_logit(weights, 0)
    graph = attribute(encoder, images, metric, rule=left_rule(1), progress=False)
    curve: Any = None
    return SimpleNamespace(
        encoder=encoder,
        images=images,
        metric=metric,
        graph=graph,
        circuit=graph.circuit(2),
        found=FoundCircuit(graph, curve),
    )


def test_a_found_circuit_or_a_circuit_is_no_graph(given: Any) -> None:
    for wrong in (given.found, given.circuit):
        with pytest.raises(InputError, match=A_GRAPH.format(type(wrong).__name__)):
            faithfulness_curve(given.encoder, given.images, given.metric, wrong, work=QUIET)
        with pytest.raises(InputError, match=A_GRAPH.format(type(wrong).__name__)):
            judge_circuit(given.encoder, given.images, given.metric, wrong, work=QUIET)
        with pytest.raises(InputError, match=A_GRAPH.format(type(wrong).__name__)):
            measure_edges(given.encoder, given.images, given.metric, wrong, [take_edges(given.circuit)], work=QUIET)
        with pytest.raises(InputError, match=A_GRAPH.format(type(wrong).__name__)):
            edges_among(wrong)
        with pytest.raises(InputError, match=A_GRAPH.format(type(wrong).__name__)):
            strongest_edge_sets(wrong, [0.5])


def test_others_are_given_by_name(given: Any) -> None:
    for measure in (faithfulness_curve, judge_circuit):
        with pytest.raises(InputError, match=SETTINGS):
            measure(given.encoder, given.images, given.metric, given.graph, given.images, work=QUIET)
    edges: Any = [take_edges(given.circuit)]
    with pytest.raises(InputError, match=SETTINGS):
        measure_edges(given.encoder, given.images, given.metric, given.graph, edges, given.images, work=QUIET)


def test_a_graph_or_a_circuit_is_no_set_of_edges(given: Any) -> None:
    for wrong in (given.graph, given.circuit):
        with pytest.raises(InputError, match=A_SET.format(type(wrong).__name__)):
            learn_edges(given.encoder, given.images, given.metric, wrong, [0.3], work=QUIET)
        with pytest.raises(InputError, match=A_SET.format(type(wrong).__name__)):
            cut_embeddings(given.encoder, given.images, [wrong], work=QUIET)
        with pytest.raises(InputError, match=A_SET.format(type(wrong).__name__)):
            cut_each(given.encoder, given.images, given.metric, wrong, work=QUIET)
    with pytest.raises(InputError, match=r"Expected a list of edge_sets, but dict was given: write \[edge_sets\]"):
        cut_embeddings(given.encoder, given.images, take_edges(given.circuit), work=QUIET)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"Expected a Circuit .* AttributionGraph was given: cut one out of a graph w"):
        take_edges(given.graph)


def test_a_clip_is_no_encoder(given: Any, clip: Clip) -> None:
    wrong: Any = clip
    edges = take_edges(given.circuit)
    for call in (
        lambda: faithfulness_curve(wrong, given.images, given.metric, given.graph, work=QUIET),
        lambda: judge_circuit(wrong, given.images, given.metric, given.graph, work=QUIET),
        lambda: find_circuit(wrong, given.images, given.metric, size=0.5),
        lambda: cut_embeddings(wrong, given.images, [edges], work=QUIET),
        lambda: cut_each(wrong, given.images, given.metric, edges, work=QUIET),
        lambda: learn_edges(wrong, given.images, given.metric, edges, [0.3], work=QUIET),
    ):
        with pytest.raises(InputError, match=AN_ENCODER.format("Clip")):
            call()


def test_a_path_is_no_folder_of_graphs(clip: Clip) -> None:
    images: Any = object.__new__(DomainFolder)
    graphs: Any = "runs/x"
    with pytest.raises(InputError, match=r"a GraphFolder as graphs, but str was given: open one with GraphFolder\("):
        CausalChecks(clip, images, graphs)
    encoder: Any = clip.encoder
    with pytest.raises(InputError, match=r"a Clip as clip, but Encoder was given: make one with load_clip\("):
        CausalChecks(encoder, images, graphs)


def test_one_size_is_no_list_of_sizes(given: Any) -> None:
    one: Any = 0.3
    with pytest.raises(InputError, match=r"Expected a list of sizes, but 0.3 was given: write \[0.3\]"):
        learn_edges(given.encoder, given.images, given.metric, edges_among(given.graph), one, work=QUIET)
    with pytest.raises(InputError, match=r"Expected a list of sizes, but 0.3 was given: write \[0.3\]"):
        propose_circuits(given.encoder, given.images, given.metric, one)
    with pytest.raises(InputError, match=r"Expected a list of fractions, but 0.3 was given: write \[0.3\]"):
        AblationSettings(fractions=one)
    site: Any = "layer4.0"
    with pytest.raises(InputError, match=r"list of sites, but the string 'layer4.0' was given: write \['layer4.0'\]"):
        AblationSettings(sites=site)
