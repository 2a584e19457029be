"""Scores that a method returned become `Scores`, and the units that a graph keeps."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from circuitry.circuits.budgets import strongest_units
from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.found_on import pixels_of
from circuitry.circuits.graph import Scores
from circuitry.circuits.nodes import NodeEffects, nodes_of
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.task import Task


def kept_units(
    encoder: Encoder, nodes: NodeEffects, settings: AttributionSettings
) -> dict[str, np.ndarray]:
    """Return the units that a graph keeps by site, the strongest first; the settings name their size."""
    assert settings.size is not None
    ranked_by = nodes.scores if nodes.importance is None else nodes.importance
    return strongest_units(nodes_of(encoder, ranked_by), settings.size, settings.budget)


def scores_of(task: Task, nodes: NodeEffects, made_with: Mapping[str, Any]) -> Scores:
    """Return the scores of the units of a task by a method, which ``made_with`` names."""
    encoder = task.encoder
    importance = None
    if nodes.importance is not None:
        importance = nodes_of(encoder, nodes.importance)
    errors = dict[str, np.ndarray]()
    for site, units in encoder.error_units.items():
        # Error units are the last of their site, behind the latents.
        if site in nodes.scores:
            errors[site] = nodes.scores[site][units.start :]
    return Scores(
        tuple(nodes.scores),
        nodes_of(encoder, nodes.scores),
        nodes.completeness,
        nodes.n_images,
        settings=dict(made_with),
        provenance=pixels_of(task.images, task.others),
        error_scores=errors,
        importance=importance,
    )
