"""Similarities between folds of images: a tidy table, and an array with the same values.

The images of a class in a domain are cut into K folds of equal size. An item is what several images show together, such
as one source picture in several styles. Images of one item are in the same fold in every domain. Only different folds
are compared, so the two sides of a comparison have different items and equally many images.

The table has three kinds of rows: similarities of one class in two domains, similarities of two folds of the same class
and domain (ceilings), and similarities of two classes.
"""

from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from circuitry.comparison.table import with_columns
from circuitry.runs.arguments import DISTINCT, checked
from circuitry.runs.errors import InputError

FOLDS = (
    "class_a",
    "class_b",
    "domain_a",
    "domain_b",
    "fold_a",
    "fold_b",
    "site",
    "value",
)
"""Columns of a table of folds. Two folds of the same class and domain have one row, with ``fold_a < fold_b``. For all
other pairs, both orders of the folds have a row."""

WHOLE = -1
"""Fold number that means all images of the class and domain, instead of a fold.

A row that compares a fold with all images is an upper ceiling, because all images include the fold."""


FoldTable = Annotated[pd.DataFrame, with_columns(*FOLDS)]
"""Table of similarities between folds; see `FOLDS`."""


def check_folds(folds: pd.DataFrame) -> None:
    """Raise `InputError` if a table of folds compares a fold with itself, or has a row twice."""
    keys = list(FOLDS[:-1])
    mistakes = {
        "compares a fold with itself": folds["fold_a"] == folds["fold_b"],
        "occurs twice": folds.duplicated(keys),
    }
    for mistake, wrong in mistakes.items():
        if wrong.any():
            first = folds.loc[wrong, keys].iloc[0]
            row = ", ".join(map(str, first))
            raise InputError(
                f"A table of folds holds each two different folds once, but the row {row} {mistake}: remove it."
            )


@checked
def ceilings_of(folds: FoldTable, *, upper: bool = False) -> pd.DataFrame:
    """Return the ceilings: the mean similarity of two folds of the same class and domain.

    Args:
        upper: If True, each fold is compared with all images of the class and domain. They include the fold, so the
            value is an upper bound. If False, two different folds are compared.

    Returns:
        Columns class, domain, site, value.
    """
    same_class = folds["class_a"] == folds["class_b"]
    same_domain = folds["domain_a"] == folds["domain_b"]
    own = folds[same_class & same_domain & (of_whole(folds) == upper)]
    # Both sides are of one class and domain, so either column names it.
    own = own.rename(columns={"class_a": "class", "domain_a": "domain"})
    keys = ["class", "domain", "site"]
    groups = own.groupby(keys, dropna=False, sort=False)
    means = groups["value"].mean().reset_index()
    return means.assign(site=_sites(means["site"]))


def _sites(sites: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return a column of sites in which NaN is replaced by None, the site of similarities of whole circuits."""
    # pandas makes NaN of None when it groups or reads rows.
    return sites.astype(object).where(sites.notna(), None)


def of_whole(folds: FoldTable) -> "pd.Series[bool]":
    """Return which rows compare a fold with all images."""
    return (folds["fold_a"] == WHOLE) | (folds["fold_b"] == WHOLE)


def fold_kinds(folds: FoldTable) -> dict[str, pd.DataFrame]:
    """Return the rows that compare two folds, as four tables by the name of their kind.

    The kinds are: one class or two classes, in one domain or in two domains.
    """
    one_class = folds["class_a"] == folds["class_b"]
    one_domain = folds["domain_a"] == folds["domain_b"]
    # Rows with all images are upper ceilings, of more images than folds have.
    between = ~of_whole(folds)
    kinds = {
        "the same class in two domains, folds": one_class & ~one_domain,
        "two folds of the same images": one_class & one_domain,
        "two classes in two domains": ~one_class & ~one_domain,
        "two classes in one domain": ~one_class & one_domain,
    }
    return {name: folds[rows & between] for name, rows in kinds.items()}


class FoldArray(NamedTuple):
    """The similarities between folds of the same class as an array; NaN for unknown values.

    Example:
        >>> from circuitry.comparison import FOLDS, FoldArray
        >>> row = ("clock", "clock", "real", "sketch", 0, 1, "conv", 0.5)
        >>> FoldArray.from_table(pd.DataFrame([row], columns=FOLDS)).values.shape
        (1, 2, 2, 1, 2, 2)
    """

    classes: Annotated[tuple[str, ...], DISTINCT]
    """The classes along axis 0 of `values`."""
    domains: Annotated[tuple[str, ...], DISTINCT]
    """The domains along the axes 1 and 2."""
    sites: Annotated[tuple[str | None, ...], DISTINCT]
    """The sites along axis 3; None for a similarity of whole circuits."""
    values: Float[np.ndarray, "classes domains domains sites folds folds"]
    """Similarities by class, two domains, site and two folds. A value stays the same if both the domains and the folds
    are exchanged. A fold with itself is NaN."""

    @property
    def n_folds(self) -> int:
        """Number of folds."""
        return int(self.values.shape[-1])

    def to_pandas(self) -> pd.DataFrame:
        """Return the known values as a table with the columns `FOLDS`; each pair has a row in both orders."""
        folds = range(self.n_folds)
        axes = (self.classes, self.domains, self.domains, self.sites, folds, folds)
        names = ["class_a", "domain_a", "domain_b", "site", "fold_a", "fold_b"]
        places = pd.MultiIndex.from_product(axes, names=names)
        known = pd.Series(self.values.ravel(), places, name="value").dropna()
        table = known.reset_index()
        table = table.assign(class_b=table["class_a"], site=_sites(table["site"]))
        return table[list(FOLDS)]

    @classmethod
    def from_table(cls, folds: FoldTable) -> "FoldArray":
        """Arrange the rows that compare two folds of one class. All other rows are ignored."""
        rows = folds[(folds["class_a"] == folds["class_b"]) & ~of_whole(folds)]
        classes, c, _ = places_of(rows, "class")
        domains, a, b = places_of(rows, "domain")
        labels, p, q = places_of(rows, "fold")
        # The place of each site, in the order of the rows.
        site, names = pd.factorize(rows["site"], use_na_sentinel=False)
        sites = tuple(name if isinstance(name, str) else None for name in names)
        shape = (
            len(classes),
            len(domains),
            len(domains),
            len(sites),
            len(labels),
            len(labels),
        )
        values = np.full(shape, np.nan)
        values[c, a, b, site, p, q] = rows["value"]
        # The similarity is symmetric, and a table has each pair once.
        values[c, b, a, site, q, p] = rows["value"]
        return cls(tuple(classes), tuple(domains), sites, values)


def places_of(
    table: pd.DataFrame,
    kind: str,
) -> tuple[list[Any], np.ndarray, np.ndarray]:
    """Return the names that occur in two columns of a table, and the indices of the two names of each row.

    Args:
        kind: The two columns are ``<kind>_a`` and ``<kind>_b``, such as class_a and class_b.

    Returns:
        A sorted list of the names, and two arrays with an entry for each row: the index of the name in the first
        column, and the index of the name in the second column.
    """
    a = table[f"{kind}_a"]
    b = table[f"{kind}_b"]
    names = sorted({*a, *b})
    places = pd.Index(names)
    return names, places.get_indexer(a), places.get_indexer(b)


def without_own(
    values: Float[np.ndarray, "classes domains domains *cells"],
) -> Float[np.ndarray, "classes domains domains *cells"]:
    """Return the similarities of different domains. Similarities of a domain with itself become NaN."""
    # The mean over the other domains then skips the domain's own ceiling.
    others = values.copy()
    same = np.arange(values.shape[1])
    others[:, same, same] = np.nan
    return others


def mean_known(values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Return the mean of the known numbers along an axis; NaN, without a warning, if no number is known."""
    n_known = (~np.isnan(values)).sum(axis)
    return known_ratio(np.nansum(values, axis), n_known)


def mean_of_members(member: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the mean of the known values in each of several sets; NaN if a set has no known value.

    Args:
        member: Array [sets, values] that is 1 if the value is in the set, and 0 otherwise.
        values: The values along the first axis; NaN for unknown values. Further axes are kept.
    """
    # Sums of known values, divided by how many are known.
    totals = member @ np.nan_to_num(values)
    n_known = member @ ~np.isnan(values)
    return known_ratio(totals, n_known)


def known_ratio(total: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return ``total`` divided by ``n``, elementwise; NaN, without a warning, if ``n`` is not positive."""
    # np.divide with where leaves the rest of its output as it was: NaN.
    shape = np.broadcast_shapes(np.shape(total), np.shape(n))
    ratio = np.full(shape, np.nan)
    np.divide(total, n, out=ratio, where=n > 0)
    return ratio
