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

from circuitry.encoder.encoder import Encoder
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


def read_paths(
    encoder: Encoder,
    activations: Mapping[str, Tensor],
    ends: Mapping[str, Tensor],
    gates: Mapping[str, Gates],
) -> Iterator[tuple[str, Float[Tensor, "rows image ..."]]]:
    """Yield the sites after the first gated site, each with the activation of its units under every row of gates.

    Gates act along direct paths only. A gate on a unit u changes what later sites read from u through the residual
    stream, but it does not change the units of the sites in between. These units keep the given activation, or its
    mixture with the baseline if they have gates themselves. The iteration ends with the first site that carries no
    residual stream past its units.

    Args:
        encoder: The encoder.
        activations: Activations by site. They begin at the first gated site, and are needed up to the site before the
            last site that the caller takes from the iterator.
        ends: Baselines of the gated sites. A baseline has an activation for each image, or a single activation for all
            images.
        gates: Gates [rows, units] by gated site, in the order of the sites. Row i of all sites acts in the same run.

    Yields:
        The name of a site, and its units [rows, image, ...].
    """
    first = next(iter(gates))
    n_rows = len(gates[first])
    # [row * image, ...]: the activation of the current site under each row of gates, with units and carried stream.
    stack = activations[first].expand(n_rows, *activations[first].shape).flatten(0, 1)
    for up, down in pairwise(encoder.sites[encoder.position(first) :]):
        x = encoder.units_of(up, activations[up])
        read = x.expand(n_rows, *x.shape)
        if up in gates:
            # The gates [row, unit] get the shape of [row, image, ...], with ones on all axes but rows and units.
            shape = [n_rows] + [1] * x.dim()
            shape[encoder.unit_dim(up) % x.dim() + 1] = -1
            read = mixed(gates[up].reshape(shape), x, encoder.units_of(up, ends[up]))
        carrying = encoder.carry(up, read.flatten(0, 1), stack)
        stack = encoder(carrying, start=up, stop=down)
        units = encoder.units_of(down, stack)
        yield down, torch.unflatten(units, 0, (n_rows, -1))
        if down not in encoder.carried:
            return


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
            for down, read in read_paths(encoder, clean, nan, closed):
                if bool(read.isnan().any()):
                    pairs.append((up, down))
    return pairs
