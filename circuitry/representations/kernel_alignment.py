"""Centred kernel alignment (CKA) of two representations of the same rows, without bias. No torch.

1. Kernel: ``linear``, the inner products of the rows; or ``rbf``, exp(-d^2 / (2 sigma^2)) of their distances d, with
   sigma the square root of the median non-zero squared distance.
2. HSIC, the dependence of two kernel matrices K and L of n rows (Song et al. 2012), with zeros on their diagonals:
   n (n - 3) HSIC = tr(KL) + sum(K) sum(L) / ((n - 1)(n - 2)) - 2 sum(KL) / (n - 2).
   It is the inner product of the U-centred matrices (Szekely & Rizzo 2014), and is computed as such.
3. CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) (Kornblith et al. 2019, arXiv 1905.00414). Of several batches of rows,
   HSIC is averaged over batches before the ratio (Nguyen et al. 2021, arXiv 2010.15327).
4. Null: the rows of one side permuted. Uncertainty: CKA without each row in turn, for a jackknife; a bootstrap would
   draw rows twice, and unbiased HSIC takes k(x, x) off the diagonal for similarity.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from circuitry.representations.grams import gram_matrix
from circuitry.runs.errors import InputError

KERNELS = ("linear", "rbf")
FEWEST = 4
"""Unbiased HSIC needs so many rows."""
_ROUNDING = 1e-10
"""A kernel matrix that U-centring shrinks below this share holds nothing but rounding."""


def cka(
    a: Float[np.ndarray, "rows_a features_a"], b: Float[np.ndarray, "rows_b features_b"], kernel: str = "linear"
) -> float:
    """Return the CKA of two representations of the same rows: 1 when equal but for rotation and scale, near 0 for none.

    Without bias it can be negative, down to -1.

    Args:
        a, b: One row per class (or image), in the same order.
        kernel: One of `KERNELS`.

    Raises:
        InputError: for different numbers of rows, fewer than four of them, features that are not finite, rows without
            differences, or an unknown kernel.

    Example:
        >>> cka(photos, 3 * photos @ rotation)  # class means [classes, features]
        1.0
    """
    if len(a) != len(b):
        raise InputError(f"CKA compares the same rows in two representations, but {len(a)} and {len(b)} were given.")
    if len(a) < FEWEST:
        raise InputError(f"Unbiased CKA needs at least {FEWEST} rows, but {len(a)} were given.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("CKA needs features that are finite, but NaN or infinite values were given.")
    u, v = (kernel_matrices([gram_matrix(x)], kernel, what) for x, what in ((a, "the first"), (b, "the second")))
    return Alignment(u, v, [np.arange(len(a))]).value


def hsic(k: Float[np.ndarray, "rows rows"], l: Float[np.ndarray, "rows rows"]) -> float:  # noqa: E741
    """Return the unbiased HSIC of two kernel matrices, whose diagonals do not count; in the mean 0 for independence.

    Raises:
        InputError: for fewer than four rows.
    """
    if len(k) < FEWEST:
        raise InputError(f"Unbiased HSIC needs at least {FEWEST} rows, but {len(k)} were given.")
    return _product(_u_centred(k), _u_centred(l))


def kernel_matrices(
    grams: Sequence[Float[np.ndarray, "_ _"]], kernel: str, what: str
) -> list[Float[np.ndarray, "_ _"]]:
    """Return the kernel matrices, with zeros on their diagonals and U-centred, of batches of rows.

    Args:
        grams: Inner products of the rows of each batch, at least four.
        kernel: One of `KERNELS`; rbf has one sigma for all batches.
        what: What is represented, for messages.

    Raises:
        InputError: for an unknown kernel, or rows without differences.
    """
    if kernel not in KERNELS:
        raise InputError(f"Expected one of the kernels {', '.join(KERNELS)}, but {kernel!r} was given.")
    kernels = list(grams) if kernel == "linear" else _rbf(grams)
    centred = [_u_centred(k) for k in kernels]
    size = sum(float(np.square(k[~np.eye(len(k), dtype=bool)]).sum()) for k in kernels)
    if sum(float(np.square(u).sum()) for u in centred) <= _ROUNDING**2 * size:
        raise InputError(
            f"CKA needs rows that differ, but those of {what} are all equal, or all equally far apart: leave it out."
        )
    return centred


@dataclass(frozen=True, eq=False)
class Alignment:
    """Two sides of the same rows, in one batch or several: their CKA, and what it is read against."""

    u: Sequence[Float[np.ndarray, "_ _"]]
    """By batch, the first side's kernel matrix from `kernel_matrices`."""
    v: Sequence[Float[np.ndarray, "_ _"]]
    """By batch, the second side's."""
    members: Sequence[np.ndarray]
    """By batch, which rows it has, as numbers from 0 that mean the same in every batch."""

    @property
    def value(self) -> float:
        """The CKA."""
        return float(_ratio(*(sum(_product(a, b) for a, b in side) for side in self._sides())))

    def without_each(self) -> Float[np.ndarray, " rows"]:
        """Return the CKA without each row in turn, the kernels (sigma) as they are; NaN where too few are left."""
        n = 1 + max(int(own.max()) for own in self.members)
        sums = []
        for side in self._sides():
            total = np.zeros(n)
            for (a, b), own in zip(side, self.members, strict=True):
                without = np.full(n, _product(a, b))
                without[own] = _products_without_each(a, b)
                total += without
            sums.append(total)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(_ratio(*sums))

    def null(self, permutations: int, seed: int) -> Float[np.ndarray, " permutations"]:
        """Return the CKA with the second side's rows permuted at random, alike in all batches."""
        rng = np.random.default_rng(seed)
        n = 1 + max(int(own.max()) for own in self.members)
        _, kk, ll = (sum(_product(a, b) for a, b in side) for side in self._sides())
        found = np.empty(permutations)
        for i in range(permutations):
            rank = rng.permutation(n)
            orders = [np.argsort(rank[own]) for own in self.members]  # permuting commutes with U-centring
            found[i] = sum(_product(a, b[np.ix_(o, o)]) for a, b, o in zip(self.u, self.v, orders, strict=True))
        return np.asarray(_ratio(found, kk, ll))

    def _sides(self) -> list[list[tuple[np.ndarray, np.ndarray]]]:
        return [list(zip(x, y, strict=True)) for x, y in ((self.u, self.v), (self.u, self.u), (self.v, self.v))]


def _ratio(kl: np.ndarray | float, kk: np.ndarray | float, ll: np.ndarray | float) -> np.ndarray | float:
    """CKA of sums over batches; their number cancels."""
    return kl / np.sqrt(kk * ll)


def _rbf(grams: Sequence[np.ndarray]) -> list[np.ndarray]:
    squared = [np.maximum(g.diagonal()[:, None] + g.diagonal()[None, :] - 2 * g, 0) for g in grams]
    apart = np.concatenate([d[d > 0] for d in squared])
    variance = float(np.median(apart)) if apart.size else 1.0
    return [np.exp(-d / (2 * variance)) for d in squared]


def _u_centred(kernel: np.ndarray) -> np.ndarray:
    """The kernel matrix with zeros on its diagonal and, off it, rows and columns that sum to zero."""
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
    """HSIC of two U-centred matrices."""
    n = len(u)
    return float(np.vdot(u, v)) / (n * (n - 3))


def _products_without_each(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """HSIC of two U-centred matrices without each row in turn.

    Rows and columns sum to zero, so after row i has gone they sum to minus its entries, and the formula of HSIC for
    what is left becomes, with t = sum(u * v) and r_i the part of row i:
    (n - 1)(n - 4) HSIC = t - 2 r_i - 2 r_i / (n - 3).
    """
    n = len(u)
    if n <= FEWEST:
        return np.full(n, np.nan)
    r = (u * v).sum(1)
    return np.asarray((r.sum() - 2 * r - 2 * r / (n - 3)) / ((n - 1) * (n - 4)))
