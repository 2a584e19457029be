"""The share of a tower's weights that a circuit touches: a size that is comparable between kinds of units."""

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from circuitry.circuits.graph import Circuit
from circuitry.encoder.task import Task
from circuitry.gates.patches import patched
from circuitry.interventions.kept_circuits import ablate_all_but

IMAGES_SHOWN = 2
"""Images whose embeddings tell which weights take part."""


def weights_touched(task: Task, circuits: Sequence[Circuit]) -> tuple[float, ...]:
    """Return the share of the tower's weights that each circuit touches, of those that the whole model touches.

    A weight is an entry of a parameter with two axes or more: of a convolution, a linear layer, an embedding. A circuit
    touches it if the embeddings of two images depend on it while all other units at the circuit's sites are 0: some
    output in a random direction has a gradient by it. So a weight counts if the unit that it writes is kept, and the
    one that it reads. A weight behind a layer norm or position embeddings, which make numbers of zeros, counts whatever
    it reads.

    Returns:
        The shares; none where circuits act through edges, or the tower has no weights that PyTorch follows.
    """
    encoder = task.encoder
    if not all(
        one.edges is None and set(one.units) <= set(encoder.sites) for one in circuits
    ):
        return ()
    weights = [
        one
        for one in encoder.tower.parameters()
        if one.dim() > 1 and one.is_floating_point()
    ]
    if not weights or any(one.is_inference() or one.is_meta for one in weights):
        return ()
    images = next(islice(task.batches(IMAGES_SHOWN), 1)).images[:IMAGES_SHOWN]

    def count(circuit: Circuit) -> int:
        with patched(encoder, ablate_all_but(encoder, circuit)):
            embeddings = encoder(images)
        direction = torch.randn(
            embeddings.shape, generator=torch.Generator().manual_seed(0)
        ).to(embeddings)
        if not embeddings.requires_grad:
            return 0
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            embeddings, weights, direction, allow_unused=True
        )
        return int(sum(one.count_nonzero() for one in found if one is not None))

    with encoder.running(gradients=True):
        try:
            for one in weights:
                one.requires_grad_(True)
            whole, *touched = map(
                count, [circuits[0].nothing().complement(), *circuits]
            )
        finally:
            for one in weights:
                one.requires_grad_(False)
    return tuple(one / whole for one in touched) if whole else ()
