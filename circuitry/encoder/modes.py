"""PyTorch's modes while the package computes: its own, whatever the caller has set.

A caller's autocast, inference mode, gradients, default type and default device would change numbers, or the caches that
keep them. `own_modes` alone sets them, for a block of code or, as a decorator, for a function:

- `Encoder.running`, and so `Task.running`, is where an image tower runs;
- functions that compute with embeddings beside such runs, run a text tower or prepare images, are decorated.

An encoder that is called by itself follows the caller's modes, as its tower does.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


class _Blocks:
    """PyTorch has one default type for all threads, so blocks that go on at once share it."""

    lock = threading.Lock()
    count = 0
    """Blocks that go on."""
    outside = torch.float32
    """The caller's default type, to be restored at their end."""


@contextmanager
def own_modes(*, gradients: bool = False) -> Iterator[None]:
    """Within the block PyTorch's modes are the package's own: what it creates is of single precision on the CPU.

    Example:
        >>> from circuitry.encoder.modes import own_modes
        >>> @own_modes()
        ... def mean_embedding(images: torch.Tensor) -> torch.Tensor:
        ...     return encoder(images).mean(0)
        >>> mean_embedding(images).requires_grad
        False
    """
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.set_grad_enabled(gradients))
        accelerator = torch.accelerator.current_accelerator()
        kinds = ["cpu"] if accelerator is None else ["cpu", accelerator.type]
        for device in kinds:
            if torch.is_autocast_enabled(device):
                modes.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            modes.enter_context(torch.device("cpu"))
        with _Blocks.lock:
            if not _Blocks.count:
                _Blocks.outside = torch.get_default_dtype()
            _Blocks.count += 1
            torch.set_default_dtype(torch.float32)
        modes.callback(_end_block)
        yield


def _end_block() -> None:
    """Restore the caller's default type at the end of the last of several blocks at once."""
    with _Blocks.lock:
        _Blocks.count -= 1
        if not _Blocks.count:
            torch.set_default_dtype(_Blocks.outside)
