"""How similar is a class in two domains? `Comparison` has the values of one measure, with ceilings and chance levels.

Circuits, features, representations and embeddings can be compared.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd

from circuitry.comparison.bootstrap import Draws, draw_resamples
from circuitry.comparison.ceiling import (
    PairCells,
    domain_ratios,
    mean_ratio,
    pair_cells,
    pair_ratios,
)
from circuitry.comparison.class_table import class_by_domain
from circuitry.comparison.domain_testing import (
    ceiling_tests,
    domain_spread,
    domain_tests,
    fold_means,
    fold_tests,
)
from circuitry.comparison.fold_array import (
    FOLDS,
    FoldArray,
    FoldTable,
    ceilings_of,
    check_folds,
    fold_kinds,
)
from circuitry.comparison.significance import ROUNDING
from circuitry.comparison.statistics import INTERVALS, per_domain
from circuitry.comparison.table import (
    CHANCE,
    ValueTable,
    check_pairs,
    domain_matrix,
    with_columns,
)
from circuitry.runs.arguments import Seed, checked
from circuitry.runs.errors import InputError, naming_damage
from circuitry.runs.manifest import check_format, read_sealed, write_sealed
from circuitry.runs.notebooks import Shown

log = logging.getLogger(__name__)

_TABLES = ("values", "folds", "chance", "intervals")
_FORMAT = "circuitry comparison 6"
_FILE = "comparison.json"


def _empty(columns: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame(columns=list(columns))


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Shown):
    """The values of one measure by class, pair of domains and site, with their ceilings and chance levels.

    Example:
        >>> overlap = circuitry.compare_domains(graphs)["node_overlap"]
        >>> overlap.domains
        ('real', 'sketch')
        >>> list(overlap.matrix().columns)
        ['real', 'sketch']
    """

    HOW_TO_GET: ClassVar = (
        "give one measure of what compare_domains returns, e.g. found['edge_jaccard']"
    )

    measure: str
    """Name of the measure, as used in file names, such as ``edge_jaccard``."""
    values: ValueTable
    """Columns class, domain_a, domain_b, site (None for all sites together), value. A pair of domains has one row for
    each class and site. If one side of a pair is unknown, the pair has no row."""
    folds: FoldTable = field(default_factory=lambda: _empty(FOLDS))
    """Similarities between different folds of the images, with the columns `FOLDS`; may be empty. A measure over all
    classes together has the class ``all``."""
    chance: Annotated[pd.DataFrame, with_columns(*CHANCE)] = field(
        default_factory=lambda: _empty(CHANCE)
    )
    """The chance level, which is the value of ``chance_of``. Columns site, value."""
    intervals: Annotated[pd.DataFrame, with_columns(*INTERVALS)] = field(
        default_factory=lambda: _empty(INTERVALS)
    )
    """Each domain's mean value with the other domains, for a measure that computes intervals of its own. Columns
    domain, site, value, low, high, n_classes. For other measures this table is empty."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Classes by the name of their group. The group ``all`` is added."""
    alike: bool = True
    """Whether large values mean similar. False for distances."""
    chance_of: str = "random units"
    """Name of the random objects, such as random units. Their value is the chance level."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Settings and models, as plain values. ``n`` is the number of images on each side of a value, ``n_per_fold`` the
    number of images of a fold."""
    seed: Seed = 0
    """Seed of the bootstraps and permutations."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Sites that means over sites ignore. The values are the reasons, such as that a site repeats another site."""

    def __post_init__(self) -> None:
        if self.values.empty:
            raise InputError(
                f"A comparison of {self.measure} needs a class in at least two domains, but there is none: "
                "give more domains, or classes that have images in them."
            )
        check_folds(self.folds)
        check_pairs(self.values)
        # `replace` hands on the groups of a comparison, whose values were looked at when it was made.
        if "all" not in self.groups:
            self._warn_of_strange_values()
            classes = {*self.values["class"], *self.ceilings["class"]}
            groups = {"all": tuple(sorted(classes)), **self.groups}
            object.__setattr__(self, "groups", groups)

    def _warn_of_strange_values(self) -> None:
        values = self.values["value"].astype(float)
        # A distance has no upper limit: there only infinity is strange.
        beyond = values == np.inf
        if self.alike:
            beyond = values > 1 + ROUNDING
        unknown = values.isna()
        if unknown.any() or beyond.any():
            log.warning(
                "Of the %d values of %s %d are NaN, which do not count in means, and %d are beyond 1, which no "
                "similarity is: look at them, or give alike=False for a distance.",
                len(values),
                self.measure,
                unknown.sum(),
                beyond.sum(),
            )

    def shown_table(self) -> pd.DataFrame:
        """Return the `matrix`."""
        return self.matrix()

    def to_pandas(self) -> pd.DataFrame:
        """Return `values`: a row for each class, pair of domains and site. `tables` returns all tables."""
        return self.values

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains, sorted."""
        of_values = {*self.values["domain_a"], *self.values["domain_b"]}
        return tuple(sorted(of_values | {*self.ceilings["domain"]}))

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites in order; empty for a measure of all sites together."""
        return tuple(dict.fromkeys(self.values["site"].dropna()))

    @property
    def n_classes(self) -> int:
        """Number of classes.

        For a measure with ``intervals``, this is the largest number in the column n_classes of this table.
        """
        if len(self.intervals):
            return int(self.intervals["n_classes"].max())
        return self.values["class"].nunique()

    @cached_property
    def ceilings(self) -> pd.DataFrame:
        """The mean similarity of two folds of the same class and domain. Columns class, domain, site, value."""
        return ceilings_of(self.folds)

    @property
    def has_ratios(self) -> bool:
        """Whether there are ratios to the ceiling.

        Ratios need similarities between folds of one domain, and between folds of two domains.
        """
        same_class = self.folds[self.folds["class_a"] == self.folds["class_b"]]
        two_domains = same_class["domain_a"] != same_class["domain_b"]
        return bool(len(self.ceilings) and two_domains.any())

    def at(self, site: str) -> "Comparison":
        """Return the comparison at one site.

        Raises:
            InputError: if there are no values at this site.
        """
        if site not in self.sites:
            raise InputError(
                f"There are no values at {site!r}; the sites are {', '.join(self.sites) or 'none'}."
            )
        # The site is asked for by name, so it counts even where means over sites leave it out.
        at_site = {}
        for name in _TABLES:
            table = getattr(self, name)
            at_site[name] = table[table["site"] == site]
        return replace(self, **at_site, left_out={})

    def among(self, group: str) -> "Comparison":
        """Return the comparison of one group of classes.

        Raises:
            InputError: if there is no group of this name.
        """
        if group not in self.groups:
            raise InputError(
                f"There is no group {group!r} of classes; the groups are {', '.join(self.groups)}."
            )
        members = self.groups[group]
        values = self.values[self.values["class"].isin(members)]
        sides = self.folds[["class_a", "class_b"]]
        both = sides.isin(members).all(axis=1)
        return replace(
            self,
            values=values,
            folds=self.folds[both],
            groups={"all": members},
        )

    def matrix(self, group: str = "all", *, normalise: bool = False) -> pd.DataFrame:
        """Return the mean value of each pair of domains over classes and sites, from all images (not from folds).

        The matrix is symmetric, and its diagonal is NaN.

        Args:
            group: Name of the group of classes.
            normalise: Whether to return the ratios to the ceiling (`ratios`) instead. A ratio of 1 means that two
                domains are as similar as two folds of one domain.
        """
        of_group = self.among(group)
        if normalise:
            # A ratio is computed from all classes together, but `domain_matrix` needs a column of classes.
            return domain_matrix(of_group.ratios().assign(**{"class": ""}))
        return domain_matrix(of_group._counted(of_group.values))

    def ratios(self) -> pd.DataFrame:
        """Return the ratio to the ceiling for each pair of domains.

        The ceiling of a domain is the similarity of two folds of its images. The ratio divides the similarity of two
        domains by the geometric mean of their ceilings, after the chance level was subtracted from all three. The three
        are means over classes and sites. They all compare folds, so they are based on equally many images.

        Returns:
            Columns domain_a, domain_b, site (None), value (the ratio), low, high (95 % interval), n_classes,
            similarity, ceiling_a, ceiling_b (the means from which the ratio is computed), note (why there is no ratio),
            n_per_fold (number of images of a fold).

        Raises:
            InputError: if there are no folds of two domains.
        """
        table = pair_ratios(*self._need_ratios()._cells(by_site=False))
        return table.assign(n_per_fold=self.about.get("n_per_fold"))

    def mean_ratio(self) -> tuple[float, tuple[float, float]]:
        """Return the mean over pairs of domains of the ratio to the ceiling (see `ratios`), and its 95 % interval.

        Pairs without a ratio are left out.

        Raises:
            InputError: if there are no folds of two domains.
        """
        spread = mean_ratio(*self._need_ratios()._cells(by_site=False))
        low, high = spread.interval()
        interval = (float(low[0]), float(high[0]))
        return float(spread.value[0]), interval

    def over_depth(self) -> pd.DataFrame:
        """For each domain and site, return the mean value with the other domains, from all images (not from folds).

        If the comparison has ``intervals``, this table is returned. Otherwise the 95 % intervals are Student's over
        classes. Each class has its own images, so these intervals include the variation of images.

        Returns:
            Columns domain, site, value, low, high, n_classes.
        """
        if len(self.intervals):
            return self.intervals
        return per_domain(self.values)

    def folds_over_depth(self) -> pd.DataFrame:
        """For each domain and site, return the mean similarity with the other domains, from folds (not all images).

        Ceilings are computed from folds, too. So the means and the ceilings are based on equally many images.

        Returns:
            Columns domain, site, value, low, high (95 % interval over classes and images), n_classes.

        Raises:
            InputError: if there are no folds of two domains.
        """
        array = self._need_ratios()._every_site
        return fold_means(array, domain_spread(array, self._draws(array)))

    def ratios_over_depth(self) -> pd.DataFrame:
        """For each domain and site, return the mean ratio to the ceiling (see `ratios`) with the other domains.

        Returns:
            Columns domain, site, value, low, high (95 % interval over classes and images), n_classes.

        Raises:
            InputError: if there are no folds of two domains.
        """
        spread = domain_ratios(*self._need_ratios()._cells(by_site=True))
        return fold_means(self._every_site, spread)

    def ceiling_by_site(self) -> pd.DataFrame:
        """Return the mean ceilings over classes and domains at each site.

        Returns:
            Columns site, value (similarity of two folds), upper (similarity of a fold and all images, which include
            the fold).
        """
        lower = self.ceilings.groupby("site", sort=False)["value"].mean()
        of_all = ceilings_of(self.folds, upper=True)
        upper = of_all.groupby("site", sort=False)["value"].mean()
        table = lower.reset_index()
        return table.assign(upper=table["site"].map(upper).astype(float))

    def class_by_domain(self) -> pd.DataFrame:
        """Return the mean similarity within and between classes and domains, and the effects of class and domain.

        There are four mean similarities: of the same class or of two classes, in the same domain or in two domains. An
        effect is a difference of these means. All similarities are between folds.

        Returns:
            Columns what (name of the mean or effect), value, low, high (95 % interval), n_classes, p (NaN for means),
            detectable (the size of the effect that four of five studies like this would find), about (a phrase that
            says what p is about).
        """
        return class_by_domain(self._counted(self.folds), seed=self.seed)

    def summary(self) -> pd.DataFrame:
        """For each group of classes and each domain, return the mean value with the other domains.

        Means are over sites and classes, from all images (not from folds).

        Returns:
            Columns group, domain, value, low, high (95 % interval over classes), n_classes. For a measure with
            ``intervals`` and at most one site, the intervals of the measure are used, and the only group is ``all``.
        """
        columns = ["group", "domain", "value", "low", "high", "n_classes"]
        if len(self.intervals) and len(self.sites) < 2:
            return self.intervals.assign(group="all")[columns]
        tables = []
        for name, members in self.groups.items():
            # Classes of a group may have folds, and no values.
            if not self.values["class"].isin(members).any():
                continue
            of_group = self.among(name)
            values = of_group._counted(of_group.values)
            keys = ["class", "domain_a", "domain_b"]
            # Sites first, then classes: intervals are over classes.
            over_sites = values.groupby(keys, as_index=False, sort=False)["value"]
            means = over_sites.mean().assign(site=None)
            tables.append(per_domain(means).assign(group=name))
        return pd.concat(tables, ignore_index=True)[columns]

    def tests(self) -> pd.DataFrame:
        """Test, for each pair of domains, whether their mean similarities with the other domains differ.

        If there are folds of two domains, similarities between folds are tested (`fold_tests`). Otherwise the values
        from all images are tested (`domain_tests`).

        Returns:
            Columns domain_a, domain_b, difference (mean of domain_a minus mean of domain_b), low, high (95 %
            interval), n_classes, p, p_holm (p corrected for the number of tests), detectable (the difference that four
            of five studies like this would find), about (a phrase that says what p is about).
        """
        if self.has_ratios:
            return fold_tests(self._array, self._draws(self._array))
        return domain_tests(self._counted(self.values))

    def ceiling_tests(self) -> pd.DataFrame:
        """Test, for each pair of domains, whether their similarity differs from the mean of their two ceilings.

        Returns:
            The columns of `tests`. A positive difference means that the two domains are less similar than two folds of
            one domain.

        Raises:
            InputError: if there are no folds of two domains.
        """
        array = self._need_ratios()._array
        return ceiling_tests(array, self._draws(array), self.alike)

    def levels(self) -> pd.DataFrame:
        """Return the mean of the values, and the levels to compare this mean with.

        These levels are the mean similarities of folds, within and between classes and domains, and the chance level.

        Returns:
            Columns what (name of the level), value, n_images (number of images from which each of the two compared
            objects was computed, if it is known).
        """
        n = self.about.get("n")
        # Each level: its name, its table, and the images on either side of a value.
        levels = [("the same class in two domains", self.values, n)]
        for kind, folds in fold_kinds(self.folds).items():
            levels.append((kind, folds, self.about.get("n_per_fold")))
        levels.append((self.chance_of, self.chance, None))
        rows = []
        for what, table, images in levels:
            values = self._counted(table)["value"].astype(float)
            if len(values):
                rows.append((what, values.mean(), images))
        return pd.DataFrame(rows, columns=["what", "value", "n_images"])

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return all results as tables by file name. Empty tables are left out."""
        tables = {
            "folds": self.folds,
            "matrix": _as_table(self.matrix()),
            "summary": self.summary(),
            "paired_tests": self.tests(),
            "levels": self.levels(),
            "class_by_domain": self.class_by_domain(),
        }
        if self.has_ratios:
            tables["ratio_matrix"] = _as_table(self.matrix(normalise=True))
            tables["ratios"] = self.ratios()
            tables["ceiling_tests"] = self.ceiling_tests()
        if self.sites:
            tables["over_depth"] = self.over_depth()
            tables["ceiling_by_site"] = self.ceiling_by_site()
        if self.sites and self.has_ratios:
            tables["folds_over_depth"] = self.folds_over_depth()
            tables["ratios_over_depth"] = self.ratios_over_depth()
        named = {self.measure: self.values, f"chance_{self.measure}": self.chance}
        for kind, table in tables.items():
            named[f"{self.measure}_{kind}"] = table
        return {name: table for name, table in named.items() if len(table)}

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the comparison into a folder, as a JSON file with a checksum that `load` reads.

        For tables that people can read, see `tables`.
        """
        content = {item.name: getattr(self, item.name) for item in fields(self)}
        for name in _TABLES:
            content[name] = content[name].to_dict("list")
        write_sealed(Path(folder) / _FILE, {"format": _FORMAT, **content})

    @classmethod
    @checked
    def load(cls, folder: str | PathLike[str]) -> "Comparison":
        """Read a comparison that `save` wrote.

        Raises:
            InputError: if the file is missing or damaged, or has another format or version.
        """
        path = Path(folder) / _FILE
        content = read_sealed(path, "give the folder of a comparison, or make it again")
        with naming_damage(path):
            check_format(path, content.pop("format"), _FORMAT)
            # JSON has no type for an empty column, and null for the site of whole circuits.
            for name in _TABLES:
                table = pd.DataFrame(content[name])
                content[name] = table.astype({"site": object})
            # JSON made lists of the tuples.
            groups = content["groups"].items()
            content["groups"] = {name: tuple(classes) for name, classes in groups}
            return cls(**content)

    @cached_property
    def _array(self) -> FoldArray:
        return FoldArray.from_table(self._counted(self.folds))

    @cached_property
    def _every_site(self) -> FoldArray:
        return FoldArray.from_table(self.folds)

    def _need_ratios(self) -> "Comparison":
        if not self.has_ratios:
            raise InputError(
                f"The ratio to the ceiling needs folds of the images of two domains, but this comparison of "
                f"{self.measure} has none: cut the images of each class and domain into at least two folds."
            )
        return self

    def _cells(self, by_site: bool) -> tuple[PairCells, np.ndarray, Draws]:
        """Return the arguments of `pair_ratios`: similarities and ceilings, chance levels, and draws of the bootstrap.

        Args:
            by_site: If True, the arguments have every site. If False, they have means over the sites that are not in
                ``left_out``.
        """
        if not by_site:
            array = self._array
            # Without a chance level zero is subtracted: the ratio is then of the similarities themselves.
            chance = self._counted(self.chance)["value"].astype(float)
            level = chance.mean() if len(chance) else 0.0
            cells = pair_cells(array).over_sites()
            return cells, np.array([level]), self._draws(array)
        array = self._every_site
        # The site of whole circuits is None in an array, and may be NaN in a table.
        levels = {}
        for site, value in self.chance[list(CHANCE)].to_numpy():
            levels[site if isinstance(site, str) else None] = value
        chances = [levels.get(site, 0.0) for site in array.sites]
        of_sites = np.array(chances, dtype=float)
        return pair_cells(array), of_sites, self._draws(array)

    def _draws(self, array: FoldArray) -> Draws:
        return draw_resamples(array.classes, array.n_folds, seed=self.seed)

    def _counted(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a table without the rows of the sites that means over sites ignore (``left_out``)."""
        if not self.left_out:
            return table
        return table[~table["site"].isin(list(self.left_out))]

    def __repr__(self) -> str:
        where = f"{len(self.sites)} sites" if self.sites else "whole"
        values = self.levels().set_index("what")["value"]
        levels = values.map("{:.3g}".format)
        return (
            f"Comparison by {self.measure} ({where}): {self.values['class'].nunique()} classes in "
            f"{len(self.domains)} domains; {', '.join(levels.index + ' ' + levels)}"
        )


def _as_table(matrix: pd.DataFrame) -> pd.DataFrame:
    return matrix.rename_axis(index="domain", columns=None).reset_index()
