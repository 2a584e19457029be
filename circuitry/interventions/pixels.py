"""Maps of how much each pixel contributes to the metric, by integrated gradients.

The integration path goes from a blank image (zero after preprocessing, which is the mean colour) to the image. The sum
of a map is the change of the metric along this path.
"""

import torch
from captum.attr import IntegratedGradients
from jaxtyping import Float
from torch import Tensor

from circuitry.encoder.metrics import checked_metric
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import rows_that_fit
from circuitry.runs.arguments import Count, checked

POINTS = 32
"""The number of points of the Gauss-Legendre rule on the path."""


@checked
def logit_pixels(task: Task, *, n_points: Count = POINTS) -> Float[Tensor, "batch h w"]:
    """Return the contribution of each pixel to the metric.

    Args:
        task: The images and the metric.
        n_points: Number of points on the path.

    Returns:
        A map [h, w] for each image, summed over colours.

    Example:
        >>> logit_pixels(task).shape
        torch.Size([4, 64, 64])
    """
    encoder = task.encoder

    def target(x: Tensor) -> Tensor:
        return checked_metric(task.metric, encoder(x))

    maps = list[Tensor]()
    with task.running(gradients=True):
        for batch in task.batches():
            # captum needs at least one row for each image in a batch, even if memory is short.
            fit = rows_that_fit(encoder, task.work.memory_gib)
            effects: Tensor = IntegratedGradients(target).attribute(
                batch.images,
                n_steps=n_points,
                method="gausslegendre",
                internal_batch_size=max(len(batch.images), fit),
            )
            maps.append(effects.detach().sum(1))
    return torch.cat(maps)
