"""Conductance: the effects of the units of all sites at once, from one path of the image.

Integrated gradients at a site (`nodes`) run the rest of the tower for every site and point. Here the image goes along
the straight line to its baseline, x_t = x + t (b - x), and every activation a(x_t) goes with it. The conductance of a
unit is the change of the metric m through it (Dhamdhere, Sundararajan & Yan 2018, arXiv 1805.12233):

    effect[unit] = - mean over images of  sum over positions of  integral of  dm/da(x_t) * da(x_t)/dt  dt

By the trapezoid rule one forward and backward pass at each of n + 1 points, with gradients g_k and activations a_k,
serves all sites:

    effect[unit] = - mean over images of  sum over positions and k of  (g_k + g_(k+1)) / 2 * (a_(k+1) - a_k)

At every site the effects sum to m(image) - m(baseline image), up to the rule. What is carried past the units of a site
has its part of that sum and is no unit, so no completeness is told there.
"""

from collections import defaultdict

import numpy as np
import torch
from jaxtyping import Int

from circuitry.circuits.narrowed_tasks import own_images, without_image
from circuitry.circuits.nodes import (
    FoldSum,
    NodeEffects,
    clean_run,
    effects_of,
    fold_sums,
    unit_effects,
)
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import count_batches, rows_that_fit

N_INTERVALS = 5
"""Intervals of the path; a run at each of their ends."""


def conductance_effects(
    task: Task,
    folds: Int[np.ndarray, " images"] | None = None,
    intervals: int = N_INTERVALS,
) -> tuple[NodeEffects, dict[int, NodeEffects]]:
    """Return every unit's mean effect on the metric at every site, on all images and on each fold of them.

    The path leads to the baseline's activation of `input`: zeros after normalisation, the mean image, or the
    counterfactual images.
    """
    sites = task.sites
    rows = rows_that_fit(task.encoder, task.work.memory_gib)
    # Past the units of the other sites goes a part of the change, so there is no sum to compare with.
    complete = [site for site in sites if site not in task.encoder.carried]
    sums = defaultdict[int, list[FoldSum]](list)
    n_batches = count_batches(task.images, rows)
    with task.bar("conductance", "batch", n_batches) as bar:
        for batch in task.batches():
            end = batch.ends({INPUT: batch.images})[INPUT]
            # Activations a and gradients g at the point before, from the image itself on.
            a, g, clean = clean_run(task, batch.images, sites, with_gradient=True)
            effects = dict.fromkeys(sites, torch.zeros(()))
            for k in range(1, intervals + 1):
                x = torch.lerp(batch.images, end, k / intervals)
                after, slopes, at_end = clean_run(task, x, sites, with_gradient=True)
                # Popped site by site, so that no more than two points are in memory.
                for site in sites:
                    change = (
                        (a.pop(site) - after[site]) * (g.pop(site) + slopes[site]) / 2
                    )
                    effects[site] = effects[site] + unit_effects(task, site, change)
                a = after
                g = slopes
            # The last point is the baseline's image, at which the metric is the same for all sites.
            at_ends = dict.fromkeys(complete, at_end)
            for fold, of_fold in fold_sums(folds, batch, effects, clean, at_ends):
                sums[fold].append(of_fold)
            bar.update()
    return effects_of(sums, folds)


def path_effects(
    task: Task, folds: Int[np.ndarray, " images"] | None = None
) -> tuple[NodeEffects, dict[int, NodeEffects]]:
    """Return `conductance_effects` on a task's own images, the image left out."""
    with task.running(gradients=True):
        return conductance_effects(without_image(own_images(task)), folds)
