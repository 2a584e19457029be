"""Which graphs may be compared? Graphs of one model, at the same sites and units, found in the same way. No torch.

Circuits are compared unit by unit, so a similarity of graphs with other widths, feature bases, rules, kinds of edges or
models means nothing. A graph stores how many units its sites have, and its `COMPARED_SETTINGS`. A setting that one of
two graphs lacks is not compared. Numbers of images may differ, as they do between domains. Text weights of all classes
are compared between graphs with equally many classes, text weights of one class between graphs of this class. If texts
are in the images' own style, text weights are compared within a domain alone.
"""

import logging
from typing import Any

import numpy as np

from circuitry.circuits.graph import AttributionGraph
from circuitry.runs.errors import InputError
from circuitry.runs.provenance import difference

COMPARED_SETTINGS = {
    "model_digest": "the model",
    "clip_digest": "the model with its texts and preprocessing",
    "basis": "the feature basis",
    "hooked_sites": "the list of sites with hooks",
    "metric": "the metric",
    "text_weights": "the text weights of the classes",
    "class_weights": "the text weights of the class",
    "texts": "the texts of the classes",
    "classes": "the list of classes",
    "size": "the share of kept units",
    "budget": "the budget",
    "method": "the method that ranks units",
    "n_others": "the number of images of other classes",
    "node_rule": "the quadrature rule of nodes",
    "edge_rule": "the quadrature rule of edges",
    "edge_method": "the score of edges",
    "correction": "the correction of edges",
    "baseline": "the baseline",
    "baseline_digest": "the digest of the baseline's values",
}
"""Settings on which compared graphs must agree, with their names in messages."""

_BASELINES_OF_A_JOB = ("other-domains", "counterfactual")
"""First words of baselines that differ by class and domain: only their names are compared."""

OWN_STYLE = "own-style"
"""Texts that differ by domain, as do the text weights that are made of them."""

_NEAR = 2e-3
"""How far numbers of the same texts may differ between machines and devices."""

log = logging.getLogger(__name__)


class Comparable:
    """Sites, units and settings of the graphs of a comparison; each further graph is checked against them once."""

    def __init__(self) -> None:
        self._first: AttributionGraph | None = None
        self._settings: dict[tuple[str, Any], tuple[Any, str]] = {}
        """The value of a setting and the title of a graph that has it, by the key of `_settings`."""

    def add(self, graph: AttributionGraph) -> None:
        """Check a graph against those before it."""
        graph.check_finite()
        if self._first is None:
            self._first = graph
        _check_units(self._first, graph)
        for key, value in _settings(graph).items():
            theirs, title = self._settings.setdefault(key, (value, graph.title))
            if not same_setting(theirs, value):
                raise InputError(
                    "Compared circuits must be found in the same way, but "
                    f"{_differ(key[0], theirs, title, value, graph.title)}: attribute both in the same way."
                )
        for site in sorted(graph.sites_without_effect):
            log.warning("%s: no unit has an effect at %s, so nothing is compared there.", graph.title, site)


def check_comparable(a: AttributionGraph, b: AttributionGraph) -> None:
    """Check that two graphs may be compared."""
    checked = Comparable()
    checked.add(a)
    checked.add(b)


def same_setting(a: Any, b: Any) -> bool:
    """Return whether two values of a setting agree; text weights may differ by the rounding of another machine."""
    if isinstance(a, list) and isinstance(b, list) and any(isinstance(x, float) for x in a):
        return len(a) == len(b) and np.allclose(a, b, rtol=_NEAR, atol=_NEAR)
    return bool(a == b)


def _settings(graph: AttributionGraph) -> dict[tuple[str, Any], Any]:
    """Return the `COMPARED_SETTINGS` of a graph by name and scope: graphs of one scope must agree on the value.

    The provenance holds the digest of the whole model, even if the settings hold the digest of the encoder.
    """
    known = graph.provenance | graph.settings
    if "model_digest" in graph.provenance:
        known["clip_digest"] = graph.provenance["model_digest"]
    found = {name: _plain(known[name]) for name in COMPARED_SETTINGS if name in known}
    if str(found.get("baseline")).startswith(_BASELINES_OF_A_JOB):
        found.pop("baseline_digest", None)
    if found.get("metric") == "logit":  # does not depend on the texts of other classes
        found.pop("classes", None)
    domain = graph.domain if found.get("texts") == OWN_STYLE else None
    common: dict[str, Any] = {"class_weights": (graph.class_name or graph.settings.get("label"), domain)}
    common["text_weights"] = found.get("text_weights", [None])[0], domain
    return {(name, common.get(name)): value for name, value in found.items()}


def _differ(name: str, one: Any, title: str, other: Any, other_title: str) -> str:
    """Return the clause of a message that says how a setting of two graphs differs."""
    if name in ("text_weights", "class_weights"):  # whose numbers say nothing to a reader
        return f"{COMPARED_SETTINGS[name]} are others for {title} than for {other_title}"
    if name == "classes":  # there may be hundreds
        changed = difference({name: other}, {name: one})
        return f"{COMPARED_SETTINGS[name]} is another one for {other_title} than for {title} ({changed})"
    return f"{COMPARED_SETTINGS[name]} is {one!r} for {title} and {other!r} for {other_title}"


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
