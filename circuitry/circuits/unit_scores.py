"""Scores of single units by any method, on all images of a task and on parts of them."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from circuitry.circuits.budgets import strongest_units
from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.conductance import conductance_effects
from circuitry.circuits.found_on import pixels_of
from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.methods import (
    CONDUCTANCE,
    ONLY_RANK,
    SITE_PATH,
    MethodName,
    method_is_outside,
    scorer_called,
)
from circuitry.circuits.nodes import NodeEffects, image_effects, nodes_of, part_effects
from circuitry.circuits.quadrature import left_rule
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task, with_others
from circuitry.encoder.tensor_batches import checked_batches, one_tensor
from circuitry.runs.errors import InputError, shown
from circuitry.runs.given import checked


@checked
def score_units(
    task: Task,
    method: MethodName = SITE_PATH,
    settings: AttributionSettings | None = None,
) -> dict[str, np.ndarray]:
    """Return the scores of all units by site, the image left out, error units after the others.

    Args:
        task: Encoder, images, metric, baseline and sites; for ``fisher`` and ``learned`` with images of other classes,
            which the package's other methods leave out.
        settings: The rule of ``site-path``, and the size of a mask (default: ``AttributionSettings()``).

    Returns:
        Scores [units], positive where a unit helps; of ``fisher`` squared changes of the answers, none negative and 0
        for error units.

    Example:
        >>> score_units(Task(encoder, cats, metric, others=not_cats), "fisher")["layer4.0"]
    """
    return _scores_by(method, task, settings or AttributionSettings())


def _scores_by(
    method: str,
    task: Task,
    settings: AttributionSettings,
    parts: Int[np.ndarray, " images"] | None = None,
) -> dict[str, np.ndarray]:
    """Call a method, which may come from outside, and return what it gives; refuse what are no scores of all sites.

    Scores are [units] by site, with parts [1 + parts, units].
    """
    bare = without_image(task)
    given = (bare, settings) if parts is None else (bare, settings, parts)
    found: object = scorer_called(method)(*given)
    if not isinstance(found, Mapping):
        raise _no_scores(method, f"it returned {shown(found)}")
    if missing := [site for site in bare.sites if site not in found]:
        raise _no_scores(method, f"there are none at {missing[0]}")
    if others := [str(site) for site in found if site not in bare.sites]:
        raise _no_scores(
            method, f"there are some at {others[0]!r}, which is no site of the task"
        )
    rows = None if parts is None else 1 + len(np.unique(parts))
    scores = {
        site: _as_scores(method, site, values, rows) for site, values in found.items()
    }
    if method_is_outside(method):
        _check_units(method, bare, scores)
    return scores


def _check_units(method: str, task: Task, scores: Mapping[str, np.ndarray]) -> None:
    """Refuse scores of more or fewer units than a site has, which one image tells."""
    encoder = task.encoder
    for site, activation in encoder.read_unhooked(encoder.blank(), task.sites).items():
        n_units = encoder.units_of(site, activation).shape[encoder.unit_dim(site)]
        n_scores = scores[site].shape[-1]
        if n_scores != n_units:
            raise _no_scores(
                method, f"at {site} there are {n_scores} scores for the {n_units} units"
            )


def _as_scores(method: str, site: str, values: object, rows: int | None) -> np.ndarray:
    """Return the scores of a site as an array; a tensor may be on any device."""
    try:
        scores = np.asarray(
            values.detach().cpu() if isinstance(values, torch.Tensor) else values
        )
    except ValueError:  # of rows of unequal lengths
        scores = np.empty(0, object)
    if scores.dtype.kind not in "biuf":
        raise _no_scores(method, f"at {site} it returned {shown(values)}")
    wanted = 1 if rows is None else 2
    if scores.ndim != wanted or (rows is not None and len(scores) != rows):
        raise _no_scores(method, f"at {site} it returned an array {list(scores.shape)}")
    if not np.isfinite(scores).all():
        raise _no_scores(method, f"at {site} some are NaN or infinite")
    return scores


def _no_scores(method: str, given: str) -> InputError:
    return InputError(
        f"Expected the method {method!r} to return finite scores [units] for every site of the task (for parts [1 + "
        f"parts, units]), but {given}: correct its function; register_method says what it returns."
    )


def score_parts(
    task: Task,
    settings: AttributionSettings,
    parts: Int[np.ndarray, " images"] | None = None,
) -> tuple[NodeEffects, dict[int, NodeEffects]]:
    """Return unit scores on all images, and on each part of the images, by the method of the settings.

    The site path and conductance score all parts in one pass, and return the completeness of the scores; the site path
    scores the pixels, too. Every other method scores the images of each part with all images of other classes: in one
    run where it takes ``parts``, else in runs of their own. Methods that only rank have effects by conductance beside.
    Gradients are running; with parts the task's images are a tensor.
    """
    method = settings.method
    if method == SITE_PATH:
        return part_effects(own_images(task), settings.node_rule, parts)
    if method == CONDUCTANCE:
        return path_effects(task, parts)
    numbers = [] if parts is None else np.unique(parts).tolist()
    if numbers and "parts" in signature(scorer_called(method)).parameters:
        found = _scores_by(method, task, settings, parts)
        whole, *of_each = (
            {site: of_site[i] for site, of_site in found.items()}
            for i in range(1 + len(numbers))
        )
        of_parts = dict(zip(numbers, of_each, strict=True))
    else:
        whole, of_parts = score_units(task, method, settings), {}
        for part in numbers:
            some = task.of_some(
                one_tensor(task.images), torch.from_numpy(parts == part)
            )
            of_parts[part] = score_units(some, method, settings)
    if method in ONLY_RANK:
        effects, by_part = path_effects(task, parts)
        ranked = {
            part: replace(by_part[part], importance=scores)
            for part, scores in of_parts.items()
        }
        return replace(effects, importance=whole), ranked
    scored = {
        part: NodeEffects(s, {}, int(np.count_nonzero(parts == part)))
        for part, s in of_parts.items()
    }
    return NodeEffects(whole, {}, sum(map(len, checked_batches(task.images)))), scored


def path_effects(
    task: Task, parts: Int[np.ndarray, " images"] | None = None
) -> tuple[NodeEffects, dict[int, NodeEffects]]:
    """Return `conductance_effects` on a task's own images, the image left out."""
    with task.running(gradients=True):
        return conductance_effects(without_image(own_images(task)), parts)


def kept_units(
    encoder: Encoder, nodes: NodeEffects, settings: AttributionSettings
) -> dict[str, np.ndarray]:
    """Return the units that a graph keeps by site, the strongest first; the settings name their size."""
    assert settings.size is not None
    ranked = nodes_of(
        encoder, nodes.scores if nodes.importance is None else nodes.importance
    )
    return strongest_units(ranked, settings.size, settings.budget)


def graph_of(
    task: Task, nodes: NodeEffects, made_with: Mapping[str, Any]
) -> AttributionGraph:
    """Return scores of units as a graph that keeps none yet; ``made_with`` names their method."""
    errors = {
        site: units.start
        for site, units in task.encoder.error_units.items()
        if site in nodes.scores
    }
    return AttributionGraph(
        tuple(nodes.scores),
        nodes_of(task.encoder, nodes.scores),
        {},
        {},
        nodes.completeness,
        nodes.n_images,
        settings=dict(made_with),
        provenance=pixels_of(task.images, task.others),
        error_scores={
            site: nodes.scores[site][start:] for site, start in errors.items()
        },
        importance=None
        if nodes.importance is None
        else nodes_of(task.encoder, nodes.importance),
    )


def along_sites(task: Task, settings: AttributionSettings) -> Mapping[str, np.ndarray]:
    """Score units by integrated gradients at their sites."""
    with task.running(gradients=True):
        return part_effects(own_images(task), settings.node_rule)[0].scores


def along_image(task: Task, settings: AttributionSettings) -> Mapping[str, np.ndarray]:
    """Score units by their conductance along a path of the image."""
    return path_effects(task)[0].scores


def gradient_at_image(
    task: Task, settings: AttributionSettings
) -> Mapping[str, np.ndarray]:
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
    if task.others is None or task.baseline.n_images is None:
        return replace(task, others=None)
    everything, n_own = with_others(task)
    return everything.of_some(one_tensor(everything.images), slice(n_own))


def without_image(task: Task) -> Task:
    """Return a task without the site `input`, which no circuit has nodes at."""
    return replace(task, sites=tuple(site for site in task.sites if site != INPUT))
