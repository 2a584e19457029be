"""Edges between heads and neurons that are kept, through the residual stream."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Int

from circuitry.bases.residual import ResidualStream
from circuitry.bases.stream_parts import PORTS, Component
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.circuits.stream_edges import CUTS, StreamMethod, cut_effects_in_stream, mean_effects
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task


def unit_edges(
    task: Task, kept_units: Mapping[str, Int[np.ndarray, " kept"]], method: str, rule: QuadratureRule
) -> dict[tuple[str, str], np.ndarray]:
    """Return the scores [kept downstream, kept upstream] of the edges between every two sites, the earlier one first.

    Writers are heads, neurons and dimensions of the stream before the blocks; readers are heads (query, key and value
    together), neurons before their nonlinearity, and units of the embedding.

    Args:
        task: With gradients running, of an encoder in heads and neurons.
        kept_units: Units of the circuit by site.
        method: One of `STREAM_METHODS`.
        rule: Points of the path; ``cuts`` takes none.

    Raises:
        InputError: as `score_edges`.
    """
    kept = {site: kept_units[site].tolist() for site in task.sites if site != INPUT}
    stream = ResidualStream.of(task.encoder, kept)
    rows, columns = _rows(stream, kept), _columns(stream, kept)
    pairs = list(combinations(kept, 2))
    if method == CUTS:
        places = {(up, down): [(r, c) for r in rows[down] for c in columns[up]] for up, down in pairs}
        cuts = iter(cut_effects_in_stream(stream, task, [one for of_pair in places.values() for one in of_pair])[0])
        return {
            (up, down): np.array([next(cuts) for _ in of_pair]).reshape(len(rows[down]), len(columns[up]))
            for (up, down), of_pair in places.items()
        }
    edges = mean_effects(stream, task, StreamMethod(method, rule))[0].numpy()
    return {(up, down): edges[rows[down]].sum(1)[:, columns[up]] for up, down in pairs}


def _rows(stream: ResidualStream, kept: Mapping[str, Sequence[int]]) -> dict[str, Int[np.ndarray, "kept parts"]]:
    """Return the readers of each unit by site: three of a head, one of others."""
    places, last = {one: i for i, one in enumerate(stream.readers)}, stream.components.sites[-1]
    found = {last: [[places[Component("embedding", head=unit)]] for unit in kept.get(last, ())]}
    for i, (attn, mlp) in enumerate(zip(stream.sites[1::2], stream.sites[2::2], strict=True)):
        found[attn] = [[places[Component(port, i, head)] for port in PORTS] for head in kept.get(attn, ())]
        found[mlp] = [[places[Component("neuron", i, neuron)]] for neuron in kept.get(mlp, ())]
    widths = {site: len(of_site[0]) if of_site else 1 for site, of_site in found.items()}  # a site may keep no unit
    return {site: np.array(of_site, dtype=int).reshape(-1, widths[site]) for site, of_site in found.items()}


def _columns(stream: ResidualStream, kept: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Return the writer of each unit by site."""
    places = {one: i for i, one in enumerate(stream.writers)}
    found = {stream.sites[0]: [places[Component("embed", head=unit)] for unit in kept.get(stream.sites[0], ())]}
    for i, (attn, mlp) in enumerate(zip(stream.sites[1::2], stream.sites[2::2], strict=True)):
        found[attn] = [places[Component("head", i, head)] for head in kept.get(attn, ())]
        found[mlp] = [places[Component("neuron", i, neuron)] for neuron in kept.get(mlp, ())]
    return found
