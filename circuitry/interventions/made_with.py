"""Check that a task may measure a circuit: both have the same model, metric and baseline, and common sites."""

from collections.abc import Iterable, Sequence

from circuitry.circuits.comparable import OWN_STYLE, same_setting
from circuitry.circuits.graph import AttributionGraph
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task
from circuitry.runs.errors import InputError


def named_sites(task: Task) -> list[str] | None:
    """Return the sites that a task names, without the image; None for all sites of its encoder."""
    every, named = ([site for site in sites if site != INPUT] for sites in (task.encoder.sites, task.sites))
    return None if named == every else named


_WAYS = {
    "model_digest": "give the encoder that it was found in",
    "basis": "give the encoder in the same feature bases",
    "metric": "give the metric that it was found by",
    "baseline": "give the baseline of the task that it was found with, Task(..., baseline=task.baseline)",
    "text_weights": "give the metric of the text weights that it was found by",
    "class_weights": "give the metric of the class and the text weights that it was found by",
}
ANY_TEXTS = ("model_digest", "basis", "metric")
"""Settings on which a circuit and the task that measures it agree, on images of any domain."""
ANY_CLASS = (*ANY_TEXTS, "text_weights")
"""The same on images of one domain: another class's circuit is a control, another baseline another question."""


def check_made_with(task: Task, graphs: Iterable[AttributionGraph], names: Sequence[str] = ANY_CLASS) -> None:
    """Check that graphs were made with what a task has.

    Args:
        graphs: A graph that does not say what it was made with is taken.
        names: Settings that have to agree. If both have the same label, only the text weights of this class are
            compared; else all text weights, if both have equally many classes; none if texts differ by domain.
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
