"""HSIC, CKA and Gram matrices against their definitions by brute force, and what must not change them."""

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform

from circuitry.runs import InputError
from experiments.representations.grams import gram_matrix
from experiments.representations.kernel_alignment import (
    KERNELS,
    Alignment,
    _product,
    _u_centred,
    cka,
    kernel_matrix,
)


def symmetric(n: int, seed: int) -> np.ndarray:
    k = np.random.default_rng(seed).normal(2.0, 1.0, size=(n, n))
    return k + k.T


def hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """What CKA takes for HSIC, of any two kernel matrices."""
    return _product(_u_centred(k), _u_centred(l))


def direct(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """The formula of unbiased HSIC, term by term."""
    n = len(k)
    k, l = k * (1 - np.eye(n)), l * (1 - np.eye(n))  # noqa: E741
    ones = np.ones(n)
    terms = np.trace(k @ l) + (ones @ k @ ones) * (ones @ l @ ones) / (
        (n - 1) * (n - 2)
    )
    return float((terms - 2 * (ones @ k @ l @ ones) / (n - 2)) / (n * (n - 3)))


def direct_cka(a: np.ndarray, b: np.ndarray, kernel: str) -> float:
    """CKA from features that are not centred, distances by scipy."""
    k, l = (x @ x.T if kernel == "linear" else rbf(x) for x in (a, b))  # noqa: E741
    return float(direct(k, l) / np.sqrt(direct(k, k) * direct(l, l)))


def rbf(x: np.ndarray) -> np.ndarray:
    squared = pdist(x, "sqeuclidean")
    median = np.percentile(squared[squared > 0], 50, method="lower")
    return np.asarray(np.exp(-squareform(squared) / (2 * median)))


def rotation(width: int, seed: int = 0) -> np.ndarray:
    return np.asarray(
        np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]
    )


def features(n: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(1.0, 1.0, size=(n, width))


def test_hsic_is_the_mean_over_all_four_different_rows() -> None:
    # The U-statistic that defines it: k_ij (l_ij + l_qr - 2 l_iq).
    k, l = symmetric(6, 0), symmetric(6, 1)  # noqa: E741
    parts = [
        k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q])
        for i, j, q, r in permutations(range(6), 4)
    ]
    assert hsic(k, l) == pytest.approx(np.mean(parts))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(4, 12), seed=st.integers(0, 1000))
def test_hsic_is_its_formula(n: int, seed: int) -> None:
    k, l = symmetric(n, seed), symmetric(n, seed + 1)  # noqa: E741
    assert hsic(k, l) == pytest.approx(direct(k, l), abs=1e-12)
    assert hsic(k, l) == pytest.approx(hsic(l, k), abs=1e-12)
    assert hsic(2 * k, l) == pytest.approx(2 * hsic(k, l), abs=1e-12)


def test_diagonals_and_what_is_common_to_rows_and_columns_do_not_count() -> None:
    k, l = symmetric(7, 2), symmetric(7, 3)  # noqa: E741
    shift = np.arange(7.0)
    changed = k + shift[:, None] + shift[None, :] + np.diag(shift**2)
    assert hsic(changed, l) == pytest.approx(hsic(k, l))
    np.fill_diagonal(k, 1e9)
    assert hsic(k, l) == pytest.approx(hsic(k * (1 - np.eye(7)), l))


def test_sigma_is_the_root_of_the_median_squared_distance() -> None:
    # Squared distances of 0, 1, 3, 7: 1, 9, 49, 4, 36, 16; the lower of the two in the middle is 9.
    x = np.array([[0.0], [1.0], [3.0], [7.0]])
    squared = np.array([[0, 1, 9, 49], [1, 0, 4, 36], [9, 4, 0, 16], [49, 36, 16, 0]])
    found = kernel_matrix(gram_matrix(x), "rbf", "x")
    other = symmetric(4, 8)
    assert hsic(found, other) == pytest.approx(direct(np.exp(-squared / 18), other))
    # Of 0, 0, 1, 3 the non-zero ones are 1, 1, 4, 9, 9: the median is 4.
    twice = np.array([[0.0], [0.0], [1.0], [3.0]])
    squared = np.array([[0, 0, 1, 9], [0, 0, 1, 9], [1, 1, 0, 4], [9, 9, 4, 0]])
    found = kernel_matrix(gram_matrix(twice), "rbf", "x")
    assert hsic(found, other) == pytest.approx(direct(np.exp(-squared / 8), other))


@pytest.mark.parametrize("kernel", KERNELS)
def test_cka_is_its_definition(kernel: str) -> None:
    for seed in range(5):
        x = features(9, 5, seed)
        y = x[:, :3] + features(9, 3, seed + 100)
        assert cka(x, y, kernel) == pytest.approx(direct_cka(x, y, kernel))


def test_the_biased_estimator_is_larger_for_few_rows_and_the_same_for_many() -> None:
    def estimates(n: int, seed: int) -> tuple[float, float]:
        x = features(n, 20, seed)
        y = x[:, :10] + features(n, 10, seed + 1000)
        a, b = (z - z.mean(0) for z in (x, y))
        biased = np.sum((a.T @ b) ** 2) / np.sqrt(
            np.sum((a.T @ a) ** 2) * np.sum((b.T @ b) ** 2)
        )
        return cka(x, y), biased

    few, many = (
        np.mean([estimates(n, seed) for seed in range(draws)], 0)
        for n, draws in ((30, 40), (2000, 2))
    )
    assert few[0] == pytest.approx(many[0], abs=0.03)
    assert few[1] > few[0] + 0.1
    assert many[1] == pytest.approx(many[0], abs=0.01)


@pytest.mark.parametrize("kernel", KERNELS)
def test_rotation_scale_and_offset_change_nothing(kernel: str) -> None:
    x, y = features(10, 6, 10), features(10, 4, 11)
    assert cka(x, x, kernel) == pytest.approx(1)
    assert cka(x, -3 * x @ rotation(6) + 7, kernel) == pytest.approx(1)
    assert cka(2 * x @ rotation(6) - 1, y, kernel) == pytest.approx(cka(x, y, kernel))
    assert cka(y, x, kernel) == pytest.approx(cka(x, y, kernel))
    order = np.random.default_rng(0).permutation(10)
    assert cka(x[order], y[order], kernel) == pytest.approx(cka(x, y, kernel))
    assert cka(x[order], y, kernel) != pytest.approx(cka(x, y, kernel), abs=1e-3)


def test_without_each_row_is_computed_anew() -> None:
    x, y = features(7, 3, 20), features(7, 2, 30)
    u, v = (kernel_matrix(gram_matrix(a), "linear", "x") for a in (x, y))
    expected = [
        direct_cka(np.delete(x, row, 0), np.delete(y, row, 0), "linear")
        for row in range(7)
    ]
    np.testing.assert_allclose(Alignment(u, v).without_each(), expected)


def test_without_each_row_the_kernel_stays() -> None:
    k, l = rbf(features(6, 3, 40)), rbf(features(6, 3, 41))  # noqa: E741
    x, y = (
        kernel_matrix(gram_matrix(features(6, 3, seed)), "rbf", "x")
        for seed in (40, 41)
    )
    found = Alignment(x, y).without_each()
    for i in range(6):
        a, b = (np.delete(np.delete(m, i, 0), i, 1) for m in (k, l))
        assert found[i] == pytest.approx(
            direct(a, b) / np.sqrt(direct(a, a) * direct(b, b))
        )


def test_the_null_is_cka_of_permuted_rows() -> None:
    x, y = features(6, 4, 50), features(6, 4, 51)
    u, v = (kernel_matrix(gram_matrix(a), "rbf", "x") for a in (x, y))
    alignment = Alignment(u, v)
    found = alignment.null(40, seed=3)
    possible = [cka(x, y[list(order)], "rbf") for order in permutations(range(6))]
    assert all(min(abs(value - p) for p in possible) < 1e-9 for value in found)
    assert len(np.unique(found.round(9))) > 30
    assert alignment.null(40, seed=3).tolist() == found.tolist()
    assert alignment.null(40, seed=4).tolist() != found.tolist()


FIVE = features(5, 3, 60)
FLAT = np.tile(FIVE[0], (5, 1))


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: cka(FIVE, FIVE[:4]), r"rows features_b.*\[4, "),
        (lambda: cka(FIVE[:3], FIVE[:3]), "4 rows, but 3"),
        (lambda: cka(FIVE, FIVE, "cosine"), "linear, rbf, but 'cosine'"),
        (lambda: cka(FIVE, np.where(FIVE > 0, np.nan, FIVE)), "NaN or infinity"),
        *(
            (lambda kernel=kernel: cka(FIVE, FLAT, kernel), "the second are all equal")
            for kernel in KERNELS
        ),
        *(
            (
                lambda kernel=kernel: cka(np.eye(5), FIVE, kernel),
                "the first are all equal",
            )
            for kernel in KERNELS
        ),
    ],
)
def test_bad_input_is_named(use: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        use()


def rows_of(x: np.ndarray) -> np.ndarray:
    """Inner products after centring, with the centring matrix written out."""
    n = len(x)
    centring = np.eye(n) - np.ones((n, n)) / n
    return np.asarray(centring @ x.astype(float) @ x.astype(float).T @ centring)


def test_a_gram_matrix_is_that_of_centred_features() -> None:
    x = np.random.default_rng(0).normal(3, 1, size=(6, 9)).astype(np.float32)
    before = x.copy()
    np.testing.assert_allclose(gram_matrix(x), rows_of(x), atol=1e-12)
    assert (x == before).all()
    assert gram_matrix(np.array([[0.0, 5.0], [2.0, 5.0]])).tolist() == [
        [1, -1],
        [-1, 1],
    ]


def test_small_differences_of_large_numbers_survive() -> None:
    # In single precision, numbers near a million are a sixteenth apart.
    small = np.random.default_rng(2).normal(0, 0.01, size=(6, 500))
    np.testing.assert_allclose(
        gram_matrix(1e6 + small), rows_of(small), rtol=1e-5, atol=1e-7
    )
