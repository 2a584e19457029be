"""Runs in which a circuit is kept and everything else is at the baseline.

Circuits of units are stacked: a run holds as many of them as memory allows. How gates act is described in
`circuitry.gates`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitry.circuits.asked_alike import check_made_with
from circuitry.circuits.graph import Circuit, Scores
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import count_batches, rows_that_fit
from circuitry.gates.edge_gates import (
    EdgeMasks,
    GatedEdges,
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
        task: The encoder, the images, and the baseline of everything outside the circuits.
        circuits: Circuits to keep, one at a time. They are either all sets of units, or all sets of edges between the
            same sites. (``graph.circuit(None)`` is a circuit of units, ``graph.circuit(3)`` a circuit of edges.)

    Returns:
        Embeddings [circuits, images, d], in the order of ``circuits``.

    Raises:
        InputError: if there are no circuits or no images, for unknown sites or units, if the circuits have edges
            between different sites, and for a baseline that does not fit the images.

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
        of_units = GatedUnits.of(task, list(sites))
        return _embeddings(task, of_units, partial(of_units.stacks, units))
    gated = gated_edges_of(task, pairs)
    masks = [edge_masks(gated, circuit) for circuit in circuits]
    return _embeddings(task, gated, partial(gated.stacks, masks))


def ablated_embeddings(
    task: Task, ablated: Sequence[Mapping[str, np.ndarray]]
) -> Float[Tensor, "sets images d"]:
    """Return the embeddings of a task's images with each of several sets of units ablated, and all other units kept.

    Args:
        task: The encoder, the images, and the baseline of ablated units.
        ablated: Sets of units to ablate, one at a time: indices by site. An empty set is a run of the whole model.
    """
    gated = GatedUnits.of(task, list(chain.from_iterable(ablated)))
    n_units = task.encoder.count_units(gated.sites)
    kept = list[dict[str, np.ndarray]]()
    for units in ablated:
        masks = dict[str, np.ndarray]()
        for site, of_site in units.items():
            masks[site] = ~mark_kept(of_site, n_units[site], site)
        kept.append(masks)
    return _embeddings(task, gated, partial(gated.stacks, kept))


def _embeddings(
    task: Task,
    gated: GatedUnits | GatedEdges,
    stacks: Callable[[Mapping[str, Tensor], int], tuple[Iterator[Any], list[int]]],
) -> Float[Tensor, "circuits images d"]:
    """Return the embeddings of a task's images under the gates of each circuit.

    Args:
        task: The task.
        gated: The encoder of the task, with gates on units or on edges.
        stacks: Takes activations by site, and the largest number of circuits in a run. Returns the gates of each run,
            and for each circuit the index of its row if all runs are joined; see `GatedUnits.stacks`.
    """
    of_batches = list[Tensor]()
    n_batches = count_batches(task.images, gated.rows)
    with task.running(), task.bar("circuits", "circuit") as bar:
        for batch in task.batches(gated.rows):
            # Batches are the outer loop, so that the clean run of a batch is used for all circuits.
            clean = batch.clean([gated.start, *gated.sites])
            ends = batch.ends({site: clean[site] for site in gated.sites})
            # A run has one row for each image and each circuit of a stack. Nothing is kept for gradients.
            rows = rows_that_fit(task.encoder, task.work.memory_gib, gradients=False)
            at_once = max(1, rows // len(batch.images))
            # Equal circuits are run once: `which` has the index of each circuit among the different circuits.
            runs, which = stacks(clean, at_once)
            if n_batches:  # unknown if counting would read all images
                bar.total = (1 + max(which)) * n_batches
            embeddings = list[Tensor]()
            gates: Any
            for gates in runs:
                embeddings.append(gated.run(clean[gated.start], ends, gates))
                bar.update(len(embeddings[-1]))
            of_batches.append(torch.cat(embeddings)[which])
    return torch.cat(of_batches, 1)


def edge_masks(gated: GatedEdges, circuit: Circuit) -> EdgeMasks:
    """Return the edges of a circuit as masks over all units, including error units.

    If the circuit keeps its error units (``keep_error``), the masks keep all edges from and to these units.
    """
    masks = dict(gated.masks(circuit.its_edges))
    if not circuit.keep_error:
        return masks
    for (up, down), mask in masks.items():
        # The error units of a site follow its nodes: all edges from error units and to error units are kept.
        mask[:, len(circuit.source.node_scores[up]) :] = True
        mask[len(circuit.source.node_scores[down]) :] = True
    return masks


@checked
def circuit_of(task: Task, units: Mapping[str, Chosen]) -> Circuit:
    """Return a circuit of units that are chosen by hand.

    All scores of its ``source`` are zero, because no method has scored the units.

    Args:
        task: The task whose encoder has the units.
        units: The units of each site: indices, or a boolean mask over all units of the site.

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
    for site, size in encoder.count_units(ordered).items():
        # The error units of a site follow its nodes; only a site in a feature basis has error units.
        errors = encoder.error_units.get(site, range(size, size))
        zeros[site] = np.zeros(errors.start)
        of_errors[site] = np.zeros(len(errors))
        chosen[site] = np.flatnonzero(mark_kept(units[site], errors.start, site))
    source = Scores(ordered, zeros, {}, 1, error_scores=of_errors)
    return Circuit(source, chosen, made_with={"chosen": "by hand"})


def units_with_errors(circuit: Circuit) -> dict[str, np.ndarray]:
    """Return the indices of the units that are kept when a circuit is run, by site.

    The indices of the circuit's units come first. Error units hold what the features of a basis do not reconstruct. If
    the circuit keeps error units (``keep_error``), the indices of all error units of the site follow.
    """
    source = circuit.source
    numbers = dict[str, np.ndarray]()
    for site, units in circuit.units.items():
        # The indices of a site's error units follow the indices of its nodes.
        n_nodes = len(source.node_scores[site])
        n_kept = source.n_units(site) if circuit.keep_error else n_nodes
        numbers[site] = np.append(units, np.arange(n_nodes, n_kept)).astype(np.int64)
    return numbers


def ablate_all_but(encoder: Encoder, circuit: Circuit) -> list[Patch]:
    """Return the patches that set everything outside a circuit to zero, at the circuit's sites.

    For another baseline, see `kept_embeddings`.

    Args:
        encoder: The encoder that the patches are for.
        circuit: The circuit whose units are kept.

    Example:
        >>> from circuitry.gates import patched
        >>> with patched(encoder, ablate_all_but(encoder, circuit)):
        ...     alone = encoder(images)
    """
    kept = units_with_errors(circuit)

    def write(site: str, activation: Tensor) -> Tensor:
        size = encoder.n_units(site, activation)
        gates = torch.from_numpy(mark_kept(kept[site], size, site))[None]
        end = torch.zeros_like(activation)
        return gate_units(encoder, site, gates.to(activation.device), end, activation)

    return [Patch(site, partial(write, site)) for site in kept]
