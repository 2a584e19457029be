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
from typing import Any

import pandas as pd

from circuitry.circuits.graph import Circuit
from circuitry.runs.files import whole_file
from circuitry.runs.given import Share, checked

PINNED = 10
"""The strongest units are pinned, with the class: readers draw these at first."""


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
        temporary.write_text(
            json.dumps(tracer_graph(circuit, labels or {}, probability)),
            encoding="utf-8",
        )


def tracer_graph(
    circuit: Circuit, labels: Mapping[str, str], probability: float | None
) -> dict[str, Any]:
    """Return the content of the file; see `write_tracer_json`."""
    source = circuit.source
    class_name = source.class_name or "class"
    tokens = ["an", " image", " of", f" {class_name}"]
    if source.domain is not None:
        tokens += [" in", f" {source.domain}"]
    position, top = len(tokens) - 1, len(source.inner_sites)
    units = _units_of(circuit, position)
    ids = dict(zip(units["name"], units["id"], strict=True))
    scores = dict(zip(units["id"], units["score"], strict=True))
    output = _id(top, 0, position)

    nodes = [
        _node(layer, unit, position)
        | {
            "clerp": f"{name} {labels[name]}" if name in labels else name,
            "score": score,
        }
        for layer, unit, name, score in units[
            ["layer", "unit", "name", "score"]
        ].itertuples(index=False)
    ]
    nodes.append(_node(top, 0, position) | _as_class(class_name, probability))
    last = units.loc[units["layer"] == units["layer"].max(), "id"]
    links = [
        _link(ids[up], ids[down], weight)
        for up, down, weight in circuit.graph.edges(data="weight")
    ]
    links += [_link(one, output, scores[one]) for one in last]
    strongest = sorted(scores, key=lambda one: -abs(scores[one]))[:PINNED]
    return {
        "metadata": {
            "slug": _plain("-".join(filter(None, [class_name, source.domain]))),
            "scan": _plain(source.provenance.get("model", "unknown model")),
            "transcoder_list": [],
            "prompt_tokens": tokens,
            "prompt": "".join(tokens),
            "schema_version": 1,
            "info": {
                "description": f"{circuit!r}.",
                "generator": {"name": "circuitry"},
            },
        },
        "qParams": {
            "pinnedIds": [*(one for one in scores if one in strongest), output],
            "supernodes": [],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": nodes,
        "links": sorted(links, key=lambda link: (link["source"], link["target"])),
    }


def _units_of(circuit: Circuit, position: int) -> pd.DataFrame:
    """Return the units by site and number: site, unit, score, layer, name, id."""
    layers = {site: place for place, site in enumerate(circuit.source.inner_sites)}
    units = circuit.to_pandas()
    units = units[units["site"].isin(list(layers))]
    units = units.assign(layer=units["site"].map(layers)).sort_values(["layer", "unit"])
    names = units["site"] + "/" + units["unit"].astype(str)
    ids = [
        _id(layer, unit, position)
        for layer, unit in zip(units["layer"], units["unit"], strict=True)
    ]
    return units.assign(name=names, id=ids)


def _id(layer: int, unit: int, position: int) -> str:
    return f"{layer}_{unit}_{position}"


def _node(layer: int, unit: int, position: int) -> dict[str, Any]:
    """Return a feature, whose number is one for each layer and unit (Cantor's pairing)."""
    name = _id(layer, unit, position)
    return {
        "node_id": name,
        "feature": (layer + unit) * (layer + unit + 1) // 2 + unit,
        "layer": str(layer),
        "ctx_idx": position,
        "feature_type": "cross layer transcoder",
        "token_prob": 0,
        "is_target_logit": False,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"{name}-0",
        "influence": None,
        "activation": None,
    }


def _as_class(class_name: str, probability: float | None) -> dict[str, Any]:
    """Return what makes a node the class; readers cut its label at the quotes and at ``(p=``."""
    quoted = class_name.replace('"', "'").replace("(p=", "(p ")
    said = "?" if probability is None else f"{probability:.3f}"
    return {
        "feature_type": "logit",
        "is_target_logit": True,
        "token_prob": probability or 0,
        "clerp": f'Output "{quoted}" (p={said})',
        "score": None,
    }


def _plain(name: str) -> str:
    """Return a name as readers take names of graphs and models: letters, digits, dots, lines."""
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)


def _link(source: str, target: str, weight: float) -> dict[str, Any]:
    return {"source": source, "target": target, "weight": weight}
