"""The share of a tower's weights that a circuit touches: a size that is comparable between kinds of units."""

from collections.abc import Sequence

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
    for circuit in circuits:
        if circuit.edges is not None or not set(circuit.units) <= set(encoder.sites):
            return ()
    # Biases are left out: a bias acts whatever its unit reads.
    weights = list[Tensor]()
    for parameter in encoder.tower.parameters():
        if parameter.dim() > 1 and parameter.is_floating_point():
            weights.append(parameter)
    if not weights or any(
        weight.is_inference() or weight.is_meta for weight in weights
    ):
        return ()
    images = next(task.batches(IMAGES_SHOWN)).images

    def count(circuit: Circuit) -> int:
        """Return how many weights a circuit touches."""
        with patched(encoder, ablate_all_but(encoder, circuit)):
            embeddings = encoder(images)
        # A random direction: in a fixed one, gradients of two outputs may cancel.
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(embeddings.shape, generator=generator).to(embeddings)
        if not embeddings.requires_grad:  # no weight takes part
            return 0
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
            embeddings, weights, direction, allow_unused=True
        )
        touched = 0
        for gradient in gradients:
            if gradient is not None:
                touched += int(gradient.count_nonzero())
        return touched

    with encoder.running(gradients=True):
        # Parameters of an encoder are frozen; they are frozen again even if a run fails.
        try:
            for weight in weights:
                weight.requires_grad_(True)
            of_model = count(circuits[0].nothing().complement())
            of_circuits = [count(circuit) for circuit in circuits]
        finally:
            for weight in weights:
                weight.requires_grad_(False)
    if not of_model:
        return ()
    return tuple(touched / of_model for touched in of_circuits)
