"""Runs in which a circuit is kept and everything else is at the baseline.

Circuits of units are stacked, as many in a run as memory allows; how gates act is in `circuitry.gates`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitry.circuits.asked_alike import check_made_with
from circuitry.circuits.graph import Circuit, Scores
from circuitry.encoder.baselines import (
    AnyBaseline,
    Baseline,
    Counterfactual,
    as_baseline,
)
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import count_batches
from circuitry.gates.edge_gates import (
    EdgeMasks,
    GatedEdges,
    gated_chain,
    gated_edges_of,
)
from circuitry.gates.edges import Pair
from circuitry.gates.patches import Chosen, Patch, mark_kept
from circuitry.gates.unit_gates import GatedUnits, gate_units
from circuitry.runs.arguments import SOME, checked
from circuitry.runs.errors import InputError
from circuitry.runs.identity import OF_TOWER


@checked
def kept_embeddings(
    task: Task, circuits: Annotated[Sequence[Circuit], SOME]
) -> Float[Tensor, "circuits images d"]:
    """Return the embeddings of a task's images with only each circuit's units, or edges, kept.

    Args:
        circuits: All of units; or all of edges, between the same sites.

    Raises:
        InputError: for no circuits or images, unknown sites or units, edges between other sites, or a baseline that
            does not fit the images.

    Example:
        >>> kept_embeddings(task, [graph.circuit(3)]).shape    # its edges
        torch.Size([1, 4, ...])
        >>> of_units = kept_embeddings(task, [graph.circuit(None), circuit_of(task, {"layer4.0": [3, 5]})])
        >>> metric(of_units[0]).shape
        torch.Size([4])
    """
    sources = [circuit.source for circuit in circuits]
    check_made_with(task, sources, (*OF_TOWER, "stages", "basis"))
    # The pairs of sites that edges run between; None for a circuit of units.
    kinds = set[frozenset[Pair] | None]()
    for circuit in circuits:
        kinds.add(None if circuit.edges is None else frozenset(circuit.edges.scores))
    if len(kinds) > 1:
        raise InputError(
            f"Circuits of edges run between the same sites, but {len(kinds)} kinds were given."
        )
    pairs = kinds.pop()
    if pairs is None:
        sites = dict.fromkeys(chain.from_iterable(c.units for c in circuits))
        units = [units_with_errors(circuit) for circuit in circuits]
        return _embeddings(task, GatedUnits.of(task, list(sites)), units)
    gated = gated_edges_of(task, pairs)
    masks = [edge_masks(gated, circuit) for circuit in circuits]
    return _embeddings(task, gated, masks)


def _embeddings(
    task: Task, gated: GatedUnits | GatedEdges, kept: Sequence[Any]
) -> Float[Tensor, "circuits images d"]:
    """Return the embeddings of a task's images, batch by batch, with only some units or edges kept."""
    of_batches = list[Tensor]()
    n_batches = count_batches(task.images, gated.rows)
    with task.running(), task.bar("circuits", "circuit") as bar:
        for batch in task.batches(gated.rows):
            # Batches are the outer loop: the clean run of a batch serves all circuits.
            clean = batch.clean([gated.start, *gated.sites])
            ends = batch.ends({site: clean[site] for site in gated.sites})
            # A run has a row for each image under each circuit of a stack.
            at_once = max(1, gated.rows // len(batch.images))
            # Equal circuits are run once: `which` is the place of each among the different ones.
            stacks, which = gated.stacks(kept, clean, at_once)
            if n_batches:  # unknown for images that are read as they are needed
                bar.total = (1 + max(which)) * n_batches
            embeddings = list[Tensor]()
            gates: Any
            for gates in stacks:
                embeddings.append(gated.run(clean[gated.start], ends, gates))
                bar.update(len(embeddings[-1]))
            of_batches.append(torch.cat(embeddings)[which])
    return torch.cat(of_batches, 1)


def edge_masks(gated: GatedEdges, circuit: Circuit) -> EdgeMasks:
    """Return the edges of a circuit as masks over all units, error units too."""
    masks = dict(gated.masks(circuit.its_edges))
    if not circuit.keep_error:
        return masks
    for (up, down), mask in masks.items():
        # Error units follow the nodes of a site: all edges from them and to them are kept.
        mask[:, len(circuit.source.node_scores[up]) :] = True
        mask[len(circuit.source.node_scores[down]) :] = True
    return masks


@checked
def circuit_of(task: Task, units: Mapping[str, Chosen]) -> Circuit:
    """Return the circuit of units that are chosen by hand; its source has no scores.

    Args:
        units: By site: numbers, or a boolean mask over all of them.

    Example:
        >>> strong = graph.node_scores["layer4.0"] > 0
        >>> by_hand = circuit_of(task, {"layer3.0": [0, 7], "layer4.0": strong})
        >>> by_hand.units["layer3.0"]
        array([0, 7])
    """
    encoder = task.encoder
    ordered = GatedUnits.of(task, list(units)).sites
    zeros = dict[str, np.ndarray]()
    of_errors = dict[str, np.ndarray]()
    chosen = dict[str, np.ndarray]()
    for site, size in gated_chain(encoder, ordered, rows=1).sizes.items():
        # Error units follow the nodes of a site; without a dictionary there are none.
        errors = encoder.error_units.get(site, range(size, size))
        zeros[site] = np.zeros(errors.start)
        of_errors[site] = np.zeros(len(errors))
        chosen[site] = np.flatnonzero(mark_kept(units[site], errors.start, site))
    source = Scores(ordered, zeros, {}, 1, error_scores=of_errors)
    return Circuit(source, chosen, made_with={"chosen": "by hand"})


def units_with_errors(circuit: Circuit) -> dict[str, np.ndarray]:
    """Return the numbers of a circuit's units by site, and behind them the numbers of the error units that it keeps."""
    source = circuit.source
    numbers = dict[str, np.ndarray]()
    for site, units in circuit.units.items():
        # Error units follow the nodes in the numbers of a site.
        n_nodes = len(source.node_scores[site])
        n_kept = source.n_units(site) if circuit.keep_error else n_nodes
        numbers[site] = np.append(units, np.arange(n_nodes, n_kept)).astype(np.int64)
    return numbers


def ablate_all_but(
    encoder: Encoder, circuit: Circuit, baseline: AnyBaseline = "zero"
) -> list[Patch]:
    """Return the patches that put everything outside a circuit to the baseline, at the circuit's sites.

    Args:
        baseline: One for all images, or one for every image of the runs within the block.

    Example:
        >>> from circuitry.gates import patched
        >>> with patched(encoder, ablate_all_but(encoder, circuit)):
        ...     alone = encoder(images)
    """
    values = as_baseline(baseline)
    if isinstance(values, Counterfactual):
        # Its activations are those of a clean run, so they are read before any patch is in place.
        values = Baseline(values.name, values.run(encoder, circuit.units))
    kept = units_with_errors(circuit)

    def write(site: str, activation: Tensor) -> Tensor:
        # The activation tells the number of units: a baseline of zeros has none.
        size = encoder.n_units(site, activation)
        gates = torch.from_numpy(mark_kept(kept[site], size, site))[None]
        end = values.at(site, activation)
        return gate_units(encoder, site, gates.to(activation.device), end, activation)

    return [Patch(site, partial(write, site)) for site in kept]
