"""Which graphs may be compared? Those of one model, at the same sites and units, found in the same way. No torch.

A circuit is compared unit by unit, so a number between graphs of other widths, feature bases, rules, kinds of edges or
models means nothing. A graph stores what it takes to tell them apart: how many units its sites have, and `SETTINGS`. A
setting that one of two graphs does not know cannot tell them apart. Numbers of images may differ: they do between
domains.
"""

import logging
from typing import Any

from circuitry.circuits.graph import AttributionGraph
from circuitry.runs.errors import InputError
from circuitry.runs.given import check_kinds

SETTINGS = {
    "model_digest": "the model",
    "basis": "the feature basis",
    "hooked_sites": "the list of sites with hooks",
    "metric": "the metric",
    "node_fraction": "the share of kept units",
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
"""What graphs to compare must agree on, and what it is called in messages."""

BASELINES_OF_A_JOB = ("other-domains", "counterfactual")
"""How the names of baselines begin whose values differ by class and domain: only the names are compared."""

log = logging.getLogger(__name__)


class Comparable:
    """What the graphs of a comparison have in common so far; each further graph is checked against it once.

    Example:
        >>> checked = Comparable()
        >>> for graph in graphs:
        ...     checked.add(graph)
    """

    def __init__(self) -> None:
        self._first: AttributionGraph | None = None
        self._settings: dict[str, tuple[Any, str]] = {}
        """Value by name, and whose it is."""

    def add(self, graph: AttributionGraph) -> None:
        """Check a graph against those before it.

        Raises:
            InputError: for scores that are not finite, or another model, other sites, units or settings; the message
                names the difference.
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
                    f"Circuits are compared when they were found in the same way, but {SETTINGS[name]} is {theirs!r} "
                    f"for {title} and {value!r} for {graph.title}: attribute both alike."
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
    """Return what a graph knows of `SETTINGS`; the digest of its model may be part of its provenance."""
    known = graph.provenance | graph.settings
    found = {name: _plain(known[name]) for name in SETTINGS if name in known}
    if str(found.get("baseline")).startswith(BASELINES_OF_A_JOB):
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
            f"Circuits are compared at the same sites, but these have different ones ({different}): "
            "attribute both with the same encoder and sites."
        )
    for site in a.sites:
        if _units(a, site) != _units(b, site):
            raise InputError(
                f"Circuits are compared unit by unit, but {site} has {_units(a, site)} in {a.title} and "
                f"{_units(b, site)} in {b.title}: attribute both with the same encoder, in the same feature basis."
            )


def _units(graph: AttributionGraph, site: str) -> str:
    errors = len(graph.error_scores.get(site, ()))
    return f"{len(graph.node_scores[site])} units" + (f" and {errors} error units" if errors else "")
