"""Methods that score units by runs under gates or patches; see `circuitry.circuits.methods`."""

from collections.abc import Mapping

import numpy as np

from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.unit_scores import own_images
from circuitry.encoder.task import Task
from circuitry.interventions.answers import default_answers, gate_importance
from circuitry.interventions.gated import Gated
from circuitry.interventions.masks import gates_of, learn_masks
from circuitry.interventions.patching import patch_effects


def exact_effects(task: Task, settings: AttributionSettings) -> Mapping[str, np.ndarray]:
    """Score each unit by the exact effect of putting it to the baseline."""
    return patch_effects(own_images(task)).scores


def squared_changes(task: Task, settings: AttributionSettings) -> Mapping[str, np.ndarray]:
    """Score each unit by the squared change of all answers by its gate; 0 for error units, which have none."""
    with task.running(gradients=True):
        runs = Gated(task)
        found = gate_importance(runs, default_answers(task.metric)).cpu().numpy()
    return {site: np.nan_to_num(of_site) for site, of_site in runs.scored(found.astype(float)).items()}


def mask_gates(task: Task, settings: AttributionSettings) -> Mapping[str, np.ndarray]:
    """Score each unit by its final gate in a learned mask of the size of the settings."""
    return gates_of(learn_masks(task, [settings.node_fraction]).scores)
