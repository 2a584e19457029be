"""Scores of single units by any method, on all images of a task and on folds of them."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int

from circuitry.circuits.budgets import GLOBAL
from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.conductance import conductance_forwards, path_effects
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
from circuitry.circuits.unit_methods import (
    COMPLETE_SCORERS,
    FORWARDS,
    SCORERS,
    Counts,
)
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import checked_batches, one_tensor
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError, shown
from circuitry.runs.plan import Forwards


@checked
def score_units(
    task: Task,
    method: MethodName = SITE_PATH,
    settings: AttributionSettings | None = None,
) -> dict[str, np.ndarray]:
    """Return the scores of all units by one method.

    Args:
        task: Encoder, images, metric, baseline and sites. Methods with `Method.takes_others` also use the images of
            other classes.
        method: A name of `METHODS`.
        settings: Settings with the rule for ``site-path`` and the size for a learned mask (default:
            ``AttributionSettings()``).

    Returns:
        Scores [units] by site, without the image. In a feature basis the error units come after the latents. If the
        method measures effects (`Method.effects`), a positive score means that the unit helps. Otherwise the scores
        rank the units: for example, scores of ``fisher`` are squared changes of the answers, which are not negative,
        and 0 for error units.

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
    """Return the scores of a method by site: arrays [units], or [1 + folds, units] if ``folds`` is given.

    With folds, the first row has the scores on all images, and each further row the scores on a fold. The method may be
    registered from outside. So raise `InputError` unless it returns finite scores of all sites.

    Args:
        method: The method.
        task: The task; the image is not scored.
        settings: The settings.
        folds: Index of the fold of each image, for a method with `Method.takes_folds`.
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
    # One row for all images, and one row for each fold of them.
    n_rows = None if folds is None else 1 + len(np.unique(folds))
    scores = dict[str, np.ndarray]()
    for site, values in given.items():
        scores[site] = _as_scores(name, site, values, n_rows)
    # Only registered methods are checked: methods of the package are tested, and the check needs a run.
    if method.function is not None:
        _check_units(name, task, scores)
    return scores


def _check_units(method: str, task: Task, scores: Mapping[str, np.ndarray]) -> None:
    """Raise `InputError` if the number of scores at a site differs from the number of its units."""
    for site, n_units in task.encoder.count_units(task.sites).items():
        n_scores = scores[site].shape[-1]
        if n_scores != n_units:
            raise _no_scores(
                method, f"at {site} there are {n_scores} scores for the {n_units} units"
            )


def _as_scores(
    method: str, site: str, values: object, n_rows: int | None
) -> np.ndarray:
    """Return the scores of a site as an array; raise `InputError` if they have a wrong shape or are not finite.

    ``n_rows`` is the expected number of rows, or None if the scores must have a single axis.
    """
    scores = numbers_in(values)
    if scores is None:
        raise _no_scores(method, f"at {site} it returned {shown(values)}")
    n_dims = 1 if n_rows is None else 2
    # The number of dimensions is checked first, because an array without dimensions has no length.
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
    """Return the scores of all units by the method of the settings: on all images, and on each fold of the images.

    - ``site-path`` and ``conductance`` score all folds in one pass, and also return the completeness of the scores.
      ``site-path`` also scores the pixels.
    - Every other method scores the images of a fold together with all images of other classes. All folds are scored in
      one call if `Method.takes_folds` is true, otherwise each fold in a call of its own.
    - If a method only ranks units, its scores become the importance, and the effects are measured by conductance.

    Call it within ``task.running(gradients=True)``.

    Args:
        task: The task. With ``folds`` its images are a tensor.
        settings: Method, size and rule.
        folds: Index of the fold of each image. If None, the second result is empty.

    Returns:
        The scores on all images, and a dictionary from the index of a fold to the scores on this fold.
    """
    method = METHODS[settings.method]
    # A registered method may have the name of a method of the package, which it then replaces.
    if method.function is None and method.name in COMPLETE_SCORERS:
        return COMPLETE_SCORERS[method.name](task, settings, folds)
    scores, of_folds = _scores_of_folds(method, task, settings, folds)
    if not method.effects:
        # The ranking decides which units are kept. Conductance says whether each unit helps.
        effects, effects_of_folds = path_effects(task, folds)
        for fold, importance in of_folds.items():
            effects_of_folds[fold] = replace(
                effects_of_folds[fold], importance=importance
            )
        return replace(effects, importance=scores), effects_of_folds
    # It is unknown how well such scores add up, so the completeness is empty.
    n_images = sum(map(len, checked_batches(task.images)))
    by_fold = dict[int, NodeEffects]()
    for fold, of_fold in of_folds.items():
        by_fold[fold] = NodeEffects(of_fold, {}, int(np.count_nonzero(folds == fold)))
    return NodeEffects(scores, {}, n_images), by_fold


def scoring_forwards(
    settings: AttributionSettings, counts: Counts, n_folds: int = 0
) -> Forwards:
    """Return what `score_folds` runs.

    A method that was registered from outside is taken to run each image once forward and back.

    Args:
        settings: Method and rule.
        counts: Numbers of images, sites and units.
        n_folds: Number of folds; 0 if only all images together are scored.
    """
    method = METHODS[settings.method]
    forwards = Forwards(back=counts.own + counts.others)
    if method.function is None:
        of_method = FORWARDS[method.name]
        forwards = of_method(counts, settings)
        if method.name in COMPLETE_SCORERS:
            return forwards
        for fold in range(n_folds):
            # Folds of nearly equal size; each has the images of other classes to itself.
            own = (counts.own + fold) // n_folds
            forwards += of_method(counts._replace(own=own), settings)
    if method.takes_folds:  # all images are run once without gates
        forwards += Forwards(alone=counts.own + counts.others)
    if not method.effects:
        forwards += conductance_forwards(counts.own)
    return forwards


def _scores_of_folds(
    method: Method,
    task: Task,
    settings: AttributionSettings,
    folds: Int[np.ndarray, " images"] | None,
) -> tuple[dict[str, np.ndarray], dict[int, dict[str, np.ndarray]]]:
    """Return scores [units] by site on all images, and a dictionary from the index of a fold to such scores on it.

    The dictionary is empty if ``folds`` is None.
    """
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
        # All images of other classes are used for every fold, because the images of a fold are compared with them.
        members = torch.from_numpy(folds == fold)
        of_fold = task.of_some(one_tensor(task.images), members)
        of_folds[fold] = _scores_by(method, of_fold, settings)
    return of_all, of_folds


def rank_units(task: Task, method: str) -> Scores:
    """Return the scores of all units by a method, without the image; circuits of any size can be cut from them."""
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
