"""Where a training or an evaluation runs: a device that is there, for one process or several."""

import torch

from circuitry.runs.errors import InputError


def available_device(wanted: str | None, processes: int = 1) -> str:
    """Return the device to work on, as PyTorch names it.

    Args:
        wanted: ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` (default: a GPU where there is one).
        processes: How many work together; each takes a GPU of its own, so the device is then without a number.

    Raises:
        InputError: For a device that this machine lacks, fewer GPUs than processes, or fewer than one process.

    Example:
        >>> available_device("cpu", processes=2)
        'cpu'
    """
    if processes < 1:
        raise InputError(f"The processes that work together must be at least 1, but {processes} was given.")
    name = wanted or ("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdecimal())):
        raise InputError(f"A device is cpu, cuda, cuda:<number> or mps, but {name!r} was given.")
    if processes > 1 and (number or kind == "mps"):
        raise InputError(
            f"Several processes work on cpu, or on cuda with a GPU each, but {processes} processes on {name!r} were "
            "asked for."
        )
    gpus = torch.cuda.device_count()
    if kind == "cuda" and gpus < max(processes, int(number or 0) + 1):
        raise InputError(
            f"The device {name!r} for {processes} process{'es' if processes > 1 else ''} was asked for, but PyTorch "
            f"sees {gpus} GPUs on this machine: take fewer, or the device cpu."
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("The device 'mps' was asked for, but PyTorch sees none on this machine: take the device cpu.")
    return name
