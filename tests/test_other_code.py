"""The package's circuits of EfficientNet-Lite0 work as well as code without a line of this package measured."""

import numpy as np
import pytest

from tests.claims.other_code import BY_SIZE, SMALLEST, by_size, smallest


@pytest.mark.parametrize("method", SMALLEST)
def test_the_smallest_size_at_all_sites_is_the_same(method: str) -> None:
    assert smallest(method) == pytest.approx(SMALLEST[method], abs=0.005)  # as it was written down


@pytest.mark.parametrize("key", BY_SIZE)
def test_selectivity_in_the_body_differs_by_no_more_than_classes_do(key: tuple[str, str, str]) -> None:
    np.testing.assert_allclose(by_size(*key), BY_SIZE[key], atol=0.1)
