"""Direct readout: score the units that write last before the answer is read, without any search.

What these units add to the answer of a class is nearly linear in them. So the product of two numbers says how much of
the answer a unit carries for the class alone:

1. the linear way of the unit to the answer: the derivative of the metric with respect to its activation, averaged over
   images of the class. Everything after the unit stays as it is;
2. the mean activation on images of the class, less the mean activation on images of other classes.

The score of a unit is this product, summed over positions. All earlier units get 0. The scores need one gradient for
each image of the class and one run for each other image, so a search for the class's own part is compared with them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from circuitry.circuits.asked_alike import named_sites
from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.narrowed_tasks import own_images
from circuitry.circuits.nodes import clean_run, unit_effects
from circuitry.encoder.baselines import ZERO
from circuitry.encoder.roles import counted_sites
from circuitry.encoder.task import Task
from circuitry.runs.errors import InputError


def last_writers(task: Task) -> tuple[str, ...]:
    """Return the sites of a task that lie in the last block before the answer is read.

    If the task has all sites of its encoder, only those that count in the size of a circuit are considered
    (`counted_sites`). At other sites everything that any class needs passes through a few units. If the sites of the
    task are a selection, all of them are considered.
    """
    encoder = task.encoder
    sites = named_sites(task)
    if sites is None:
        counted = counted_sites(encoder, progress=task.work.progress)
        sites = list(counted) or list(encoder.sites[1:])
    last = sites[-1]
    # A block is one stage of the tower's own chain. The names of the sites inside a block begin with its name.
    blocks = [stage.site for stage in encoder.chain.stages]
    block = next((name for name in blocks if last.startswith(f"{name}.")), last)
    inside = [site for site in sites if site.startswith(f"{block}.")]
    return tuple(inside) or (last,)


def direct_readout(
    task: Task, settings: AttributionSettings
) -> Mapping[str, np.ndarray]:
    """Score the last units by their linear way to the answer, times what is particular to the class in them.

    Return arrays [units] by site. They are 0 at all sites that are not among the `last_writers`.

    Raises:
        InputError: if the task has no images of other classes.
    """
    if task.others is None:
        raise InputError(
            "The direct readout compares activations on images of a class and of other classes, but the task has no "
            "others: make it with Task(..., others=)."
        )
    writers = last_writers(task)
    # Only activations of other images are read, so these images need no baseline.
    others = replace(task, images=task.others, others=None, baseline=ZERO)
    with task.running(gradients=True):
        of_own, slopes = _means(own_images(task), writers, with_slopes=True)
        of_others = _means(others, writers, with_slopes=False)[0]
    scores = dict[str, np.ndarray]()
    for site, n_units in task.encoder.count_units(task.sites).items():
        scores[site] = np.zeros(n_units)
    for site in writers:
        effects = slopes[site] * (of_own[site] - of_others[site])
        of_units = unit_effects(task.encoder, site, effects)
        scores[site] = of_units[0].cpu().double().numpy()
    return scores


def _means(
    task: Task, sites: Sequence[str], *, with_slopes: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the mean activations [1, ...] over a task's images by site, and the mean slopes of its metric.

    Without ``with_slopes`` the second dictionary is empty.
    """
    activations = dict[str, Tensor]()
    slopes = dict[str, Tensor]()
    n_images = 0
    for batch in task.batches():
        clean, gradients, _ = clean_run(
            task, batch.images, sites, with_gradient=with_slopes
        )
        n_images += len(batch.images)
        for means, of_batch in ((activations, clean), (slopes, gradients)):
            for site, values in of_batch.items():
                means[site] = means.get(site, 0) + values.sum(0, keepdim=True)
    for means in (activations, slopes):
        for site, total in means.items():
            means[site] = total / n_images
    return activations, slopes
