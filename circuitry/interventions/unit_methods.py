"""Methods that score units by runs under gates or patches; see `circuitry.circuits.methods`."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.rules import default_size
from circuitry.circuits.unit_scores import own_images
from circuitry.encoder.task import Task
from circuitry.interventions.answers import (
    default_answers,
    iterative_ranks,
    set_importance,
)
from circuitry.interventions.gated import Gated
from circuitry.interventions.masks import gates_of, learn_masks
from circuitry.interventions.patching import patch_effects
from circuitry.runs.progress import BRIEF, Bar

PartNumbers = Int[np.ndarray, " images"] | None
"""The part of each image of the class: then scores are [1 + parts, units], on all images and on those of each part."""


def exact_effects(
    task: Task, settings: AttributionSettings
) -> Mapping[str, np.ndarray]:
    """Score each unit by the exact effect of putting it to the baseline."""
    return patch_effects(own_images(task)).scores


def squared_changes(
    task: Task, settings: AttributionSettings, parts: PartNumbers = None
) -> Mapping[str, np.ndarray]:
    """Score each unit by the squared change of all answers by its gate."""
    return _by_gates(task, set_importance, parts)


def ranks_by_rounds(
    task: Task, settings: AttributionSettings, parts: PartNumbers = None
) -> Mapping[str, np.ndarray]:
    """Score each unit by its rank where units are scored again as the least important ones close."""
    return _by_gates(task, iterative_ranks, parts)


def _by_gates(
    task: Task, measure: Callable[..., Tensor], parts: PartNumbers
) -> dict[str, Any]:
    """Return what is measured of gates, by unit; 0 for error units, which have none."""
    with (
        task.running(gradients=True),
        Bar(
            desc="ranking", unit="image", disable=not task.work.progress, **BRIEF
        ) as bar,
    ):
        runs = Gated(task)
        own = [
            np.flatnonzero(parts == part).tolist()
            for part in np.unique([] if parts is None else parts)
        ]
        sets = [
            (some, range(runs.n_own, len(runs))) for some in (range(runs.n_own), *own)
        ]
        found = measure(runs, default_answers(task.metric), sets, bar=bar).cpu().numpy()
    scored = [runs.scored(of_set.astype(float)) for of_set in found]
    by_site = {
        site: np.nan_to_num(np.stack([of_set[site] for of_set in scored]))
        for site in scored[0]
    }
    return (
        by_site
        if parts is not None
        else {site: of_site for site, (of_site,) in by_site.items()}
    )


def mask_gates(task: Task, settings: AttributionSettings) -> Mapping[str, np.ndarray]:
    """Score each unit by its final gate in a learned mask of the size of the settings."""
    return gates_of(
        learn_masks(task, [settings.size or default_size(task.encoder)]).scores
    )
