"""Read the numbers that a registered function returned."""

import numpy as np
import torch


def numbers_in(values: object) -> np.ndarray | None:
    """Return values as an array, or None if they are not numbers.

    Args:
        values: Anything that numpy can turn into an array, or a tensor on any device.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
    try:
        array = np.asarray(values)
    # Rows of unequal lengths are no array.
    except ValueError:
        return None
    # The kinds b, i, u, f are truth values, integers with and without sign, and floating-point numbers. Text and
    # objects are not accepted.
    return array if array.dtype.kind in "biuf" else None
