"""Which graphs may be compared? Graphs of one model, at the same sites and units, found in the same way. No torch.

Circuits are compared unit by unit, so a similarity of graphs with other widths, feature bases, rules, kinds of edges or
models means nothing. A graph stores how many units its sites have, and its `COMPARED_SETTINGS`. A setting that one of
two graphs lacks is not compared. Numbers of images may differ, as they do between domains.
"""

import logging
from typing import Any

from circuitry.circuits.graph import AttributionGraph
from circuitry.runs.errors import InputError
from circuitry.runs.given import check_kinds

COMPARED_SETTINGS = {
    "model_digest": "the model",
    "basis": "the feature basis",
    "hooked_sites": "the list of sites with hooks",
    "metric": "the metric",
    "node_fraction": "the share of kept units",
    "budget": "the budget",
    "node_rule": "the quadrature rule of nodes",
    "edge_rule": "the quadrature rule of edges",
    "edges": "the kind of edges",
    "edge_method": "the score of edges",
    "path": "the path of edges",
    "correction": "the correction of edges",
    "baseline": "the baseline",
    "baseline_digest": "the digest of the baseline's values",
    "autocast": "the precision (autocast)",
}
"""Settings on which compared graphs must agree, with their names in messages."""

_BASELINES_OF_A_JOB = ("other-domains", "counterfactual")
"""First words of baselines that differ by class and domain: only their names are compared."""

log = logging.getLogger(__name__)


class Comparable:
    """Sites, units and settings of the graphs of a comparison; each further graph is checked against them once.

    Example:
        >>> checked = Comparable()
        >>> for graph in graphs:
        ...     checked.add(graph)
    """

    def __init__(self) -> None:
        self._first: AttributionGraph | None = None
        self._settings: dict[str, tuple[Any, str]] = {}
        """By name, the value and the title of a graph with it."""

    def add(self, graph: AttributionGraph) -> None:
        """Check a graph against those before it.

        Raises:
            InputError: for scores that are not finite, or another model, other sites, units or settings, by name.
        """
        check_kinds(graph=(graph, AttributionGraph))
        graph.check_finite()
        if self._first is None:
            self._first = graph
        _check_units(self._first, graph)
        for name, value in _settings(graph).items():
            theirs, title = self._settings.setdefault(name, (value, graph.title))
            if theirs != value:
                raise InputError(
                    f"Compared circuits must be found in the same way, but {COMPARED_SETTINGS[name]} is {theirs!r} for "
                    f"{title} and {value!r} for {graph.title}: attribute both in the same way."
                )
        for site in sorted(graph.sites_without_effect):
            log.warning("%s: no unit has an effect at %s, so nothing is compared there.", graph.title, site)


def check_comparable(a: AttributionGraph, b: AttributionGraph) -> None:
    """Check that two graphs may be compared.

    Raises:
        InputError: as `Comparable.add`.
    """
    checked = Comparable()
    checked.add(a)
    checked.add(b)


def _settings(graph: AttributionGraph) -> dict[str, Any]:
    """Return the `COMPARED_SETTINGS` of a graph; its provenance may hold the digest of the model."""
    known = graph.provenance | graph.settings
    found = {name: _plain(known[name]) for name in COMPARED_SETTINGS if name in known}
    if str(found.get("baseline")).startswith(_BASELINES_OF_A_JOB):
        found.pop("baseline_digest", None)
    return found


def _plain(value: Any) -> Any:
    """Make tuples lists, as they come back from a file."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _check_units(a: AttributionGraph, b: AttributionGraph) -> None:
    if a.sites != b.sites:
        different = next(
            (f"{x} and {y}" for x, y in zip(a.sites, b.sites, strict=False) if x != y),
            f"{len(a.sites)} and {len(b.sites)} in number",
        )
        raise InputError(
            f"Compared circuits need the same sites, but these differ ({different}): attribute both with the same "
            "encoder and sites."
        )
    for site in a.sites:
        if _units(a, site) != _units(b, site):
            raise InputError(
                f"Compared circuits need the same units, but {site} has {_units(a, site)} in {a.title} and "
                f"{_units(b, site)} in {b.title}: attribute both with the same encoder, in the same feature basis."
            )


def _units(graph: AttributionGraph, site: str) -> str:
    errors = len(graph.error_scores.get(site, ()))
    return f"{len(graph.node_scores[site])} units" + (f" and {errors} error units" if errors else "")
