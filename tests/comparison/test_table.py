"""Domain-by-domain means worked out on paper."""

import math

import numpy as np
import pandas as pd

from circuitry.comparison import domain_matrix

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


def test_ceilings_go_onto_the_diagonal() -> None:
    np.testing.assert_allclose(np.diag(domain_matrix(TABLE, CEILINGS)), [0.5, 0.8, 0.2])


def test_a_domain_that_shares_no_class_stays_in_the_matrix() -> None:
    matrix = domain_matrix(TABLE.iloc[[0]], CEILINGS)
    assert matrix.isna().to_numpy().tolist()[2] == [True, True, False]  # that of sketch
