"""Compute downstream units that read the upstream units through gates on edges.

The gates are a matrix g [down, up]: each downstream unit has a row of gates, with one gate for each upstream unit. Let
a be the activations and b the baselines of the upstream units. The downstream unit d is computed as if each upstream
unit u had the activation g[d, u] a_u + (1 - g[d, u]) b_u. Downstream units with equal rows of gates are computed in the
same run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from circuitry.bases.conv_blocks import PathStep, path_step
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.narrowing import change_of_units, units_alone
from circuitry.encoder.stages import NO_STEP
from circuitry.runs.arguments import Names, checked

Gates = Shaped[Tensor, "_ _"]
"""Gates [down, up] of edges: booleans, where False cuts an edge, or real numbers, which may require gradients."""


def mixed(
    gates: Shaped[Tensor, "..."], x: Float[Tensor, "..."], end: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """Return x where a gate is open (1 or True), and the baseline ``end`` where it is closed (0 or False).

    A real gate g between 0 and 1 gives the mixture end + g (x - end).
    """
    # `where` drops a NaN on the side that is not chosen. A product with zero would keep it.
    if gates.dtype == torch.bool:
        return torch.where(gates, x, end)
    return end + gates.to(x) * (x - end)


def lifted(gates: Shaped[Tensor, "*edges"]) -> Shaped[Tensor, "*edges"]:
    """Return gates in which each zero is replaced by a tiny number, so that closed gates get gradients, too.

    Runs skip zeros in a matrix of gates: rows of zeros share a run, and columns of zeros are left out. Skipped gates
    would get no gradients. So gates are lifted before they are written into the matrix. A zero that remains in the
    matrix is no gate; it cuts an edge that is not among the gated edges. If ``gates`` need no gradients, they are
    returned as they are.
    """
    # eps squared vanishes in a sum with a number of usual size, so no output changes.
    if not (gates.requires_grad and torch.is_grad_enabled()):
        return gates
    return torch.where(gates == 0, gates + torch.finfo(gates.dtype).eps ** 2, gates)


def different_rows(
    gates: Sequence[Gates],
) -> tuple[Int[Tensor, " different"], Int[Tensor, " down"]]:
    """Find the rows of gates that are distinct, so that equal rows can share a run.

    If the gates require gradients, rows count as distinct even if they are equal, because each row needs its own
    gradient. Rows of zeros are an exception. They always count as equal, because none of their zeros is a gate that
    needs a gradient (see `lifted`).

    Args:
        gates: Gates on each upstream site. All have a row for each downstream unit, and rows are compared over all
            upstream sites together.

    Returns:
        (distinct, place): ``distinct`` has the indices of the distinct rows, and row i equals row
        ``distinct[place[i]]``.
    """
    # Rows are equal if they are equal at all gated sites together: [down, all upstream units].
    values = np.concatenate([gate.detach().cpu().numpy() for gate in gates], 1)
    with_gradients = any(gate.requires_grad for gate in gates)
    first = dict[Any, int]()
    equal_to = []
    for i, row in enumerate(values):
        key = i if with_gradients and row.any() else row.tobytes()
        equal_to.append(first.setdefault(key, i))
    rows, which = torch.unique(torch.tensor(equal_to), return_inverse=True)
    return rows, which


def read_through(
    gates: Sequence[Gates],
    read: Callable[[Int[Tensor, " rows"]], Float[Tensor, "rows image ..."]],
    unit_dim: int,
    at_once: int,
) -> Float[Tensor, "image ..."]:
    """Return the activation of a downstream site whose units are each computed under a row of gates of their own.

    Args:
        gates: Gates on each upstream site, with a row for each downstream unit.
        read: Function that takes indices of rows. For each of these rows it returns the activation that all units of
            the downstream site have if the upstream units are mixed with their baselines by this row of gates.
        unit_dim: Axis of the units in the downstream activation.
        at_once: Largest number of rows in one call of ``read``.
    """
    rows, which = different_rows(gates)
    readings = list[Tensor]()
    readers = list[Tensor]()
    for chunk in torch.split(torch.arange(len(rows)), at_once):
        activations = read(rows[chunk])
        dim = unit_dim % activations[0].dim()
        for i, activation in zip(chunk.tolist(), activations, strict=True):
            # Only the units that have this row of gates are taken from the activation under this row.
            units = (which == i).nonzero()[:, 0].to(activation.device)
            readers.append(units)
            readings.append(activation.index_select(dim, units))
    # The units were collected row by row. This restores their order.
    order = torch.argsort(torch.cat(readers))
    return torch.cat(readings, dim).index_select(dim, order)


class DirectPaths:
    """Runs of an encoder in which units act on later sites along direct paths only.

    A gate on a unit u changes what later sites read from u through the residual stream, but it does not change the
    units of the sites in between. These units keep the given activation, or its mixture with the baseline if they have
    gates themselves. So of the blocks in between, only the steps of the stream are run, not the hidden units; see
    `PathStep`. Other stages are run as a whole.

    What does not depend on the gates is computed once.
    """

    def __init__(
        self,
        encoder: Encoder,
        activations: Mapping[str, Tensor],
        ends: Mapping[str, Tensor],
        chosen: Mapping[str, Int[Tensor, " _"]] | None = None,
    ) -> None:
        """Prepare the runs.

        Args:
            encoder: The encoder.
            activations: Activations by site. They begin at the first gated site, and are needed up to the site before
                the last site that the caller of `read` takes.
            ends: Baselines of the gated sites. A baseline has an activation for each image, or a single activation for
                all images.
            chosen: Indices of the units that are computed, by site. Sites that are left out are not computed. Default:
                all units of all sites.
        """
        self.encoder = encoder
        self.activations = activations
        self.ends = ends
        self.chosen = chosen
        self._added = dict[str, Tensor]()
        self._chosen_alone = dict[str, Callable[[Tensor], Tensor]]()

    def read(
        self,
        gates: Mapping[str, Gates],
        closed: Mapping[str, Int[Tensor, " _"]] | None = None,
    ) -> Iterator[tuple[str, Float[Tensor, "rows image ..."]]]:
        """Yield the sites that the gated units reach, each with its chosen units under every row of gates.

        The iteration ends at the latest with the first site that carries no residual stream past its units.

        Args:
            gates: Gates [rows, units] by gated site, in the order of the sites. Row i of all sites acts in the same
                run.
            closed: Indices of the units that some row closes, by gated site. All other gates of these sites are open in
                every row. With them, what changes of a few units add to the stream is computed from these units alone.

        Yields:
            The name of a site, and its chosen units [rows, image, ...].
        """
        encoder = self.encoder
        positions = [encoder.position(site) for site in gates]
        # The units of the current site, and the stream that is carried past them, under each row of gates
        # [rows, image, ...]. None means that the gates do not change them.
        units: Tensor | None = None
        past: Tensor | None = None
        source: Tensor | None
        for up, down in pairwise(encoder.sites[positions[0] :]):
            closing = gates.get(up)
            if closing is not None:
                units = self._mixed(up, closing)
            # Hooks act on whole activations.
            run = encoder.stages[encoder.position(up)].run
            step = None if encoder.hooked_sites else path_step(run)
            if step is None:
                n_rows = len(gates[encoder.sites[positions[0]]])
                source, past = self._run_whole(up, down, units, past, n_rows)
            else:
                of_site = None if closed is None else closed.get(up)
                source, past = self._follow(step, up, units, past, of_site)
            if source is not None and self._wants(down):
                yield down, by_rows(self._read_alone(down, step), source)
            units = None
            reaches_no_further = past is None and encoder.position(down) > positions[-1]
            if down not in encoder.carried or reaches_no_further:
                return

    def _wants(self, site: str) -> bool:
        return self.chosen is None or bool(len(self.chosen.get(site, ())))

    def _mixed(self, site: str, gates: Gates) -> Float[Tensor, "rows image ..."]:
        """Return the units of a site, each mixed with its baseline by the gates [rows, units]."""
        x = self.encoder.units_of(site, self.activations[site])
        # The gates [row, unit] get the shape of [row, image, ...], with ones on all axes but rows and units.
        shape = [len(gates)] + [1] * x.dim()
        shape[self._axis(site)] = -1
        end = self.encoder.units_of(site, self.ends[site])
        return mixed(gates.reshape(shape), x, end)

    def _axis(self, site: str) -> int:
        """Return the axis of the units of a site in an activation [rows, image, ...]."""
        return self.encoder.unit_dim(site) % self.activations[site].dim() + 1

    def _run_whole(
        self,
        up: str,
        down: str,
        units: Tensor | None,
        past: Tensor | None,
        n_rows: int,
    ) -> tuple[Tensor, Tensor | None]:
        """Run a stage as a whole; return the units of site ``down``, and what it carries, under each row of gates."""
        pieces = list[Tensor]()
        split = self.encoder.units_and_carried(up, self.activations[up])
        # Without a carried stream there is one piece, the units.
        for clean, changed in zip(split, (units, past), strict=False):
            pieces.append(
                clean.expand(n_rows, *clean.shape) if changed is None else changed
            )
        stack = torch.cat(pieces, self._axis(up)).flatten(0, 1)
        out = self.encoder(stack, start=up, stop=down)
        of_down = [
            torch.unflatten(piece, 0, (n_rows, -1))
            for piece in self.encoder.units_and_carried(down, out)
        ]
        return of_down[0], of_down[1] if len(of_down) > 1 else None

    def _follow(
        self,
        step: PathStep,
        up: str,
        units: Tensor | None,
        past: Tensor | None,
        closed: Tensor | None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Follow a change through a step, without computing the units of the next site.

        Return what these units are computed from, and what is carried past them. Both are None if they do not change.

        Args:
            step: The step.
            up: The site before the step.
            units: Changed units of this site, or None.
            past: The changed stream past these units, or None.
            closed: Indices of the units that changed, or None if any may have.
        """
        source = units
        if step.add is not None and (units is not None or past is not None):
            clean, stream = step.split(self.activations[up])
            if up not in self._added:
                self._added[up] = step.add(clean)
            added = self._added[up]
            if units is not None:
                added = self._with_change(step.add, added, clean, units, closed)
            if past is not None:
                stream = past
            if stream is not None:
                added = added + stream
            source = past = by_rows(step.after, added)
        if step.swaps:
            source, past = past, source
        if step.carry is None or past is None:
            return source, None
        return source, by_rows(step.carry, past)

    def _with_change(
        self,
        add: Callable[[Tensor], Tensor],
        added: Tensor,
        clean: Tensor,
        units: Tensor,
        closed: Tensor | None,
    ) -> Float[Tensor, "rows image ..."]:
        """Return what the changed units of a site add to the stream.

        Args:
            add: Step from units to what they add.
            added: What the unchanged units add.
            clean: The unchanged units.
            units: The changed units [rows, image, ...].
            closed: Indices of the units that changed, or None if any may have.
        """
        if closed is None:
            return by_rows(add, units)
        # PyTorch's convolutions refuse inputs without channels.
        if not len(closed):
            return added.expand(len(units), *added.shape)
        # Usually a few units are closed, and the addition is linear in them.
        change = change_of_units(add, closed)
        if change is None:
            return by_rows(add, units)
        moved = units.index_select(2, closed) - clean.index_select(1, closed)
        return added + by_rows(change, moved)

    def _read_alone(
        self, site: str, step: PathStep | None
    ) -> Callable[[Tensor], Tensor]:
        """Return the function from what the units of a site are computed from to the chosen units of this site."""
        if site not in self._chosen_alone:
            read: Callable[[Tensor], Tensor] = NO_STEP if step is None else step.units
            if self.chosen is not None:
                unit_dim = self.encoder.unit_dim(site)
                read = units_alone(read, self.chosen[site], unit_dim)
            self._chosen_alone[site] = read
        return self._chosen_alone[site]


def by_rows(
    step: Callable[[Tensor], Tensor], x: Float[Tensor, "rows image ..."]
) -> Float[Tensor, "rows image ..."]:
    """Return the output of a step for activations that have an axis of rows before the axis of images."""
    return torch.unflatten(step(x.flatten(0, 1)), 0, x.shape[:2])


@checked
def joined_sites(encoder: Encoder, sites: Names) -> list[tuple[str, str]]:
    """Return the pairs (upstream site, downstream site) of ``sites`` that are joined by edges.

    Edges join a site to the next site of the encoder. If sites carry a residual stream past their units, edges also
    join a site to later sites that read it through this stream.

    Example:
        >>> from circuitry.bases import joined_sites
        >>> joined_sites(encoder, ["layer1.0", "layer2.0", "layer4.0"])
        [('layer1.0', 'layer2.0')]
        >>> len(joined_sites(circuitry.in_components(vit.encoder), vit.encoder.sites[:2]))
        0
    """
    chosen = {encoder.sites[encoder.position(site)] for site in sites}
    pairs = _joined.get(encoder) or _find_joined(encoder)
    # Hooks may cut paths. So pairs that were found while hooks were set are not stored.
    if not encoder.hooked_sites:
        _joined[encoder] = pairs
    return [pair for pair in pairs if chosen.issuperset(pair)]


_joined: WeakKeyDictionary[Encoder, list[tuple[str, str]]] = WeakKeyDictionary()
"""All pairs of sites between which there are edges, by encoder.

The pairs are stored, because finding them takes a run for each site.
"""


def _find_joined(encoder: Encoder) -> list[tuple[str, str]]:
    """Return all pairs (upstream site, downstream site) of an encoder between which there are edges."""
    # NaN is written into the units of each site in turn. Every operation passes NaN on, so NaN arrives exactly at the
    # sites that read these units.
    _, *sites = encoder.sites
    if not encoder.carried:
        return list(pairwise(sites))
    image = encoder.blank()
    pairs = []
    clean = encoder.read_unhooked(image, sites)
    with encoder.running():
        for up in sites:
            n_units = encoder.n_units(up, clean[up])
            closed = {up: image.new_zeros(1, n_units, dtype=torch.bool)}
            nan = {up: torch.full_like(clean[up], torch.nan)}
            for down, read in DirectPaths(encoder, clean, nan).read(closed):
                if bool(read.isnan().any()):
                    pairs.append((up, down))
    return pairs
