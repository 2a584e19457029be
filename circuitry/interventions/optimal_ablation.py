"""Optimal ablation: an ablated unit is put to the constant that costs the model's answers least.

At the mean of the ablated units, a circuit's own units read inputs that they may never have seen. Optimal ablation (Li
and Janson 2024, arXiv 2409.09951) chooses constants a for a circuit C, the same for all images:

    Delta_opt(C) = min over a of the mean over images of L(M_C(x; a), M(x)),    never above the cost at the mean

Here L is the loss of masks, the share of the variance of the model's answers that is lost, and each unit has one
constant on top of its baseline at all positions. The label plays no part, so images of any class fit them. Constants in
the unit of a unit's spread pay `SHRINKAGE` times their mean square, which draws them to the baseline.

Constants are fitted with the circuit fixed, after it is found, for circuits of every method alike. They can make a
circuit look better than it is: they are read on unseen images, beside random units with constants of their own.
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
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked

OPTIMAL = "optimal"
"""Name of the baseline."""
STEPS, BATCH, RATE = 40, 8, 0.1
"""Steps of Adam, images of each, and its learning rate in the unit of a unit's spread."""
SHRINKAGE = 0.1
"""Weight of the mean square of the constants beside the loss."""


@checked
def optimal_baseline(task: Task, circuit: Circuit) -> Baseline:
    """Return a baseline with the constants of the units outside a circuit that keep the model's answers best.

    Args:
        task: Images that fit the constants, of its class and others, and the baseline that they are added to, which is
            one for all images.
        circuit: A circuit of units; constants belong to units at its sites.

    Returns:
        A baseline named ``optimal`` for runs with this circuit alone. Where no constants cost less on the images of the
        task, it has the task's values.

    Raises:
        InputError: for a circuit of edges, a baseline of counterfactual images, or answers that are the same for all
            images.

    Example:
        >>> circuit = find_circuit(seen, size=0.3)
        >>> best = dataclasses.replace(unseen, baseline=optimal_baseline(seen, circuit))
        >>> measure_circuits(best, [circuit]).to_pandas("selectivity")
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
        runs, answers = (
            UnitsUnderGates(replace(task, sites=sites), keep_error=circuit.keep_error),
            default_answers(task.metric),
        )
        target = answers(runs.embeddings).detach()
        variance = variance_of(target)
        spread = runs.flat(_spreads(task, sites)).to(runs.embeddings)
        sizes = {site: circuit.source.n_units(site) for site in sites}
        gates = runs.flat(
            {site: mark_kept(circuit.units[site], n, site) for site, n in sizes.items()}
        ).to(spread)

        def lost(shift: Tensor, chosen: Tensor) -> Tensor:
            found = answers(runs.run(gates, chosen, shift))
            return (found - target[chosen]).square().sum(1).mean() / variance

        def cost(shift: Tensor) -> float:
            """Return what is lost over all images."""
            with torch.no_grad():
                parts = torch.split(torch.arange(len(runs)), runs.rows)
                return sum(
                    float(lost(shift, part)) * len(part) for part in parts
                ) / len(runs)

        scaled = torch.zeros_like(gates).requires_grad_()
        descent, generator = (
            torch.optim.Adam([scaled], RATE),
            torch.Generator().manual_seed(0),
        )
        for _ in range(STEPS):
            chosen = torch.randperm(len(runs), generator=generator)[:BATCH]
            loss = lost(spread * scaled, chosen) + SHRINKAGE * scaled.square().mean()
            scaled.grad = torch.autograd.grad(loss, [scaled])[0]
            descent.step()
        shift = (spread * scaled).detach() * (1 - gates)
        if cost(shift) >= cost(torch.zeros_like(shift)):
            shift = torch.zeros_like(shift)
        values = {
            site: end.detach().clone() for site, end in runs.shifted(shift).items()
        }
    for site, past in task.encoder.carried.items():  # what is carried has no baseline
        if site in values:
            values[site].narrow(
                task.encoder.unit_dim(site), past.start, len(past)
            ).zero_()
    return Baseline(OPTIMAL, dict(task.baseline.values) | values)


def _spreads(task: Task, sites: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the standard deviation of each unit over all images and positions."""
    moments, encoder = dict[str, Tensor](), task.encoder
    for batch in with_others(task)[0].batches():
        for site, activation in batch.clean(sites).items():
            x = (
                in_double(encoder.units_of(site, activation))
                .movedim(encoder.unit_dim(site), 0)
                .flatten(1)
            )
            ones = torch.ones_like(x).sum(1)
            moments[site] = moments.get(site, 0) + torch.stack(
                [ones, x.sum(1), x.square().sum(1)]
            )
    found = {}
    for site, (n, first, second) in moments.items():
        found[site] = (
            (second / n - (first / n).square()).clamp(min=0).sqrt().cpu().numpy()
        )
    return found
