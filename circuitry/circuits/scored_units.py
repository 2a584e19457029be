"""Make `Scores` from the numbers that a method returned, and choose the units that a graph keeps."""

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
    """Return the indices of the units that a graph keeps by site, the strongest first.

    Args:
        encoder: The encoder; its error units are never kept.
        nodes: Scores of the units.
        settings: Settings with a size and a budget.
    """
    assert settings.size is not None
    ranked_by = nodes.scores if nodes.importance is None else nodes.importance
    return strongest_units(nodes_of(encoder, ranked_by), settings.size, settings.budget)


def scores_of(task: Task, nodes: NodeEffects, made_with: Mapping[str, Any]) -> Scores:
    """Return `Scores` with the effects of all units, the digests of the task's images, and the given settings.

    Args:
        task: The task whose units were scored.
        nodes: Effects of the units, and their importance if the method does not rank them by effects.
        made_with: Settings that the scores were computed with, such as the name of the method.
    """
    encoder = task.encoder
    importance = None
    if nodes.importance is not None:
        importance = nodes_of(encoder, nodes.importance)
    errors = dict[str, np.ndarray]()
    for site, units in encoder.error_units.items():
        # Error units are the last units of their site, after the latents.
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
