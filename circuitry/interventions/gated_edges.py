"""Gates on edges: each downstream unit reads its own mixture of upstream activations and baselines.

Which way edges run depends on the encoder:

- in a chain an edge leads to the next site (`ChainEdges`). A downstream unit is what the stage makes of an input in
  which the upstream units of its cut edges are at the baseline and the others are what this run made of them;
- in heads and neurons an edge leads to any later site, through the residual stream (`StreamEdges`). A reader has a
  stream of its own (`circuitry.bases.stream_run`).

With all edges kept this is the clean run; with all edges cut, the output on the baseline. A unit without kept outgoing
edges has no effect. (Path patching, Goldowsky-Dill et al. 2023, arXiv 2304.05969; edges as in ACDC, Conmy et al. 2023,
arXiv 2304.14997.)
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from circuitry.bases.gated_reading import Gates, mixed, read_through
from circuitry.bases.residual import ResidualStream, in_stream
from circuitry.bases.stream_parts import PORTS
from circuitry.bases.stream_run import run_gated
from circuitry.circuits.edges import Edges, Pair
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import rows_that_fit
from circuitry.interventions.patches import Chosen, mark_kept
from circuitry.runs.errors import InputError

EdgeMasks = Mapping[Pair, Bool[np.ndarray, "_ _"]]
"""Kept edges as booleans [all units downstream, all units upstream] by pair of sites, see `Edges.masks`; all edges of
other pairs are kept."""
EdgeGates = Mapping[Pair, Gates]
"""Gates [down, up] by pair of sites: booleans or real numbers."""


def gated_edges_of(task: Task, pairs: Iterable[Pair]) -> "ChainEdges | StreamEdges":
    """Return a task's encoder with gates on the edges between some pairs of sites.

    Raises:
        InputError: for sites that the encoder lacks, or that do not follow each other in a chain.
    """
    encoder, pairs = task.encoder, list(pairs)
    if in_stream(encoder):
        return StreamEdges.of(task)
    sites = {site for pair in pairs for site in pair}
    if missing := sites - set(encoder.sites):
        raise InputError(
            f"Edges run between sites of the encoder, but it lacks {', '.join(sorted(missing))}: give the encoder of "
            "these edges; for edges of heads and MLPs, the one in heads and neurons (in_components)."
        )
    chain = sorted(sites, key=encoder.position)
    places = [encoder.position(site) for site in chain]
    if not chain or set(pairwise(chain)) != set(pairs) or places != list(range(places[0], places[-1] + 1)):
        raise InputError(
            "Edges run between all pairs of consecutive sites from a first to a last, but "
            f"{', '.join(f'{up}->{down}' for up, down in pairs) or 'none'} was given; the encoder's order is "
            f"{', '.join(encoder.sites)}."
        )
    return ChainEdges(rows_that_fit(encoder, task.work.memory_gib), encoder, tuple(chain))


@dataclass(frozen=True, eq=False)
class GatedEdges(ABC):
    """An encoder with gates on edges."""

    rows: int
    """Images that a run may take."""

    @abstractmethod
    def size(self, site: str) -> int:
        """Return the number of units of a site, error units included."""

    def masks(self, circuit: Edges | EdgeMasks) -> EdgeMasks:
        """Return the kept edges as masks over all units.

        Raises:
            InputError: for units that the encoder does not have.
        """
        if not isinstance(circuit, Edges):
            return circuit
        sizes = {site: self.size(site) for site in circuit.units}
        for site, units in circuit.units.items():
            if len(units) and max(units) >= sizes[site]:
                raise InputError(
                    f"Site {site!r} has units 0 to {sizes[site] - 1}, but there are edges of unit {max(units)}: give "
                    "edges of this encoder, which are the same at all positions."
                )
        return circuit.masks(sizes)

    def stacks(
        self, circuits: Sequence[Edges | EdgeMasks], clean: Mapping[str, Tensor], at_once: int
    ) -> tuple[Iterator[EdgeGates], list[int]]:
        """Return the gates of each circuit, and the number of each circuit in these; see `GatedUnits.stacks`."""
        device = next(iter(clean.values())).device
        gates = (
            {pair: torch.from_numpy(mask).to(device) for pair, mask in self.masks(one).items()} for one in circuits
        )
        return gates, list(range(len(circuits)))


@dataclass(frozen=True, eq=False)
class ChainEdges(GatedEdges):
    """Sites that follow each other: edges lead to the next one.

    Edges do not cut what a site carries past its units, such as the stream behind which a norm lies: it goes on as this
    run makes it, so all edges past the next site are open.
    """

    encoder: Encoder
    sites: tuple[str, ...]

    @property
    def start(self) -> str:
        """The site where runs start."""
        return self.sites[0]

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return count_units(self.encoder, self.sites)

    def size(self, site: str) -> int:
        """Return the number of units of a site."""
        return self._sizes.get(site, 0)

    def run(self, start: Tensor, ends: Mapping[str, Tensor], gates: EdgeGates) -> Float[Tensor, "1 b d"]:
        """Return the embeddings, given the activations at the first site and the baselines."""
        for pair in pairwise(self.sites):
            start = self._stage(start, ends[pair[0]], gates[pair], pair)
        found: Tensor = self.encoder(start, start=self.sites[-1])[None]
        return found

    def _stage(self, x: Tensor, end: Tensor, gates: Gates, pair: Pair) -> Tensor:
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

        found = read_through(gates, read, encoder.unit_dim(down), max(1, self.rows // len(x)))
        return encoder.carry(down, found, encoder(x, start=up, stop=down)) if down in encoder.carried else found


class _Place(NamedTuple):
    """Where a site of a graph lies in the residual stream; see `circuitry.bases.stream_run`."""

    place: int
    n_units: int
    port: int | None = None


@dataclass(frozen=True, eq=False)
class StreamEdges(GatedEdges):
    """Sites of heads and neurons, or of heads and whole MLPs as `score_edges` names them: edges lead to any later.

    An edge from a port to its head, as in a graph of ports apart, stands for all edges into that port.
    """

    stream: ResidualStream

    @classmethod
    def of(cls, task: Task) -> "StreamEdges":
        """Return a task's encoder, which is one in heads and neurons, with gates on edges of its stream."""
        stream = ResidualStream.of(task.encoder)
        rows = rows_that_fit(stream.components, task.work.memory_gib) // len(stream.blocks)
        return cls(max(1, rows), stream)

    @property
    def encoder(self) -> Encoder:
        """The encoder that has activations and baselines."""
        return self.stream.components

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites whose activations are read."""
        return self.stream.sites

    @property
    def start(self) -> str:
        """The site where runs start."""
        return self.sites[0]

    def run(self, start: Tensor, ends: Mapping[str, Tensor], gates: EdgeGates) -> Float[Tensor, "1 b d"]:
        """Return the embeddings, given the stream before the first block, and the baselines."""
        at_once = max(1, self.rows // len(start))
        return run_gated(self.stream, start, ends, self._by_place(gates), at_once)[None]

    def size(self, site: str) -> int:
        """Return the number of units of a site."""
        return self._place(site).n_units

    @cached_property
    def _places(self) -> dict[str, _Place]:
        blocks, sites, last = self.stream.blocks, self.stream.sites, self.encoder.sites[-1]
        n_outputs = count_units(self.encoder, [last])[last]
        found = {"embed": _Place(0, 1), "embedding": _Place(len(sites), 1)}
        found |= {sites[0]: _Place(0, blocks[0].width), last: _Place(len(sites), n_outputs)}
        for i, block in enumerate(blocks):
            heads, mlp = 2 * i + 1, 2 * i + 2
            found |= {name: _Place(heads, block.n_heads) for name in (sites[heads], f"blocks.{i}.attn")}
            found |= {f"blocks.{i}.attn.{port}": _Place(heads, block.n_heads, p) for p, port in enumerate(PORTS)}
            found |= {sites[mlp]: _Place(mlp, block.n_neurons), f"blocks.{i}.mlp": _Place(mlp, 1)}
        return found

    def between(self, units: Mapping[str, Chosen]) -> dict[Pair, np.ndarray]:
        """Return all edges of heads and MLPs but those of units that are not kept: these are at the baseline then."""
        named = [f"blocks.{i}.{kind}" for i in range(len(self.stream.blocks)) for kind in ("attn", "mlp")]
        kept = {}
        for site in {"embed", *named, "embedding", *units}:
            n = self.size(site)
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
        if list(gate.shape) != [down.n_units, up.n_units]:
            raise InputError(
                f"A mask of edges is [units downstream, units upstream], but that of {pair[0]}->{pair[1]} is "
                f"{list(gate.shape)} where there are {down.n_units} and {up.n_units} units: take edges of a circuit of "
                "this encoder."
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


def _of_ports(gate: Gates, port: int | None) -> Gates:
    """Return gates into heads by port: those into one port leave the others open."""
    return torch.cat([gate if port in (None, p) else torch.ones_like(gate) for p in range(len(PORTS))])


def count_units(encoder: Encoder, sites: Sequence[str]) -> dict[str, int]:
    """Return the number of units by site, error units included."""
    image = torch.zeros(1, 3, *encoder.image_size, device=encoder.device, dtype=encoder.dtype)
    found = encoder.read_unhooked(image, sites)
    return {site: encoder.units_of(site, found[site]).shape[encoder.unit_dim(site)] for site in sites}
