"""Are the circuits of a class the same in two domains? All the tables that answer it, from one set of graphs.

1. every measure between all pairs of domains, class by class;
2. what it is read against: the ceiling from halves of the images, the chance level of random units;
3. per domain, the mean over the other domains with a bootstrap interval over classes, for all classes and for
   groups of them (held out or seen in training); paired tests between domains.
"""

from dataclasses import dataclass

import pandas as pd

from circuitry.comparison.statistics import paired_tests, per_domain
from circuitry.comparison.table import domain_matrix

COMPARED = ("node_overlap", "edge_jaccard", "wl_kernel")
"""Measures of a comparison; the kernel at depth 1."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Similarities of the circuits of many classes between domains, and what to read them against."""

    sites: tuple[str, ...]
    """Sites of the circuits in order, without the image itself."""
    similarity: dict[str, pd.DataFrame]
    """By measure: class, domain_a, domain_b, site, value."""
    ceilings: dict[str, pd.DataFrame]
    """By measure: class, domain, site, value; similarity of two halves of the same images."""
    chance: pd.DataFrame
    """Node overlap of random units: site, value."""
    groups: dict[str, tuple[str, ...]]
    """Classes by group; ``all`` always."""

    def depth(self) -> pd.DataFrame:
        """Return node overlap of each domain with the others: domain, site, value, low, high, n_classes."""
        return per_domain(self.similarity["node_overlap"])

    def ceiling_by_site(self) -> pd.DataFrame:
        """Return the mean node overlap of two halves: site, value."""
        return self.ceilings["node_overlap"].groupby("site", sort=False)["value"].mean().reset_index()

    def matrix(self, measure: str, group: str = "all", *, normalise: bool = False) -> pd.DataFrame:
        """Return the domain-by-domain means of a measure with the ceilings on the diagonal."""
        classes = self.groups[group]
        table, ceilings = self.similarity[measure], self.ceilings[measure]
        return domain_matrix(
            table[table["class"].isin(classes)], ceilings[ceilings["class"].isin(classes)], normalise=normalise
        )

    def summary(self, measure: str) -> pd.DataFrame:
        """Return each domain's mean similarity with the others, per group of classes.

        Columns group, domain, value, low, high (95 % bootstrap over classes), n_classes.
        """
        table = self.similarity[measure]
        over_sites = table.groupby(["class", "domain_a", "domain_b"], as_index=False, sort=False)["value"].mean()
        over_sites["site"] = None
        parts = [
            per_domain(over_sites[over_sites["class"].isin(classes)]).drop(columns="site").assign(group=name)
            for name, classes in self.groups.items()
        ]
        return pd.concat(parts, ignore_index=True)[["group", "domain", "value", "low", "high", "n_classes"]]

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return everything as tables by file name."""
        found = {
            "node_overlap_over_depth": self.depth(),
            "node_overlap_ceiling_by_site": self.ceiling_by_site(),
            "chance_node_overlap": self.chance,
        }
        for measure in COMPARED:
            found[measure] = self.similarity[measure]
            found[f"{measure}_ceilings"] = self.ceilings[measure]
            found[f"{measure}_matrix"] = self.matrix(measure).rename_axis("domain").reset_index()
            found[f"{measure}_summary"] = self.summary(measure)
            found[f"{measure}_paired_tests"] = paired_tests(self.similarity[measure])
        return found
