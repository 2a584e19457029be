"""Comparison of differences, such as effects of units, with an oracle's: one rule for their tolerance.

A difference of two metrics is known as well as the metrics are, however small it is itself: of metrics near 1 in single
precision to about 1e-7. So its tolerance is that of the numbers it is taken of.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.support.assert_same import assert_same

ROUNDINGS = 16
"""How many times the rounding of a number two ways to compute it may lie apart: a few layers of sums, taken twice."""
SEEN = 2
"""How many times the tolerance the largest difference of the oracle is at least, so that a zero does not pass."""


def rounding_of(numbers: Any, dtype: torch.dtype = torch.float32) -> float:
    """Return the tolerance of differences of some numbers, of a type that they were computed in."""
    parts = [
        one.detach().cpu().double().numpy()
        if isinstance(one, Tensor)
        else np.asarray(one)
        for one in numbers
    ]
    largest = max(float(np.nanmax(np.abs(part))) for part in parts)
    return ROUNDINGS * torch.finfo(dtype).eps * largest


def assert_same_differences(
    found: Any, expected: Any, *, of: Any, dtype: torch.dtype = torch.float32
) -> None:
    """Assert that differences equal an oracle's as far as the numbers tell that they are taken of.

    Args:
        of: These numbers, or some as large: in arrays, tensors or a list.
        dtype: The type in which they were computed; what they are given in may hold more.
    """
    tolerance = rounding_of(of, dtype)
    assert_same(found, expected, SEEN * tolerance, rtol=0, atol=tolerance)
