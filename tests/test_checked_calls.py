"""While testing, calls within the package are checked against their annotations."""

from collections.abc import Callable
from typing import Any, cast

import jaxtyping
import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float

from circuitry.circuits import rules
from tests.support import checked_calls

Row = Float[np.ndarray, " units"]


@jaxtyping.jaxtyped(typechecker=None)
def stretched(row: Row, other: Row, times: float = 1.0) -> Row:
    return np.repeat(row, int(times))


def doubler() -> Callable[..., Any]:
    @jaxtyping.jaxtyped(typechecker=None)
    def double(number: int) -> int:
        return 2 * number

    return double


def test_types_shapes_and_what_is_returned_are_checked() -> None:
    row = np.zeros(3)
    assert stretched(row, row).shape == (3,)
    for wrong in ((row, np.zeros(2)), (row, np.zeros(3, int)), (row, row, "1"), (row, row, 2.0)):
        with pytest.raises(BeartypeCallHintViolation):
            stretched(*wrong)


def test_a_function_within_a_function_is_checked_once() -> None:
    with pytest.raises(BeartypeCallHintViolation):
        doubler()("a")
    assert doubler()("a") == "aa"


def test_functions_of_the_package_are_checked(request: pytest.FixtureRequest) -> None:
    wrong: Any = 3
    with pytest.raises(BeartypeCallHintViolation):
        rules._errors(wrong, wrong)
    request.getfixturevalue("unchecked")
    with pytest.raises(AttributeError):
        rules._errors(wrong, wrong)


def test_the_first_calls_of_each_test_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked_calls, "ENOUGH", 2)
    row, text = np.zeros(3), cast("float", "1")
    checked_calls.begin_test()
    for _ in range(2):
        with pytest.raises(BeartypeCallHintViolation):
            stretched(row, row, text)
    assert stretched(row, row, text).shape == (3,)
    checked_calls.begin_test()
    with pytest.raises(BeartypeCallHintViolation):
        stretched(row, row, text)
