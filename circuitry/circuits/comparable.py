"""Which graphs may be compared? Graphs of one model, at the same sites and units, found in the same way.

Circuits are compared unit by unit. So the similarity of two graphs means nothing if they differ in widths, feature
bases, rules, kinds of edges or models. A graph stores the number of units of each site, and the settings that it was
made with. Two graphs must agree on the settings that are named in `SHARED_ENTRIES`. If only one of two graphs has a
setting, this setting is not compared, and the log names it. The numbers of images may differ, since domains have
different numbers of images.

Some settings must agree only between certain graphs:

- The text weights of all classes must agree between graphs with equally many classes. If the metric is a margin, they
  must agree between all graphs, because a margin depends on all text weights.
- The text weights of a single class, and the code of a metric that is a function, must agree between graphs of the same
  class.
- If the texts name the style of the images, they differ between domains. Then all of these settings must agree only
  between graphs of the same domain.

Graphs of several models of one architecture may be compared if the caller says so (``across="models"``). Then the
domain of a graph names its model. The settings that the weights decide (`OF_WEIGHTS`) must agree only between graphs of
one model. If the baseline is a mean of activations, the images of the mean must agree, and not the activations.

Does not import torch.
"""

import logging
from collections.abc import Iterable
from typing import Any

from circuitry.circuits.graph import Scores
from circuitry.runs.arguments import fitting
from circuitry.runs.errors import InputError
from circuitry.runs.identity import (
    OF_MODEL,
    OF_WEIGHTS,
    SHARED_ENTRIES,
    Across,
    entry_differs,
    same_entry,
)

_BASELINES_OF_A_JOB = ("other-domains", "counterfactual")
"""First words of the names of baselines that differ by class and domain. Of such baselines only the names are
compared."""

OWN_STYLE = "own-style"
"""Name of the texts that differ by domain; the text weights that are made of them differ, too."""

WHAT_TO_DO = {
    **dict.fromkeys(OF_MODEL, "find both with one and the same model"),
    "weights": "find both with one and the same model, or give across='models' (--across models) and name each model "
    "by a domain of its own, if they are of several models of one architecture",
    **dict.fromkeys(
        ["baseline", "baseline_digest"],
        "find both with one baseline: give baseline=first.baseline to Task or attribute, where first is the first "
        "one's task; of two models, give each the mean_baseline of its encoder over the same images",
    ),
    **dict.fromkeys(
        ("metric", "text_weights", "class_weights", "texts", "classes", "scale"),
        "find both by one metric with the same texts",
    ),
}
"""Advice at the end of the error message, by the name of the setting that differs between two circuits. For any other
setting the advice is "find both in the same way"."""

log = logging.getLogger(__name__)


class Comparable:
    """Check that the graphs of a comparison have the same sites, units and settings.

    Each graph is checked once, when it is added, against the graphs before it.
    """

    def __init__(self, across: Across | None = None) -> None:
        """Begin without graphs.

        Args:
            across: With ``models`` graphs of different domains may be of different models (default: all graphs are of
                one model).
        """
        self._across = fitting(across, Across | None, "across")
        self._first: Scores | None = None
        # Names of settings that only one of two graphs has. The warning is given once for all graphs.
        self._unsaid: str | None = None
        self._settings: dict[tuple[str, Any], tuple[Any, str]] = {}
        """Value of a setting, and the title of the first graph with this setting, by the keys of `_settings`."""

    def add(self, graph: Scores) -> None:
        """Check a graph against the graphs that were added before; raise `InputError` if it cannot be compared."""
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
        for key, value in _settings(graph, self._across).items():
            # Compare with the first graph that has the setting in this scope, as the first graph of all may lack it.
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

    def weights(self, domains: Iterable[str]) -> list[str | None]:
        """Return the digest of the weights of the model that each domain names; None if its graphs do not say it."""
        digests = list[str | None]()
        for domain in domains:
            known = self._settings.get(("weights", (None, domain)), (None, ""))
            digests.append(known[0])
        return digests


def check_comparable(a: Scores, b: Scores) -> None:
    """Raise `InputError` unless two graphs may be compared."""
    graphs = Comparable()
    graphs.add(a)
    graphs.add(b)


def _settings(graph: Scores, across: Across | None) -> dict[tuple[str, Any], Any]:
    """Return the `SHARED_ENTRIES` of a graph, by the name and the scope of the entry.

    All graphs with the same name and scope must agree on the value. For example, the scope of the text weights of a
    class is the class, because graphs of other classes may differ. The scope is None if all graphs must agree.
    """
    known = {}
    for name in SHARED_ENTRIES:
        if name in graph.settings:
            known[name] = graph.settings[name]
    if across and "baseline_pixels" in graph.settings:
        known["baseline_digest"] = graph.settings["baseline_pixels"]
    if str(known.get("baseline")).startswith(_BASELINES_OF_A_JOB):
        known.pop("baseline_digest", None)
    # The logit of a class does not depend on the texts of other classes.
    if known.get("metric") == "logit":
        known.pop("classes", None)
    domain = graph.domain if known.get("texts") == OWN_STYLE else None
    class_name = graph.class_name or graph.settings.get("label")
    n_classes = known.get("text_weights", [None])[0]
    # A margin is a difference of logits. It depends on the text weights of all classes, however many there are.
    if known.get("metric") == "margin":
        n_classes = None
    scopes: dict[str, Any] = {
        "class_weights": (class_name, domain),
        "text_weights": (n_classes, domain),
        "metric_code": (class_name, domain),  # a function knows its class
    }
    if across:
        for name in OF_WEIGHTS:
            scopes[name] = (scopes.get(name), graph.domain)
    return {(name, scopes.get(name)): value for name, value in known.items()}


def _check_units(a: Scores, b: Scores) -> None:
    if a.sites != b.sites:
        # The first pair of sites that differs. If one graph only has further sites at the end, no pair differs.
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
