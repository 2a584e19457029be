"""Gates on edges: each edge is kept, cut, or mixed with what its upstream unit has at the baseline.

A downstream unit reads its own mixture of upstream activations and baselines. Which way edges run depends on the
encoder:

- in a chain an edge leads to the next site, and past sites that carry a stream past their units (`joined_sites`).
  Each downstream unit has a run of its own from the first site with a cut edge to it: at every site up to its own,
  units whose edge to it is cut have the baseline's activation, and the others the activation that all readers see;
  only what is carried goes on. So an edge is the direct path, and none of its effect passes units in between;
- in heads and neurons that add up an edge leads to any later site, through the residual stream, and every reader has
  its own stream (`circuitry.bases.gated_stream`), which takes no run. The names of sites may also be the names that
  `attribute_components` gives to layers of heads and whole MLPs.

With all edges kept this is the clean run; with all edges cut, the output on the baseline. A unit without kept outgoing
edges has no effect. (Path patching, Goldowsky-Dill et al. 2023, arXiv 2304.05969; edges as in ACDC, Conmy et al. 2023,
arXiv 2304.14997.)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitry.bases.gated_reading import Gates, joined_sites, read_paths, read_through
from circuitry.bases.gated_stream import run_gated
from circuitry.bases.residual import ResidualStream, in_stream
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import rows_that_fit
from circuitry.gates.edges import Edges, Pair
from circuitry.runs.errors import InputError

EdgeMasks = Mapping[Pair, Bool[np.ndarray, "_ _"]]
"""Kept edges as booleans [all units downstream, all units upstream] by pair of sites, see `Edges.masks`; all edges of
other pairs are kept."""
EdgeGates = Mapping[Pair, Gates]
"""Gates [down, up] by pair of sites: booleans or real numbers; without any, edges are open."""


@dataclass(frozen=True, eq=False)
class GatedEdges:
    """An encoder with gates on edges."""

    rows: int
    """Images that a run may take."""
    sites: tuple[str, ...]
    """The sites whose activations and baselines are read; runs start at the first."""
    sizes: Mapping[str, int]
    """Number of units by site, error units included, in the order of the encoder."""
    reads: Callable[[str, str], bool]
    """Whether edges lead from one site to another."""
    embeddings: Callable[
        [Tensor, Mapping[str, Tensor], EdgeGates, int], Float[Tensor, "b d"]
    ]
    """Returns the embeddings, given the activations at the first site, the baselines, the gates, and how many rows of
    gates a run takes at once."""

    @property
    def start(self) -> str:
        """The site where runs start."""
        return self.sites[0]

    def run(
        self, start: Tensor, ends: Mapping[str, Tensor], gates: EdgeGates
    ) -> Float[Tensor, "1 b d"]:
        """Return the embeddings, given the activations at the first site and the baselines."""
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
        # Each different row of gates is one more copy of all images.
        at_once = max(1, self.rows // len(start))
        return self.embeddings(start, ends, gates, at_once)[None]

    def size(self, site: str) -> int:
        """Return the number of units of a site."""
        if site not in self.sizes:
            raise InputError(
                f"There is no site {site!r} between which edges run; they are {', '.join(self.sizes)}."
            )
        return self.sizes[site]

    def masks(self, circuit: Edges | EdgeMasks) -> EdgeMasks:
        """Return the kept edges as masks over all units."""
        if not isinstance(circuit, Edges):
            return circuit
        return circuit.masks({site: self.size(site) for site in circuit.units})

    def stacks(
        self,
        circuits: Sequence[Edges | EdgeMasks],
        clean: Mapping[str, Tensor],
        at_once: int,
    ) -> tuple[Iterator[EdgeGates], list[int]]:
        """Return the gates of each circuit, and the number of each circuit in these; see `GatedUnits.stacks`."""
        device = clean[self.start].device
        # A generator: the masks of one circuit are on the device at a time.
        gates = (gates_of_masks(self.masks(circuit), device) for circuit in circuits)
        return gates, list(range(len(circuits)))


def gated_edges_of(task: Task, pairs: Iterable[Pair]) -> GatedEdges:
    """Return a task's encoder with gates on the edges between some pairs of sites."""
    encoder = task.encoder
    pairs = list(pairs)
    rows = rows_that_fit(encoder, task.work.memory_gib)
    if in_stream(encoder):
        stream = ResidualStream.of(encoder)
        # Every block holds a stream for each reader, so a run takes more memory by the number of blocks.
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
    """Return an encoder with gates on the edges between some sites that follow each other."""
    # The sizes of sites are known from a run alone.
    activations = encoder.read_unhooked(encoder.blank(), sites)
    sizes = dict[str, int]()
    for site in sites:
        sizes[site] = encoder.n_units(site, activations[site])
    joined = set(joined_sites(encoder, sites))
    return GatedEdges(
        rows,
        tuple(sites),
        sizes,
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
    """Return the embeddings, site by site from the activation of the first."""
    earlier = {sites[0]: x}
    for up, down in pairwise(sites):
        into = dict[str, Gates]()
        for site in earlier:
            gate = gates.get((site, down))
            # Where every edge is open, the clean run is the answer, and the cheaper one.
            if gate is not None and not (gate.dtype == torch.bool and gate.all()):
                into[site] = gate
        # A site that carries a stream needs the run for it, though its units are read by their own paths.
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
    """Return the units of a site under gates on those of sites before."""

    def read(rows: Tensor) -> Tensor:
        of_rows = {site: gate[rows] for site, gate in into.items()}
        # The paths go on behind the site, at the price of a stage each: stop at it.
        for site, units in read_paths(encoder, earlier, ends, of_rows):
            if site == down:
                return units
        raise AssertionError(f"no path leads to {down}")

    return read_through(list(into.values()), read, encoder.unit_dim(down), at_once)


def gates_of_masks(masks: EdgeMasks, device: torch.device) -> EdgeGates:
    """Return masks of edges as gates of true and false on a device."""
    return {pair: torch.from_numpy(mask).to(device) for pair, mask in masks.items()}
