"""Maps of the pixels that contribute to a unit, or to the logit through a circuit's units, by integrated gradients.

A circuit names units; these maps show which pixels they respond to. The path goes from a blank image (zero after
preprocessing, the mean colour) to the image; the sum of a map is the change of the target along it.
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
from circuitry.runs.arguments import Natural, checked
from circuitry.runs.errors import InputError

POINTS = 32
"""Points of the Gauss-Legendre rule on the path."""


@checked
def logit_pixels(
    task: Task, circuit: Circuit | None = None
) -> Float[Tensor, "batch h w"]:
    """Return the contribution of each pixel to the metric, in the encoder or with only a circuit's units kept.

    Args:
        task: Images and metric, and the baseline of ablated units.
        circuit: Its units are kept (default: the whole encoder).

    Returns:
        A map for each image, summed over colours.

    Example:
        >>> logit_pixels(task, graph.circuit(None)).shape
        torch.Size([4, 64, 64])
    """

    def target(x: Tensor) -> Tensor:
        return checked_metric(task.metric, task.encoder(x))

    # The points of a path are many rows of one image: where each has a baseline of its own, they run image by image.
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
                maps.append(_pixels(task, batch.images, target))
    return torch.cat(maps)


def circuit_pixels(
    task: Task, circuit: Circuit
) -> dict[str, Float[Tensor, "batch h w"]]:
    """Return what each pixel of a task's images adds to its metric, through the model and a circuit, by title.

    The whole model; the circuit kept at its last site before the embedding, everything before as it is; the circuit
    alone at all sites; and the activation of that site's first unit.
    """
    # The last site with units is the embedding; a circuit of the embedding alone has no site before it.
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
    """Return how much each pixel adds to a unit's activation, mean over its positions.

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


def _pixels(task: Task, images: Tensor, target: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a map of each image: integrated gradients of a target, summed over colours."""
    # captum runs every image at least once in a batch, however little memory there is.
    rows = max(len(images), rows_that_fit(task.encoder, task.work.memory_gib))
    effects: Tensor = IntegratedGradients(target).attribute(
        images, n_steps=POINTS, method="gausslegendre", internal_batch_size=rows
    )
    return effects.detach().sum(1)
