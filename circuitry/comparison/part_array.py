"""Similarities of parts of images: one tidy table, and the same as an array to compute with.

The images of a class in a domain are cut into K parts of equal size, by item: images of one item are in the same part
in every domain. Only different parts are compared, so both sides have other items and equally many images. Ceilings
(two parts of the same class and domain) and pairs of classes are rows of the same table.
"""

from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from circuitry.comparison.table import with_columns
from circuitry.runs.errors import InputError
from circuitry.runs.given import DISTINCT, checked

PARTS = (
    "class_a",
    "class_b",
    "domain_a",
    "domain_b",
    "part_a",
    "part_b",
    "site",
    "value",
)
"""Columns of a table of parts. Pairs of one class in one domain: ``part_a < part_b``; all others: both orders."""

WHOLE = -1
"""Part of a row that compares a part with all images of its class and domain: the upper ceiling."""


PartTable = Annotated[pd.DataFrame, with_columns(*PARTS)]
"""Similarities of parts; see `PARTS`."""


def check_parts(parts: pd.DataFrame) -> None:
    """Refuse a table that compares a part with itself, or holds a row twice; name the first such row."""
    keys = list(PARTS[:-1])
    mistakes = {
        "compares a part with itself": parts["part_a"] == parts["part_b"],
        "occurs twice": parts.duplicated(keys),
    }
    for mistake, wrong in mistakes.items():
        if wrong.any():
            first = parts.loc[wrong, keys].iloc[0]
            row = ", ".join(map(str, first))
            raise InputError(
                f"A table of parts holds each two different parts once, but the row {row} {mistake}: remove it."
            )


@checked
def ceilings_of(parts: PartTable, *, upper: bool = False) -> pd.DataFrame:
    """Return the mean similarity of parts of the same class and domain: columns class, domain, site, value.

    Args:
        upper: Compare a part with all images, which include it, in place of two parts of equally many images.
    """
    same_class = parts["class_a"] == parts["class_b"]
    same_domain = parts["domain_a"] == parts["domain_b"]
    own = parts[same_class & same_domain & (of_whole(parts) == upper)]
    # Both sides are of one class and domain, so either column names it.
    own = own.rename(columns={"class_a": "class", "domain_a": "domain"})
    keys = ["class", "domain", "site"]
    groups = own.groupby(keys, dropna=False, sort=False)
    means = groups["value"].mean().reset_index()
    return means.assign(site=_sites(means["site"]))


def _sites(sites: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return a column of sites with None in place of NaN, for similarities of whole circuits."""
    # pandas makes NaN of None when it groups or reads rows.
    return sites.astype(object).where(sites.notna(), None)


def of_whole(parts: PartTable) -> "pd.Series[bool]":
    """Return which rows compare a part with all images."""
    return (parts["part_a"] == WHOLE) | (parts["part_b"] == WHOLE)


def part_kinds(parts: PartTable) -> dict[str, pd.DataFrame]:
    """Return the rows of two parts by kind, in words: one class or two, in one domain or two."""
    one_class = parts["class_a"] == parts["class_b"]
    one_domain = parts["domain_a"] == parts["domain_b"]
    # Rows with all images are upper ceilings, of more images than parts have.
    between = ~of_whole(parts)
    kinds = {
        "the same class in two domains, parts": one_class & ~one_domain,
        "two parts of the same images": one_class & one_domain,
        "two classes in two domains": ~one_class & ~one_domain,
        "two classes in one domain": ~one_class & one_domain,
    }
    return {name: parts[rows & between] for name, rows in kinds.items()}


class PartArray(NamedTuple):
    """The similarities of parts of the same class as an array; NaN for unknown ones.

    Example:
        >>> from circuitry.comparison import PARTS, PartArray
        >>> row = ("clock", "clock", "real", "sketch", 0, 1, "conv", 0.5)
        >>> PartArray.from_table(pd.DataFrame([row], columns=PARTS)).values.shape
        (1, 2, 2, 1, 2, 2)
    """

    classes: Annotated[tuple[str, ...], DISTINCT]
    """Axis 0 of `values`."""
    domains: Annotated[tuple[str, ...], DISTINCT]
    """Axes 1 and 2."""
    sites: Annotated[tuple[str | None, ...], DISTINCT]
    """Axis 3; None of a similarity of whole circuits."""
    values: Float[np.ndarray, "classes domains domains sites parts parts"]
    """Symmetric: both domains and both parts exchanged give the same; NaN for a part with itself."""

    @property
    def n_parts(self) -> int:
        """Parts of the images."""
        return int(self.values.shape[-1])

    @classmethod
    def from_table(cls, parts: PartTable) -> "PartArray":
        """Arrange the rows that compare two parts of one class; other rows do not count."""
        rows = parts[(parts["class_a"] == parts["class_b"]) & ~of_whole(parts)]
        classes, c, _ = places_of(rows, "class")
        domains, a, b = places_of(rows, "domain")
        labels, p, q = places_of(rows, "part")
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
    """Return the sorted names of both sides of a table, and the index of each row's two names among them.

    Args:
        kind: Names are in the columns ``<kind>_a`` and ``<kind>_b``, such as class_a and class_b.
    """
    a = table[f"{kind}_a"]
    b = table[f"{kind}_b"]
    names = sorted({*a, *b})
    places = pd.Index(names)
    return names, places.get_indexer(a), places.get_indexer(b)


def without_own(
    values: Float[np.ndarray, "classes domains domains *cells"],
) -> Float[np.ndarray, "classes domains domains *cells"]:
    """Return the similarities of different domains; NaN for a domain with itself."""
    # The mean over the other domains then skips the domain's own ceiling.
    others = values.copy()
    same = np.arange(values.shape[1])
    others[:, same, same] = np.nan
    return others


def mean_known(values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Return the mean of the known numbers along an axis; NaN, without a warning, where none is known."""
    n_known = (~np.isnan(values)).sum(axis)
    return known_ratio(np.nansum(values, axis), n_known)


def mean_of_members(member: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return for each row of ``member`` the mean of the known values of its members; NaN where none is known.

    ``member`` [rows, members] is 1 for a member and 0 for every other value along the first axis of ``values``.
    """
    # Sums of known values, divided by how many are known.
    totals = member @ np.nan_to_num(values)
    n_known = member @ ~np.isnan(values)
    return known_ratio(totals, n_known)


def known_ratio(total: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return a total divided by a number or weight; NaN, without a warning, where that is not positive."""
    # np.divide with where leaves the rest of its output as it was: NaN.
    shape = np.broadcast_shapes(np.shape(total), np.shape(n))
    ratio = np.full(shape, np.nan)
    np.divide(total, n, out=ratio, where=n > 0)
    return ratio
