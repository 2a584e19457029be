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
from circuitry.runs.arguments import Share, checked
from circuitry.runs.files import whole_file

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
        labels: Texts for units by ``site/unit``; see `unit_cards`.
        probability: Of the class, as the model gives it, shown beside its name (default: a question mark).

    Example:
        >>> circuitry.circuits.write_tracer_json(graph.circuit(3), "clock-real.json")
        >>> Path("clock-real.json").is_file()
        True
    """
    content = json.dumps(tracer_graph(circuit, labels or {}, probability))
    with whole_file(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def tracer_graph(
    circuit: Circuit, labels: Mapping[str, str], probability: float | None
) -> dict[str, Any]:
    """Return the content of the file; see `write_tracer_json`."""
    source = circuit.source
    class_name = source.class_name or "class"
    tokens = ["an", " image", " of", f" {class_name}"]
    if source.domain is not None:
        tokens += [" in", f" {source.domain}"]
    # All nodes are at the last token: at more than two thirds of the tokens readers would leave them out.
    position = len(tokens) - 1
    top = len(source.inner_sites)
    units = _units_of(circuit, position)
    ids = dict(zip(units["name"], units["id"], strict=True))
    scores = dict(zip(units["id"], units["score"], strict=True))
    # The class is a node of a layer of its own, above all sites.
    output = _id(top, 0, position)

    nodes = []
    facts = units[["layer", "unit", "name", "score"]]
    for layer, unit, name, score in facts.itertuples(index=False):
        label = f"{name} {labels[name]}" if name in labels else name
        nodes.append(_node(layer, unit, position) | {"clerp": label, "score": score})
    nodes.append(_node(top, 0, position) | _as_class(class_name, probability))
    links = []
    for up, down, weight in circuit.graph.edges(data="weight"):
        links.append(_link(ids[up], ids[down], weight))
    last = units.loc[units["layer"] == units["layer"].max(), "id"]
    links += [_link(unit, output, scores[unit]) for unit in last]
    strongest = sorted(scores, key=lambda unit: -abs(scores[unit]))[:PINNED]
    # Readers list pinned nodes as they come: from the first layer to the class.
    pinned = [unit for unit in scores if unit in strongest]
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
            "pinnedIds": [*pinned, output],
            "supernodes": [],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": nodes,
        # In one order, so that the page of the explorer writes the same bytes.
        "links": sorted(links, key=lambda link: (link["source"], link["target"])),
    }


def _units_of(circuit: Circuit, position: int) -> pd.DataFrame:
    """Return the units by site and number: site, unit, score, layer, name, id."""
    layers = {site: place for place, site in enumerate(circuit.source.inner_sites)}
    units = circuit.to_pandas()
    # Without the image, whose pixels are no nodes.
    units = units[units["site"].isin(list(layers))]
    units = units.assign(layer=units["site"].map(layers)).sort_values(["layer", "unit"])
    names = units["site"] + "/" + units["unit"].astype(str)
    places = zip(units["layer"], units["unit"], strict=True)
    ids = [_id(layer, unit, position) for layer, unit in places]
    return units.assign(name=names, id=ids)


def _id(layer: int, unit: int, position: int) -> str:
    return f"{layer}_{unit}_{position}"


def _node(layer: int, unit: int, position: int) -> dict[str, Any]:
    """Return the entries of a feature."""
    name = _id(layer, unit, position)
    return {
        "node_id": name,
        # Cantor's pairing: another number for each layer and unit.
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
    """Return the entries that make a node the class."""
    # Readers cut the label at the quotes and at "(p=", so the name may have neither.
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
    """Return a name of a graph or model in letters, digits, dots and lines, all that readers take."""
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)


def _link(source: str, target: str, weight: float) -> dict[str, Any]:
    return {"source": source, "target": target, "weight": weight}
