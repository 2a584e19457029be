"""Reading an activation through gates: every downstream unit gets its own mixture of upstream units and baselines.

With gates g [down, up], activations a and baselines b, the downstream unit d reads g[d, u] a_u + (1 - g[d, u]) b_u from
every upstream unit u. Downstream units with the same row of gates share one reading of the input.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

Gates = Shaped[Tensor, "_ _"]
"""[down, up]: booleans, where false is cut, or real numbers, by which results are differentiable."""


def mixed(gates: Shaped[Tensor, "..."], x: Float[Tensor, "..."], end: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return x where a gate is open, the baseline where it is closed."""
    return torch.where(gates, x, end) if gates.dtype == torch.bool else end + gates.to(x) * (x - end)


def lifted(gates: Shaped[Tensor, "*edges"]) -> Shaped[Tensor, "*edges"]:
    """Return gates with those at 0 raised by so little that only their gradients change.

    A reading leaves out closed gates: it reads rows of zeros as one, and skips columns of zeros. So lift gates before
    their gradients are taken; zeros that stay are edges without a gate.
    """
    if not (gates.requires_grad and torch.is_grad_enabled()):
        return gates
    return torch.where(gates == 0, gates + torch.finfo(gates.dtype).eps ** 2, gates)


def different_rows(gates: Sequence[Gates]) -> tuple[Int[Tensor, " different"], Int[Tensor, " down"]]:
    """Return one of all rows that are equal in all gates, and the number of each row among these.

    Where gradients are taken, rows that are equal by chance stay apart; those without a gate do not, see `lifted`.
    """
    values = np.concatenate([one.detach().cpu().numpy() for one in gates], 1)
    apart, first = any(one.requires_grad for one in gates), dict[Any, int]()
    found = [first.setdefault(i if apart and row.any() else row.tobytes(), i) for i, row in enumerate(values)]
    rows, which = torch.unique(torch.tensor(found), return_inverse=True)
    return rows, which


def read_through(
    gates: Sequence[Gates],
    read: Callable[[Int[Tensor, " rows"]], Float[Tensor, "rows image ..."]],
    unit_dim: int,
    at_once: int,
) -> Float[Tensor, "image ..."]:
    """Return the downstream activation, each unit under its own row of gates.

    Args:
        gates: A row for every downstream unit in each.
        read: Returns the activation under each of some rows of gates.
        unit_dim: The axis of units in the activation.
        at_once: Rows in a call of ``read``.
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
