"""What circuit-tracer's page and Neuronpedia need of the file of a circuit, in our own words."""

import math
import re
from collections import Counter
from typing import Any

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
