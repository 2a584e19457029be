"""Scores of single units, by each method that ranks units one by one."""

from dataclasses import replace

from circuitry.circuits.circuit_settings import DEFAULT_RULE
from circuitry.circuits.image_path import image_path_effects
from circuitry.circuits.nodes import NodeEffects, node_effects
from circuitry.circuits.quadrature import left_rule, midpoint_rule
from circuitry.interventions.patching import patch_effects
from circuitry.models.sites import INPUT
from circuitry.models.task import Task
from circuitry.runs.given import checked

LEARNED = "learned"
METHODS = ("site-path", "input-path", "gradient", "patching", LEARNED)
"""Methods that find the units of a circuit; all but the last rank units one by one. See `search`."""


@checked
def score_units(task: Task, method: str) -> NodeEffects:
    """Return the scores of all units at the task's sites but the image, error units too.

    Args:
        task: Encoder, images, metric, baseline and sites.
        method: One of `METHODS` but ``learned``.
    """
    task = replace(task, sites=tuple(site for site in task.sites if site != INPUT))
    if method == "patching":
        found = patch_effects(task)
        return NodeEffects(found.scores, {}, found.n_images)
    with task.running(gradients=True):
        if method == "site-path":
            return node_effects(task, DEFAULT_RULE)
        return image_path_effects(task, midpoint_rule(2) if method == "input-path" else left_rule(1))
