"""How alike is a class in two domains? `Comparison`: the values of one measure, and what to read them against.

Circuits, features, representations, embeddings and transfer all end in one: values by class, pair of domains and site.

1. the values of all pairs of domains, class by class, site by site where the measure has sites;
2. what they are read against: the ceiling (two halves of the same images), other classes, chance;
3. `Comparison.matrix`, `Comparison.over_depth`, `Comparison.summary` and `Comparison.tests`: means over classes with
   intervals over classes, between domains, site by site, per domain and group of classes, and paired tests;
4. `Comparison.tables` for people, `Comparison.save` and `Comparison.load` for programs.
"""

import hashlib
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from circuitry.comparison.statistics import paired_tests, per_domain
from circuitry.comparison.table import both_directions, domain_matrix
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.manifest import write_json

FORMAT = "circuitry comparison 1"
"""Name and version of the file format."""
FILE = "header.json"

VALUES = ("class", "domain_a", "domain_b", "site", "value")
"""Columns of a table of values; others may follow."""
CEILINGS = ("class", "domain", "site", "value")
CHANCE = ("site", "value")
INTERVALS = ("domain", "site", "value", "low", "high", "n_classes")
_TABLES = {
    "values": VALUES,
    "ceilings": CEILINGS,
    "chance": CHANCE,
    "other_classes": VALUES,
    "intervals": INTERVALS,
}
_HEADER = ("measure", "groups", "alike", "directions", "chance_of", "about", "seed")
_NAMES = ("class", "domain_a", "domain_b", "domain", "site")
"""Columns of text; all others are numbers."""


def _empty(columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(columns=list(columns))


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """The values of one measure by class, pair of domains and site, and what they are read against.

    Example:
        >>> comparisons = compare_domains(graphs, graphs.halves(), {"held-out": ["fish", "key"]})
        >>> comparisons["edge_jaccard"].matrix(normalise=True)
        >>> comparisons["node_overlap"].over_depth()
    """

    measure: str
    """What the values are, as a word for files: ``edge_jaccard``."""
    values: pd.DataFrame
    """Columns class, domain_a, domain_b, site (None for the whole), value. Each pair of domains once, or in both orders
    where there are ``directions``, then also each domain with itself; a pair of which one is missing is absent."""
    ceilings: pd.DataFrame = field(default_factory=lambda: _empty(CEILINGS))
    """Two halves of the same images: class, domain, site, value; may be empty."""
    chance: pd.DataFrame = field(default_factory=lambda: _empty(CHANCE))
    """What ``chance_of`` reach: site, value; may be empty."""
    other_classes: pd.DataFrame = field(default_factory=lambda: _empty(VALUES))
    """Each class in one domain with other classes in the other: as ``values``; may be empty."""
    intervals: pd.DataFrame = field(default_factory=lambda: _empty(INTERVALS))
    """For measures with intervals of their own, each domain with the others: domain, site, value, low, high,
    n_classes. Else empty: intervals are those of a bootstrap over classes."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Classes by group; ``all`` is always there."""
    alike: bool = True
    """Whether large values mean alike; not so for distances."""
    directions: tuple[str, str] | None = None
    """What ``domain_a`` and ``domain_b`` are where their order matters: circuit of, images of."""
    chance_of: str = "random units"
    """What ``chance`` is the level of."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What made the values, as plain values: settings, models, numbers of images."""
    seed: int = 0
    """Seed of the bootstraps."""

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

    def at(self, site: str) -> "Comparison":
        """Return the part at one site.

        Raises:
            InputError: for a site that the comparison lacks.
        """
        if site not in self.sites:
            raise InputError(f"There are no values at {site!r}; the sites are {', '.join(self.sites) or 'none'}.")
        parts = {name: getattr(self, name) for name in _TABLES}
        return replace(self, **{name: table[table["site"] == site] for name, table in parts.items()})

    def matrix(self, group: str = "all", *, normalise: bool = False) -> pd.DataFrame:
        """Return the domain-by-domain means over classes and sites, with the ceilings on the diagonal.

        Where the order of domains matters, rows are ``domain_a``, and the diagonal holds each domain with itself.

        Args:
            group: One of the groups of classes.
            normalise: Divide each cell by the geometric mean of its two domains' ceilings: 1 then means as alike as
                two halves of the same images. Where the order matters: by the value of the column's domain with itself.

        Raises:
            InputError: for an unknown group, or ``normalise`` without ceilings.
        """
        if group not in self.groups:
            raise InputError(f"There is no group {group!r} of classes; the groups are {', '.join(self.groups)}.")
        values, ceilings = (table[table["class"].isin(self.groups[group])] for table in (self.values, self.ceilings))
        if self.directions is None:
            return domain_matrix(values, ceilings if len(ceilings) else None, normalise=normalise)
        means = values.groupby(["domain_a", "domain_b"])["value"].mean().unstack()
        rows, columns = self.directions
        matrix = means.reindex(index=self.domains, columns=self.domains).rename_axis(index=rows, columns=columns)
        return matrix.div(np.diag(matrix), axis="columns") if normalise else matrix

    def over_depth(self) -> pd.DataFrame:
        """Return each domain's mean with the other domains: domain, site, value, low, high (95 %), n_classes."""
        if len(self.intervals):
            return self.intervals
        return per_domain(self._with_others(self.values), seed=self.seed)

    def ceiling_by_site(self) -> pd.DataFrame:
        """Return the mean of two halves over classes and domains: site, value."""
        return self.ceilings.groupby("site", sort=False)["value"].mean().reset_index()

    def summary(self) -> pd.DataFrame:
        """Return each domain's mean with the others over sites, per group of classes.

        Columns group, domain, value, low, high (95 % bootstrap over classes, or the measure's own), n_classes.
        """
        columns = ["group", "domain", "value", "low", "high", "n_classes"]
        if len(self.intervals) and len(self.sites) < 2:
            return self.intervals.assign(group="all")[columns]
        over_sites = self.values.groupby(["class", "domain_a", "domain_b"], as_index=False, sort=False)["value"].mean()
        long = self._with_others(over_sites.assign(site=None))
        parts = [
            per_domain(long[long["class"].isin(classes)], seed=self.seed).drop(columns="site").assign(group=name)
            for name, classes in self.groups.items()
        ]
        return pd.concat(parts, ignore_index=True)[columns]

    def tests(self) -> pd.DataFrame:
        """Test for each two domains whether one is more like the others than the other is; see `paired_tests`."""
        return paired_tests(self._with_others(self.values))

    def levels(self) -> pd.DataFrame:
        """Return the mean of the values and of all that they are read against: what, value."""
        tables = {
            "the same class in two domains": self.values,
            "two halves of the same images": self.ceilings,
            "two classes in two domains": self.other_classes,
            self.chance_of: self.chance,
        }
        rows = [(what, table["value"].mean()) for what, table in tables.items() if len(table)]
        return pd.DataFrame(rows, columns=["what", "value"])

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return everything as tables by file name; those that would be empty are left out."""
        name = self.measure
        found = {
            name: self.values,
            f"{name}_ceilings": self.ceilings,
            f"{name}_other_classes": self.other_classes,
            f"chance_{name}": self.chance,
            f"{name}_matrix": self.matrix().rename_axis(index="domain", columns=None).reset_index(),
            f"{name}_summary": self.summary(),
            f"{name}_paired_tests": self.tests(),
            f"{name}_levels": self.levels(),
        }
        if self.sites:
            found |= {f"{name}_over_depth": self.over_depth(), f"{name}_ceiling_by_site": self.ceiling_by_site()}
        return {file: table for file, table in found.items() if len(table)}

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the tables as CSV files and, when they are whole, a JSON header with their checksums."""
        checksums = {}
        for name in _TABLES:
            content = getattr(self, name).to_csv(index=False).encode()
            checksums[name] = hashlib.sha256(content).hexdigest()
            with whole_file(Path(folder) / f"{name}.csv") as temporary:
                temporary.write_bytes(content)
        header = {name: getattr(self, name) for name in _HEADER}
        write_json(Path(folder) / FILE, {"format": FORMAT, "checksums": checksums, "header": header})

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> "Comparison":
        """Read what `save` wrote.

        Raises:
            InputError: for a missing or damaged file, or another format or version.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise InputError(f"There is no comparison in {folder} (no {FILE}): give the folder of one, or make it.")
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            found, checksums, header = (about[key] for key in ("format", "checksums", "header"))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} is damaged ({error}): make it again.") from error
        if found != FORMAT:
            raise InputError(f"{path} has format {found!r}, but this version reads {FORMAT!r}: make it again.")
        tables = {name: _read(path.with_name(f"{name}.csv"), checksums.get(name)) for name in _TABLES}
        groups = {name: tuple(classes) for name, classes in header["groups"].items()}
        directions = None if header["directions"] is None else tuple(header["directions"])
        return cls(**{**header, **tables, "groups": groups, "directions": directions})

    def _with_others(self, values: pd.DataFrame) -> pd.DataFrame:
        """Return each domain with each other one: class, domain, other, site, value; ``domain_a`` of directed ones."""
        if self.directions is None:
            return both_directions(values)
        off = values[values["domain_a"] != values["domain_b"]]
        return off.rename(columns={"domain_a": "domain", "domain_b": "other"})

    def __repr__(self) -> str:
        where = f"{len(self.sites)} sites" if self.sites else "whole"
        levels = self.levels().set_index("what")["value"]
        return (
            f"Comparison by {self.measure} ({where}): {self.values['class'].nunique()} classes in "
            f"{len(self.domains)} domains; " + ", ".join(f"{what} {value:.3g}" for what, value in levels.items())
        )

    def _repr_html_(self) -> str:
        """Show the matrix in a notebook."""
        return f"<p>{html.escape(repr(self))}</p>{self.matrix().to_html(float_format='{:.3f}'.format, na_rep='–')}"


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


def _read(path: Path, checksum: str | None) -> pd.DataFrame:
    """Return a table with names, None for no site, and numbers to the last digit."""
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != checksum:
        raise InputError(f"{path} is missing or damaged, its checksum does not fit: make it again.")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    numbers = {str(name): [_number(value) for value in table[name]] for name in table if name not in _NAMES}
    return table.assign(**numbers, site=table["site"].astype(object).replace("", None))


def _number(value: str) -> float:
    return int(value) if value.lstrip("-").isdigit() else float(value or "nan")
