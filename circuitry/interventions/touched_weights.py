"""The share of a tower's weights that a circuit uses: a size that can be compared between kinds of units."""

from collections.abc import Sequence

import torch
from torch import Tensor

from circuitry.circuits.graph import Circuit
from circuitry.encoder.task import Task
from circuitry.gates.patches import patched
from circuitry.interventions.kept_circuits import ablate_all_but
from circuitry.runs.plan import Forwards

IMAGES_SHOWN = 2
"""The number of images that are run to find the weights on which the embeddings depend."""


def touched_forwards(n_circuits: int) -> Forwards:
    """Return what `weights_touched` runs."""
    n_runs = IMAGES_SHOWN * (1 + n_circuits)
    # Here the weights take gradients, too, which costs as much as another run forward.
    return Forwards(alone=n_runs, back=n_runs)


def weights_touched(task: Task, circuits: Sequence[Circuit]) -> tuple[float, ...]:
    """Return how many weights each circuit touches, as a share of the weights that the whole model touches.

    A weight is an entry of a parameter with at least two axes: of a convolution, a linear layer or an embedding. A
    circuit touches a weight if the embeddings of two images depend on the weight while all units outside the circuit,
    at the circuit's sites, are 0. To measure this, the embeddings are projected on a random direction, and the gradient
    of the projection with respect to the weight must not be 0. So a weight usually counts only if both its input unit
    and its output unit are kept. There is an exception: layer norms and position embeddings turn zeros into other
    numbers, so a weight that follows one of them counts even if its input unit is not kept.

    Args:
        task: The encoder and images; the first images are used.
        circuits: The circuits of units.

    Returns:
        A share for each circuit. The tuple is empty if a circuit has edges or units at unknown sites, or if PyTorch
        cannot compute gradients with respect to the tower's weights.

    Example:
        >>> curve = faithfulness_curve(task, graph, AblationSettings(sizes=(0.2, 1.0)))
        >>> touched = weights_touched(task, [graph.strongest(share) for share in curve.sizes])
        >>> touched[-1]
        1.0
    """
    encoder = task.encoder
    for circuit in circuits:
        if circuit.edges is not None or not set(circuit.units) <= set(encoder.sites):
            return ()
    # Biases are left out, because a bias acts whatever its unit reads.
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
        # The direction is random, because in a fixed direction the gradients of two outputs may cancel.
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
