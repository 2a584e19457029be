"""Narrower tasks: a task without the images of other classes, or a task without the image as a site."""

from dataclasses import replace

from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task, with_others
from circuitry.encoder.tensor_batches import one_tensor


def own_images(task: Task) -> Task:
    """Return a task without its images of other classes, and without the baseline's activations for these images."""
    if task.others is None:
        return task
    # A baseline that is the same for all images does not change.
    if task.baseline.n_images is None:
        return replace(task, others=None)
    # In `everything` the images of the class come first. They are kept, with their activations of the baseline.
    everything, n_own = with_others(task)
    return everything.of_some(one_tensor(everything.images), slice(n_own))


def without_image(task: Task) -> Task:
    """Return a task without the site `input`, because circuits have no nodes there."""
    if INPUT not in task.sites:
        return task
    return replace(task, sites=tuple(site for site in task.sites if site != INPUT))
