"""Comparison with an oracle that cannot pass on zeros."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def assert_same(
    found: Any,
    expected: Any,
    at_least: float,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-12,
) -> None:
    """Assert that numbers equal an oracle's, and that some of the oracle's are as large as ``at_least``.

    Numbers come in arrays, tensors, or mappings of them; NaN equals NaN; ``rtol`` is of an array's largest value.
    """
    if isinstance(expected, Mapping):
        assert found.keys() == expected.keys(), (
            f"{sorted(map(str, found))} are not {sorted(map(str, expected))}"
        )
        assert expected, "the oracle is empty"
        for key in expected:
            assert_same(found[key], expected[key], at_least, rtol=rtol, atol=atol)
        return
    ours = _array(found)
    theirs = _array(expected)
    assert ours.shape == theirs.shape, f"shapes {ours.shape} and {theirs.shape} differ"
    largest = float(np.nanmax(np.abs(theirs), initial=0.0))
    assert largest >= at_least, (
        f"the oracle's largest value is {largest:g}, so this comparison shows nothing"
    )
    np.testing.assert_allclose(
        ours, theirs, rtol=0, atol=atol + rtol * largest, equal_nan=True
    )


def _array(values: Any) -> np.ndarray:
    return (
        (
            values.detach().cpu()
            if isinstance(values, torch.Tensor)
            else np.asarray(values)
        )
        .__array__()
        .astype(float)
    )
