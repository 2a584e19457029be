"""Which pixels speak for a unit, or for the logit through a circuit's units: captum's integrated gradients.

A circuit names units; these maps show what they look at. The path goes from a blank image (zero after preprocessing,
the mean colour) to the image; the sum of a map is the change of the target along it.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from captum.attr import IntegratedGradients
from jaxtyping import Float
from torch import Tensor

from circuitry.interventions.ablation import ablate_all_but
from circuitry.interventions.circuit_sets import KeptUnits
from circuitry.interventions.patches import patched
from circuitry.models.baselines import AnyBaseline, as_baseline, check_count
from circuitry.models.batches import rows_that_fit
from circuitry.models.encoder import Encoder
from circuitry.models.metrics import Metric, checked_metric
from circuitry.runs.errors import InputError


def logit_pixels(
    encoder: Encoder,
    images: Float[Tensor, "batch 3 h w"],
    metric: Metric,
    circuit: KeptUnits | None = None,
    *,
    baseline: AnyBaseline = "zero",
    steps: int = 32,
    memory_gib: float = 1.0,
) -> Float[Tensor, "batch h w"]:
    """Return what each pixel adds to the metric, of the whole encoder or with only a circuit's units active.

    Args:
        encoder: The encoder under study.
        images: Images, preprocessed.
        metric: Embeddings [B, D] -> one number per image.
        circuit: Units to keep by site (default: the whole encoder).
        baseline: What stands in for the other units; see `circuitry.models.baselines`.
        steps: Points of the Gauss-Legendre rule on the path.
        memory_gib: Budget for activations, in GiB.

    Raises:
        InputError: for fewer than one step, a metric of the wrong shape, or a baseline that does not fit the images.

    Example:
        >>> maps = logit_pixels(encoder, photos, metric, take_kept_units(graph))    # summed over colours
    """

    def target(x: Tensor) -> Tensor:
        return checked_metric(metric, encoder(x))

    ends = as_baseline(baseline)
    check_count(ends, len(images))
    if circuit is None or ends.n_images is None:
        with patched(encoder, [] if circuit is None else ablate_all_but(encoder, circuit, ends)):
            return _pixels(encoder, images, target, steps, memory_gib)
    maps = []
    for place in (slice(i, i + 1) for i in range(len(images))):  # a path's points are many rows of one image
        with patched(encoder, ablate_all_but(encoder, circuit, ends.select(place))):
            maps.append(_pixels(encoder, images[place], target, steps, memory_gib))
    return torch.cat(maps)


def unit_pixels(
    encoder: Encoder,
    images: Float[Tensor, "batch 3 h w"],
    site: str,
    unit: int,
    *,
    steps: int = 32,
    memory_gib: float = 1.0,
) -> Float[Tensor, "batch h w"]:
    """Return what each pixel adds to a unit's activation, mean over its positions.

    Raises:
        InputError: for an unknown site, a unit outside it, or fewer than one step.

    Example:
        >>> maps = unit_pixels(encoder, photos, "layer4.0", graph.kept_units["layer4.0"][0])
    """

    def activation(x: Tensor) -> Tensor:
        units = encoder(x, stop=site).movedim(encoder.unit_dim(site), 1)
        if not 0 <= unit < units.shape[1]:
            raise InputError(f"Site {site!r} has units 0 to {units.shape[1] - 1}, but {unit} was asked for.")
        mean: Tensor = units[:, unit].reshape(len(x), -1).mean(1)
        return mean

    return _pixels(encoder, images, activation, steps, memory_gib)


def map_agreement(maps: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the correlation of each map with the first, over all pixels."""
    (_, whole), *others = maps.items()
    return {name: float(np.corrcoef(whole.ravel(), one.ravel())[0, 1]) for name, one in others}


def _pixels(
    encoder: Encoder, images: Tensor, target: Callable[[Tensor], Tensor], steps: int, memory_gib: float
) -> Tensor:
    if steps < 1:
        raise InputError(f"A path needs at least one step, but steps={steps} was given.")
    images = images.to(encoder.device, encoder.dtype)
    rows = max(len(images), rows_that_fit(encoder, memory_gib))  # captum runs at least every image once
    with encoder.frozen(), torch.enable_grad():
        found: Tensor = IntegratedGradients(target).attribute(
            images, n_steps=steps, method="gausslegendre", internal_batch_size=rows
        )
    return found.detach().sum(1)
