"""Domain-by-domain means worked out on paper."""

import math

import numpy as np
import pandas as pd
import pytest

from circuitry import InputError, domain_matrix

TABLE = pd.DataFrame(
    [
        ("axe", "clipart", "real", None, 0.2),
        ("axe", "clipart", "sketch", None, 0.4),
        ("axe", "real", "sketch", None, 0.6),
        ("fish", "real", "sketch", None, 0.1),
    ],
    columns=["class", "domain_a", "domain_b", "site", "value"],
)
CEILINGS = pd.DataFrame(
    [
        ("axe", "clipart", None, 0.5),
        ("axe", "real", None, 0.7),
        ("fish", "real", None, 0.9),
        ("axe", "sketch", None, 0.2),
    ],
    columns=["class", "domain", "site", "value"],
)


def test_hand_worked_matrix() -> None:
    matrix = domain_matrix(TABLE)
    assert list(matrix.index) == list(matrix.columns) == ["clipart", "real", "sketch"]
    nan = math.nan
    np.testing.assert_allclose(matrix, [[nan, 0.2, 0.4], [0.2, nan, 0.35], [0.4, 0.35, nan]])


def test_ceilings_go_onto_the_diagonal_and_normalise() -> None:
    np.testing.assert_allclose(np.diag(domain_matrix(TABLE, CEILINGS)), [0.5, 0.8, 0.2])
    normalised = domain_matrix(TABLE, CEILINGS, normalise=True)
    np.testing.assert_allclose(np.diag(normalised), 1)
    assert normalised.loc["clipart", "real"] == pytest.approx(0.2 / math.sqrt(0.5 * 0.8))
    assert normalised.loc["sketch", "real"] == pytest.approx(0.35 / math.sqrt(0.2 * 0.8))


def test_a_domain_that_shares_no_class_stays_in_the_matrix() -> None:
    matrix = domain_matrix(TABLE.iloc[[0]], CEILINGS)
    assert matrix.isna().to_numpy().tolist()[2] == [True, True, False]  # that of sketch


def test_normalising_needs_ceilings() -> None:
    with pytest.raises(InputError, match="divided by noise ceilings, but none were given"):
        domain_matrix(TABLE, normalise=True)


def test_nothing_is_read_against_a_ceiling_of_zero_or_less() -> None:
    low = CEILINGS.assign(value=CEILINGS["value"].where(CEILINGS["domain"] != "sketch", -0.1))
    normalised = domain_matrix(TABLE, low, normalise=True)
    assert normalised["sketch"].isna().all()
    assert normalised.loc["clipart", "real"] == pytest.approx(0.2 / math.sqrt(0.5 * 0.8))
