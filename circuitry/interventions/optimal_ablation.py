"""Optimal ablation: ablated units are set to constants that change the model's answers as little as possible.

If all ablated units are at their means, the kept units may get inputs that never occur in the whole model. Optimal
ablation (Li and Janson 2024, arXiv 2409.09951) chooses constants a for a circuit C, the same for all images:

    Delta_opt(C) = min over a of the mean over images of L(M_C(x; a), M(x)),    never above the cost at the mean

Here M is the whole model, and M_C(x; a) is the circuit alone, with all other units at a. L is the loss that is also
used to learn masks: the share of the variance of the model's answers that is lost. Each unit has one constant, which is
added to the unit's baseline at all positions. The label is ignored, so images of any class can be used to fit the
constants. Constants are measured in standard deviations of their unit. Their mean square, times `SHRINKAGE`, is added
to the loss; this draws the constants towards the baseline.

Constants are fitted after the circuit is found, and the circuit does not change. This works in the same way for
circuits of every method. Constants can make a circuit look better than it is. Results should therefore be measured on
unseen images, next to random units with constants of their own.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from circuitry.circuits.asked_alike import check_made_with
from circuitry.circuits.graph import Circuit
from circuitry.encoder.baselines import Baseline, Counterfactual
from circuitry.encoder.doubles import in_double
from circuitry.encoder.task import Task, with_others
from circuitry.gates.fisher import default_answers, variance_of
from circuitry.gates.images_under_gates import UnitsUnderGates
from circuitry.gates.patches import mark_kept
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError

OPTIMAL = "optimal"
"""The name of the baseline."""
STEPS = 40
"""The number of steps of Adam."""
BATCH = 8
"""The number of images in each step."""
RATE = 0.1
"""The learning rate, in standard deviations of a unit."""
SHRINKAGE = 0.1
"""The weight of the mean square of the constants, which is added to the loss."""


@checked
def optimal_baseline(task: Task, circuit: Circuit) -> Baseline:
    """Return a baseline that adds a constant to each unit outside a circuit, so that the model's answers change least.

    Args:
        task: The images to fit the constants on, both of the class and of other classes. Constants are added to the
            baseline of the task, which must be the same for all images.
        circuit: A circuit of units. Constants are fitted for the units outside the circuit, at the circuit's sites.

    Returns:
        A baseline named ``optimal``, to run this circuit alone. If the fitted constants do not lower the cost on the
        images of the task, the baseline has the same values as the baseline of the task.

    Raises:
        InputError: for a circuit of edges, for a baseline of counterfactual images or with an activation for every
            image, and if the answers are the same for all images.

    Example:
        >>> circuit = circuitry.find_circuit(task, size=0.3)
        >>> best = optimal_baseline(task, circuit)
        >>> unseen = circuitry.Task(encoder, images, metric, others=others, baseline=best)
        >>> curve = measure_circuits(unseen, [circuit])
    """
    if (
        circuit.edges is not None
        or isinstance(task.baseline, Counterfactual)
        or task.baseline.n_images is not None
    ):
        raise InputError(
            "Constants belong to units, and are added to one baseline for all images, but a circuit of edges or a "
            "baseline for every image was given: give circuit.units and a mean baseline."
        )
    sites = tuple(site for site in task.encoder.sites if site in circuit.units)
    with task.running(gradients=True):
        check_made_with(task, [circuit.source])
        at_sites = replace(task, sites=sites)
        runs = UnitsUnderGates(at_sites, keep_error=circuit.keep_error)
        answers = default_answers(task.metric)
        # The answers of the whole model, which the constants should preserve.
        target = answers(runs.embeddings).detach()
        variance = variance_of(target)
        kept = dict[str, np.ndarray]()
        for site in sites:
            n_units = circuit.source.n_units(site)
            kept[site] = mark_kept(circuit.units[site], n_units, site)
        # Vectors over the units of all sites: gates are 1 for the circuit's units.
        spread = runs.flat(_spreads(task, sites)).to(runs.embeddings)
        gates = runs.flat(kept).to(spread)

        def lost(shift: Tensor, images: Tensor) -> Tensor:
            shifted = answers(runs.run(gates, images, shift))
            return (shifted - target[images]).square().sum(1).mean() / variance

        def cost(shift: Tensor) -> float:
            """Return the mean loss over all images."""
            total = 0.0
            with torch.no_grad():
                for images in torch.split(torch.arange(len(runs)), runs.rows):
                    total += float(lost(shift, images)) * len(images)
            return total / len(runs)

        # Constants are measured in standard deviations, so that one learning rate suits all units.
        scaled = torch.zeros_like(gates).requires_grad_()
        descent = torch.optim.Adam([scaled], RATE)
        generator = torch.Generator().manual_seed(0)
        for _ in range(STEPS):
            chosen = torch.randperm(len(runs), generator=generator)[:BATCH]
            loss = lost(spread * scaled, chosen) + SHRINKAGE * scaled.square().mean()
            scaled.grad = torch.autograd.grad(loss, [scaled])[0]
            descent.step()
        shift = (spread * scaled).detach() * (1 - gates)
        # Each step sees only a few images. If the constants do not lower the cost over all images, they are dropped.
        if cost(shift) >= cost(torch.zeros_like(shift)):
            shift = torch.zeros_like(shift)
        values = dict[str, Tensor]()
        for site, end in runs.shifted(shift).items():
            values[site] = end.detach().clone()
    for site, past in task.encoder.carried.items():
        # Activations that a site carries past its units are never ablated, so they have no baseline.
        if site in values:
            unit_dim = task.encoder.unit_dim(site)
            values[site].narrow(unit_dim, past.start, len(past)).zero_()
    return Baseline(OPTIMAL, dict(task.baseline.values) | values)


def _spreads(task: Task, sites: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the standard deviation of each unit over all images and positions, by site."""
    # By site an array [3, units]: the number of values, their sum, and the sum of their squares. In double precision,
    # because the variance is the difference of two nearly equal numbers.
    moments = dict[str, Tensor]()
    encoder = task.encoder
    together, _ = with_others(task)
    for batch in together.batches():
        for site, activation in batch.clean(sites).items():
            units = in_double(encoder.units_of(site, activation))
            x = units.movedim(encoder.unit_dim(site), 0).flatten(1)
            sums = [torch.ones_like(x).sum(1), x.sum(1), x.square().sum(1)]
            moments[site] = moments.get(site, 0) + torch.stack(sums)
    spreads = dict[str, np.ndarray]()
    for site, (n, first, second) in moments.items():
        variance = second / n - (first / n).square()
        # Rounding may leave the variance of a constant unit below zero.
        spreads[site] = variance.clamp(min=0).sqrt().cpu().numpy()
    return spreads
