"""While testing, calls within the package are checked against their annotations."""

from typing import Any

import pytest
from beartype.roar import BeartypeCallHintViolation

from circuitry.circuits import tower_defaults


def test_functions_of_the_package_are_checked(request: pytest.FixtureRequest) -> None:
    wrong: Any = 3
    with pytest.raises(BeartypeCallHintViolation):
        tower_defaults._errors(wrong, wrong)
    request.getfixturevalue("unchecked")
    with pytest.raises(AttributeError):
        tower_defaults._errors(wrong, wrong)
