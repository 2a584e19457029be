"""Maps of how much each pixel contributes to a target, by integrated gradients.

The target is the activation of a unit, the metric of the whole model, or the metric with only a circuit kept. So the
maps show to which pixels the units of a circuit respond. The integration path goes from a blank image (zero after
preprocessing, which is the mean colour) to the image. The sum of a map is the change of the target along this path.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from captum.attr import IntegratedGradients
from jaxtyping import Float
from torch import Tensor

from circuitry.circuits.asked_alike import check_made_with
from circuitry.circuits.graph import Circuit
from circuitry.encoder.metrics import checked_metric
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import rows_that_fit
from circuitry.gates.patches import Patch, patched
from circuitry.interventions.kept_circuits import ablate_all_but
from circuitry.runs.arguments import Count, Natural, checked
from circuitry.runs.errors import InputError

POINTS = 32
"""The number of points of the Gauss-Legendre rule on the path."""


@checked
def logit_pixels(
    task: Task, circuit: Circuit | None = None, *, n_points: Count = POINTS
) -> Float[Tensor, "batch h w"]:
    """Return the contribution of each pixel to the metric.

    The metric is computed by the whole encoder, or with only the units of a circuit kept.

    Args:
        task: The images, the metric, and the baseline of ablated units.
        circuit: The circuit whose units are kept (default: the whole encoder).
        n_points: Number of points on the path.

    Returns:
        A map [h, w] for each image, summed over colours.

    Example:
        >>> logit_pixels(task, graph.circuit(None)).shape
        torch.Size([4, 64, 64])
    """

    def target(x: Tensor) -> Tensor:
        return checked_metric(task.metric, task.encoder(x))

    # The points of a path are many rows of one image. If each image has its own baseline, images run one by one.
    one_by_one = circuit is not None and task.baseline.n_images is not None
    maps = list[Tensor]()
    with task.running(gradients=True):
        check_made_with(task, [] if circuit is None else [circuit.source])
        for batch in task.batches(1 if one_by_one else None):
            patches = list[Patch]()
            if circuit is not None:
                images = slice(batch.start, batch.start + len(batch.images))
                ends = task.baseline.select(images)
                patches = ablate_all_but(task.encoder, circuit, ends)
            with patched(task.encoder, patches):
                maps.append(_pixels(task, batch.images, target, n_points))
    return torch.cat(maps)


def circuit_pixels(
    task: Task, circuit: Circuit
) -> dict[str, Float[Tensor, "batch h w"]]:
    """Return maps of how much each pixel of a task's images contributes to four targets.

    Returns:
        Maps [images, height, width] by title. The targets are:

        - the metric of the whole model;
        - the metric with the circuit kept only at the last site before the embedding at which it has units. No unit is
          ablated at any other site;
        - the metric with the circuit kept at all its sites;
        - the activation of the circuit's first unit at this last site.
    """
    # The last site with units is the embedding, so the site before it is taken, if there is one.
    with_units = [site for site, units in circuit.units.items() if len(units)]
    last = with_units[-2:][0]
    unit = int(circuit.units[last][0])
    at_last = replace(circuit.at([last]), keep_error=False)
    return {
        "whole model": logit_pixels(task),
        f"circuit at {last}": logit_pixels(task, at_last),
        "circuit at all sites": logit_pixels(task, circuit),
        f"unit {last}/{unit}": unit_pixels(task, last, unit),
    }


@checked
def unit_pixels(task: Task, site: str, unit: Natural) -> Float[Tensor, "batch h w"]:
    """Return the contribution of each pixel to a unit's activation, averaged over the unit's positions.

    Args:
        task: The encoder and the images; the metric is ignored.
        site: The site of the unit.
        unit: The index of the unit.

    Example:
        >>> unit_pixels(task, "layer4.0", 5).shape
        torch.Size([4, 64, 64])
    """
    encoder = task.encoder

    def activation(x: Tensor) -> Tensor:
        units = encoder(x, stop=site).movedim(encoder.unit_dim(site), 1)
        if not 0 <= unit < units.shape[1]:
            raise InputError(
                f"Site {site!r} has units 0 to {units.shape[1] - 1}, but {unit} was given: choose one."
            )
        mean: Tensor = units[:, unit].reshape(len(x), -1).mean(1)
        return mean

    with task.running(gradients=True):
        return torch.cat(
            [_pixels(task, batch.images, activation) for batch in task.batches()]
        )


def _pixels(
    task: Task,
    images: Tensor,
    target: Callable[[Tensor], Tensor],
    n_points: int = POINTS,
) -> Tensor:
    """Return a map for each image: integrated gradients of a target, summed over colours."""
    # captum needs at least one row for each image in a batch, even if memory is short.
    rows = max(len(images), rows_that_fit(task.encoder, task.work.memory_gib))
    effects: Tensor = IntegratedGradients(target).attribute(
        images, n_steps=n_points, method="gausslegendre", internal_batch_size=rows
    )
    return effects.detach().sum(1)
