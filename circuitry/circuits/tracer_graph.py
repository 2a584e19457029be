"""A circuit as the JSON that circuit-tracer's page and Neuronpedia open. No torch.

These files are of a language model and one prompt: features at layers and tokens, and the token that they make likely.
So sites are layers, units are features at the last token of a sentence that names class and domain, and the class is
the token. Three habits of their readers shape the file: the probability is read out of the logit's label; a feature
that is at more than two thirds of the tokens is left out; and a column is placed by the token before it. So the
sentence has several tokens. The page of the explorer writes the same file (``exports.js``), and a test compares both.
"""

import json
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from circuitry.circuits.graph import Circuit
from circuitry.runs.files import whole_file
from circuitry.runs.given import Share, checked

PINNED = 10
"""The strongest units are pinned, with the class: readers draw these at first."""


class _Unit(NamedTuple):
    """A unit of the circuit."""

    name: str  #: ``site/unit``.
    layer: int  #: Place of its site.
    number: int
    score: float


@checked
def write_tracer_json(
    circuit: Circuit,
    path: str | os.PathLike[str],
    *,
    labels: Mapping[str, str] | None = None,
    probability: Share | None = None,
) -> None:
    """Write a circuit as the JSON that the pages of circuit-tracer and of Neuronpedia open.

    Units of the last site are linked to the class by their scores. The file is of one circuit, so two domains are two
    files.

    Args:
        circuit: With edges, such as ``graph.circuit(3)``; units alone are drawn without links.
        path: The file; the page asks for ``<slug>.json``.
        labels: What units are called, by ``site/unit``; see `unit_cards`.
        probability: Of the class, as the model gives it, shown beside its name (default: a question mark).

    Example:
        >>> write_tracer_json(graph.circuit(3), "runs/bicycle-real.json")
    """
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(tracer_graph(circuit, labels or {}, probability)), encoding="utf-8")


def tracer_graph(circuit: Circuit, labels: Mapping[str, str], probability: float | None) -> dict[str, Any]:
    """Return the content of the file; see `write_tracer_json`."""
    source, units = circuit.source, _units_of(circuit)
    class_name = source.class_name or "class"
    tokens = ["an", " image", " of", f" {class_name}"]
    if source.domain is not None:
        tokens += [" in", f" {source.domain}"]
    position, top = len(tokens) - 1, len(source.inner_sites)
    ids = {unit.name: f"{unit.layer}_{unit.number}_{position}" for unit in units}
    logit = f"{top}_0_{position}"

    nodes = [_node(unit, position, _label(unit, labels)) for unit in units]
    nodes.append(_class_node(class_name, top, position, probability))
    links = [_link(ids[up], ids[down], weight) for up, down, weight in circuit.graph.edges(data="weight")]
    last = max((unit.layer for unit in units), default=top)
    links += [_link(ids[unit.name], logit, unit.score) for unit in units if unit.layer == last]
    strongest = sorted(units, key=lambda unit: -abs(unit.score))[:PINNED]
    return {
        "metadata": {
            "slug": _plain("-".join(filter(None, [class_name, source.domain]))),
            "scan": _plain(source.provenance.get("model", "unknown model")),
            "transcoder_list": [],
            "prompt_tokens": tokens,
            "prompt": "".join(tokens),
            "schema_version": 1,
            "info": {"description": f"{circuit!r}.", "generator": {"name": "circuitry"}},
        },
        "qParams": {
            "pinnedIds": [*(ids[unit.name] for unit in units if unit in strongest), logit],
            "supernodes": [],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": nodes,
        "links": sorted(links, key=lambda link: (link["source"], link["target"])),
    }


def _units_of(circuit: Circuit) -> list[_Unit]:
    """Return the units site by site, by their numbers."""
    found = list[_Unit]()
    for layer, site in enumerate(circuit.source.inner_sites):
        scores = circuit.source.node_scores[site]
        for number in sorted(map(int, circuit.units.get(site, ()))):
            found.append(_Unit(f"{site}/{number}", layer, number, float(scores[number])))
    return found


def _label(unit: _Unit, labels: Mapping[str, str]) -> str:
    return f"{unit.name} {labels[unit.name]}" if unit.name in labels else unit.name


def _node(unit: _Unit, position: int, label: str) -> dict[str, Any]:
    """Return a feature, whose number is one for each layer and unit (Cantor's pairing)."""
    layer, number = unit.layer, unit.number
    name = f"{layer}_{number}_{position}"
    return {
        "node_id": name,
        "feature": (layer + number) * (layer + number + 1) // 2 + number,
        "layer": str(layer),
        "ctx_idx": position,
        "feature_type": "cross layer transcoder",
        "token_prob": 0,
        "is_target_logit": False,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"{name}-0",
        "clerp": label,
        "influence": None,
        "activation": None,
        "score": unit.score,
    }


def _class_node(class_name: str, layer: int, position: int, probability: float | None) -> dict[str, Any]:
    """Return the class as a logit; readers cut its label at the quotes and at ``(p=``."""
    quoted = class_name.replace('"', "'").replace("(p=", "(p ")
    said = "?" if probability is None else f"{probability:.3f}"
    node = _node(_Unit(class_name, layer, 0, 0.0), position, f'Output "{quoted}" (p={said})')
    as_logit = {"feature_type": "logit", "is_target_logit": True, "token_prob": probability or 0, "score": None}
    return node | as_logit


def _plain(name: str) -> str:
    """Return a name as readers take names of graphs and models: letters, digits, dots, lines."""
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)


def _link(source: str, target: str, weight: float) -> dict[str, Any]:
    return {"source": source, "target": target, "weight": weight}
