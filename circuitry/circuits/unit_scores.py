"""Scores of single units by any method, on all images of a task and on parts of them."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.conductance import conductance_effects
from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.methods import EFFECT, SCORED_BY, SITE_PATH, MethodName, scorer_called
from circuitry.circuits.nodes import NodeEffects, image_effects, node_effects, nodes_of, part_effects
from circuitry.circuits.quadrature import left_rule
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task, with_others
from circuitry.encoder.tensor_batches import checked_batches
from circuitry.runs.given import checked


@checked
def score_units(
    task: Task, method: MethodName = SITE_PATH, settings: AttributionSettings | None = None
) -> dict[str, np.ndarray]:
    """Return the scores of all units by site, the image left out, error units after the others.

    Args:
        task: Encoder, images, metric, baseline and sites; for ``fisher`` and ``learned`` with images of other classes,
            which the package's other methods leave out.
        method: One of `METHODS`.
        settings: The rule of ``site-path``, and the size of a mask (default: ``AttributionSettings()``).

    Returns:
        Scores [units], positive where a unit helps; of ``fisher`` squared changes of the answers, none negative and 0
        for error units.

    Example:
        >>> score_units(Task(encoder, cats, metric, others=not_cats), "fisher")["layer4.0"]
    """
    inner = replace(task, sites=tuple(site for site in task.sites if site != INPUT))
    return dict(scorer_called(method)(inner, settings or AttributionSettings()))


def score_parts(
    task: Task, settings: AttributionSettings, parts: Int[np.ndarray, " images"] | None = None
) -> tuple[NodeEffects, dict[int, NodeEffects]]:
    """Return unit scores on all images, and on each part of the images, by the method of the settings.

    The site path scores all parts in one pass, scores the pixels too, and returns the completeness of its scores. Every
    other method scores all images in one run and the images of each part in a run of their own.

    Args:
        task: With gradients running; with parts its images are a tensor.
        settings: Method, rule and precision.
        parts: The part of each image (default: no parts).
    """
    if settings.method == SITE_PATH:
        found = part_effects(task, settings.node_rule, settings.autocast, parts)
        return (NodeEffects.merge(list(found.values())), found) if parts is not None else (found[0], {})

    def scored(some: Task, n_images: int) -> NodeEffects:
        return NodeEffects(score_units(some, settings.method, settings), {}, n_images)

    images = torch.cat(list(checked_batches(task.images)))
    members = {} if parts is None else {int(part): np.flatnonzero(parts == part) for part in np.unique(parts)}
    return scored(task, len(images)), {
        part: scored(task.of_some(images, torch.from_numpy(places)), len(places)) for part, places in members.items()
    }


def graph_of(task: Task, nodes: NodeEffects, made_with: Mapping[str, Any]) -> AttributionGraph:
    """Return scores of units as a graph that keeps none yet; ``made_with`` names their method."""
    scored_by = {"scored_by": SCORED_BY.get(made_with["method"], EFFECT)}
    errors = {site: units.start for site, units in task.encoder.error_units.items() if site in nodes.scores}
    return AttributionGraph(
        tuple(nodes.scores),
        nodes_of(task.encoder, nodes.scores),
        {},
        {},
        nodes.completeness,
        nodes.n_images,
        settings=scored_by | dict(made_with),
        error_scores={site: nodes.scores[site][start:] for site, start in errors.items()},
    )


def along_sites(task: Task, settings: AttributionSettings) -> Mapping[str, np.ndarray]:
    """Score units by integrated gradients at their sites."""
    with task.running(gradients=True):
        return node_effects(own_images(task), settings.node_rule, settings.autocast).scores


def along_image(task: Task, settings: AttributionSettings) -> Mapping[str, np.ndarray]:
    """Score units by their conductance along a path of the image."""
    with task.running(gradients=True):
        return conductance_effects(own_images(task))[0].scores


def gradient_at_image(task: Task, settings: AttributionSettings) -> Mapping[str, np.ndarray]:
    """Score units by the gradient at the image, times the activation less the baseline's."""
    sums, count = defaultdict[str, Any](float), 0
    with task.running(gradients=True):
        for found in image_effects(own_images(task), left_rule(1)):
            for site, effects in found.effects.items():
                sums[site] = sums[site] + effects.sum(0).cpu().double().numpy()
            count += len(found.metric)
    return {site: total / count for site, total in sums.items()}


def own_images(task: Task) -> Task:
    """Return a task without its images of other classes, and without their part of the baseline."""
    if task.others is None:
        return task
    everything, n_own = with_others(task)
    images: Tensor = torch.cat(list(checked_batches(everything.images)))
    return everything.of_some(images, slice(n_own))
