"""Files of scores; a file may also hold the kept units and edges of a graph, or a circuit. Does not import torch."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from circuitry.circuits.completeness import Completeness
from circuitry.gates.edges import Edges, Pair
from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.runs.errors import InputError

FORMAT = "circuitry attribution graph 8"
"""Name and version of the file format."""
_PLAIN = ("n_images", "class_name", "domain", "settings", "provenance")
_CUT = "circuit"
_PLAIN_OF_CUT = ("made_with", "keep_error")
_KEPT = "kept_units"
# Fields of plain values are entries of the header. Arrays are named kind/site or kind/upstream->downstream. Names of
# arrays are read back in any order, so the header lists sites and pairs of sites whose order matters.


def write_graph(
    path: str | os.PathLike[str],
    scores: Mapping[str, Any],
    circuit: Mapping[str, Any] | None = None,
) -> None:
    """Write the fields of `Scores` or of an `AttributionGraph` to a safetensors file with a JSON header.

    The file is written completely or not at all.

    Args:
        path: The file.
        scores: Fields of the scores or the graph, by name.
        circuit: Fields of a circuit that was cut from these scores, by name. Default: no circuit is written.
    """
    header = _picked(scores, ("sites", "completeness", *_PLAIN))
    arrays = _named("node_scores", scores["node_scores"])
    arrays |= _named("importance", scores["importance"] or {})
    arrays |= _named("error_scores", scores["error_scores"])
    # A graph stores the units that it keeps; plain scores keep no units, so their files lack this entry.
    if _KEPT in scores:
        header[_KEPT] = list(scores[_KEPT])
        header["edges"] = list(scores["edge_scores"])
        arrays |= _named(_KEPT, scores[_KEPT])
        arrays |= _named_by_pair("edge_scores", scores["edge_scores"])
    if circuit is not None:
        header[_CUT] = _picked(circuit, _PLAIN_OF_CUT)
        header[_CUT]["sites"] = list(circuit["units"])
        arrays |= _named("units", circuit["units"])
        edges = circuit["edges"]
        if edges is not None:
            header[_CUT]["edges"] = list(edges.scores)
            # Edges may join units at fewer sites than the circuit has.
            header[_CUT]["edge_sites"] = list(edges.units)
            arrays |= _named_by_pair("edges", edges.scores)
    write_arrays(path, FORMAT, header, arrays)


def _picked(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in names}


def _named(kind: str, by_site: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{kind}/{site}": array for site, array in by_site.items()}


def _named_by_pair(
    kind: str, by_pair: Mapping[Pair, np.ndarray]
) -> dict[str, np.ndarray]:
    return {f"{kind}/{up}->{down}": array for (up, down), array in by_pair.items()}


def read_graph(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the fields of the scores or the graph in a file, by name.

    The entry ``kept_units`` is present only if the file holds a graph. Raise KeyError if the file can be read but a
    field is missing.
    """
    header, arrays = read_arrays(path, FORMAT, "attribution graph")

    sites = tuple(header["sites"])
    # Importance and error scores are optional. They are present if their arrays are.
    ranked = [site for site in sites if f"importance/{site}" in arrays]
    with_errors = [site for site in sites if f"error_scores/{site}" in arrays]
    completeness = dict[str, Completeness]()
    for site, sums in header["completeness"].items():
        completeness[site] = Completeness(*sums)
    fields = {
        "sites": sites,
        "node_scores": _by_site("node_scores", sites, arrays),
        "completeness": completeness,
        "error_scores": _by_site("error_scores", with_errors, arrays),
        "importance": _by_site("importance", ranked, arrays) or None,
        **_picked(header, _PLAIN),
    }
    if _KEPT in header:
        fields[_KEPT] = _by_site(_KEPT, header[_KEPT], arrays)
        fields["edge_scores"] = _by_pair("edge_scores", header["edges"], arrays)
    return fields


def read_cut(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the fields of the circuit in a file, by the name of the field.

    The field ``source`` is absent: `read_graph` reads the scores from which the circuit was cut. Raise `InputError` if
    the file holds no circuit.
    """
    header, arrays = read_arrays(path, FORMAT, "circuit")
    if _CUT not in header:
        raise InputError(
            f"{path} holds a graph and no circuit: cut one with AttributionGraph.load(path).circuit()."
        )
    cut = header[_CUT]
    units = _by_site("units", cut["sites"], arrays)
    edges = None
    if "edges" in cut:
        # The same array objects as the units, so that a circuit need not compare them with the ends of its edges.
        ends = _picked(units, cut["edge_sites"])
        edges = Edges(ends, _by_pair("edges", cut["edges"], arrays))
    return {"units": units, "edges": edges, **_picked(cut, _PLAIN_OF_CUT)}


def _by_site(
    kind: str, sites: Sequence[str], arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    return {site: arrays[f"{kind}/{site}"] for site in sites}


def _by_pair(
    kind: str, pairs: Sequence[Sequence[str]], arrays: Mapping[str, np.ndarray]
) -> dict[Pair, np.ndarray]:
    return {(up, down): arrays[f"{kind}/{up}->{down}"] for up, down in pairs}
