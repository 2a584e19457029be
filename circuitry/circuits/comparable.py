"""Which graphs may be compared? Graphs of one model, at the same sites and units, found in the same way. No torch.

Circuits are compared unit by unit, so a similarity of graphs with other widths, feature bases, rules, kinds of edges or
models means nothing. A graph stores how many units its sites have, and the `SHARED_ENTRIES` of its identity. An entry
that one of two graphs lacks is not compared, and named in the log. Numbers of images may differ, as they do between
domains. Text weights of all classes are compared between graphs with equally many classes, and wherever they are the
metric's (a margin); text weights of one class, and metrics that are functions, between graphs of this class. If texts
are in the images' own style, text weights are compared within a domain alone.
"""

import logging
from typing import Any

from circuitry.circuits.graph import Scores
from circuitry.runs.errors import InputError
from circuitry.runs.identity import OF_MODEL, SHARED_ENTRIES, entry_differs, same_entry

_BASELINES_OF_A_JOB = ("other-domains", "counterfactual")
"""First words of baselines that differ by class and domain: only their names are compared."""

OWN_STYLE = "own-style"
"""Texts that differ by domain, as do the text weights that are made of them."""

WHAT_TO_DO = {
    **dict.fromkeys(OF_MODEL, "find both with one and the same model"),
    **dict.fromkeys(
        ["baseline", "baseline_digest"],
        "find both with one baseline, as by Task(..., baseline=first.baseline) with the first one's task",
    ),
    **dict.fromkeys(
        ("metric", "text_weights", "class_weights", "texts", "classes", "scale"),
        "find both by one metric with the same texts",
    ),
}
"""Advice for a sentence on the setting that differs; for any other setting: find both in the same way."""

log = logging.getLogger(__name__)


class Comparable:
    """Sites, units and settings of the graphs of a comparison; each further graph is checked against them once."""

    def __init__(self) -> None:
        self._first: Scores | None = None
        # Settings that only one of two graphs has, warned of once for all graphs.
        self._unsaid: str | None = None
        self._settings: dict[tuple[str, Any], tuple[Any, str]] = {}
        """The value of a setting and the title of a graph that has it, by the key of `_settings`."""

    def add(self, graph: Scores) -> None:
        """Check a graph against those before it."""
        graph.check_finite()
        if self._first is None:
            self._first = graph
        _check_units(self._first, graph)
        differing = self._first.settings.keys() ^ graph.settings.keys()
        unsaid = differing.intersection(SHARED_ENTRIES)
        if unsaid and self._unsaid is None:
            self._unsaid = ", ".join(sorted(unsaid)).replace("_", " ")
            log.warning(
                "%s and %s: only one says its %s; not compared.",
                self._first.title,
                graph.title,
                self._unsaid,
            )
        for key, value in _settings(graph).items():
            # With the first graph of the scope, not with the first of all: others may have no such setting.
            theirs, title = self._settings.setdefault(key, (value, graph.title))
            if not same_entry(theirs, value):
                differs = entry_differs(key[0], theirs, title, value, graph.title)
                advice = WHAT_TO_DO.get(key[0], "find both in the same way")
                raise InputError(
                    f"Compared circuits are found with the same model, question and settings, but {differs}: {advice}."
                )
        for site in sorted(graph.sites_without_effect):
            log.warning(
                "%s: no unit has an effect at %s, so nothing is compared there.",
                graph.title,
                site,
            )


def check_comparable(a: Scores, b: Scores) -> None:
    """Check that two graphs may be compared."""
    graphs = Comparable()
    graphs.add(a)
    graphs.add(b)


def _settings(graph: Scores) -> dict[tuple[str, Any], Any]:
    """Return the `SHARED_ENTRIES` of a graph by name and scope: graphs of one scope must agree on the value."""
    known = {}
    for name in SHARED_ENTRIES:
        if name in graph.settings:
            known[name] = graph.settings[name]
    if str(known.get("baseline")).startswith(_BASELINES_OF_A_JOB):
        known.pop("baseline_digest", None)
    # The logit of a class does not depend on the texts of other classes.
    if known.get("metric") == "logit":
        known.pop("classes", None)
    domain = graph.domain if known.get("texts") == OWN_STYLE else None
    class_name = graph.class_name or graph.settings.get("label")
    n_classes = known.get("text_weights", [None])[0]
    # A margin is a difference of logits, so its text weights count however many classes there are.
    if known.get("metric") == "margin":
        n_classes = None
    scopes: dict[str, Any] = {
        "class_weights": (class_name, domain),
        "text_weights": (n_classes, domain),
        "metric_code": (class_name, domain),  # a function knows its class
    }
    return {(name, scopes.get(name)): value for name, value in known.items()}


def _check_units(a: Scores, b: Scores) -> None:
    if a.sites != b.sites:
        # The first pair that differs; none differs where one graph has more sites behind the other's.
        different = f"{len(a.sites)} and {len(b.sites)} in number"
        for of_a, of_b in zip(a.sites, b.sites, strict=False):
            if of_a != of_b:
                different = f"{of_a} and {of_b}"
                break
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


def _units(graph: Scores, site: str) -> str:
    units = f"{len(graph.node_scores[site])} units"
    n_errors = len(graph.error_scores.get(site, ()))
    return f"{units} and {n_errors} error units" if n_errors else units
