"""Count the floating-point operations of an attribution.

`count_operations` runs an attribution while PyTorch counts the operations of convolutions and matrix products, forward
and backward. A multiply-add counts as two operations, and operations on padding count, too. Everything else is small
beside them. The time on a machine that is not at hand is operations / (rate of the machine x the fraction of the rate
that is reached).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from circuitry.runs import Work
from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.edge_methods import rule_of_edges, score_edges
from circuitry.circuits.scored_units import kept_units
from circuitry.circuits.tower_defaults import with_size
from circuitry.circuits.unit_scores import score_folds
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.metrics import Metric
from circuitry.encoder.task import Task

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Operations(NamedTuple):
    """Floating-point operations of a run on one image."""

    nodes: int
    """Operations of the scores of units."""
    edges: int
    """Operations of the scores of edges."""


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the operations of a block by PyTorch's formulas.

    PyTorch's own FlopCounterMode also follows modules, which fails inside `autograd.grad`.

    Example:
        >>> with OperationCounter() as counter:
        ...     find_circuit(task, size=0.4)
        >>> counter.total
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        """Floating-point operations so far."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        # Operations without a formula, such as additions, are not counted.
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def count_operations(
    encoder: Encoder, metric: Metric, settings: AttributionSettings
) -> Operations:
    """Return the operations that the node scores and the edge scores of one image take.

    The counts depend on the architecture, the rules, the sites and the share of units. They do not depend on the image.
    The count of node scores includes the metric at the baseline of every site; this takes one run for any number of
    images.

    Example:
        >>> nodes, edges = count_operations(clip.encoder, class_logit(weights, 0), AttributionSettings())
    """
    settings = with_size(settings, encoder)
    image = torch.randn(
        1, 3, *encoder.image_size, device=encoder.device, dtype=encoder.dtype
    )
    task = Task(encoder, image, metric, work=Work(progress=False))
    with task.running(gradients=True):
        with OperationCounter() as nodes_counter:
            nodes, _ = score_folds(task, settings)
        kept = kept_units(encoder, nodes, settings)
        with OperationCounter() as edges_counter:
            score_edges(
                task, kept, method=settings.edges, rule=rule_of_edges(encoder, settings)
            )
    return Operations(nodes_counter.total, edges_counter.total)
