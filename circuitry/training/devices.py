"""Devices and threads of a training or an evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from circuitry.runs.errors import InputError


def available_device(wanted: str | None, processes: int = 1) -> str:
    """Return PyTorch's name of the device to work on.

    Args:
        wanted: ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` (default: a GPU if there is one).
        processes: Processes that work together, each on its own GPU; the device then has no number.

    Example:
        >>> available_device("cpu", processes=2)
        'cpu'
    """
    name = wanted or ("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdecimal())):
        raise InputError(f"A device is cpu, cuda, cuda:<number> or mps, but {name!r} was given.")
    if processes > 1 and (number or kind == "mps"):
        raise InputError(
            f"Several processes run on cpu, or on cuda with a GPU each, but {processes} on {name!r} were given: name "
            "one of these."
        )
    gpus = torch.cuda.device_count()
    if kind == "cuda" and gpus < max(processes, int(number or 0) + 1):
        raise InputError(
            f"The device {name!r} for {processes} process{'es' if processes > 1 else ''} was given, but PyTorch finds "
            f"{gpus} GPUs on this machine: take fewer, or the device cpu."
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("The device 'mps' was given, but PyTorch finds none on this machine: take the device cpu.")
    return name


@contextmanager
def pinned_threads(number: int) -> Iterator[None]:
    """Set the number of PyTorch's CPU threads, and restore it afterwards.

    Another number rounds sums differently, so weights would depend on the cores of the machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
