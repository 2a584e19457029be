"""Compute downstream units that each read upstream units through gates of their own.

With gates g [down, up], activations a and baselines b, the downstream unit d reads g[d, u] a_u + (1 - g[d, u]) b_u from
every upstream unit u. Downstream units with the same row of gates share one run.
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
"""Gates [down, up] of edges: booleans, False for a cut edge, or real numbers, which may have gradients."""


def mixed(
    gates: Shaped[Tensor, "..."], x: Float[Tensor, "..."], end: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """Return x where a gate is open, the baseline ``end`` where it is closed, and their mixture in between."""
    # `where` keeps NaN of the closed side out, which a product with zero would not.
    if gates.dtype == torch.bool:
        return torch.where(gates, x, end)
    return end + gates.to(x) * (x - end)


def lifted(gates: Shaped[Tensor, "*edges"]) -> Shaped[Tensor, "*edges"]:
    """Return gates with zeros raised by a tiny number, so that closed gates get gradients, too.

    Runs skip closed gates: rows of zeros share a run, and columns of zeros are left out. So gates are lifted before
    gradients are taken; a zero that stays is an edge without a gate.
    """
    # eps squared is lost in any sum with a number of usual size, so no value changes.
    if not (gates.requires_grad and torch.is_grad_enabled()):
        return gates
    return torch.where(gates == 0, gates + torch.finfo(gates.dtype).eps ** 2, gates)


def different_rows(
    gates: Sequence[Gates],
) -> tuple[Int[Tensor, " different"], Int[Tensor, " down"]]:
    """Return the numbers of the distinct rows of gates, and for each row the place of its equal among them.

    With gradients, equal rows count as distinct, since each needs its own gradient; rows of zeros have no gate and are
    one (`lifted`).
    """
    # A row counts over all sites that are gated: [down, all upstream units].
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
    """Return the downstream activation, with each unit under its own row of gates.

    Args:
        gates: Gates on upstream sites, a row for each downstream unit.
        read: Function of numbers of rows that returns the whole downstream activation under each of these rows.
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
            # Of the whole activation under this row only the units with this row are wanted.
            units = (which == i).nonzero()[:, 0].to(activation.device)
            readers.append(units)
            readings.append(activation.index_select(dim, units))
    # Units were gathered row by row; this puts them back into their order.
    order = torch.argsort(torch.cat(readers))
    return torch.cat(readings, dim).index_select(dim, order)


def read_paths(
    encoder: Encoder,
    activations: Mapping[str, Tensor],
    ends: Mapping[str, Tensor],
    gates: Mapping[str, Gates],
) -> Iterator[tuple[str, Float[Tensor, "rows image ..."]]]:
    """Yield each site behind the first gated one, and its units under each row of gates on earlier sites.

    Units of a site in between do not answer to gates before them: they keep their own activation, mixed with the
    baseline by their own gates. So gates act only along the stream that sites carry past their units, and the last site
    is the first one that carries nothing.

    Args:
        encoder: The encoder.
        activations: Activations by site, from the first gated site to the one before the last that the caller needs.
        ends: Baselines of the gated sites, for each image or one for all.
        gates: Rows of gates on units, by site in order.
    """
    first = next(iter(gates))
    n_rows = len(gates[first])
    # [row * image, ...]: the activation of the last site under each row of gates, units and carried stream.
    stack = activations[first].expand(n_rows, *activations[first].shape).flatten(0, 1)
    for up, down in pairwise(encoder.sites[encoder.position(first) :]):
        x = encoder.units_of(up, activations[up])
        read = x.expand(n_rows, *x.shape)
        if up in gates:
            # Gates [row, unit] broadcast over [row, image, ...], with the units on their axis.
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
    """Return the pairs of ``sites`` that edges join.

    Edges join a site to the next one, and to each later site that reads it through the stream that the sites in between
    carry past their units.

    Example:
        >>> from circuitry.bases import joined_sites
        >>> joined_sites(encoder, ["layer1.0", "layer2.0", "layer4.0"])
        [('layer1.0', 'layer2.0')]
        >>> len(joined_sites(circuitry.in_components(vit.encoder), vit.encoder.sites[:2]))
        0
    """
    chosen = {encoder.sites[encoder.position(site)] for site in sites}
    pairs = _joined.get(encoder) or _find_joined(encoder)
    # Hooks may cut paths, so pairs that were measured under hooks are not remembered.
    if not encoder.hooked_sites:
        _joined[encoder] = pairs
    return [pair for pair in pairs if chosen.issuperset(pair)]


_joined: WeakKeyDictionary[Encoder, list[tuple[str, str]]] = WeakKeyDictionary()
"""All joined pairs of an encoder's sites; finding them takes a run for each site."""


def _find_joined(encoder: Encoder) -> list[tuple[str, str]]:
    """Return all pairs of sites that edges join, found by putting NaN into the units of each site."""
    # NaN passes every operation, so it arrives exactly at the sites that read these units.
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
