"""Scores of single units by any method, on all images of a task and on folds of them."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int

from circuitry.circuits.budgets import GLOBAL
from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.conductance import path_effects
from circuitry.circuits.graph import Scores
from circuitry.circuits.methods import (
    METHODS,
    SITE_PATH,
    Method,
    MethodName,
    method_code,
)
from circuitry.circuits.narrowed_tasks import without_image
from circuitry.circuits.nodes import NodeEffects
from circuitry.circuits.returned_numbers import numbers_in
from circuitry.circuits.scored_units import scores_of
from circuitry.circuits.unit_methods import COMPLETE_SCORERS, SCORERS
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import checked_batches, one_tensor
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError, shown


@checked
def score_units(
    task: Task,
    method: MethodName = SITE_PATH,
    settings: AttributionSettings | None = None,
) -> dict[str, np.ndarray]:
    """Return the scores of all units by site, the image left out, error units after the others.

    Args:
        task: Encoder, images, metric, baseline and sites. Methods with `Method.takes_others` look at its images of
            other classes, too.
        method: A name of `METHODS`.
        settings: The rule of ``site-path``, and the size of a mask (default: ``AttributionSettings()``).

    Returns:
        Scores [units] by site, positive where a unit helps. Scores of ``fisher`` are squared changes of the answers:
        none is negative, and error units have 0.

    Example:
        >>> scores = score_units(task, "fisher")
        >>> scores["layer3.0"].shape
        (192,)
    """
    return _scores_by(METHODS[method], task, settings or AttributionSettings())


def _scores_by(
    method: Method,
    task: Task,
    settings: AttributionSettings,
    folds: Int[np.ndarray, " images"] | None = None,
) -> dict[str, np.ndarray]:
    """Return the scores [units] by site of a method, with folds [1 + folds, units].

    The method may come from outside, so anything but finite scores of all sites is refused.
    """
    task = without_image(task)
    name = method.name
    if method.function is None and name in COMPLETE_SCORERS:
        return COMPLETE_SCORERS[name](task, settings)[0].scores
    score = method.function or SCORERS[name]
    arguments = [task, settings, folds] if method.takes_folds else [task, settings]
    given: object = score(*arguments)
    if not isinstance(given, Mapping):
        raise _no_scores(name, f"it returned {shown(given)}")
    if missing := [site for site in task.sites if site not in given]:
        raise _no_scores(name, f"there are none at {missing[0]}")
    if unknown := [str(site) for site in given if site not in task.sites]:
        raise _no_scores(
            name, f"there are some at {unknown[0]!r}, which is no site of the task"
        )
    # A row for all images, and one for each fold of them.
    n_rows = None if folds is None else 1 + len(np.unique(folds))
    scores = dict[str, np.ndarray]()
    for site, values in given.items():
        scores[site] = _as_scores(name, site, values, n_rows)
    # The package's own methods are tested; a look at the sites costs a run.
    if method.function is not None:
        _check_units(name, task, scores)
    return scores


def _check_units(method: str, task: Task, scores: Mapping[str, np.ndarray]) -> None:
    """Refuse scores of more or fewer units than a site has."""
    encoder = task.encoder
    # Widths do not depend on the image, so a blank one shows them.
    for site, activation in encoder.read_unhooked(encoder.blank(), task.sites).items():
        n_units = encoder.n_units(site, activation)
        n_scores = scores[site].shape[-1]
        if n_scores != n_units:
            raise _no_scores(
                method, f"at {site} there are {n_scores} scores for the {n_units} units"
            )


def _as_scores(
    method: str, site: str, values: object, n_rows: int | None
) -> np.ndarray:
    """Return the scores of a site as an array."""
    scores = numbers_in(values)
    if scores is None:
        raise _no_scores(method, f"at {site} it returned {shown(values)}")
    n_dims = 1 if n_rows is None else 2
    # The number of dimensions first: an array without any has no length.
    if scores.ndim != n_dims or n_rows not in (None, len(scores)):
        raise _no_scores(method, f"at {site} it returned an array {list(scores.shape)}")
    if not np.isfinite(scores).all():
        raise _no_scores(method, f"at {site} some are NaN or infinite")
    return scores


def _no_scores(method: str, given: str) -> InputError:
    return InputError(
        f"Expected the method {method!r} to return finite scores [units] for every site of the task (for folds [1 + "
        f"folds, units]), but {given}: correct its function; register_method says what it returns."
    )


def score_folds(
    task: Task,
    settings: AttributionSettings,
    folds: Int[np.ndarray, " images"] | None = None,
) -> tuple[NodeEffects, dict[int, NodeEffects]]:
    """Return unit scores on all images, and on each fold of the images, by the method of the settings.

    The site path and conductance score all folds in one pass, and return the completeness of the scores; the site path
    scores the pixels, too. Every other method scores the images of each fold with all images of other classes: in one
    run where it takes folds, else in runs of their own. Methods that only rank have effects by conductance beside.
    Gradients are running; with folds the task's images are a tensor.
    """
    method = METHODS[settings.method]
    # A method from outside may replace one of the package, with its name.
    if method.function is None and method.name in COMPLETE_SCORERS:
        return COMPLETE_SCORERS[method.name](task, settings, folds)
    scores, of_folds = _scores_of_folds(method, task, settings, folds)
    if not method.effects:
        # The ranking decides which units are kept, conductance tells whether each of them helps.
        effects, effects_of_folds = path_effects(task, folds)
        for fold, importance in of_folds.items():
            effects_of_folds[fold] = replace(
                effects_of_folds[fold], importance=importance
            )
        return replace(effects, importance=scores), effects_of_folds
    # Nothing is known of how well such scores add up: completeness is empty.
    n_images = sum(map(len, checked_batches(task.images)))
    by_fold = dict[int, NodeEffects]()
    for fold, of_fold in of_folds.items():
        by_fold[fold] = NodeEffects(of_fold, {}, int(np.count_nonzero(folds == fold)))
    return NodeEffects(scores, {}, n_images), by_fold


def _scores_of_folds(
    method: Method,
    task: Task,
    settings: AttributionSettings,
    folds: Int[np.ndarray, " images"] | None,
) -> tuple[dict[str, np.ndarray], dict[int, dict[str, np.ndarray]]]:
    """Return scores [units] by site of all images, and of each fold of them by its number."""
    if folds is None:
        return _scores_by(method, task, settings), {}
    numbers = np.unique(folds).tolist()
    if method.takes_folds:
        rows = _scores_by(method, task, settings, folds)
        of_all = {site: of_site[0] for site, of_site in rows.items()}
        of_folds = dict[int, dict[str, np.ndarray]]()
        for row, fold in enumerate(numbers, start=1):
            of_folds[fold] = {site: of_site[row] for site, of_site in rows.items()}
        return of_all, of_folds
    of_all = _scores_by(method, task, settings)
    of_folds = {}
    for fold in numbers:
        # All images of other classes stay: they are what each fold is compared with.
        members = torch.from_numpy(folds == fold)
        of_fold = task.of_some(one_tensor(task.images), members)
        of_folds[fold] = _scores_by(method, of_fold, settings)
    return of_all, of_folds


def rank_units(task: Task, method: str) -> Scores:
    """Return the scores of all units but the image's by a method, from which circuits of any size are cut."""
    settings = AttributionSettings(method=method)
    with task.running(gradients=True):
        effects, _ = score_folds(without_image(task), settings)
    made_with = {
        "method": method,
        "method_code": method_code(method),
        "ranking": "absolute",
        "budget": GLOBAL,
    }
    return scores_of(task, effects, made_with | task.identity)
