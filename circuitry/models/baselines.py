"""Baselines: the activation that stands for 'this unit says nothing'."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuitry.models.encoder import Encoder
from circuitry.runs.errors import InputError


@dataclass(frozen=True, eq=False)
class Baseline:
    """An activation per site that does not depend on the image."""

    name: str
    """For tables and provenance: ``zero``, ``mean-position`` or ``mean-unit``."""
    values: dict[str, Tensor]
    """Activation [1, ...] by site, broadcast over the batch; a site that is not there has baseline zero."""

    def at(self, site: str, like: Tensor) -> Tensor:
        """Return the baseline of a site, expanded to the shape of the activation ``like`` [B, ...]."""
        value = self.values.get(site)
        if value is None:
            return torch.zeros_like(like)
        return value.to(like).expand_as(like)


ZERO = Baseline("zero", {})
"""The study's baseline."""


def mean_baseline(
    encoder: Encoder,
    images: Iterable[Float[Tensor, "_ 3 _ _"]],
    per: str = "position",
) -> Baseline:
    """Return the mean activation at every site over a reference set of images.

    Args:
        encoder: The encoder under study.
        images: Batches [B, 3, H, W] of reference images.
        per: ``"position"`` keeps the positions apart; ``"unit"`` averages over them too.

    Raises:
        InputError: when there are no images, or ``per`` is something else.

    Example:
        >>> baseline = mean_baseline(encoder, [images])
        >>> attribute(encoder, images, metric, baseline=baseline)
    """
    if per not in ("position", "unit"):
        raise InputError(f"A mean baseline is taken per 'position' or per 'unit', but {per!r} was given.")
    count, sums = 0, dict[str, Tensor]()
    with torch.no_grad(), encoder.frozen():
        for batch in images:
            _, cache = encoder.run_with_cache(batch.to(encoder.device, encoder.dtype))
            count += len(batch)
            for site, activation in cache.items():
                total = activation.double().sum(0, keepdim=True)
                sums[site] = total if site not in sums else sums[site] + total
    if not count:
        raise InputError("A mean baseline needs at least one reference image, but there were none.")
    means = {site: total / count for site, total in sums.items()}
    if per == "unit":
        for site, mean in means.items():
            unit = encoder.unit_dim(site) % mean.dim()
            positions = [axis for axis in range(1, mean.dim()) if axis != unit]
            if positions:
                means[site] = mean.mean(positions, keepdim=True).expand_as(mean)
    return Baseline(f"mean-{per}", {site: mean.to(encoder.dtype) for site, mean in means.items()})
