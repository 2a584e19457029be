"""Convert the value that a registered function returned to an array of numbers. Does not import torch."""

import sys
from typing import Any

import numpy as np


def numbers_in(values: object) -> np.ndarray | None:
    """Return values as an array of floating-point numbers, or None if they are not numbers.

    Args:
        values: Anything that numpy can turn into an array, or a tensor on any device.
    """
    # If torch was not imported, no value is a tensor.
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        tensor: Any = values
        # numpy has no bfloat16.
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.float()
        values = tensor.detach().cpu()
    try:
        array = np.asarray(values)
    # Rows of unequal lengths are no array.
    except ValueError:
        return None
    # The kinds b, i, u, f are truth values, integers with and without sign, and floating-point numbers. Text and
    # objects are not accepted.
    if array.dtype.kind not in "biuf":
        return None
    return array if array.dtype.kind == "f" else array.astype(float)
