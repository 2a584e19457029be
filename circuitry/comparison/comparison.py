"""How alike is a class in two domains? `Comparison`: the values of one measure, and what to read them against.

Circuits, features, representations, embeddings and transfer all end in one: values by class, pair of domains and site.

1. the values of all pairs of domains, class by class, site by site where the measure has sites, of all images;
2. what they are read against, from similarities of parts of the images: the ceiling, other classes; and chance;
3. `Comparison.ratios`: how much of what could be shared is shared; `Comparison.class_by_domain`: is it the class or the
   domain that makes alike;
4. `Comparison.matrix`, `Comparison.over_depth`, `Comparison.summary`, `Comparison.tests`: means over classes with
   intervals over classes and images, and tests between domains;
5. `Comparison.tables` for people, `Comparison.save` and `Comparison.load` for programs.
"""

import html
from functools import cached_property
from typing import ClassVar

import numpy as np
import pandas as pd

from circuitry.comparison.bootstrap import Draws, draw
from circuitry.comparison.ceiling import PairCells, domain_ratios, mean_ratio, pair_cells, pair_ratios
from circuitry.comparison.class_table import class_by_domain
from circuitry.comparison.compared_values import CHANCE, ComparedValues
from circuitry.comparison.domain_means import domain_spread, part_means
from circuitry.comparison.domain_tests import ceiling_tests, domain_tests, part_tests
from circuitry.comparison.parts import PartArray, ceilings_of, of_whole
from circuitry.comparison.statistics import family_of, per_domain
from circuitry.comparison.table import both_directions, domain_matrix
from circuitry.runs.errors import InputError

NO_PARTS = (
    "The ratio to the ceiling compares parts of the images of two domains, but this comparison of {} has none: cut the "
    "images of each class and domain into at least two parts, and compare again."
)


class Comparison(ComparedValues):
    """The values of one measure by class, pair of domains and site, and what they are read against.

    Example:
        >>> comparisons = compare_domains(graphs, groups={"held-out": ["fish", "key"]})
        >>> comparisons["edge_jaccard"].matrix(normalise=True)
        >>> comparisons["node_overlap"].over_depth()
    """

    HOW_TO_GET: ClassVar = "give one measure of what compare_domains returns, e.g. found['edge_jaccard']"

    def matrix(self, group: str = "all", *, normalise: bool = False) -> pd.DataFrame:
        """Return the domain-by-domain means over classes and sites, of all images.

        Where the order of domains matters, rows are ``domain_a``, and the diagonal holds each domain with itself.

        Args:
            group: One of the groups of classes.
            normalise: Return the ratio to the ceiling at equal numbers of images (`ratios`) instead: 1 means as alike
                as two parts of one domain's images. Where the order matters: divide by the value of the column's
                domain with itself.

        Raises:
            InputError: for an unknown group, or ``normalise`` without parts.
        """
        mine = self.among(group)
        if self.directions is not None:
            means = mine._counted(mine.values).groupby(["domain_a", "domain_b"])["value"].mean().unstack()
            rows, columns = self.directions
            matrix = means.reindex(index=self.domains, columns=self.domains).rename_axis(index=rows, columns=columns)
            return matrix.div(np.diag(matrix), axis="columns") if normalise else matrix
        return domain_matrix(mine.ratios().assign(**{"class": ""}) if normalise else mine._counted(mine.values))

    def parts_matrix(self, group: str = "all") -> pd.DataFrame:
        """Return the means between different parts: two domains, and on the diagonal each domain's own, its ceiling.

        All cells compare equally many images; see `matrix` for those of all images.

        Raises:
            InputError: for an unknown group, or without parts.
        """
        mine = self.among(group)._need_ratios()
        found = mine._array.over_sites().values[:, :, :, 0]
        means = pd.DataFrame(np.nanmean(found, (0, 3, 4)))
        names = list(mine._array.domains)
        return means.set_axis(names).set_axis(names, axis=1)

    def ratios(self, *, by_site: bool = False) -> pd.DataFrame:
        """Return the ratio to the ceiling of each two domains, at equal numbers of images on both sides.

        Args:
            by_site: One row per site; else of the means over sites.

        Returns:
            Columns domain_a, domain_b, site, value, low, high (95 %), n_classes, similarity, ceiling_a, ceiling_b (the
            means between parts that the ratio is made of), n_per_part (images of a part).

        Raises:
            InputError: without parts.
        """
        table = pair_ratios(*self._need_ratios()._cells(by_site))
        return table.assign(n_per_part=self.about.get("n_per_part"))

    def mean_ratio(self) -> tuple[float, tuple[float, float]]:
        """Return the mean of the ratios over pairs and sites, and its 95 % interval; an error as in `ratios`."""
        spread = mean_ratio(*self._need_ratios()._cells(by_site=False))
        low, high = spread.interval()
        return float(spread.value[0]), (float(low[0]), float(high[0]))

    def over_depth(self) -> pd.DataFrame:
        """Return each domain's mean with the other domains, of all images, with Student's interval over classes.

        Classes have different images, so the spread over classes holds that of images.

        Columns domain, site, value, low, high (95 %), n_classes.
        """
        if len(self.intervals):
            return self.intervals
        return per_domain(self._with_others(self.values), self.families)

    def parts_over_depth(self) -> pd.DataFrame:
        """Return each domain's mean with the others between different parts, at the number of images of the ceiling.

        Columns as `over_depth`; an error as in `ratios`.
        """
        array = self._need_ratios()._every_site
        return part_means(array, domain_spread(array, self._draws(array)))

    def ratios_over_depth(self) -> pd.DataFrame:
        """Return each domain's mean ratio to the ceiling with the others: as `over_depth`; an error as in `ratios`."""
        spread = domain_ratios(*self._need_ratios()._cells(by_site=True))
        return part_means(self._every_site, spread)

    def ceiling_by_site(self) -> pd.DataFrame:
        """Return the ceilings' means over classes and domains: site, value (a part, a part), upper (a part, all)."""
        by_site = [
            table.groupby("site", sort=False)["value"].mean()
            for table in (self.ceilings, ceilings_of(self.parts, upper=True))
        ]
        return by_site[0].reset_index().assign(upper=lambda table: table["site"].map(by_site[1]).astype(float))

    def class_by_domain(self) -> pd.DataFrame:
        """Return same and other class in same and other domain, and the effects of both; see `class_by_domain`."""
        return class_by_domain(self._counted(self.parts), self.families, seed=self.seed)

    def summary(self) -> pd.DataFrame:
        """Return each domain's mean with the others over sites, per group of classes.

        Columns group, domain, value, low, high (95 %), n_classes.
        """
        columns = ["group", "domain", "value", "low", "high", "n_classes"]
        if len(self.intervals) and len(self.sites) < 2:
            return self.intervals.assign(group="all")[columns]
        tables = []
        for name, members in self.groups.items():
            if not self.values["class"].isin(members).any():
                continue
            mine = self.among(name)
            keys = ["class", "domain_a", "domain_b"]
            over_sites = mine._counted(mine.values).groupby(keys, as_index=False, sort=False)["value"].mean()
            tables.append(per_domain(mine._with_others(over_sites.assign(site=None)), self.families).assign(group=name))
        return pd.concat(tables, ignore_index=True)[columns]

    def tests(self) -> pd.DataFrame:
        """Test for each two domains whether one is more like the others than the other is.

        Of parts where there are any (`part_tests`), else of all images (`domain_tests`).
        """
        if self.directions is None and self.has_ratios:
            return part_tests(self._array, self._draws(self._array), self.families)
        return domain_tests(self._with_others(self._counted(self.values)), self.families)

    def ceiling_tests(self) -> pd.DataFrame:
        """Test for each two domains whether they differ from their ceilings: `ceiling_tests`; errors as `ratios`."""
        array = self._need_ratios()._array
        return ceiling_tests(array, self._draws(array), self.alike, self.families)

    def levels(self) -> pd.DataFrame:
        """Return the mean of the values and of all that they are read against: what, value, n_images (on a side)."""
        parts, n, n_part = self._counted(self.parts), self.about.get("n"), self.about.get("n_per_part")
        one_class, two_domains = parts["class_a"] == parts["class_b"], parts["domain_a"] != parts["domain_b"]
        between = ~of_whole(parts)
        tables = (
            ("the same class in two domains", self._counted(self.values), n),
            ("the same class in two domains, parts", parts[one_class & two_domains & between], n_part),
            ("two parts of the same images", parts[one_class & ~two_domains & between], n_part),
            ("two classes in two domains", parts[~one_class & two_domains & between], n_part),
            ("two classes in one domain", parts[~one_class & ~two_domains & between], n_part),
            (self.chance_of, self._counted(self.chance), None),
        )
        rows = [(what, table["value"].astype(float).mean(), images) for what, table, images in tables if len(table)]
        return pd.DataFrame(rows, columns=["what", "value", "n_images"])

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return everything as tables by file name; those that would be empty are left out."""
        name = self.measure
        found = {
            name: self.values,
            f"{name}_parts": self.parts,
            f"chance_{name}": self.chance,
            f"{name}_matrix": _as_table(self.matrix()),
            f"{name}_summary": self.summary(),
            f"{name}_paired_tests": self.tests(),
            f"{name}_levels": self.levels(),
            f"{name}_class_by_domain": self.class_by_domain(),
        }
        if self.has_ratios:
            found |= {
                f"{name}_ratio_matrix": _as_table(self.matrix(normalise=True)),
                f"{name}_parts_matrix": _as_table(self.parts_matrix()),
                f"{name}_ratios": self.ratios(),
                f"{name}_ceiling_tests": self.ceiling_tests(),
            }
        if self.sites:
            found |= {f"{name}_over_depth": self.over_depth(), f"{name}_ceiling_by_site": self.ceiling_by_site()}
        if self.sites and self.has_ratios:
            found |= {
                f"{name}_parts_over_depth": self.parts_over_depth(),
                f"{name}_ratios_over_depth": self.ratios_over_depth(),
            }
        return {file: table for file, table in found.items() if len(table)}

    @cached_property
    def _array(self) -> PartArray:
        return PartArray.from_table(self._counted(self.parts))

    def _need_ratios(self) -> "Comparison":
        if not self.has_ratios:
            raise InputError(NO_PARTS.format(self.measure))
        return self

    @cached_property
    def _every_site(self) -> PartArray:
        return PartArray.from_table(self.parts)

    def _cells(self, by_site: bool) -> tuple[PairCells, np.ndarray, Draws]:
        """Return pairs of domains, chance and draws: at every site, or of the means over the sites that count."""
        if not by_site:
            chance = self._counted(self.chance)["value"].astype(float)
            cells = pair_cells(self._array).over_sites()
            return cells, np.array([chance.mean() if len(chance) else 0.0]), self._draws(self._array)
        array = self._every_site
        level = {site if isinstance(site, str) else None: value for site, value in self.chance[list(CHANCE)].to_numpy()}
        chances = np.array([level.get(site, 0.0) for site in array.sites], dtype=float)
        return pair_cells(array), chances, self._draws(array)

    def _draws(self, array: PartArray) -> Draws:
        return draw(family_of(array.classes, self.families), array.n_parts, seed=self.seed)

    def _counted(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of sites that have a part in means over sites."""
        return table[~table["site"].isin(list(self.left_out))] if self.left_out else table

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


def _as_table(matrix: pd.DataFrame) -> pd.DataFrame:
    return matrix.rename_axis(index="domain", columns=None).reset_index()
