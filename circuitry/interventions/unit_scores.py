"""Scores of single units, by each method that ranks units one by one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch

from circuitry.circuits.circuit_settings import DEFAULT_RULE
from circuitry.circuits.image_path import image_path_effects
from circuitry.circuits.nodes import NodeEffects, node_effects
from circuitry.circuits.quadrature import left_rule, midpoint_rule
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import checked_batches
from circuitry.interventions.answers import default_answers, gate_importance
from circuitry.interventions.gated import Gated, with_others
from circuitry.interventions.intervention_settings import FISHER, METHODS, PATCHING
from circuitry.interventions.patching import patch_effects
from circuitry.runs.given import checked, one_of


@checked
def score_units(task: Task, method: Annotated[str, one_of(*METHODS[:-1])]) -> NodeEffects:
    """Return the scores of all units at the task's sites but the image, error units too.

    Args:
        task: Encoder, images, metric, baseline and sites; for ``fisher`` with images of other classes, which the other
            methods leave out.
        method: One of `METHODS` but ``learned``.

    Returns:
        Effects of the units, positive where they help; of ``fisher`` squared changes of the answers, none negative and
        0 for error units.
    """
    inner = replace(task, sites=tuple(site for site in task.sites if site != INPUT))
    if method == FISHER:
        return _squared_changes(inner)
    everything, n_own = with_others(inner)
    return _EFFECTS[method](everything.of_some(torch.cat(list(checked_batches(everything.images))), slice(n_own)))


def _squared_changes(task: Task) -> NodeEffects:
    with task.running(gradients=True):
        runs = Gated(task)
        found = gate_importance(runs, default_answers(task.metric)).cpu().numpy()
    scores = {site: np.nan_to_num(of_site) for site, of_site in runs.scored(found.astype(float)).items()}
    return NodeEffects(scores, {}, runs.n_own)


def _exact(task: Task) -> NodeEffects:
    found = patch_effects(task)
    return NodeEffects(found.scores, {}, found.n_images)


def _along_sites(task: Task) -> NodeEffects:
    with task.running(gradients=True):
        return node_effects(task, DEFAULT_RULE)


def _along_image(points: int) -> Callable[[Task], NodeEffects]:
    rule = left_rule(1) if points == 1 else midpoint_rule(points)

    def effects(task: Task) -> NodeEffects:
        with task.running(gradients=True):
            return image_path_effects(task, rule)

    return effects


_EFFECTS: dict[str, Callable[[Task], NodeEffects]] = {
    "site-path": _along_sites,
    "input-path": _along_image(2),
    "gradient": _along_image(1),
    PATCHING: _exact,
}
"""Methods that score units by effects on the metric."""
