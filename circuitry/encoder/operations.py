"""Count the floating-point operations of whatever runs within a block."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from circuitry.encoder.encoder import Encoder

_ATEN = torch.ops.aten
_FORMULAS = flop_registry | {
    # PyTorch has formulas of attention on a GPU, but not of the same operations on a processor.
    on_processor: flop_registry[on_gpu]
    for on_processor, on_gpu in (
        (
            _ATEN._scaled_dot_product_flash_attention_for_cpu,
            _ATEN._scaled_dot_product_flash_attention,
        ),
        (
            _ATEN._scaled_dot_product_flash_attention_for_cpu_backward,
            _ATEN._scaled_dot_product_flash_attention_backward,
        ),
    )
}


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the operations of convolutions and matrix products, forward and backward, by PyTorch's formulas.

    A multiply-add counts as two operations, and operations on padding count, too. Everything else, such as additions,
    is small beside them, and is not counted. PyTorch's own FlopCounterMode also follows modules, which fails inside
    `autograd.grad`.

    Example:
        >>> with circuitry.encoder.OperationCounter() as counter:
        ...     circuit = circuitry.find_circuit(task, size=0.4)
        >>> counter.total > 0
        True
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: int = 0
        """Floating-point operations so far."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = _FORMULAS.get(func._overloadpacket)
        # Operations without a formula, such as additions, are not counted.
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def forward_operations(encoder: Encoder) -> int:
    """Return the operations of one run of one image through the tower.

    The run records gradients, because without them PyTorch may run a whole block as one operation without a formula.

    Example:
        >>> circuitry.encoder.forward_operations(encoder) > 10**7
        True
    """
    with encoder.running(gradients=True), OperationCounter() as counter:
        encoder(encoder.blank().requires_grad_())
    total: int = counter.total
    return total
