"""Reading an activation through gates: every downstream unit gets its own mixture of upstream units and baselines.

With gates g [down, up], activations a and baselines b, the downstream unit d reads g[d, u] a_u + (1 - g[d, u]) b_u from
every upstream unit u. Downstream units with the same row of gates share one reading of the input.
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
from circuitry.runs.given import Names, checked

Gates = Shaped[Tensor, "_ _"]
"""[down, up]: booleans, where false is cut, or real numbers, by which results are differentiable."""


def mixed(
    gates: Shaped[Tensor, "..."], x: Float[Tensor, "..."], end: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """Return x where a gate is open, the baseline where it is closed."""
    if gates.dtype == torch.bool:
        return torch.where(gates, x, end)
    return end + gates.to(x) * (x - end)


def lifted(gates: Shaped[Tensor, "*edges"]) -> Shaped[Tensor, "*edges"]:
    """Return gates with those at 0 raised by so little that only their gradients change.

    A reading leaves out closed gates: it reads rows of zeros as one, and skips columns of zeros. So lift gates before
    their gradients are taken; zeros that stay are edges without a gate.
    """
    if not (gates.requires_grad and torch.is_grad_enabled()):
        return gates
    return torch.where(gates == 0, gates + torch.finfo(gates.dtype).eps ** 2, gates)


def different_rows(
    gates: Sequence[Gates],
) -> tuple[Int[Tensor, " different"], Int[Tensor, " down"]]:
    """Return the numbers of rows that differ in some gates, and for each row its place among these.

    Where gradients are taken, rows that are equal by chance stay apart; those without a gate do not, see `lifted`.
    """
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
    """Return the downstream activation, each unit under its own row of gates.

    ``read`` returns the activation under each of some rows of gates, ``at_once`` at most.
    """
    rows, which = different_rows(gates)
    readings = list[Tensor]()
    readers = list[Tensor]()
    for chunk in torch.split(torch.arange(len(rows)), at_once):
        activations = read(rows[chunk])
        dim = unit_dim % activations[0].dim()
        for i, activation in zip(chunk.tolist(), activations, strict=True):
            units = (which == i).nonzero()[:, 0].to(activation.device)
            readers.append(units)
            readings.append(activation.index_select(dim, units))
    order = torch.argsort(torch.cat(readers))
    return torch.cat(readings, dim).index_select(dim, order)


def read_paths(
    encoder: Encoder,
    activations: Mapping[str, Tensor],
    ends: Mapping[str, Tensor],
    gates: Mapping[str, Gates],
) -> Iterator[tuple[str, Float[Tensor, "rows image ..."]]]:
    """Yield each site behind the first with gates, and its units under each row of gates on the sites before it.

    At a site in between all units go on with the site's own activation, mixed with its baseline by its gates, whatever
    they read. So what passes is what the site carries past them, and the first site that carries nothing is the last.

    Args:
        activations: By site, from the first with gates to the one before the last that is asked for.
        ends: Baselines of the sites with gates, for every image or one for all.
        gates: Rows of gates on units by site, in order.
    """
    first = next(iter(gates))
    n_rows = len(gates[first])
    # [row * image, ...]: what the units of the last site are, and what it carries past them, under each row of gates.
    stack = activations[first].expand(n_rows, *activations[first].shape).flatten(0, 1)
    for up, down in pairwise(encoder.sites[encoder.position(first) :]):
        x = encoder.units_of(up, activations[up])
        read = x.expand(n_rows, *x.shape)
        if up in gates:
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
    """Return the pairs of some sites that edges join: units of the second read those of the first by a path of its own.

    They do so at the next site, and past sites that carry what depends on them.

    Example:
        >>> from circuitry.bases import joined_sites
        >>> joined_sites(encoder, ["layer1.0", "layer2.0", "layer4.0"])
        [('layer1.0', 'layer2.0')]
        >>> len(joined_sites(circuitry.in_components(vit.encoder), vit.encoder.sites[:2]))
        0
    """
    chosen = {encoder.sites[encoder.position(site)] for site in sites}
    pairs = _joined.get(encoder) or _find_joined(encoder)
    if not encoder.hooked_sites:  # which may cut some
        _joined[encoder] = pairs
    return [pair for pair in pairs if chosen.issuperset(pair)]


_joined: WeakKeyDictionary[Encoder, list[tuple[str, str]]] = WeakKeyDictionary()
"""All pairs by encoder."""


def _find_joined(encoder: Encoder) -> list[tuple[str, str]]:
    """Return all pairs: NaN in the units of a site arrive in those that read them."""
    _, *sites = encoder.sites
    if not encoder.carried:
        return list(pairwise(sites))
    image = encoder.blank()
    pairs = []
    clean = encoder.read_unhooked(image, sites)
    with encoder.running():
        for up in sites:
            n_units = encoder.units_of(up, clean[up]).shape[encoder.unit_dim(up)]
            closed = {up: image.new_zeros(1, n_units, dtype=torch.bool)}
            nan = {up: torch.full_like(clean[up], torch.nan)}
            for down, read in read_paths(encoder, clean, nan, closed):
                if bool(read.isnan().any()):
                    pairs.append((up, down))
    return pairs
