"""Circuits as sets of units: which units are kept at which sites, and sets made from others.

The image itself (`input`) is scored by attribution but is no node of a circuit.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import numpy as np

from circuitry.circuits.budgets import SAME_SHARE, Budget, strongest_units
from circuitry.circuits.comparable import OWN_STYLE, same_setting
from circuitry.circuits.graph import AttributionGraph
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task
from circuitry.interventions.intervention_settings import RANKINGS
from circuitry.interventions.patches import Chosen, Places
from circuitry.runs.errors import InputError
from circuitry.runs.given import Names, Share, checked, one_of

KeptUnits = Mapping[str, Chosen]
"""The units of a circuit by site: numbers, or a boolean mask; a site that is not there is left alone."""


def choose_sites(graph: AttributionGraph, sites: Sequence[str] | None = None) -> list[str]:
    """Return the sites of a graph's circuit, all of them or those asked for, checked to be there."""
    inner = graph.inner_sites
    if missing := [site for site in sites or () if site not in inner]:
        raise InputError(f"The graph has no circuit units at {', '.join(missing)}; its sites are {', '.join(inner)}.")
    return list(inner if sites is None else sites)


def circuit_sites(task: Task, graph: AttributionGraph) -> list[str]:
    """Return the sites of a graph's circuit that a task ablates at: its sites where it names some, else the graph's.

    Raises:
        InputError: for sites of the task that the graph lacks.
    """
    every, named = ([site for site in sites if site != INPUT] for sites in (task.encoder.sites, task.sites))
    return choose_sites(graph, None if named == every else named)


_WAYS = {
    "model_digest": "give the encoder that it was found in",
    "basis": "give the encoder in the same feature bases",
    "metric": "give the metric that it was found by",
    "baseline": "give the baseline of the task that it was found with, Task(..., baseline=task.baseline)",
    "text_weights": "give the metric of the text weights that it was found by",
    "class_weights": "give the metric of the class and the text weights that it was found by",
}
ANY_TEXTS = ("model_digest", "basis", "metric")
"""What a circuit and a task that measures it have in common, on images of any domain."""
ANY_CLASS = (*ANY_TEXTS, "text_weights")
"""The same on images of one domain: another class's circuit is a control, another baseline another question."""


def check_made_with(task: Task, graphs: Iterable[AttributionGraph], names: Sequence[str] = ANY_CLASS) -> None:
    """Check that graphs were made with what a task has.

    Args:
        task: What measures them.
        graphs: A graph that does not say what it was made with is taken.
        names: What has to agree. Of ``text_weights`` only those of the class where both have one label, those of all
            classes only where both have as many, and none where texts differ by domain.

    Raises:
        InputError: for a graph that was made with something else.
    """
    given = task.made_with
    for graph in graphs:
        made = dict(graph.settings)
        made["metric"] = made.get("ready_metric", made.get("metric", given["metric"]))
        if made.get("texts") == OWN_STYLE:
            made.pop("text_weights", None)
        for name in names:
            if name == "text_weights" and name in made and made.get("label") == given.get("label"):
                name = "class_weights"
            if name not in made or name not in given or same_setting(made[name], given[name]):
                continue
            differ = f"{name} {made[name]!r}, but the task has {given[name]!r}"
            if name.endswith("_weights"):
                if made[name][0] != given[name][0]:
                    continue
                differ = "other text weights than the task's metric"
            raise InputError(f"The circuit of {graph.title} was made with {differ}: {_WAYS[name]}.")


@checked
def take_kept_units(graph: AttributionGraph, sites: Names | None = None) -> dict[str, np.ndarray]:
    """Return the circuit that a graph holds, at all its sites but `input` or at those asked for.

    Example:
        >>> alone = kept_embeddings(task, [take_kept_units(graph)])[0]
    """
    return {site: graph.kept_units[site] for site in choose_sites(graph, sites)}


@checked
def take_top_units(
    graph: AttributionGraph,
    fraction: Share,
    ranking: Annotated[str, one_of(*RANKINGS)] = "absolute",
    sites: Names | None = None,
    budget: Budget = SAME_SHARE,
) -> dict[str, np.ndarray]:
    """Return the first units of the sites, as many as a budget gives each.

    Args:
        graph: The attribution that ranks the units.
        fraction: Share to keep, in (0, 1].
        ranking: One of `RANKINGS`.
        sites: Sites of the circuit (default: all but `input`).
        budget: How the share is shared out over the sites, see `circuitry.circuits.budgets`.

    Raises:
        InputError: for a fraction outside (0, 1], another ranking or budget, or sites that the graph lacks.
    """
    scores = {site: graph.node_scores[site] for site in choose_sites(graph, sites)}
    if ranking == "signed":  # none is negative then, so that the largest are those that help most
        least = min(of_site.min() for of_site in scores.values())
        scores = {site: of_site - least for site, of_site in scores.items()}
    return strongest_units(scores, fraction, budget)


@checked
def take_complement(circuit: KeptUnits, graph: AttributionGraph) -> dict[str, np.ndarray]:
    """Return the units that a circuit leaves out, at the circuit's sites."""
    return {site: np.flatnonzero(~mark_kept(units, graph.n_units(site), site)) for site, units in circuit.items()}


def mark_kept(units: Chosen, size: int, site: str) -> np.ndarray:
    """Return which of a site's units are kept, as a boolean mask.

    Raises:
        InputError: for units outside, or a mask of another length.
    """
    return Places.read(units, "units").mask(size, site, "units")
