"""A circuit as the JSON that circuit-tracer's page and Neuronpedia open.

Such a file describes a language model on one prompt: features at layers and tokens, and the token that they make
likely. Here sites take the place of layers. The prompt is a sentence that names class and domain, units are features at
its last token, and the class is the token that they make likely.

Three properties of the programs that open the files matter here. They read the probability from the label of the output
node. They leave out a feature that is at more than two thirds of the tokens. They place the column of a token by means
of the token before it. Because of the last two, the sentence has several tokens. The page of the explorer writes the
same file (``exports.js``), and a test compares both.

Does not import torch.
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
"""Number of the strongest units that are pinned in addition to the class. The pages that open the file first draw the
pinned nodes."""


@checked
def write_tracer_json(
    circuit: Circuit,
    path: str | os.PathLike[str],
    *,
    labels: Mapping[str, str] | None = None,
    probability: Share | None = None,
) -> None:
    """Write a circuit as the JSON that the pages of circuit-tracer and of Neuronpedia open.

    The units of the last site are linked to the class, with their scores as weights. A file holds one circuit, so the
    circuits of two domains need two files.

    Args:
        circuit: A circuit with edges, such as ``graph.circuit(3)``. A circuit without edges is drawn without links
            between its units.
        path: The file. The page of circuit-tracer asks for the name ``<slug>.json``.
        labels: Texts for units by ``site/unit``; see `unit_cards`.
        probability: Probability of the class by the model, which is shown after the class (default: a question mark).

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
    """Return the content of the file; see `write_tracer_json` for the arguments."""
    source = circuit.source
    class_name = source.class_name or "class"
    tokens = ["an", " image", " of", f" {class_name}"]
    if source.domain is not None:
        tokens += [" in", f" {source.domain}"]
    # All nodes are at the last token. The pages leave out nodes that are at more than two thirds of the tokens.
    position = len(tokens) - 1
    top = len(source.inner_sites)
    units = _units_of(circuit, position)
    ids = dict(zip(units["name"], units["id"], strict=True))
    scores = dict(zip(units["id"], units["score"], strict=True))
    # The node of the class is in a layer of its own, above all sites.
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
    # The pages list pinned nodes in the given order, so they are sorted from the first layer to the class.
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
        # Links are sorted, so that the page of the explorer writes the same bytes.
        "links": sorted(links, key=lambda link: (link["source"], link["target"])),
    }


def _units_of(circuit: Circuit, position: int) -> pd.DataFrame:
    """Return a table of the units, sorted by layer and unit: columns site, unit, score, layer, name, id."""
    layers = {site: place for place, site in enumerate(circuit.source.inner_sites)}
    units = circuit.to_pandas()
    # The image is left out, because its pixels are not nodes.
    units = units[units["site"].isin(list(layers))]
    units = units.assign(layer=units["site"].map(layers)).sort_values(["layer", "unit"])
    names = units["site"] + "/" + units["unit"].astype(str)
    places = zip(units["layer"], units["unit"], strict=True)
    ids = [_id(layer, unit, position) for layer, unit in places]
    return units.assign(name=names, id=ids)


def _id(layer: int, unit: int, position: int) -> str:
    return f"{layer}_{unit}_{position}"


def _node(layer: int, unit: int, position: int) -> dict[str, Any]:
    """Return the JSON entries of the node of a unit."""
    name = _id(layer, unit, position)
    return {
        "node_id": name,
        # Cantor's pairing function gives a different number for each pair of layer and unit.
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
    """Return the JSON entries that mark a node as the output node of the class."""
    # The pages cut the label at the quotes and at "(p=", so the name must not contain either.
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
    """Return a name with an underscore for each run of characters that Neuronpedia and circuit-tracer do not accept.

    They accept ASCII letters, digits, dots, hyphens and underscores.
    """
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)


def _link(source: str, target: str, weight: float) -> dict[str, Any]:
    return {"source": source, "target": target, "weight": weight}
