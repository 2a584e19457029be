"""Which sites count in means over sites? Not those that repeat another, nor those that keep few units. No torch.

A stage without parameters that treats each channel by itself (a pooling) hands on the scores of the site before it:
both keep the same units in every graph, and would count twice. At a site that keeps one unit, overlap is 0 or 1.
"""

from itertools import pairwise

import numpy as np

from circuitry.circuits.graph import AttributionGraph

FEWEST = 5
"""Kept units from which on a site counts."""


class SiteMarks:
    """What the graphs that were added so far say about their sites.

    Example:
        >>> marks = SiteMarks()
        >>> for graph in graphs.values():
        ...     marks.add(graph)
        >>> marks.left_out()
        {'act1': 'keeps 4 units', 'avgpool': 'repeats act3'}
    """

    def __init__(self) -> None:
        self._kept: dict[str, int] = {}
        """Fewest kept units by site."""
        self._repeats: dict[str, str] | None = None
        """The site before, by site that has kept the same units so far."""

    def add(self, graph: AttributionGraph) -> None:
        """Take a graph into account."""
        sites = graph.inner_sites
        for site in sites:
            self._kept[site] = min(len(graph.kept_units[site]), self._kept.get(site, len(graph.node_scores[site])))
        pairs = {down: up for up, down in pairwise(sites)} if self._repeats is None else self._repeats
        self._repeats = {down: up for down, up in pairs.items() if _same_units(graph, up, down)}

    def left_out(self) -> dict[str, str]:
        """Return the sites that do not count, with the reason; where all keep few units, few units are no reason."""
        repeats = {site: f"repeats {before}" for site, before in (self._repeats or {}).items()}
        few = {site: f"keeps {count} unit{'s' * (count != 1)}" for site, count in self._kept.items() if count < FEWEST}
        left_out = few | repeats
        if len(left_out) == len(self._kept):
            left_out = repeats
        return {site: left_out[site] for site in self._kept if site in left_out}


def _same_units(graph: AttributionGraph, a: str, b: str) -> bool:
    same_size = len(graph.node_scores[a]) == len(graph.node_scores[b])
    return same_size and np.array_equal(np.sort(graph.kept_units[a]), np.sort(graph.kept_units[b]))
