"""Scores of the edges between kept units, by the name of a method.

``squared``, the study's: how far a unit moves at the next site (`chain_edges`); the default of a chain. The others
score effects on the metric through the residual stream (`stream_edges`) and need an encoder in heads and neurons, whose
default is ``gradient``. There ``exact-readers`` agrees best with exact cuts, but takes a partial run for every unit: on
ViT-B/32 with 399 kept units 26 s of a processor for an image, where ``gradient`` takes 4.

Scores rank edges and do not measure them: even where they order edges as exact cuts do, their sizes are not what the
metric loses by a cut. Only ``cuts`` are.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from circuitry.bases.residual import in_stream
from circuitry.circuits.chain_edges import edge_effects, part_edge_effects
from circuitry.circuits.circuit_settings import SQUARED, AttributionSettings
from circuitry.circuits.graph import IN_STREAM
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.circuits.stream_edges import GRADIENT, PLAIN
from circuitry.circuits.unit_edges import unit_edges
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.task import Task
from circuitry.runs.errors import InputError


def edge_method(encoder: Encoder, settings: AttributionSettings) -> str:
    """Return the method that scores the edges of an encoder.

    Raises:
        InputError: for a method that the encoder's units do not have.
    """
    streams = in_stream(encoder)
    if settings.edges is not None and settings.edges != SQUARED and not streams:
        raise InputError(
            f"Edges are scored by {settings.edges!r} between heads and neurons that add to a residual stream, but this "
            f"encoder's units are not: give clip.in_components().encoder of a ViT, or {SQUARED!r}."
        )
    return settings.edges or (GRADIENT if streams else SQUARED)


def edge_rule(encoder: Encoder, settings: AttributionSettings) -> QuadratureRule:
    """Return the rule of the edges: that of the settings, one gradient through a stream, else that of the nodes."""
    streams = edge_method(encoder, settings) != SQUARED
    return settings.edge_rule or (PLAIN if streams else settings.node_rule)


def edges_between(
    task: Task,
    kept_units: Mapping[str, Int[np.ndarray, " kept"]],
    settings: AttributionSettings,
    rule: QuadratureRule | None = None,
) -> dict[tuple[str, str], np.ndarray]:
    """Return the scores [kept downstream, kept upstream] of edges by pair of sites.

    Args:
        task: With gradients running.
        kept_units: Units of the circuit by site.
        settings: Their method and rule are taken.
        rule: Another rule.

    Raises:
        InputError: as `edge_effects`, `unit_edges` and `edge_method`.
    """
    method, rule = edge_method(task.encoder, settings), rule or edge_rule(task.encoder, settings)
    if method == SQUARED:
        return edge_effects(task, kept_units, rule)
    return unit_edges(task, kept_units, method, rule)


def part_edges(
    task: Task,
    kept_units: Mapping[int, Mapping[str, Int[np.ndarray, " kept"]]],
    settings: AttributionSettings,
    parts: Int[np.ndarray, " images"],
) -> dict[int, dict[tuple[str, str], np.ndarray]]:
    """Return the scores of the edges between the units of each part of the images; see `edges_between`.

    Args:
        task: Its images are a tensor.
        kept_units: Units by site, of each part.
        settings: Their method and rule are taken.
        parts: The part of each image.
    """
    if edge_method(task.encoder, settings) == SQUARED:
        return part_edge_effects(task, kept_units, edge_rule(task.encoder, settings), parts)
    images = task.images
    assert isinstance(images, Tensor)
    members = {part: torch.from_numpy(np.flatnonzero(parts == part)) for part in kept_units}
    return {part: edges_between(task.of_some(images, members[part]), kept_units[part], settings) for part in kept_units}


def edges_made_with(encoder: Encoder, settings: AttributionSettings) -> dict[str, Any]:
    """Return how edges are scored, in plain values."""
    method = edge_method(encoder, settings)
    kind = "neighbouring sites" if method == SQUARED else IN_STREAM
    return {"edges": kind, "edge_method": method, "edge_rule": edge_rule(encoder, settings).name}
