"""Set PyTorch's modes while the package computes, whatever the caller has set.

A caller's autocast, inference mode, gradients, default type or default device would change numbers and the caches that
hold them. `own_modes` sets these modes for a block of code or, as a decorator, for a function:

- `Encoder.running`, and so `Task.running`, uses it for runs of an image tower;
- functions that compute with embeddings outside of such runs, run a text tower or prepare images are decorated.

An encoder that the user calls follows the caller's modes, as its tower does.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


class _Blocks:
    """State that blocks of several threads share, since PyTorch has one default type for all threads."""

    lock = threading.Lock()
    count = 0
    """Number of blocks that have begun and not ended."""
    outside = torch.float32
    """The caller's default type, which the end of the last block restores."""


@contextmanager
def own_modes(*, gradients: bool = False) -> Iterator[None]:
    """Set the package's own modes of PyTorch within the block: new tensors are of single precision and on the CPU.

    Example:
        >>> from circuitry.encoder.modes import own_modes
        >>> @own_modes()
        ... def mean_embedding(images: torch.Tensor) -> torch.Tensor:
        ...     return encoder(images).mean(0)
        >>> mean_embedding(images).requires_grad
        False
    """
    with ExitStack() as modes:
        # First, since setting inference mode also switches gradients on or off.
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.set_grad_enabled(gradients))
        accelerator = torch.accelerator.current_accelerator()
        kinds = ["cpu"] if accelerator is None else ["cpu", accelerator.type]
        for device in kinds:
            if torch.is_autocast_enabled(device):
                modes.enter_context(torch.autocast(device, enabled=False))
        # Entering a device is not free: it puts a Python function before each call of PyTorch.
        if torch.get_default_device().type != "cpu":
            modes.enter_context(torch.device("cpu"))
        with _Blocks.lock:
            # Only the first block sees the caller's type; the next ones see the type that it set.
            if not _Blocks.count:
                _Blocks.outside = torch.get_default_dtype()
            _Blocks.count += 1
            torch.set_default_dtype(torch.float32)
        modes.callback(_end_block)
        yield


def _end_block() -> None:
    """End a block; at the end of the last one restore the caller's default type."""
    with _Blocks.lock:
        _Blocks.count -= 1
        if not _Blocks.count:
            torch.set_default_dtype(_Blocks.outside)
