"""While testing, calls within the package are checked against their annotations."""

from typing import Any

import jaxtyping
import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float

from circuitry.circuits import rules

Row = Float[np.ndarray, " units"]


@jaxtyping.jaxtyped(typechecker=None)
def stretched(row: Row, other: Row, times: float = 1.0) -> Row:
    return np.repeat(row, int(times))


def test_types_shapes_and_what_is_returned_are_checked() -> None:
    row = np.zeros(3)
    assert stretched(row, row).shape == (3,)
    for wrong in ((row, np.zeros(2)), (row, np.zeros(3, int)), (row, row, "1"), (row, row, 2.0)):
        with pytest.raises(BeartypeCallHintViolation):
            stretched(*wrong)


def test_functions_of_the_package_are_checked(request: pytest.FixtureRequest) -> None:
    wrong: Any = 3
    with pytest.raises(BeartypeCallHintViolation):
        rules._errors(wrong, wrong)
    request.getfixturevalue("unchecked")
    with pytest.raises(AttributeError):
        rules._errors(wrong, wrong)
