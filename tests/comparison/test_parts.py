"""A table of parts, the array of it, and what is derived from both, against loops over rows."""

import math

import numpy as np
import pandas as pd
import pytest

from circuitry.comparison import PartArray, ceilings_of
from circuitry.comparison.part_array import WHOLE, known_ratio, mean_known
from tests.comparison.similarities import similarities


def test_the_array_holds_every_row_in_both_orders() -> None:
    parts = similarities(3).parts
    array = PartArray.from_table(parts)
    assert (array.classes, array.domains, array.sites, array.n_parts) == (
        ("c000", "c001", "c002"),
        ("d0", "d1", "d2"),
        ("u", "v"),
        4,
    )
    filled = 0
    for row in parts.query("class_a == class_b").to_dict("records"):
        c, s = array.classes.index(row["class_a"]), array.sites.index(row["site"])
        a, b = array.domains.index(row["domain_a"]), array.domains.index(row["domain_b"])
        assert array.values[c, a, b, s, row["part_a"], row["part_b"]] == row["value"]
        assert array.values[c, b, a, s, row["part_b"], row["part_a"]] == row["value"]
        filled += 2
    assert np.isfinite(array.values).sum() == filled == array.values.size * 3 / 4
    np.testing.assert_allclose(array.over_sites().values[:, :, :, 0], array.values.mean(3))


def test_ceilings_are_means_of_a_class_in_a_domain() -> None:
    parts = similarities(2).parts
    whole = parts.iloc[:2].assign(domain_b=parts["domain_a"].iloc[:2], part_b=WHOLE, value=[0.5, 0.7])
    both = pd.concat([parts, whole], ignore_index=True)
    own = parts.query("class_a == class_b == 'c001' and domain_a == domain_b == 'd2' and site == 'v'")
    found = ceilings_of(both).set_index(["class", "domain", "site"])["value"]
    assert len(own) == 6
    assert found["c001", "d2", "v"] == pytest.approx(own["value"].mean())
    assert len(found) == 2 * 3 * 2
    assert ceilings_of(both, upper=True)["value"].tolist() == pytest.approx([0.6])


def test_unknown_numbers_have_no_weight() -> None:
    values = np.array([[1.0, math.nan, 3.0], [math.nan] * 3])
    assert mean_known(values, 1).tolist() == pytest.approx([2, math.nan], nan_ok=True)
    np.testing.assert_array_equal(known_ratio(np.array([1.0, 1.0]), np.array([2.0, 0.0])), [0.5, math.nan])
