"""Narrower tasks: without the images of other classes, or without the image as a site."""

from dataclasses import replace

from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task, with_others
from circuitry.encoder.tensor_batches import one_tensor


def own_images(task: Task) -> Task:
    """Return a task without its images of other classes, and without their activations in the baseline."""
    # A baseline that is the same for all images stays as it is.
    if task.others is None or task.baseline.n_images is None:
        return replace(task, others=None)
    # Its images are the class's and then the others', so that the first ones are kept, and their baseline.
    everything, n_own = with_others(task)
    return everything.of_some(one_tensor(everything.images), slice(n_own))


def without_image(task: Task) -> Task:
    """Return a task without the site `input`, which no circuit has nodes at."""
    return replace(task, sites=tuple(site for site in task.sites if site != INPUT))
