"""Where a training runs: a device that is there, for one process or several."""

import torch

from circuitry.runs.errors import InputError


def training_device(wanted: str | None, processes: int = 1) -> str:
    """Return the device to train on, as PyTorch names it.

    Args:
        wanted: "cpu", "cuda", "cuda:1", "mps"; None takes a GPU where there is one.
        processes: how many train together; each takes a GPU of its own, so the device is then without a number.

    Raises:
        InputError: no such device on this machine, fewer GPUs than processes, or fewer than one process.

    Example:
        >>> training_device("cpu", processes=2)
        'cpu'
    """
    if processes < 1:
        raise InputError(f"expected at least one process to train with, given processes={processes}")
    name = wanted or ("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdecimal())):
        raise InputError(f"expected the device cpu, cuda, cuda:<number> or mps, given {name!r}")
    if processes > 1 and (number or kind == "mps"):
        raise InputError(
            f"several processes train on cpu, or on cuda with a GPU each; given processes={processes} and {name!r}"
        )
    gpus = torch.cuda.device_count()
    if kind == "cuda" and gpus < max(processes, int(number or 0) + 1):
        raise InputError(
            f"the device {name!r} with {processes} process{'es' if processes > 1 else ''} was asked for, but PyTorch "
            f"sees {gpus} GPUs on this machine; take fewer, or device='cpu'"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("the device 'mps' was asked for, but PyTorch sees none on this machine; take device='cpu'")
    return name
