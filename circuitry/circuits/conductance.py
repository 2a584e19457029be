"""Conductance: the effects of the units of all sites at once, from one path of the image.

Integrated gradients at a site (`nodes`) run the tower from this site on, for every site and point. Here the image moves
along the straight line to its baseline, x_t = x + t (b - x), and every activation a(x_t) changes with it. The
conductance of a unit is the change of the metric m that passes through this unit (Dhamdhere, Sundararajan & Yan 2018,
arXiv 1805.12233):

    effect[unit] = - mean over images of  sum over positions of  integral of  dm/da(x_t) * da(x_t)/dt  dt

The integral is computed by the trapezoid rule. One forward and backward pass at each of n + 1 points gives the
gradients g_k and the activations a_k of all sites:

    effect[unit] = - mean over images of  sum over positions and k of  (g_k + g_(k+1)) / 2 * (a_(k+1) - a_k)

At every site the effects sum to m(image) - m(baseline image), up to the error of the rule. There is one exception: if a
residual stream is carried past the units of a site, a part of the change passes through the stream instead of a unit.
So the completeness of such a site is unknown.
"""

from collections import defaultdict

import numpy as np
import torch
from jaxtyping import Int

from circuitry.circuits.narrowed_tasks import own_images, without_image
from circuitry.circuits.nodes import (
    FoldSum,
    NodeEffects,
    check_effects,
    clean_run,
    effects_of,
    fold_sums,
    unit_effects,
)
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import count_batches, rows_that_fit

N_INTERVALS = 5
"""Number n of intervals of the path. The model is run at the n + 1 ends of the intervals."""


def conductance_effects(
    task: Task,
    folds: Int[np.ndarray, " images"] | None = None,
    intervals: int = N_INTERVALS,
) -> tuple[NodeEffects, dict[int, NodeEffects]]:
    """Return the mean effects of all units on the metric: on all images, and on each fold of the images.

    The path of the integral leads from the image to the baseline of the site `input`: zeros after normalisation, the
    mean image, or the counterfactual images. Call it within ``task.running(gradients=True)``.

    Args:
        task: Encoder, images, metric, baseline and sites.
        folds: Index of the fold of each image. If None, the second result is empty.
        intervals: Number of intervals of the path.

    Returns:
        The effects on all images, and a dictionary from the index of a fold to the effects on this fold.
    """
    sites = task.sites
    rows = rows_that_fit(task.encoder, task.work.memory_gib)
    # At the remaining sites, some of the change is carried past the units, so there is no total to compare with.
    complete = [site for site in sites if site not in task.encoder.carried]
    sums = defaultdict[int, list[FoldSum]](list)
    n_batches = count_batches(task.images, rows)
    with task.bar("conductance", "batch", n_batches) as bar:
        for batch in task.batches():
            end = batch.ends({INPUT: batch.images})[INPUT]
            # Activations a and gradients g at the previous point of the path; the first point is the image itself.
            a, g, clean = clean_run(task, batch.images, sites, with_gradient=True)
            effects = dict.fromkeys(sites, torch.zeros(()))
            for k in range(1, intervals + 1):
                x = torch.lerp(batch.images, end, k / intervals)
                after, slopes, at_end = clean_run(task, x, sites, with_gradient=True)
                # Popped site by site, so that at most two points are in memory.
                for site in sites:
                    change = (
                        (a.pop(site) - after[site]) * (g.pop(site) + slopes[site]) / 2
                    )
                    of_units = unit_effects(task.encoder, site, change)
                    effects[site] = effects[site] + of_units
                a = after
                g = slopes
            # The last point is the baseline of the image. The metric there is the end value for all sites.
            at_ends = dict.fromkeys(complete, at_end)
            check_effects(task.metric, effects)
            for fold, of_fold in fold_sums(folds, batch, effects, clean, at_ends):
                sums[fold].append(of_fold)
            bar.update()
    return effects_of(sums, folds)


def path_effects(
    task: Task, folds: Int[np.ndarray, " images"] | None = None
) -> tuple[NodeEffects, dict[int, NodeEffects]]:
    """Return the result of `conductance_effects` on the images of the class.

    The task's images of other classes are ignored, and the pixels of the image are not scored.
    """
    with task.running(gradients=True):
        return conductance_effects(without_image(own_images(task)), folds)
