"""Centred kernel alignment (CKA) of two representations of the same rows, without bias. No torch.

1. Kernel: ``linear``, the inner products of the rows; or ``rbf``, exp(-d^2 / (2 sigma^2)) of their distances d, with
   sigma the square root of the median non-zero squared distance; of an even number the lower middle one, as the study.
2. HSIC, the dependence of two kernel matrices K and L of n rows (Song et al. 2012), with zeros on their diagonals:
   n (n - 3) HSIC = tr(KL) + sum(K) sum(L) / ((n - 1)(n - 2)) - 2 sum(KL) / (n - 2).
   It is the inner product of the U-centred matrices (Szekely & Rizzo 2014), and is computed as such.
3. CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) (Kornblith et al. 2019, arXiv 1905.00414).
4. Null: the rows of one side permuted. Uncertainty: a jackknife over rows. A bootstrap would draw rows twice, and
   unbiased HSIC would take k(x, x) off the diagonal for similarity.
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
"""Unbiased HSIC needs so many rows."""
_ROUNDING = 1e-10
"""Rows count as equal if the U-centred kernel matrix is smaller than this share of the matrix before."""


@checked
def cka(
    a: Annotated[Float[np.ndarray, "rows features_a"], FINITE],
    b: Annotated[Float[np.ndarray, "rows features_b"], FINITE],
    kernel: str = "linear",
) -> float:
    """Return the unbiased CKA of two representations of the same rows: 1 if equal up to rotation and scale.

    Of unrelated ones it is near 0, down to -1. The biased CKA is larger, most of all for few rows.

    Args:
        a, b: One row per class (or image), in the same order.

    Example:
        >>> cka(photos, 3 * photos @ rotation)  # class means [classes, features]
        1.0
    """
    if len(a) < FEWEST_ROWS:
        raise InputError(
            f"Unbiased CKA needs at least {FEWEST_ROWS} rows, but {len(a)} were given."
        )
    u, v = (
        kernel_matrix(gram_matrix(x), kernel, what)
        for x, what in ((a, "the first"), (b, "the second"))
    )
    return Alignment(u, v).value


def kernel_matrix(
    gram: Float[np.ndarray, "rows rows"], kernel: str, what: str
) -> Float[np.ndarray, "rows rows"]:
    """Return the U-centred kernel matrix of at least four rows, from their inner products; errors name ``what``."""
    if kernel not in KERNELS:
        raise InputError(
            f"Expected one of the kernels {', '.join(KERNELS)}, but {kernel!r} was given."
        )
    k = gram
    if kernel == "rbf":
        squared = np.maximum(
            gram.diagonal()[:, None] + gram.diagonal()[None, :] - 2 * gram, 0
        )
        apart = np.sort(squared[squared > 0])
        k = np.exp(
            -squared
            / (2 * (float(apart[(apart.size - 1) // 2]) if apart.size else 1.0))
        )
    centred = _u_centred(k)
    size = float(np.square(k[~np.eye(len(k), dtype=bool)]).sum())
    if float(np.square(centred).sum()) <= _ROUNDING**2 * size:
        raise InputError(
            f"CKA needs different rows, but the rows of {what} are all equal, or all equally distant: leave it out."
        )
    return centred


@dataclass(frozen=True, eq=False)
class Alignment:
    """Two representations of the same rows, as `kernel_matrix` makes them: their CKA, its null and its jackknife."""

    u: Float[np.ndarray, "rows rows"]
    v: Float[np.ndarray, "rows rows"]

    @property
    def value(self) -> float:
        """The CKA."""
        return float(_product(self.u, self.v) / self._scale())

    def without_each(self) -> Float[np.ndarray, " rows"]:
        """Return the CKA without each row in turn, the kernels (sigma) as they are; NaN where too few are left."""
        sides = ((self.u, self.v), (self.u, self.u), (self.v, self.v))
        with np.errstate(invalid="ignore", divide="ignore"):
            both, first, second = (_products_without_each(a, b) for a, b in sides)
            return np.asarray(both / np.sqrt(first * second))

    def null(self, permutations: int, seed: int) -> Float[np.ndarray, " permutations"]:
        """Return the CKA with the second one's rows permuted at random."""
        rng = np.random.default_rng(seed)
        found = np.empty(permutations)
        for i in range(permutations):
            # Permuting commutes with U-centring.
            order = np.argsort(rng.permutation(len(self.v)))
            found[i] = _product(self.u, self.v[np.ix_(order, order)])
        return np.asarray(found / self._scale())

    def _scale(self) -> float:
        return float(np.sqrt(_product(self.u, self.u) * _product(self.v, self.v)))


def _u_centred(kernel: np.ndarray) -> np.ndarray:
    """Return a kernel matrix with zeros on its diagonal whose rows and columns sum to zero."""
    n = len(kernel)
    k = kernel.astype(np.float64)
    np.fill_diagonal(k, 0)
    k -= k.sum() / (n * (n - 1))  # changes nothing but the rounding: constants vanish
    np.fill_diagonal(k, 0)
    rows = k.sum(1) / (n - 2)
    k += k.sum() / ((n - 1) * (n - 2)) - rows[:, None] - rows[None, :]
    np.fill_diagonal(k, 0)
    return k


def _product(u: np.ndarray, v: np.ndarray) -> float:
    """Return the HSIC of two U-centred matrices."""
    n = len(u)
    return float(np.vdot(u, v)) / (n * (n - 3))


def _products_without_each(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the HSIC of two U-centred matrices without each row in turn.

    Rows and columns sum to zero, so without row i they sum to minus its entries, and the formula of HSIC for the other
    rows becomes, with t = sum(u * v) and r_i the part of row i:
    (n - 1)(n - 4) HSIC = t - 2 r_i - 2 r_i / (n - 3).
    """
    n = len(u)
    if n <= FEWEST_ROWS:
        return np.full(n, np.nan)
    r = (u * v).sum(1)
    return np.asarray((r.sum() - 2 * r - 2 * r / (n - 3)) / ((n - 1) * (n - 4)))
