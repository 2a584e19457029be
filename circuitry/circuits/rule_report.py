"""What graphs and reports say about the quadrature rule: which it is, and how large its error is. No torch."""

from collections.abc import Mapping
from typing import Any

from circuitry.runs.given import checked

RULE_CHOICE = "rule_choice"
"""Under which name the settings of a graph and the configuration of a run keep a choice, see `cheapest_rule`."""

_AGREE = 0.5
"""Largest distance between two references that agree, as a share of the error that was asked for."""


def references_agree(asked: float, references_differ: float) -> bool:
    """Return whether two references lie so near to each other that an error against them is one of the integral."""
    return references_differ <= _AGREE * asked


@checked
def describe_rule(settings: Mapping[str, Any]) -> str:
    """Return a sentence on the rules of a graph or of a run, and on the error that they leave.

    Args:
        settings: ``AttributionGraph.settings``, or the configuration in the manifest of a run.

    Example:
        >>> describe_rule(graphs.manifest["config"])
        'Paths are integrated by midpoint-5 for nodes and midpoint-3 for edges. On 8 images of 4 circuits their ...'
    """
    nodes, edges = settings.get("node_rule", "an unknown rule"), settings.get("edge_rule", "an unknown rule")
    rules = f"Paths are integrated by {nodes}" + ("" if nodes == edges else f" for nodes and {edges} for edges")
    choice = settings.get(RULE_CHOICE)
    if choice is None:
        return f"{rules}; its error on this model was not measured."
    kinds = {"scores": choice["nodes"], "edges": choice["edges"]}
    unresolved = {what: of for what, of in kinds.items() if not _promised(choice, of)}
    errors = " and ".join(
        f"{of['error']:.2g} of the {what} in the mean over sites (at most {of['errors'][of['worst']]:.2g}, at "
        f"{of['worst']})"
        for what, of in kinds.items()
        if of["worst"] is not None and what not in unresolved
    )
    sentences = [f"{rules}."]
    if errors or not unresolved:
        more = max(of["error"] for what, of in kinds.items() if what not in unresolved) > choice["asked"]
        sentences.append(
            f"On {choice['n_images']} images of {choice['n_circuits']} circuits their error against "
            f"{choice['reference']} is {errors or 'nothing'}; {choice['asked']:.2g}"
            + (", less than this, was asked for." if more else " was asked for.")
        )
    sentences += [
        f"No error of the {what} is promised: {choice['reference']} and {choice['second_reference']} differ by "
        f"{of['references_differ']:.2g}, so the integral is not resolved under this baseline."
        for what, of in unresolved.items()
    ]
    return " ".join(sentences)


def _promised(choice: Mapping[str, Any], of: Mapping[str, Any]) -> bool:
    """Return whether the references agree; a choice that was made with one reference says nothing of it."""
    return "references_differ" not in of or references_agree(choice["asked"], of["references_differ"])


def describe_errors(settings: Mapping[str, Any], completeness: Mapping[str, Any]) -> list[str]:
    """Return, in a few words each, the error of node scores that is left where it was measured, and the largest gap."""
    facts = []
    if (choice := settings.get(RULE_CHOICE)) is not None:
        promised = f"{choice['nodes']['error']:.2g} in the mean over sites"
        facts.append(f"error of the rule {promised if _promised(choice, choice['nodes']) else 'not known'}")
    if completeness:
        site = max(completeness, key=lambda one: abs(completeness[one].share))
        of = completeness[site]
        facts.append(f"largest completeness gap {of.share:.0%} of the metric's change at {site}: {of.verdict}")
    return facts


_MADE_BY = {"node_rule": "rule", "baseline": "baseline", "metric": "metric"}


def describe_made(settings: Mapping[str, Any], completeness: Mapping[str, Any], n_images: int) -> str:
    """Return how a graph was made and how well its scores add up, in a few words each."""
    facts = [f"{n_images} images"]
    facts += [f"{word} {settings[name]}" for name, word in _MADE_BY.items() if name in settings]
    return ", ".join([*facts, *describe_errors(settings, completeness)])
