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
from einops import rearrange
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
    return (
        torch.where(gates, x, end)
        if gates.dtype == torch.bool
        else end + gates.to(x) * (x - end)
    )


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
    """Return one of all rows that are equal in all gates, and the number of each row among these.

    Where gradients are taken, rows that are equal by chance stay apart; those without a gate do not, see `lifted`.
    """
    values = np.concatenate([one.detach().cpu().numpy() for one in gates], 1)
    apart, first = any(one.requires_grad for one in gates), dict[Any, int]()
    found = [
        first.setdefault(i if apart and row.any() else row.tobytes(), i)
        for i, row in enumerate(values)
    ]
    rows, which = torch.unique(torch.tensor(found), return_inverse=True)
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
    parts, order = list[Tensor](), list[Tensor]()
    for chunk in torch.split(torch.arange(len(rows)), at_once):
        found = read(rows[chunk])
        dim = unit_dim % found[0].dim()
        for i, activation in zip(chunk.tolist(), found, strict=True):
            units = (which == i).nonzero()[:, 0].to(activation.device)
            order.append(units)
            parts.append(activation.index_select(dim, units))
    return torch.cat(parts, dim).index_select(dim, torch.argsort(torch.cat(order)))


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
    first, n = next(iter(gates)), len(next(iter(gates.values())))
    stack = activations[first].expand(n, *activations[first].shape).flatten(0, 1)
    for up, down in pairwise(encoder.sites[encoder.position(first) :]):
        x = encoder.units_of(up, activations[up])
        read, shape = x.expand(n, *x.shape), [n, *[1] * x.dim()]
        if up in gates:
            shape[encoder.unit_dim(up) % x.dim() + 1] = -1
            read = mixed(gates[up].reshape(shape), x, encoder.units_of(up, ends[up]))
        stack = encoder(
            encoder.carry(up, read.flatten(0, 1), stack), start=up, stop=down
        )
        yield (
            down,
            rearrange(
                encoder.units_of(down, stack), "(row image) ... -> row image ...", row=n
            ),
        )
        if down not in encoder.carried:
            return


@checked
def joined_sites(encoder: Encoder, sites: Names) -> list[tuple[str, str]]:
    """Return the pairs of some sites that edges join: units of the second read those of the first by a path of its own.

    They do so at the next site, and past sites that carry what depends on them.

    Example:
        >>> Edges.between(graph.kept_units, joined_sites(encoder, list(graph.kept_units)))    # all edges of some units
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
    image, found = encoder.blank(), []
    clean = encoder.read_unhooked(image, sites)
    with encoder.running():
        for up in sites:
            n = encoder.units_of(up, clean[up]).shape[encoder.unit_dim(up)]
            closed, ends = (
                image.new_zeros(1, n, dtype=torch.bool),
                {up: torch.full_like(clean[up], torch.nan)},
            )
            paths = read_paths(encoder, clean, ends, {up: closed})
            found += [(up, down) for down, read in paths if bool(read.isnan().any())]
    return found
