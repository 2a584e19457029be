"""Set PyTorch's modes while the package computes, whatever the caller has set.

A caller's autocast, inference mode, gradients, default type or default device would change results, also results that
are stored in caches. `own_modes` sets these modes for a ``with`` block. As a decorator it sets them for a function:

- `Encoder.running`, and so `Task.running`, uses `own_modes` for runs of an image tower;
- `own_modes` decorates functions that run a text tower, prepare images, or compute with embeddings outside of runs.

If the user calls an encoder directly, the caller's modes apply, as in a call of the tower.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


class _Blocks:
    """State that all ``with own_modes()`` blocks share, in all threads.

    It is shared because PyTorch has one default floating-point type for all threads.
    """

    lock = threading.Lock()
    count = 0
    """Number of blocks that have begun but not ended yet."""
    outside = torch.float32
    """The caller's default type. It is restored when the last block ends."""


@contextmanager
def own_modes(*, gradients: bool = False) -> Iterator[None]:
    """Set the package's own modes of PyTorch within a ``with`` block, and restore the caller's modes after the block.

    Within the block autocast and inference mode are off, and new tensors are on the CPU and in single precision.

    Args:
        gradients: Whether PyTorch records gradients within the block.

    Example:
        >>> from circuitry.encoder.modes import own_modes
        >>> @own_modes()
        ... def mean_embedding(images: torch.Tensor) -> torch.Tensor:
        ...     return encoder(images).mean(0)
        >>> mean_embedding(images).requires_grad
        False
    """
    with ExitStack() as modes:
        # This comes first, because setting inference mode also switches gradients on or off.
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.set_grad_enabled(gradients))
        accelerator = torch.accelerator.current_accelerator()
        kinds = ["cpu"] if accelerator is None else ["cpu", accelerator.type]
        for device in kinds:
            if torch.is_autocast_enabled(device):
                modes.enter_context(torch.autocast(device, enabled=False))
        # A device is entered only if necessary, because a Python function then runs before each call of PyTorch.
        if torch.get_default_device().type != "cpu":
            modes.enter_context(torch.device("cpu"))
        with _Blocks.lock:
            # Only the first block sees the caller's type. Later blocks see the type that the first block set.
            if not _Blocks.count:
                _Blocks.outside = torch.get_default_dtype()
            _Blocks.count += 1
            torch.set_default_dtype(torch.float32)
        modes.callback(_end_block)
        yield


def _end_block() -> None:
    """Count the end of a ``with own_modes()`` block. If no other block goes on, restore the caller's default type."""
    with _Blocks.lock:
        _Blocks.count -= 1
        if not _Blocks.count:
            torch.set_default_dtype(_Blocks.outside)
