"""The tables of a comparison: what is in them, which part of them is wanted, how they are stored."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from typing import Any, TypeVar

import pandas as pd

from circuitry.comparison.parts import PARTS, ceilings_of, check_parts
from circuitry.comparison.statistics import INTERVALS
from circuitry.comparison.storage import read_tables, write_tables
from circuitry.runs.errors import InputError

VALUES = ("class", "domain_a", "domain_b", "site", "value")
"""Columns of a table of values; others may follow."""
CHANCE = ("site", "value")
Compared = TypeVar("Compared", bound="ComparedValues")

_TABLES = {"values": VALUES, "parts": PARTS, "chance": CHANCE, "intervals": INTERVALS}
_HEADER = ("measure", "groups", "alike", "directions", "chance_of", "about", "seed", "left_out", "families")
_NAMES = ("class", "class_a", "class_b", "domain_a", "domain_b", "domain", "site")
"""Columns of text; all others are numbers."""


def _empty(columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(columns=list(columns))


@dataclass(frozen=True, eq=False, repr=False)
class ComparedValues:
    """What a `Comparison` holds: its tables, and what is to be known of them."""

    measure: str
    """What the values are, as a word for files: ``edge_jaccard``."""
    values: pd.DataFrame
    """Columns class, domain_a, domain_b, site (None for the whole), value. Each pair of domains once, or in both orders
    where there are ``directions``, then also each domain with itself; a pair of which one is missing is absent."""
    parts: pd.DataFrame = field(default_factory=lambda: _empty(PARTS))
    """Similarities of different parts of images: see `PARTS`; may be empty. For measures over classes, the class is
    ``all``."""
    chance: pd.DataFrame = field(default_factory=lambda: _empty(CHANCE))
    """What ``chance_of`` reach: site, value."""
    intervals: pd.DataFrame = field(default_factory=lambda: _empty(INTERVALS))
    """For measures with intervals of their own, each domain with the others: domain, site, value, low, high,
    n_classes. Else empty."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Classes by group; ``all`` is always there."""
    alike: bool = True
    """Whether large values mean alike; not so for distances."""
    directions: tuple[str, str] | None = None
    """What ``domain_a`` and ``domain_b`` are where their order matters: circuit of, images of."""
    chance_of: str = "random units"
    """What ``chance`` is the level of."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What made the values, as plain values: settings, models; ``n`` images of a value, ``n_per_part`` of a part."""
    seed: int = 0
    """Seed of the bootstraps and permutations."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Sites that have no part in means over sites, with the reason: they repeat another, or keep too few units."""
    families: Mapping[str, str] = field(default_factory=dict)
    """Classes that share noise, by class: they are drawn together. Those that are missing stand alone."""

    def __post_init__(self) -> None:
        for name, columns in _TABLES.items():
            if missing := [column for column in columns if column not in getattr(self, name).columns]:
                raise InputError(
                    f"The {name} of a comparison have the columns {', '.join(columns)}, but {', '.join(missing)} "
                    "is missing."
                )
        if self.values.empty:
            raise InputError(
                f"A comparison of {self.measure} needs a class in at least two domains, but there is none: "
                "give more domains, or classes that have images in them."
            )
        check_parts(self.parts)
        if "all" not in self.groups:
            classes = tuple(sorted({*self.values["class"], *self.ceilings["class"]}))
            object.__setattr__(self, "groups", {"all": classes} | dict(self.groups))

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains, sorted."""
        return tuple(sorted({*self.values["domain_a"], *self.values["domain_b"], *self.ceilings["domain"]}))

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites in order; none for a measure of the whole."""
        return tuple(dict.fromkeys(self.values["site"].dropna()))

    @property
    def n_classes(self) -> int:
        """Classes that the values are of; of intervals of their own, the most of a domain."""
        return int(self.intervals["n_classes"].max()) if len(self.intervals) else self.values["class"].nunique()

    @cached_property
    def ceilings(self) -> pd.DataFrame:
        """Means of two parts of the same class and domain, the lower ceiling: class, domain, site, value."""
        return ceilings_of(self.parts)

    @property
    def other_classes(self) -> pd.DataFrame:
        """Each class in one domain with other classes in another: as ``values``, by the class of ``domain_a``."""
        other = self.parts[self.parts["class_a"] != self.parts["class_b"]]
        between = other[other["domain_a"] != other["domain_b"]].rename(columns={"class_a": "class"})
        return between.groupby(list(VALUES[:-1]), dropna=False, sort=False)["value"].mean().reset_index()

    @property
    def has_ratios(self) -> bool:
        """Whether there are parts of two domains as well as of one, so that there is a ratio to the ceiling."""
        same_class = self.parts[self.parts["class_a"] == self.parts["class_b"]]
        return bool(len(self.ceilings) and (same_class["domain_a"] != same_class["domain_b"]).any())

    def at(self: Compared, site: str) -> Compared:
        """Return what there is at one site.

        Raises:
            InputError: for a site that the comparison lacks.
        """
        if site not in self.sites:
            raise InputError(f"There are no values at {site!r}; the sites are {', '.join(self.sites) or 'none'}.")
        found = {name: (table := getattr(self, name))[table["site"] == site] for name in _TABLES}
        return replace(self, **found, left_out={})

    def among(self: Compared, group: str) -> Compared:
        """Return what there is of one of the groups of classes.

        Raises:
            InputError: for an unknown group, or one of which no class is in two domains.
        """
        if group not in self.groups:
            raise InputError(f"There is no group {group!r} of classes; the groups are {', '.join(self.groups)}.")
        members = self.groups[group]
        values = self.values[self.values["class"].isin(members)]
        parts = self.parts[self.parts["class_a"].isin(members) & self.parts["class_b"].isin(members)]
        return replace(self, values=values, parts=parts, groups={"all": members})

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the tables as CSV files and, when they are whole, a JSON header with their checksums."""
        header = {name: getattr(self, name) for name in _HEADER}
        write_tables(folder, {name: getattr(self, name) for name in _TABLES}, header)

    @classmethod
    def load(cls: type[Compared], folder: str | PathLike[str]) -> Compared:
        """Read what `save` wrote.

        Raises:
            InputError: for a missing or damaged file, or another format or version.
        """
        tables, header = read_tables(folder, _TABLES, _NAMES)
        groups = {name: tuple(classes) for name, classes in header["groups"].items()}
        directions = None if header["directions"] is None else tuple(header["directions"])
        return cls(**{**header, **tables, "groups": groups, "directions": directions})


def class_groups(
    classes: Iterable[str], groups: Mapping[str, Sequence[str]] | None = None
) -> dict[str, tuple[str, ...]]:
    """Return the classes as group ``all``, and of each further group those that are there; none of an empty group."""
    known = set(classes)
    found = {"all": tuple(sorted(known))}
    for name, members in (groups or {}).items():
        if present := tuple(member for member in members if member in known):
            found[name] = present
    return found
