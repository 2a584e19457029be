"""Gates on edges: a gate keeps an edge (1), cuts it (0), or does something in between.

A downstream unit reads a mixture of the activation and the baseline of each upstream unit. The gate of the edge sets
the mixture: the activation if the edge is kept, the baseline if it is cut. Which sites are joined by edges depends on
the encoder. There are two kinds of encoders:

- In most encoders the sites form a chain, and edges join a site to the next site. Some sites also carry a residual
  stream, which passes by their units. Edges then also join a site to later sites that read this stream
  (`joined_sites`). Each downstream unit is computed in a run of its own. In this run, upstream units whose edge to this
  unit is cut have their baseline. All other units at earlier sites keep the activation that they have for every
  downstream unit; they do not respond to the cut. Only the residual stream responds. So an edge is a direct path: no
  part of its effect passes through units of the sites in between.
- In some encoders the units are heads and neurons that add to the residual stream independently of each other. Edges
  then join a site to any later site through the stream. One run is enough, because every unit that reads the stream
  gets a copy of its own (`circuitry.bases.gated_stream`). Here a site can also be given by the name of a layer of heads
  or of a whole MLP, as in `attribute_components`.

If all edges are kept, the output is the output of the clean run. If all edges are cut, it is the output on the
baseline. A unit without kept outgoing edges has no effect. See path patching (Goldowsky-Dill et al. 2023, arXiv
2304.05969) and the edges of ACDC (Conmy et al. 2023, arXiv 2304.14997).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitry.bases.gated_reading import DirectPaths, Gates, joined_sites, read_through
from circuitry.bases.gated_stream import run_gated
from circuitry.bases.residual import ResidualStream, in_stream
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import rows_that_fit
from circuitry.gates.edges import Edges, Pair
from circuitry.runs.errors import InputError

EdgeMasks = Mapping[Pair, Bool[np.ndarray, "_ _"]]
"""Masks of the kept edges [all units downstream, all units upstream] by pair of sites, see `Edges.masks`.

All edges between a pair of sites that is not listed are kept.
"""
EdgeGates = Mapping[Pair, Gates]
"""Gates [down, up] by pair of sites, as booleans or real numbers.

All edges between a pair of sites that is not listed are open.
"""


@dataclass(frozen=True, eq=False)
class GatedEdges:
    """An encoder with gates on edges."""

    rows: int
    """Largest number of images in one run."""
    sites: tuple[str, ...]
    """The sites whose activations and baselines are needed. Runs start at the first of these sites."""
    sizes: Mapping[str, int]
    """Number of units by site, including error units, in the order of the encoder."""
    reads: Callable[[str, str], bool]
    """Function of two sites that returns whether edges lead from the first site to the second."""
    embeddings: Callable[
        [Tensor, Mapping[str, Tensor], EdgeGates, int], Float[Tensor, "b d"]
    ]
    """Function that returns the embeddings under gates.

    It takes the activations at the first site, the baselines by site, the gates, and the largest number of rows of
    gates in one run.
    """

    @property
    def start(self) -> str:
        """The site where runs start."""
        return self.sites[0]

    def run(
        self, start: Tensor, ends: Mapping[str, Tensor], gates: EdgeGates
    ) -> Float[Tensor, "1 b d"]:
        """Return the embeddings under gates on edges.

        Args:
            start: Activations of the images at the first site.
            ends: Baselines by site.
            gates: Gates by pair of sites.

        Returns:
            Embeddings [1, images, d]. The first axis is there to match `GatedUnits.run`.

        Raises:
            InputError: if no edges lead from one site of a pair to the other, or if gates have another shape.
        """
        for (up, down), gate in gates.items():
            n_down = self.size(down)
            n_up = self.size(up)
            if not self.reads(up, down):
                raise InputError(
                    f"Edges lead to a later site, but some from {up} to {down} were given."
                )
            if list(gate.shape) != [n_down, n_up]:
                raise InputError(
                    f"A mask of edges is [units downstream, units upstream], but that of {up}->{down} is "
                    f"{list(gate.shape)} where there are {n_down} and {n_up} units: take edges of a circuit of "
                    "this encoder."
                )
        # A run holds one copy of all images for each distinct row of gates.
        at_once = max(1, self.rows // len(start))
        return self.embeddings(start, ends, gates, at_once)[None]

    def size(self, site: str) -> int:
        """Return the number of units of a site; raise `InputError` if the site has no gates."""
        if site not in self.sizes:
            raise InputError(
                f"There is no site {site!r} between which edges run; they are {', '.join(self.sizes)}."
            )
        return self.sizes[site]

    def masks(self, circuit: Edges | EdgeMasks) -> EdgeMasks:
        """Return the edges of a circuit as masks over all units. If masks are given, they are returned unchanged."""
        if not isinstance(circuit, Edges):
            return circuit
        return circuit.masks({site: self.size(site) for site in circuit.units})

    def stacks(
        self,
        circuits: Sequence[Edges | EdgeMasks],
        clean: Mapping[str, Tensor],
        at_once: int,
    ) -> tuple[Iterator[EdgeGates], list[int]]:
        """Return an iterator over the gates of each circuit, one circuit after another, and the indices 0, 1, 2, ...

        The indices say where each circuit is in the iterator. They are returned to match `GatedUnits.stacks`.

        Args:
            circuits: The edges to keep, for each circuit.
            clean: Activations by site. The gates are put on their device.
            at_once: Ignored, because edges of only one circuit can be gated in a run.
        """
        device = clean[self.start].device
        # A generator is used, so that the masks of only one circuit are on the device at a time.
        gates = (gates_of_masks(self.masks(circuit), device) for circuit in circuits)
        return gates, list(range(len(circuits)))


def gated_edges_of(task: Task, pairs: Iterable[Pair]) -> GatedEdges:
    """Return the encoder of a task with gates on the edges between some pairs of sites.

    If edges lead through the residual stream (`in_stream`), ``pairs`` is ignored: there are gates on all edges.

    Args:
        task: The task.
        pairs: The pairs (upstream site, downstream site).

    Raises:
        InputError: if no pairs are given, or if no edges lead between the sites of a pair. This is not checked if
            edges lead through the residual stream.
    """
    encoder = task.encoder
    pairs = list(pairs)
    rows = rows_that_fit(encoder, task.work.memory_gib)
    if in_stream(encoder):
        stream = ResidualStream.of(encoder)
        # Every block holds a stream for each reader. So a run needs as many times more memory as there are blocks.
        rows = max(1, rows // len(stream.blocks))
        return GatedEdges(
            rows, stream.sites, stream.sizes, stream.reads, partial(run_gated, stream)
        )
    joined = joined_sites(encoder, encoder.sites)
    wrong = [f"{up}->{down}" for up, down in pairs if (up, down) not in joined]
    if wrong or not pairs:
        raise InputError(
            "Edges lead to the next site, or to a later one past sites that carry a stream, but "
            f"{', '.join(wrong) or 'none'} was given; the encoder's order is {', '.join(encoder.sites)}. Edges of "
            "heads, MLPs and hidden channels are those of in_components(encoder)."
        )
    positions = list(map(encoder.position, chain.from_iterable(pairs)))
    sites = encoder.sites[min(positions) : max(positions) + 1]
    return gated_chain(encoder, sites, rows)


def gated_chain(encoder: Encoder, sites: Sequence[str], rows: int) -> GatedEdges:
    """Return an encoder with gates on the edges between sites that form a chain.

    Edges join each site to the next site, and to later sites that read the same residual stream (`joined_sites`).

    Args:
        encoder: The encoder.
        sites: Sites of the encoder that follow each other without a gap.
        rows: Largest number of images in one run.
    """
    joined = set(joined_sites(encoder, sites))
    return GatedEdges(
        rows,
        tuple(sites),
        encoder.count_units(sites),
        lambda up, down: (up, down) in joined,
        partial(_run_chain, encoder, sites),
    )


def _run_chain(
    encoder: Encoder,
    sites: Sequence[str],
    x: Tensor,
    ends: Mapping[str, Tensor],
    gates: EdgeGates,
    at_once: int,
) -> Float[Tensor, "b d"]:
    """Return the embeddings under gates on edges. The sites are computed one after another.

    Args:
        encoder: The encoder.
        sites: Consecutive sites.
        x: Activation of the first site.
        ends: Baselines by site.
        gates: Gates by pair of sites.
        at_once: Largest number of rows of gates in one run.
    """
    earlier = {sites[0]: x}
    for up, down in pairwise(sites):
        into = dict[str, Gates]()
        for site in earlier:
            gate = gates.get((site, down))
            # If every edge is open, these gates change nothing, and a run without them is cheaper.
            if gate is not None and not (gate.dtype == torch.bool and gate.all()):
                into[site] = gate
        # If the site carries a stream, this run computes the stream. Its gated units are computed below.
        if not into or down in encoder.carried:
            x = encoder(x, start=up, stop=down)
        if into:
            units = _read_chain(encoder, earlier, ends, into, down, at_once)
            x = encoder.carry(down, units, x)
        earlier[down] = x
    embeddings: Tensor = encoder(x, start=sites[-1])
    return embeddings


def _read_chain(
    encoder: Encoder,
    earlier: Mapping[str, Tensor],
    ends: Mapping[str, Tensor],
    into: Mapping[str, Gates],
    down: str,
    at_once: int,
) -> Float[Tensor, "image ..."]:
    """Return the activation of a site's units, under gates on the edges that lead to these units.

    Args:
        encoder: The encoder.
        earlier: Activations of the earlier sites.
        ends: Baselines by site.
        into: Gates [down, up] by upstream site.
        down: The site.
        at_once: Largest number of rows of gates in one run.
    """

    # The sites in between are not computed, only what they carry.
    n_units = len(next(iter(into.values())))
    chosen = {down: torch.arange(n_units, device=encoder.device)}
    paths = DirectPaths(encoder, earlier, ends, chosen)

    def read(rows: Tensor) -> Tensor:
        of_rows = dict[str, Gates]()
        closed = dict[str, Tensor]()
        for site, gate in into.items():
            of_rows[site] = gate[rows]
            if gate.dtype == torch.bool:
                closed[site] = (~of_rows[site]).any(0).nonzero()[:, 0]
        # The paths would go on to later sites, and run a stage for each. So the loop ends at this site.
        for site, units in paths.read(of_rows, closed):
            if site == down:
                return units
        raise AssertionError(f"no path leads to {down}")

    return read_through(list(into.values()), read, encoder.unit_dim(down), at_once)


def gates_of_masks(masks: EdgeMasks, device: torch.device) -> EdgeGates:
    """Return masks of edges as boolean gates on a device."""
    return {pair: torch.from_numpy(mask).to(device) for pair, mask in masks.items()}
