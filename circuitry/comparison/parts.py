"""Similarities of parts of images: one tidy table, and the same as an array to compute with.

The images of a class in a domain are cut into K parts of equal size, by item: what shows the same thing in several
domains falls into the same part. Similarities are kept of different parts only, so both sides see other items and
equally many images. Ceilings (a part against another of the same class and domain) and other classes are rows of it.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from circuitry.runs.errors import InputError

PARTS = ("class_a", "class_b", "domain_a", "domain_b", "part_a", "part_b", "site", "value")
"""Columns of a table of parts. Pairs of one class in one domain: ``part_a < part_b``; all others: both orders."""

CEILINGS = ("class", "domain", "site", "value")
"""Columns of a table of ceilings: two parts of one class in one domain."""

WHOLE = -1
"""Part of a row that compares a part with all images of its class and domain: the upper ceiling."""


def check_parts(parts: pd.DataFrame) -> None:
    """Refuse a table in which a part meets itself, or has a row twice.

    Raises:
        InputError: with the first such row.
    """
    same = parts["part_a"] == parts["part_b"]
    twice = parts.duplicated(list(PARTS[:-1]))
    for wrong, what in ((same, "compares a part with itself"), (twice, "is there twice")):
        if wrong.any():
            row = ", ".join(str(parts.loc[wrong, column].iloc[0]) for column in PARTS[:-1])
            raise InputError(
                f"A table of parts has each two different parts once, but the row {row} {what}: give other parts."
            )


def ceilings_of(parts: pd.DataFrame, *, upper: bool = False) -> pd.DataFrame:
    """Return the mean similarity of parts of the same class and domain: columns class, domain, site, value.

    ``upper``: of a part with the whole, which holds it; else of a part with another, as many images on either side.
    """
    own = parts[(parts["class_a"] == parts["class_b"]) & (parts["domain_a"] == parts["domain_b"])]
    own = own[of_whole(own) == upper].rename(columns={"class_a": "class", "domain_a": "domain"})
    keys = ["class", "domain", "site"]
    means = own.groupby(keys, dropna=False, sort=False)["value"].mean().reset_index()
    sites = [site if isinstance(site, str) else None for site in means["site"]]
    return means.assign(site=pd.Series(sites, means.index, dtype=object))


def of_whole(parts: pd.DataFrame) -> "pd.Series[bool]":
    """Return which rows compare a part with all images."""
    return (parts["part_a"] == WHOLE) | (parts["part_b"] == WHOLE)


class PartArray(NamedTuple):
    """The similarities of one class's parts as an array; NaN where there is none."""

    classes: tuple[str, ...]
    domains: tuple[str, ...]
    sites: tuple[str | None, ...]
    values: Float[np.ndarray, "classes domains domains sites parts parts"]
    """Symmetric: both domains and both parts exchanged give the same; NaN where a part would meet itself."""

    @property
    def n_parts(self) -> int:
        """Parts of the images."""
        return int(self.values.shape[-1])

    def over_sites(self) -> "PartArray":
        """Return the means over sites, as one site without a name."""
        return self._replace(sites=(None,), values=mean_known(self.values, 3)[:, :, :, None])

    def among(self, classes: tuple[str, ...]) -> "PartArray":
        """Return some of the classes."""
        chosen = [i for i, name in enumerate(self.classes) if name in classes]
        return self._replace(classes=tuple(self.classes[i] for i in chosen), values=self.values[chosen])

    @classmethod
    def from_table(cls, parts: pd.DataFrame) -> "PartArray":
        """Arrange the rows of one class on both sides; those of a whole and of two classes are left out."""
        rows = parts[(parts["class_a"] == parts["class_b"]) & ~of_whole(parts)]
        classes, domains = sorted(set(rows["class_a"])), sorted({*rows["domain_a"], *rows["domain_b"]})
        sites = list(dict.fromkeys(site if isinstance(site, str) else None for site in rows["site"]))
        labels = sorted({*rows["part_a"], *rows["part_b"]})
        shape = (len(classes), len(domains), len(domains), len(sites), len(labels), len(labels))
        values = np.full(shape, np.nan)
        site_of = rows["site"].map({site: i for i, site in enumerate(sites) if site is not None}).fillna(0).astype(int)
        c = pd.Index(classes).get_indexer(rows["class_a"])
        a, b = (pd.Index(domains).get_indexer(rows[f"domain_{side}"]) for side in "ab")
        p, q = (pd.Index(labels).get_indexer(rows[f"part_{side}"]) for side in "ab")
        values[c, a, b, site_of, p, q] = values[c, b, a, site_of, q, p] = rows["value"].to_numpy(dtype=float)
        return cls(tuple(classes), tuple(domains), tuple(sites), values)


def mean_known(values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Return the mean of the numbers that are known along an axis; NaN, without a warning, where none is."""
    known = ~np.isnan(values)
    n = known.sum(axis)
    total = np.where(known, values, 0.0).sum(axis)
    return known_ratio(total, n)


def known_ratio(total: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return a total over a number or weight; NaN, without a warning, where that is not positive."""
    found = np.full(np.broadcast_shapes(np.shape(total), np.shape(n)), np.nan)
    np.divide(total, n, out=found, where=n > 0)
    return found
