"""Check that a task may measure a circuit: both have the same model, metric and baseline, and common sites.

Tasks that are read together are asked alike, too: `check_asked_alike`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from circuitry.circuits.comparable import OWN_STYLE
from circuitry.circuits.graph import Scores
from circuitry.encoder.metrics import answer_metric
from circuitry.encoder.sites import FIRST_LAYER, INPUT
from circuitry.encoder.task import Task, at_model_scale
from circuitry.runs.errors import InputError
from circuitry.runs.identity import OF_ENCODER, Identity, part_differs, same_part


def named_sites(task: Task) -> list[str] | None:
    """Return the sites that a task names, without the image; None for all sites of its encoder."""
    every, named = (
        [site for site in sites if site != INPUT]
        for sites in (task.encoder.sites, task.sites)
    )
    return None if named == every else named


ANY_TEXTS = (*OF_ENCODER, "metric")
"""Parts on which a circuit and the task that measures it agree, on images of any domain."""
ANY_CLASS = (*ANY_TEXTS, "text_weights")
"""The same on images of one domain: another class's circuit is a control, another baseline another question."""


def asked_of(task: Task, who: str) -> dict[str, Any]:
    """Return what shapes the answers of a task, but the model: its metric, candidate classes, scale and baseline."""
    metric = answer_metric(at_model_scale(task).metric, who)
    return {
        "metric": metric.name,
        "candidates": len(metric.weights),
        "text_weights": metric.made_with["text_weights"],
        "scale": metric.scale,
        "baseline": task.baseline.name,
    }


def check_asked_alike(
    asked: Mapping[str, Mapping[str, Any]], what: str, instead: str
) -> None:
    """Refuse things that were asked differently, in a sentence that names two of them and what differs.

    Args:
        asked: Values by name, such as those of `asked_of`, by what a sentence calls each thing. Values that one of two
            things lacks are not compared.
        what: What is asked alike, as the beginning of the sentence.
        instead: What to do, as its end.
    """
    first: dict[str, tuple[str, Any]] = {}
    for title, values in asked.items():
        for name, value in values.items():
            first_title, first_value = first.setdefault(name, (title, value))
            is_number = isinstance(
                value, float
            )  # scales may differ by rounding, as text weights may: see same_part
            alike = (
                same_part([first_value], [value])
                if is_number
                else same_part(first_value, value)
            )
            if not alike:
                differs = part_differs(name, first_value, first_title, value, title)
                raise InputError(f"{what} are asked alike, but {differs}: {instead}.")


def check_made_with(
    task: Task, graphs: Iterable[Scores], names: Sequence[str] = ANY_CLASS
) -> None:
    """Check that graphs were made with what a task has.

    Args:
        graphs: A graph that does not say what it was made with is taken.
        names: Parts of the identity that have to agree. If both have the same label, only the text weights of this
            class are compared; else all text weights, if both have equally many classes or the metric is a margin; none
            if texts differ by domain. Labels are compared among the same texts.
    """
    given = task.identity
    for graph in {id(graph.settings): graph for graph in graphs}.values():
        made = Identity(graph.settings)
        if made.get("weights") == given["weights"]:
            _check_sites(task, graph)
        made["metric"] = made.get("ready_metric", made.get("metric", given["metric"]))
        ours, theirs = (one.get("text_weights", [None]) for one in (made, given))
        compared = dict.fromkeys(names)
        if not same_part(ours, theirs):
            compared.pop("label", None)
        if "text_weights" in compared and made.get("label") == given.get("label"):
            compared["class_weights"] = compared.pop("text_weights")
        elif ours[0] != theirs[0] and made["metric"] != "margin":
            compared.pop("text_weights", None)
        if made.get("texts") == OWN_STYLE and "text_weights" in names:
            compared = {
                name: None
                for name in compared
                if name not in ("text_weights", "class_weights")
            }
        made.check(given, f"the circuit of {graph.title}", "the task", compared)


def _check_sites(task: Task, graph: Scores) -> None:
    """Check that a graph of the task's model is in the units of the task's encoder."""
    absent = [site for site in graph.sites if site not in task.encoder.sites]
    of_layers = FIRST_LAYER in graph.sites  # layers of the residual stream are no sites
    if absent and not of_layers:
        raise InputError(
            f"A circuit is measured in the units that it was found in, but the circuit of {graph.title} has some at "
            f"{absent[0]!r}, and the task's encoder has no such site: give the encoder that found it, with "
            "in_components where that had it and without where not."
        )
