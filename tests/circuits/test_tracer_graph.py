"""Circuits as circuit-tracer's page and Neuronpedia take them: what these readers need, in our own words."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circuitry.circuits import Circuit, write_tracer_json
from circuitry.runs import InputError
from tests.circuits.test_measures import random_graph

PLAIN = re.compile(r"[A-Za-z0-9_.-]+")
"""What Neuronpedia takes as the name of a graph or model."""
OUTPUT = re.compile(r'[^"]*"((?!\(p=)[^"])*" \(p=[^)]+\)')
"""How a logit is labelled."""
OF_NODE: dict[str, tuple[type, ...]] = {
    "node_id": (str,),
    "feature": (int, type(None)),
    "layer": (str, int),
    "ctx_idx": (int,),
    "feature_type": (str,),
    "jsNodeId": (str,),
    "clerp": (str,),
}
"""Fields that Neuronpedia's published schema (graph-schema.json of its web application) requires, with their types."""


def is_number(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def refusals(file: dict[str, Any]) -> list[str]:
    """What a reader would refuse, leave out or fail at: Neuronpedia's schema, and how circuit-tracer's page reads."""
    found = [
        f"no {name}"
        for name in ("metadata", "qParams", "nodes", "links")
        if name not in file
    ]
    if found:
        return found
    about, asked, nodes, links = (
        file["metadata"],
        file["qParams"],
        file["nodes"],
        file["links"],
    )
    found += [
        f"{name} is no plain name"
        for name in ("slug", "scan")
        if not PLAIN.fullmatch(str(about.get(name)))
    ]
    tokens = about.get("prompt_tokens")
    if not isinstance(about.get("prompt"), str) or not (
        tokens and all(isinstance(token, str) for token in tokens)
    ):
        return [*found, "no prompt"]
    if "node_threshold" in about and not is_number(about["node_threshold"]):
        found.append("the threshold is no number")
    if not isinstance(about.get("transcoder_list"), list):
        found.append("no list of transcoders")
    for node in nodes:
        found += [
            f"{name} of a node"
            for name, types in OF_NODE.items()
            if not isinstance(node.get(name), types)
        ]
        for name in ("influence", "activation"):
            if node.get(name) is not None and not is_number(node[name]):
                found.append(f"{name} of a node")
    known = {node["node_id"] for node in nodes}
    if len(known) < len(nodes):
        found.append("two nodes of one name")
    for link in links:
        if not {link["source"], link["target"]} <= known or not is_number(
            link["weight"]
        ):
            found.append("a link without its nodes, or its weight")
    if not set(asked["pinnedIds"]) <= known:
        found.append("an unknown node is pinned")
    if any(
        not isinstance(name, str) or not set(ids) <= known
        for name, *ids in asked["supernodes"]
    ):
        found.append("a group of unknown nodes")
    outputs = [node["clerp"] for node in nodes if node["feature_type"] == "logit"]
    if not outputs or not all(OUTPUT.fullmatch(label) for label in outputs):
        found.append("the page looks for the token in quotes, and for (p=")
    features = Counter(
        (node["layer"], node["feature"], node["ctx_idx"]) for node in nodes
    )
    if max(features.values()) > len(tokens) * 2 / 3:
        found.append("the page leaves out what is at most tokens")
    if not all(0 < node["ctx_idx"] < len(tokens) for node in nodes):
        found.append("the page places a node by the token before it")
    return found


def written(circuit: Circuit, folder: Path, **given: Any) -> dict[str, Any]:
    write_tracer_json(circuit, folder / "x.json", **given)
    found: dict[str, Any] = json.loads((folder / "x.json").read_text(encoding="utf-8"))
    return found


def test_units_and_edges_are_nodes_and_links_with_the_circuits_numbers(
    tmp_path: Path,
) -> None:
    circuit = random_graph(0, "cat", "real").circuit(2)
    file = written(circuit, tmp_path, labels={"a/0": "fins"}, probability=0.25)
    assert refusals(file) == []
    names = {node["node_id"]: node["clerp"].split()[0] for node in file["nodes"][:-1]}
    logit = file["nodes"][-1]
    scores = {names[node["node_id"]]: node["score"] for node in file["nodes"][:-1]}
    assert scores == pytest.approx(dict(circuit.graph.nodes(data="score")))
    links = {
        (names[link["source"]], names.get(link["target"], "class")): link["weight"]
        for link in file["links"]
    }
    last = circuit.source.sites[-1]
    effects = {
        (name, "class"): score
        for name, score in scores.items()
        if name.startswith(f"{last}/")
    }
    edges = {
        (up, down): weight for up, down, weight in circuit.graph.edges(data="weight")
    }
    assert links == pytest.approx(edges | effects)
    assert (logit["clerp"], logit["token_prob"]) == ('Output "cat" (p=0.250)', 0.25)
    assert file["metadata"]["prompt"] == "an image of cat in real"
    ranked = sorted(scores, key=lambda name: -abs(scores[name]))
    assert {names.get(one, "class") for one in file["qParams"]["pinnedIds"]} == {
        *ranked[:10],
        "class",
    }


def test_a_label_stands_beside_its_unit(tmp_path: Path) -> None:
    circuit = random_graph(0).circuit(2)
    unit = next(iter(circuit.graph))
    file = written(circuit, tmp_path, labels={unit: "fins"})
    assert f"{unit} fins" in {node["clerp"] for node in file["nodes"]}


@pytest.mark.parametrize(
    ("class_name", "domain"),
    [('so "called" (p=1', "a/b"), ("cat", None), (None, None), ("Ωmega", "שלום")],
)
def test_any_name_gives_a_file_that_readers_take(
    tmp_path: Path, class_name: str | None, domain: str | None
) -> None:
    graph = random_graph(0, class_name, domain)
    assert refusals(written(graph.circuit(2), tmp_path)) == []
    assert refusals(written(graph.strongest(0.1), tmp_path)) == []  # units alone


def test_a_probability_is_a_share(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="probability"):
        write_tracer_json(
            random_graph(0).circuit(2), tmp_path / "x.json", probability=12.0
        )
    assert not (tmp_path / "x.json").exists()


def one_token(file: dict[str, Any]) -> None:
    file["metadata"]["prompt_tokens"] = ["cat"]


def at_the_first_token(file: dict[str, Any]) -> None:
    for node in file["nodes"]:
        node["ctx_idx"] = 0


SPOILT: dict[str, Callable[[dict[str, Any]], Any]] = {
    "threshold": lambda file: file["metadata"].update(node_threshold=None),
    "plain name": lambda file: file["metadata"].update(scan="hf-hub:timm/x"),
    "in quotes": lambda file: file["nodes"][-1].update(clerp="cat"),
    "most tokens": one_token,
    "token before": at_the_first_token,
    "weight": lambda file: file["links"][0].update(weight=None),
    "pinned": lambda file: file["qParams"].update(pinnedIds=["9_9_9"]),
}


@pytest.mark.parametrize("why", SPOILT)
def test_readers_refuse_what_the_explorer_wrote_before(
    tmp_path: Path, why: str
) -> None:
    file = written(random_graph(0).circuit(2), tmp_path)
    SPOILT[why](file)
    assert why in " ".join(refusals(file))
