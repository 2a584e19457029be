"""How edges run in an encoder: along its chain of sites, or through the residual stream. See `edge_runs`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from circuitry.interventions.circuit_sets import KeptUnits, mark_kept
from circuitry.interventions.edge_sets import EdgeSet, Pair
from circuitry.models.batches import rows_that_fit
from circuitry.models.encoder import Encoder
from circuitry.models.gated_reading import Gates, mixed, read_through
from circuitry.models.residual import ResidualStream, in_stream
from circuitry.models.stream_parts import PORTS
from circuitry.models.stream_run import run_gated
from circuitry.runs.errors import InputError

EdgeGates = Mapping[Pair, Gates]
"""Gates [down, up] by pair of sites."""


@dataclass(frozen=True, eq=False)
class Chain:
    """Sites that follow each other: edges lead to the next one.

    What a site carries past its units, as heads and neurons do whose edges do not run in the stream, no edge cuts: it
    goes on as this run makes it, so that all edges past the next site are open.
    """

    encoder: Encoder
    sites: tuple[str, ...]

    def rows(self, memory_gib: float) -> int:
        """Return how many images a run may take."""
        return rows_that_fit(self.encoder, memory_gib)

    def run(self, start: Tensor, ends: Mapping[str, Tensor], gates: EdgeGates, rows: int) -> Tensor:
        """Return the embeddings, given the activations at the first site and the baselines."""
        for pair in pairwise(self.sites):
            start = self._stage(start, ends[pair[0]], gates[pair], pair, rows)
        found: Tensor = self.encoder(start, start=self.sites[-1])
        return found

    def _stage(self, x: Tensor, end: Tensor, gates: Gates, pair: Pair, rows: int) -> Tensor:
        """Return the activation downstream of ``x`` under gates on its units; what is carried past them goes on."""
        (up, down), encoder = pair, self.encoder
        units, end, dim = encoder.units_of(up, x), encoder.units_of(up, end), encoder.unit_dim(up) % x.dim()
        if gates.shape[1] != units.shape[dim]:
            raise InputError(
                f"A mask of edges is [units downstream, units upstream], but that of {up}->{down} is "
                f"{list(gates.shape)} and {up!r} has {units.shape[dim]} units: take edges of a circuit of this encoder."
            )
        if gates.dtype == torch.bool and gates.all():
            whole: Tensor = encoder(x, start=up, stop=down)
            return whole

        def read(some: Gates) -> Tensor:
            shape = [len(some), *[1] * x.dim()]
            shape[dim + 1] = -1
            stack = mixed(some.reshape(shape), units, end).flatten(0, 1)
            if up in encoder.carried:
                stack = encoder.carry(up, stack, x.repeat(len(some), *[1] * (x.dim() - 1)))
            found = encoder.units_of(down, encoder(stack, start=up, stop=down))
            return rearrange(found, "(row image) ... -> row image ...", row=len(some))

        found = read_through(gates, read, encoder.unit_dim(down), max(1, rows // len(x)))
        return encoder.carry(down, found, encoder(x, start=up, stop=down)) if down in encoder.carried else found


class _Place(NamedTuple):
    """Where a site of a graph lies in the residual stream; see `circuitry.models.stream_run`."""

    place: int
    n_units: int | None
    """None where it is not known before a run."""
    port: int | None = None


@dataclass(frozen=True, eq=False)
class Stream:
    """Sites of heads and neurons, or of heads and whole MLPs as a `stream_graph` names them: edges lead to any later.

    An edge from a port to its head, as in a graph of ports apart, stands for all edges into that port.
    """

    stream: ResidualStream

    @property
    def encoder(self) -> Encoder:
        """The encoder that has activations and baselines."""
        return self.stream.components

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites whose activations are read."""
        return self.stream.sites

    def rows(self, memory_gib: float) -> int:
        """Return how many images a run may take, whose readers have streams of their own."""
        return max(1, rows_that_fit(self.stream.components, memory_gib) // len(self.stream.blocks))

    def run(self, start: Tensor, ends: Mapping[str, Tensor], gates: EdgeGates, rows: int) -> Tensor:
        """Return the embeddings, given what stands before the first block, and the baselines."""
        return run_gated(self.stream, start, ends, self._by_place(gates), max(1, rows // len(start)))

    @cached_property
    def _places(self) -> dict[str, _Place]:
        blocks, sites = self.stream.blocks, self.stream.sites
        last = len(sites), self.stream.components.sites[-1]
        found = {"embed": _Place(0, 1), "embedding": _Place(last[0], 1)}
        found |= {sites[0]: _Place(0, blocks[0].width), last[1]: _Place(last[0], None)}
        for i, block in enumerate(blocks):
            heads, mlp = 2 * i + 1, 2 * i + 2
            found |= {name: _Place(heads, block.n_heads) for name in (sites[heads], f"blocks.{i}.attn")}
            found |= {f"blocks.{i}.attn.{port}": _Place(heads, block.n_heads, p) for p, port in enumerate(PORTS)}
            found |= {sites[mlp]: _Place(mlp, block.n_neurons), f"blocks.{i}.mlp": _Place(mlp, 1)}
        return found

    def between(self, units: KeptUnits) -> dict[Pair, np.ndarray]:
        """Return all edges of heads and MLPs but those of units that are not kept: these are at the baseline then."""
        named = [f"blocks.{i}.{kind}" for i in range(len(self.stream.blocks)) for kind in ("attn", "mlp")]
        kept = {}
        for site in {"embed", *named, "embedding", *units}:
            n = self._place(site).n_units or 0
            kept[site] = mark_kept(units[site], n, site) if site in units else np.ones(n, dtype=bool)
        pairs = [(up, down) for up in kept for down in kept if self._lead(self._places[up], self._places[down])]
        return {(up, down): np.outer(kept[down], kept[up]) for up, down in pairs}

    def _by_place(self, gates: EdgeGates) -> dict[tuple[int, int], Gates]:
        """Return gates by places, into heads by port; that of a port into its head is one of all into the port."""
        found: dict[tuple[int, int], Gates] = {}
        for pair, gate in gates.items():
            up, down = self._checked(pair, gate)
            if up.place == down.place:
                units = [1, *(n for block in self.stream.blocks for n in (block.n_heads, 1))]
                rows = _of_ports(gate.diagonal()[:, None], up.port)
                into = {(earlier, down.place): rows.expand(-1, units[earlier]) for earlier in range(down.place)}
            else:
                heads = down.place % 2 == 1 and down.place < len(self.sites)
                into = {(up.place, down.place): _of_ports(gate, down.port) if heads else gate}
            found |= {key: rows * found[key] if key in found else rows for key, rows in into.items()}
        return found

    def _checked(self, pair: Pair, gate: Gates) -> tuple[_Place, _Place]:
        up, down = map(self._place, pair)
        if not self._lead(up, down):
            raise InputError(f"Edges lead to a later site, but some from {pair[0]} to {pair[1]} were given.")
        if gate.shape[1] != up.n_units or down.n_units not in (None, gate.shape[0]):
            raise InputError(
                f"A mask of edges is [units downstream, units upstream], but that of {pair[0]}->{pair[1]} is "
                f"{list(gate.shape)} where there are {down.n_units or 'other'} and {up.n_units} units: take edges of a "
                "circuit of this encoder."
            )
        return up, down

    @staticmethod
    def _lead(up: _Place, down: _Place) -> bool:
        """Say whether edges lead from one place to another: to a later one, and from the port of a head to the head."""
        if up.port is not None:
            return up.place == down.place and down.port is None
        return up.place < down.place

    def _place(self, site: str) -> _Place:
        if site not in self._places:
            raise InputError(
                f"There is no site {site!r} in this residual stream; its sites are {', '.join(self._places)}."
            )
        return self._places[site]


def wires_of(encoder: Encoder, edges: EdgeGates | EdgeSet) -> Chain | Stream:
    """Return what runs an encoder under gates on these edges.

    Raises:
        InputError: for sites that the encoder does not have, or that do not follow each other in a chain.
    """
    if in_stream(encoder):
        return Stream(ResidualStream.of(encoder))
    sites = {site for pair in edges for site in pair}
    if missing := sites - set(encoder.sites):
        raise InputError(
            f"The edges are between sites that this encoder lacks, {', '.join(sorted(missing))}: give the encoder that "
            "they are of; for edges of heads and MLPs, the one in heads and neurons (in_components)."
        )
    chain = sorted(sites, key=encoder.position)
    places = [encoder.position(site) for site in chain]
    if not chain or set(pairwise(chain)) != set(edges) or places != list(range(places[0], places[-1] + 1)):
        raise InputError(
            "A set of edges has one mask [down, up] for every pair of consecutive sites from a first to a last, but "
            f"{', '.join(f'{up}->{down}' for up, down in edges) or 'none'} was given; the encoder's order is "
            f"{', '.join(encoder.sites)}."
        )
    return Chain(encoder, tuple(chain))


def _of_ports(gate: Gates, port: int | None) -> Gates:
    """Return gates into heads by port: those into one port leave the others open."""
    return torch.cat([gate if port in (None, p) else torch.ones_like(gate) for p in range(len(PORTS))])
