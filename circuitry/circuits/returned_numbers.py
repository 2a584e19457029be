"""Numbers that a function from outside returned."""

import numpy as np
import torch


def numbers_in(values: object) -> np.ndarray | None:
    """Return values as an array of numbers; None if they are none. A tensor may be on any device."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
    try:
        array = np.asarray(values)
    # Rows of unequal lengths.
    except ValueError:
        return None
    # b, i, u, f: truth values, whole numbers with and without sign, floating point; no text, no objects.
    return array if array.dtype.kind in "biuf" else None
