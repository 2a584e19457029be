"""Centred kernel alignment (CKA) of two representations of the same rows, without bias. Does not import torch.

1. The kernel is ``linear``, the inner products of the rows, or ``rbf``, exp(-d^2 / (2 sigma^2)) of the distances d of
   the rows. Here sigma^2 is the median of the non-zero squared distances. If their number is even, it is the lower of
   the two middle values, as in the study.
2. HSIC is the dependence of two kernel matrices K and L of n rows with zeros on their diagonals (Song et al. 2012):
   n (n - 3) HSIC = tr(KL) + sum(K) sum(L) / ((n - 1)(n - 2)) - 2 sum(KL) / (n - 2).
   It equals the inner product of the U-centred matrices (Szekely & Rizzo 2014), and is computed in this way.
3. CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) (Kornblith et al. 2019, arXiv 1905.00414).
4. The null distribution is the CKA after the rows of the second side are permuted. The uncertainty is a jackknife over
   rows. A bootstrap would draw some rows twice, and unbiased HSIC would then take the similarity of a row to its copy,
   k(x, x), for the similarity of two different rows.
"""

from dataclasses import dataclass
from typing import Annotated

from circuitry.runs import InputError
from circuitry.runs.arguments import FINITE, checked
from experiments.representations.grams import gram_matrix

import numpy as np
from jaxtyping import Float

KERNELS = ("linear", "rbf")
FEWEST_ROWS = 4
"""Fewest rows of unbiased HSIC, which divides by n - 3."""
_ROUNDING = 1e-10
"""Rows count as equal if the norm of the U-centred kernel matrix is at most this share of the norm before centring."""


@checked
def cka(
    a: Annotated[Float[np.ndarray, "rows features_a"], FINITE],
    b: Annotated[Float[np.ndarray, "rows features_b"], FINITE],
    kernel: str = "linear",
) -> float:
    """Return the unbiased CKA of two representations of the same rows.

    It is 1 if the representations are equal up to rotation and scale. It is near 0 if they are unrelated, and can be
    negative, down to -1. The biased CKA is larger, most of all for few rows.

    Args:
        a, b: One row per class (or image), in the same order. The numbers of features may differ.
        kernel: ``linear`` or ``rbf``; see the module's description.

    Example:
        >>> cka(photos, 3 * photos @ rotation)  # class means [classes, features]
        1.0
    """
    if len(a) < FEWEST_ROWS:
        raise InputError(
            f"Unbiased CKA needs at least {FEWEST_ROWS} rows, but {len(a)} were given."
        )
    u = kernel_matrix(gram_matrix(a), kernel, "the first")
    v = kernel_matrix(gram_matrix(b), kernel, "the second")
    return Alignment(u, v).value


def kernel_matrix(
    gram: Float[np.ndarray, "rows rows"], kernel: str, what: str
) -> Float[np.ndarray, "rows rows"]:
    """Return the U-centred kernel matrix of at least four rows.

    Args:
        gram: Inner products of the rows.
        what: Name of the representation in errors.

    Raises:
        InputError: for an unknown kernel, and for rows that are all equal or all equally distant.
    """
    if kernel not in KERNELS:
        raise InputError(
            f"Expected one of the kernels {', '.join(KERNELS)}, but {kernel!r} was given."
        )
    k = gram
    if kernel == "rbf":
        norms = gram.diagonal()
        # |x - y|^2 = x.x + y.y - 2 x.y; rounding can make it negative for equal rows.
        squared = np.maximum(norms[:, None] + norms[None, :] - 2 * gram, 0)
        positive = np.sort(squared[squared > 0])
        # Rows that are all equal have no scale; any scale leads to the error below.
        sigma_squared = 1.0
        if positive.size:
            sigma_squared = float(positive[(positive.size - 1) // 2])
        k = np.exp(-squared / (2 * sigma_squared))
    centred = _u_centred(k)
    # HSIC ignores the diagonal, so the size before centring is of the other entries.
    size = float(np.square(k[~np.eye(len(k), dtype=bool)]).sum())
    if float(np.square(centred).sum()) <= _ROUNDING**2 * size:
        raise InputError(
            f"CKA needs different rows, but the rows of {what} are all equal, or all equally distant: leave it out."
        )
    return centred


@dataclass(frozen=True, eq=False)
class Alignment:
    """The U-centred kernel matrices of two representations: their CKA, its null distribution and its jackknife.

    Both matrices are of the same rows in the same order, and come from `kernel_matrix`.
    """

    u: Float[np.ndarray, "rows rows"]
    v: Float[np.ndarray, "rows rows"]

    @property
    def value(self) -> float:
        """The CKA."""
        return float(_product(self.u, self.v) / self._scale())

    def without_each(self) -> Float[np.ndarray, " rows"]:
        """Return the CKA without each row in turn; NaN if too few rows are left.

        The scale sigma of the kernel stays the scale of all rows.
        """
        both = _products_without_each(self.u, self.v)
        first = _products_without_each(self.u, self.u)
        second = _products_without_each(self.v, self.v)
        # If the rows that are left are all equal, a denominator is zero or negative: the CKA is unknown, not an error.
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(both / np.sqrt(first * second))

    def null(self, permutations: int, seed: int) -> Float[np.ndarray, " permutations"]:
        """Return the CKA after random permutations of the rows of the second representation."""
        rng = np.random.default_rng(seed)
        products = np.empty(permutations)
        for i in range(permutations):
            # To permute the centred matrix is enough: permuting commutes with U-centring.
            order = np.argsort(rng.permutation(len(self.v)))
            products[i] = _product(self.u, self.v[np.ix_(order, order)])
        # The scale is the same for every permutation.
        return np.asarray(products / self._scale())

    def _scale(self) -> float:
        """Return the denominator of CKA."""
        return float(np.sqrt(_product(self.u, self.u) * _product(self.v, self.v)))


def _u_centred(kernel: np.ndarray) -> np.ndarray:
    """Return the U-centred matrix: zeros on its diagonal, and rows and columns that sum to zero."""
    n = len(kernel)
    k = kernel.astype(np.float64)
    np.fill_diagonal(k, 0)
    # U-centring removes any constant, so this changes only the rounding: sums of small numbers are more exact.
    k -= k.sum() / (n * (n - 1))
    np.fill_diagonal(k, 0)
    # As in Szekely & Rizzo 2014: the divisors make the inner product of two such matrices unbiased.
    rows = k.sum(1) / (n - 2)
    k += k.sum() / ((n - 1) * (n - 2)) - rows[:, None] - rows[None, :]
    np.fill_diagonal(k, 0)
    return k


def _product(u: np.ndarray, v: np.ndarray) -> float:
    """Return the HSIC of two U-centred matrices."""
    n = len(u)
    return float(np.vdot(u, v)) / (n * (n - 3))


def _products_without_each(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the HSIC of two U-centred matrices without each row in turn, [rows]; NaN if too few rows are left.

    Rows and columns sum to zero, so without row i each row sums to minus its entry in column i. With t = sum(u * v) and
    r_i the sum of u * v over row i, the formula of HSIC for the n - 1 remaining rows becomes
    (n - 1)(n - 4) HSIC = t - 2 r_i - 2 r_i / (n - 3).
    """
    n = len(u)
    if n <= FEWEST_ROWS:
        return np.full(n, np.nan)
    r = (u * v).sum(1)
    return np.asarray((r.sum() - 2 * r - 2 * r / (n - 3)) / ((n - 1) * (n - 4)))
