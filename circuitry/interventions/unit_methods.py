"""Methods that score units by runs under gates or patches; see `circuitry.circuits.methods`."""

from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.rules import default_size
from circuitry.circuits.unit_scores import own_images
from circuitry.encoder.task import Task
from circuitry.interventions.answers import Answers, default_answers, gate_importance, iterative_ranks
from circuitry.interventions.gated import Gated
from circuitry.interventions.masks import gates_of, learn_masks
from circuitry.interventions.patching import patch_effects


def exact_effects(task: Task, settings: AttributionSettings) -> Mapping[str, np.ndarray]:
    """Score each unit by the exact effect of putting it to the baseline."""
    return patch_effects(own_images(task)).scores


def squared_changes(task: Task, settings: AttributionSettings) -> Mapping[str, np.ndarray]:
    """Score each unit by the squared change of all answers by its gate."""
    return _by_gates(task, gate_importance)


def ranks_by_rounds(task: Task, settings: AttributionSettings) -> Mapping[str, np.ndarray]:
    """Score each unit by its rank where units are scored again as the least important ones close."""
    return _by_gates(task, iterative_ranks)


def _by_gates(task: Task, measure: Callable[[Gated, Answers], Tensor]) -> dict[str, np.ndarray]:
    """Return what is measured of gates, by unit; 0 for error units, which have none."""
    with task.running(gradients=True):
        runs = Gated(task)
        found = measure(runs, default_answers(task.metric)).cpu().numpy()
    return {site: np.nan_to_num(of_site) for site, of_site in runs.scored(found.astype(float)).items()}


def mask_gates(task: Task, settings: AttributionSettings) -> Mapping[str, np.ndarray]:
    """Score each unit by its final gate in a learned mask of the size of the settings."""
    return gates_of(learn_masks(task, [settings.node_fraction or default_size(task.encoder)]).scores)
