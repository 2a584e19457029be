"""An attribution graph, and perhaps the circuit that was cut out of it, as a file. No torch."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from circuitry.circuits.completeness import Completeness
from circuitry.gates.edges import Edges
from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.runs.errors import InputError

FORMAT = "circuitry attribution graph 7"
"""Name and version of the file format."""
_PLAIN = ("n_images", "class_name", "domain", "settings", "provenance")
_CUT, _PLAIN_OF_CUT = "circuit", ("made_with", "keep_error")


def write_graph(
    path: str | os.PathLike[str],
    graph: Mapping[str, Any],
    circuit: Mapping[str, Any] | None = None,
) -> None:
    """Write the fields of a graph as safetensors with a JSON header, whole or not at all."""
    arrays: dict[str, np.ndarray] = {
        f"node_scores/{site}": one for site, one in graph["node_scores"].items()
    }
    arrays |= {
        f"importance/{site}": one for site, one in (graph["importance"] or {}).items()
    }
    arrays |= {
        f"error_scores/{site}": one for site, one in graph["error_scores"].items()
    }
    arrays |= {
        f"edge_scores/{up}->{down}": one
        for (up, down), one in graph["edge_scores"].items()
    }
    arrays |= {
        f"kept_units/{site}": units for site, units in graph["kept_units"].items()
    }
    header = {name: graph[name] for name in ("sites", "completeness", *_PLAIN)} | {
        "edges": list(graph["edge_scores"])
    }
    if circuit is not None:
        edges = circuit["edges"]
        arrays |= {f"units/{site}": units for site, units in circuit["units"].items()}
        header[_CUT] = {name: circuit[name] for name in _PLAIN_OF_CUT} | {
            "sites": list(circuit["units"])
        }
        if edges is not None:
            arrays |= {
                f"edges/{up}->{down}": one for (up, down), one in edges.scores.items()
            }
            header[_CUT] |= {
                "edges": list(edges.scores),
                "edge_sites": list(edges.units),
            }
    write_arrays(path, FORMAT, header, arrays)


def read_graph(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the fields of a graph that `write_graph` wrote; raise KeyError if a readable file lacks one of them."""
    header, arrays = read_arrays(path, FORMAT, "attribution graph")
    sites = tuple(header["sites"])
    ranked_by = {
        site: arrays[name] for site in sites if (name := f"importance/{site}") in arrays
    }
    return {
        "sites": sites,
        "node_scores": {site: arrays[f"node_scores/{site}"] for site in sites},
        "kept_units": {site: arrays[f"kept_units/{site}"] for site in sites},
        "edge_scores": {
            (up, down): arrays[f"edge_scores/{up}->{down}"]
            for up, down in header["edges"]
        },
        "completeness": {
            site: Completeness(*value) for site, value in header["completeness"].items()
        },
        "error_scores": {
            site: arrays[name]
            for site in sites
            if (name := f"error_scores/{site}") in arrays
        },
        "importance": ranked_by or None,
        **{name: header[name] for name in _PLAIN},
    }


def read_cut(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the fields of the circuit in a file, except for its source."""
    header, arrays = read_arrays(path, FORMAT, "circuit")
    if _CUT not in header:
        raise InputError(
            f"{path} holds a graph and no circuit: cut one with AttributionGraph.load(path).circuit()."
        )
    cut, edges = header[_CUT], None
    units = {site: arrays[f"units/{site}"] for site in cut["sites"]}
    if "edges" in cut:
        scores = {
            (up, down): arrays[f"edges/{up}->{down}"] for up, down in cut["edges"]
        }
        edges = Edges({site: units[site] for site in cut["edge_sites"]}, scores)
    return {"units": units, "edges": edges} | {
        name: cut[name] for name in _PLAIN_OF_CUT
    }
