"""HSIC and CKA against their definitions by brute force, closed forms, and what must not change them."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform

from circuitry.representations.grams import gram_matrix
from circuitry.representations.kernel_alignment import KERNELS, Alignment, cka, hsic, kernel_matrices
from circuitry.runs.errors import InputError


def symmetric(n: int, seed: int) -> np.ndarray:
    k = np.random.default_rng(seed).normal(2.0, 1.0, size=(n, n))
    return k + k.T


def direct(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """The formula of unbiased HSIC, term by term."""
    n = len(k)
    k, l = k * (1 - np.eye(n)), l * (1 - np.eye(n))  # noqa: E741
    ones = np.ones(n)
    terms = np.trace(k @ l) + (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
    return float((terms - 2 * (ones @ k @ l @ ones) / (n - 2)) / (n * (n - 3)))


def direct_cka(a: np.ndarray, b: np.ndarray, kernel: str) -> float:
    """CKA from features that are not centred, distances by scipy."""
    k, l = (x @ x.T if kernel == "linear" else rbf(x) for x in (a, b))  # noqa: E741
    return float(direct(k, l) / np.sqrt(direct(k, k) * direct(l, l)))


def rbf(x: np.ndarray) -> np.ndarray:
    squared = pdist(x, "sqeuclidean")
    return np.asarray(np.exp(-squareform(squared) / (2 * np.median(squared[squared > 0]))))


def rotation(width: int, seed: int = 0) -> np.ndarray:
    return np.asarray(np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0])


def features(n: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(1.0, 1.0, size=(n, width))


# HSIC


def test_hsic_is_the_mean_over_all_four_different_rows() -> None:
    # The U-statistic that defines it: k_ij (l_ij + l_qr - 2 l_iq).
    k, l = symmetric(6, 0), symmetric(6, 1)  # noqa: E741
    parts = [k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]) for i, j, q, r in permutations(range(6), 4)]
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


def test_independent_rows_have_no_hsic_in_the_mean() -> None:
    rng = np.random.default_rng(4)
    values = [hsic(a @ a.T, b @ b.T) for a, b in (rng.normal(size=(2, 6, 3)) for _ in range(2000))]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))


def test_the_mean_over_minibatches_is_that_of_all_rows() -> None:
    x = features(60, 4, 5)
    y = x[:, :3] ** 2 + 0.5 * features(60, 3, 6)
    k, l = gram_matrix(x), rbf(y)  # noqa: E741
    rng = np.random.default_rng(7)
    values = []
    for _ in range(1500):
        i = rng.choice(60, 8, replace=False)
        values.append(hsic(k[np.ix_(i, i)], l[np.ix_(i, i)]))
    error = np.std(values) / np.sqrt(len(values))
    assert hsic(k, l) == pytest.approx(np.mean(values), abs=3 * error)
    assert hsic(k, l) > 10 * error


# Kernels


def test_sigma_is_the_root_of_the_median_squared_distance() -> None:
    # Squared distances of 0, 1, 3, 7: 1, 9, 49, 4, 36, 16; their median is 12.5, so the kernel is exp(-d^2 / 25).
    x = np.array([[0.0], [1.0], [3.0], [7.0]])
    squared = np.array([[0, 1, 9, 49], [1, 0, 4, 36], [9, 4, 0, 16], [49, 36, 16, 0]])
    (found,) = kernel_matrices([gram_matrix(x)], "rbf", "x")
    other = symmetric(4, 8)
    assert hsic(found, other) == pytest.approx(direct(np.exp(-squared / 25), other))
    # Of 0, 0, 1, 3 the non-zero ones are 1, 1, 4, 9, 9: the median is 4.
    twice = np.array([[0.0], [0.0], [1.0], [3.0]])
    squared = np.array([[0, 0, 1, 9], [0, 0, 1, 9], [1, 1, 0, 4], [9, 9, 4, 0]])
    (found,) = kernel_matrices([gram_matrix(twice)], "rbf", "x")
    assert hsic(found, other) == pytest.approx(direct(np.exp(-squared / 8), other))


def test_batches_have_one_sigma() -> None:
    x = np.array([[0.0], [1.0], [3.0], [7.0]])
    # Together with ten times the rows: 1, 4, 9, 16, 36, 49 and 100 times as much; the median is (49 + 100) / 2.
    found = kernel_matrices([gram_matrix(x), gram_matrix(10 * x)], "rbf", "x")
    other = symmetric(4, 9)
    for rows, kernel in zip((x, 10 * x), found, strict=True):
        assert hsic(kernel, other) == pytest.approx(direct(np.exp(-((rows - rows.T) ** 2) / 149), other))


# CKA


@pytest.mark.parametrize("kernel", KERNELS)
def test_cka_is_its_definition(kernel: str) -> None:
    for seed in range(5):
        x = features(9, 5, seed)
        y = x[:, :3] + features(9, 3, seed + 100)
        assert cka(x, y, kernel) == pytest.approx(direct_cka(x, y, kernel))


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


def test_half_of_the_variance_in_common() -> None:
    # Covariances: |cov(x, [x, y])|^2 = d, of x with itself d, of [x, y] with itself 2 d, so CKA is 1 / sqrt(2).
    x, y = features(1500, 3, 12), features(1500, 3, 13)
    assert cka(x, np.hstack([x, y])) == pytest.approx(1 / np.sqrt(2), abs=0.03)


@pytest.mark.parametrize("kernel", KERNELS)
def test_independent_representations_have_no_cka_in_the_mean(kernel: str) -> None:
    rng = np.random.default_rng(14)
    values = [cka(rng.normal(size=(12, 50)), rng.normal(size=(12, 50)), kernel) for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20
    # With as many features as here, biased CKA is near 1.
    assert np.std(values) < 0.2


# Batches, rows left out, permutations


def batches(kernel: str = "linear") -> tuple[Alignment, list[np.ndarray], list[np.ndarray]]:
    """Seven rows in three batches, two of which lack rows."""
    members = [np.arange(7), np.array([0, 1, 2, 4, 5, 6]), np.array([0, 2, 3, 5, 6])]
    x = [features(len(own), 3, 20 + i) for i, own in enumerate(members)]
    y = [a[:, :2] + 0.7 * features(len(a), 2, 30 + i) for i, a in enumerate(x)]
    u, v = (kernel_matrices([gram_matrix(a) for a in side], kernel, "x") for side in (x, y))
    return Alignment(u, v, members), x, y


def of_batches(x: list[np.ndarray], y: list[np.ndarray]) -> float:
    kl, kk, ll = (
        np.mean([direct(a @ a.T, b @ b.T) for a, b in zip(*s, strict=True)]) for s in ((x, y), (x, x), (y, y))
    )
    return float(kl / np.sqrt(kk * ll))


def test_of_batches_hsic_is_averaged_before_the_ratio() -> None:
    alignment, x, y = batches()
    assert alignment.value == pytest.approx(of_batches(x, y))
    assert alignment.value != pytest.approx(np.mean([cka(a, b) for a, b in zip(x, y, strict=True)]), abs=1e-3)


def test_without_each_row_is_computed_anew() -> None:
    alignment, x, y = batches()
    expected = []
    for row in range(7):
        kept = [own != row for own in alignment.members]
        expected.append(
            of_batches([a[k] for a, k in zip(x, kept, strict=True)], [b[k] for b, k in zip(y, kept, strict=True)])
        )
    np.testing.assert_allclose(alignment.without_each(), expected)


def test_without_each_row_the_kernel_stays() -> None:
    k, l = rbf(features(6, 3, 40)), rbf(features(6, 3, 41))  # noqa: E741
    x, y = (kernel_matrices([gram_matrix(features(6, 3, seed))], "rbf", "x") for seed in (40, 41))
    found = Alignment(x, y, [np.arange(6)]).without_each()
    for i in range(6):
        a, b = (np.delete(np.delete(m, i, 0), i, 1) for m in (k, l))
        assert found[i] == pytest.approx(direct(a, b) / np.sqrt(direct(a, a) * direct(b, b)))


def test_of_four_rows_none_can_be_left_out() -> None:
    u, v = (kernel_matrices([gram_matrix(features(4, 3, seed))], "linear", "x") for seed in (42, 43))
    assert np.isnan(Alignment(u, v, [np.arange(4)]).without_each()).all()


def test_the_null_is_cka_of_permuted_rows() -> None:
    x, y = features(6, 4, 50), features(6, 4, 51)
    u, v = (kernel_matrices([gram_matrix(a)], "rbf", "x") for a in (x, y))
    alignment = Alignment(u, v, [np.arange(6)])
    found = alignment.null(40, seed=3)
    possible = [cka(x, y[list(order)], "rbf") for order in permutations(range(6))]
    assert all(min(abs(value - p) for p in possible) < 1e-9 for value in found)
    assert len(np.unique(found.round(9))) > 30
    assert alignment.null(40, seed=3).tolist() == found.tolist()
    assert alignment.null(40, seed=4).tolist() != found.tolist()


def test_rows_are_permuted_alike_in_all_batches() -> None:
    x, y = features(6, 4, 52), features(6, 4, 53)
    u, v = (kernel_matrices([gram_matrix(a)] * 2, "linear", "x") for a in (x, y))
    once = Alignment(u[:1], v[:1], [np.arange(6)])
    twice = Alignment(u, v, [np.arange(6)] * 2)
    np.testing.assert_allclose(twice.null(20, 0), once.null(20, 0))


# Bad input


def test_bad_input_is_named_in_a_sentence() -> None:
    x = features(5, 3, 60)
    with pytest.raises(InputError, match="the same rows in two representations, but 5 and 4 were given"):
        cka(x, x[:4])
    with pytest.raises(InputError, match="at least 4 rows, but 3 were given"):
        cka(x[:3], x[:3])
    with pytest.raises(InputError, match="at least 4 rows, but 3 were given"):
        hsic(np.eye(3), np.eye(3))
    with pytest.raises(InputError, match="one of the kernels linear, rbf, but 'cosine' was given"):
        cka(x, x, "cosine")
    with pytest.raises(InputError, match="features that are finite, but NaN or infinite"):
        cka(x, np.where(x > 0, np.nan, x))


@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_that_do_not_differ_have_no_cka(kernel: str) -> None:
    x = features(5, 3, 61)
    with pytest.raises(InputError, match="rows that differ, but those of the second are all equal, or all equally far"):
        cka(x, np.tile(x[0], (5, 1)), kernel)
    with pytest.raises(InputError, match="those of the first are all equal, or all equally far apart: leave it out"):
        cka(np.eye(5), x, kernel)
