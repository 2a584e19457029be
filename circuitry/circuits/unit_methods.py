"""The package's methods that score units; see `circuitry.circuits.methods`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from torch import Tensor

from circuitry.circuits.circuit_settings import AttributionSettings, MaskSettings
from circuitry.circuits.conductance import conductance_forwards, path_effects
from circuitry.circuits.direct_readout import direct_readout
from circuitry.circuits.graph import Circuit
from circuitry.circuits.masks import gates_of, learn_masks, mask_forwards
from circuitry.circuits.methods import (
    CONDUCTANCE,
    CONTRAST,
    FISHER,
    GRADIENT,
    ITERATIVE,
    LEARNED,
    READOUT,
    SITE_PATH,
    UnitScorer,
)
from circuitry.circuits.narrowed_tasks import own_images
from circuitry.circuits.nodes import (
    FoldSum,
    NodeEffects,
    effects_of,
    fold_effects,
    fold_sums,
    image_effects,
    path_forwards,
)
from circuitry.circuits.own_part_of_class import own_part_forwards, ranks_by_contrast
from circuitry.circuits.quadrature import left_rule
from circuitry.circuits.tower_defaults import default_size
from circuitry.encoder.task import Task
from circuitry.gates.fisher import (
    default_answers,
    fisher_forwards,
    iterative_ranks,
    set_importance,
)
from circuitry.gates.images_under_gates import UnitsUnderGates
from circuitry.gates.patching import measure_patches, patching_forwards
from circuitry.runs.plan import Forwards

UnitScores = Mapping[str, np.ndarray]
FoldNumbers = Int[np.ndarray, " images"] | None
"""Index of the fold of each image of the class. If given, scores have the shape [1 + folds, units]: on all images, then
on the images of each fold."""
CompleteScores = tuple[NodeEffects, dict[int, NodeEffects]]
"""Effects with their completeness: on all images, and on the images of each fold by its index."""


def along_sites(
    task: Task, settings: AttributionSettings, folds: FoldNumbers = None
) -> CompleteScores:
    """Score units by integrated gradients at their sites; the image is scored, too, if it is a site of the task."""
    with task.running(gradients=True):
        return fold_effects(own_images(task), settings.node_rule, folds)


def along_image(
    task: Task, settings: AttributionSettings, folds: FoldNumbers = None
) -> CompleteScores:
    """Score units by their conductance on the path from the image to its baseline."""
    return path_effects(task, folds)


def gradient_at_image(task: Task, settings: AttributionSettings) -> UnitScores:
    """Score units by the gradient on the clean run, times the difference between activation and baseline."""
    sums = list[FoldSum]()
    with task.running(gradients=True):
        # The left rule of one point takes the gradient at the clean activation.
        for batch, _, _, effects, clean in image_effects(
            own_images(task), left_rule(1)
        ):
            sums += [of_all for _, of_all in fold_sums(None, batch, effects, clean, {})]
    return effects_of({0: sums}, None)[0].scores


def exact_effects(task: Task, settings: AttributionSettings) -> UnitScores:
    """Score each unit by the exact effect of putting it to the baseline."""
    return measure_patches(own_images(task)).scores


def squared_changes(
    task: Task, settings: AttributionSettings, folds: FoldNumbers = None
) -> UnitScores:
    """Score each unit by the squared derivative of the model's answers with respect to the gate of the unit.

    The squared derivative is estimated; it is summed over the answers and averaged over the images, see
    `set_importance`. The answers are logits of classes or the metric, see `default_answers`.
    """
    return _by_gates(task, set_importance, folds)


def ranks_by_rounds(
    task: Task, settings: AttributionSettings, folds: FoldNumbers = None
) -> UnitScores:
    """Score each unit by its rank: the weakest units are closed in rounds, and open units are scored again."""
    return _by_gates(task, iterative_ranks, folds)


def _by_gates(
    task: Task, measure: Callable[..., Tensor], folds: FoldNumbers
) -> UnitScores:
    """Return the scores of units by a function that scores their gates; error units have no gate and get 0.

    Args:
        task: Images of the class and of other classes, metric, baseline and sites.
        measure: Function of `fisher` that returns a value for each gate.
        folds: Index of the fold of each image of the class.
    """
    with task.running(gradients=True), task.bar("ranking", "image") as bar:
        runs = UnitsUnderGates(task)
        # Images are named by their index; images of the class come first. Each set contains some images of the class
        # and all images of other classes.
        others = range(runs.n_own, len(runs))
        sets: list[Any] = [(range(runs.n_own), others)]
        if folds is not None:
            own = [np.flatnonzero(folds == fold).tolist() for fold in np.unique(folds)]
            sets += [(of_fold, others) for of_fold in own]
        # Values [sets, gates]. All sets are measured in one call, because they share the runs of their images.
        measured = measure(runs, default_answers(task.metric), sets, bar=bar)
    of_sets = [runs.scored(row.astype(float)) for row in measured.cpu().numpy()]
    scores = dict[str, np.ndarray]()
    for site in of_sets[0]:
        # NaN marks units without a gate.
        rows = np.nan_to_num(np.stack([of_set[site] for of_set in of_sets]))
        scores[site] = rows[0] if folds is None else rows
    return scores


def mask_gates(task: Task, settings: AttributionSettings) -> UnitScores:
    """Score each unit by its final gate in a learned mask, whose size is that of the settings."""
    size = settings.size or default_size(task.encoder)
    return gates_of(learn_masks(task, [size]).scores)


def masks_of_sizes(
    task: Task, sizes: Sequence[float], settings: MaskSettings
) -> list[Circuit]:
    """Return one circuit for each size; the masks of all sizes are learned one after the other in one call."""
    return learn_masks(task, sizes, settings).circuits


COMPLETE_SCORERS: Mapping[str, Callable[..., CompleteScores]] = {
    SITE_PATH: along_sites,
    CONDUCTANCE: along_image,
}
"""Functions of the package's methods whose completeness is known, by name. They score all folds of the images in one
pass."""
SCORERS: Mapping[str, UnitScorer] = {
    GRADIENT: gradient_at_image,
    "patching": exact_effects,
    FISHER: squared_changes,
    ITERATIVE: ranks_by_rounds,
    READOUT: direct_readout,
    CONTRAST: ranks_by_contrast,
    LEARNED: mask_gates,
}
"""Functions of all other methods of the package, by name."""
SEARCHERS: Mapping[str, Callable[..., list[Circuit]]] = {LEARNED: masks_of_sizes}
"""Functions of the methods that learn masks, by name. They take sizes, and return one circuit for each size. All other
methods rank units, and circuits of any size are cut from the ranking."""


class Counts(NamedTuple):
    """Numbers that decide how many runs a method takes."""

    own: int  #: Images of the class.
    others: int  #: Images of other classes.
    sites: int  #: Sites whose units are scored.
    units: int  #: Units at these sites.


FORWARDS: Mapping[str, Callable[[Counts, AttributionSettings], Forwards]] = {
    SITE_PATH: lambda counts, settings: path_forwards(
        counts.own, counts.sites, len(settings.node_rule.points)
    ),
    CONDUCTANCE: lambda counts, settings: conductance_forwards(counts.own),
    GRADIENT: lambda counts, settings: Forwards(back=counts.own),
    "patching": lambda counts, settings: patching_forwards(
        counts.own, counts.sites, counts.units
    ),
    FISHER: lambda counts, settings: fisher_forwards(counts.own + counts.others, 1),
    ITERATIVE: lambda counts, settings: fisher_forwards(counts.own + counts.others),
    READOUT: lambda counts, settings: Forwards(alone=counts.others, back=counts.own),
    CONTRAST: lambda counts, settings: own_part_forwards(counts.own, counts.others),
    LEARNED: lambda counts, settings: mask_forwards(counts.own, counts.others),
}
"""What the methods of the package run to score units, on all images of a task."""
