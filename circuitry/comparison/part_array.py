"""Similarities of parts of images: one tidy table, and the same as an array to compute with.

The images of a class in a domain are cut into K parts of equal size, by item: images of one item are in the same part
in every domain. Only different parts are compared, so both sides have other items and equally many images. Ceilings
(two parts of the same class and domain) and pairs of classes are rows of the same table.
"""

from typing import Annotated, NamedTuple

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
    same = parts["part_a"] == parts["part_b"]
    twice = parts.duplicated(list(PARTS[:-1]))
    for wrong, what in ((same, "compares a part with itself"), (twice, "occurs twice")):
        if wrong.any():
            row = ", ".join(
                str(parts.loc[wrong, column].iloc[0]) for column in PARTS[:-1]
            )
            raise InputError(
                f"A table of parts holds each two different parts once, but the row {row} {what}: remove it."
            )


@checked
def ceilings_of(parts: PartTable, *, upper: bool = False) -> pd.DataFrame:
    """Return the mean similarity of parts of the same class and domain: columns class, domain, site, value.

    ``upper``: of a part with all images, which include it; else of two parts, with equally many images.
    """
    own = parts[
        (parts["class_a"] == parts["class_b"])
        & (parts["domain_a"] == parts["domain_b"])
    ]
    own = own[of_whole(own) == upper].rename(
        columns={"class_a": "class", "domain_a": "domain"}
    )
    keys = ["class", "domain", "site"]
    means = own.groupby(keys, dropna=False, sort=False)["value"].mean().reset_index()
    sites = [site if isinstance(site, str) else None for site in means["site"]]
    return means.assign(site=pd.Series(sites, means.index, dtype=object))


def of_whole(parts: PartTable) -> "pd.Series[bool]":
    """Return which rows compare a part with all images."""
    return (parts["part_a"] == WHOLE) | (parts["part_b"] == WHOLE)


def part_kinds(parts: PartTable) -> dict[str, pd.DataFrame]:
    """Return the rows of two parts by kind, in words: one class or two, in one domain or two."""
    one_class, one_domain = (
        parts["class_a"] == parts["class_b"],
        parts["domain_a"] == parts["domain_b"],
    )
    between = ~of_whole(parts)
    return {
        "the same class in two domains, parts": parts[
            one_class & ~one_domain & between
        ],
        "two parts of the same images": parts[one_class & one_domain & between],
        "two classes in two domains": parts[~one_class & ~one_domain & between],
        "two classes in one domain": parts[~one_class & one_domain & between],
    }


class PartArray(NamedTuple):
    """The similarities of parts of the same class as an array; NaN where there is none."""

    classes: Annotated[tuple[str, ...], DISTINCT]  #: Axis 0 of `values`.
    domains: Annotated[tuple[str, ...], DISTINCT]  #: Axes 1 and 2.
    sites: Annotated[
        tuple[str | None, ...], DISTINCT
    ]  #: Axis 3; None of a similarity of whole circuits.
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
        classes, domains = (
            sorted(set(rows["class_a"])),
            sorted({*rows["domain_a"], *rows["domain_b"]}),
        )
        sites = list(
            dict.fromkeys(
                site if isinstance(site, str) else None for site in rows["site"]
            )
        )
        labels = sorted({*rows["part_a"], *rows["part_b"]})
        shape = (
            len(classes),
            len(domains),
            len(domains),
            len(sites),
            len(labels),
            len(labels),
        )
        values = np.full(shape, np.nan)
        site_of = (
            rows["site"]
            .map({site: i for i, site in enumerate(sites) if site is not None})
            .fillna(0)
            .astype(int)
        )
        c = pd.Index(classes).get_indexer(rows["class_a"])
        a, b = (pd.Index(domains).get_indexer(rows[f"domain_{side}"]) for side in "ab")
        p, q = (pd.Index(labels).get_indexer(rows[f"part_{side}"]) for side in "ab")
        values[c, a, b, site_of, p, q] = values[c, b, a, site_of, q, p] = rows[
            "value"
        ].to_numpy(dtype=float)
        return cls(tuple(classes), tuple(domains), tuple(sites), values)


def without_own(
    values: Float[np.ndarray, "classes domains domains *cells"],
) -> Float[np.ndarray, "classes domains domains *cells"]:
    """Return the similarities of different domains; NaN for a domain with itself."""
    others, n = values.copy(), values.shape[1]
    others[:, np.arange(n), np.arange(n)] = np.nan
    return others


def mean_known(values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Return the mean of the known numbers along an axis; NaN, without a warning, where none is known."""
    return known_ratio(np.nansum(values, axis), (~np.isnan(values)).sum(axis))


def mean_of_members(member: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the mean of the known numbers of each row's members [rows, members]; NaN where none is known."""
    return known_ratio(member @ np.nan_to_num(values), member @ ~np.isnan(values))


def known_ratio(total: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return a total divided by a number or weight; NaN, without a warning, where that is not positive."""
    found = np.full(np.broadcast_shapes(np.shape(total), np.shape(n)), np.nan)
    np.divide(total, n, out=found, where=n > 0)
    return found
