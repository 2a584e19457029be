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
from circuitry.runs.identity import OF_ENCODER, Identity, entry_differs, same_entry


def named_sites(task: Task) -> list[str] | None:
    """Return the sites that a task names, without the image; None for all sites of its encoder."""
    named = [site for site in task.sites if site != INPUT]
    every = [site for site in task.encoder.sites if site != INPUT]
    return None if named == every else named


ANY_TEXTS = (*OF_ENCODER, "metric")
"""Entries on which a circuit and the task that measures it agree, on images of any domain."""
ANY_CLASS = (*ANY_TEXTS, "text_weights")
"""The same on images of one domain: another class's circuit is a control, another baseline another question."""


def asked_of(task: Task, who: str) -> dict[str, Any]:
    """Return everything that shapes the answers of a task except for the model, by name."""
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
    """Refuse things that were asked differently, in a sentence that names two of them and the difference.

    Args:
        asked: Values by name, as `asked_of` returns them, by the title of each thing in a sentence. A value that one of
            two things lacks is not compared.
        what: The things, as the beginning of the sentence.
        instead: Advice, as the end of the sentence.
    """
    first: dict[str, tuple[str, Any]] = {}
    for title, values in asked.items():
        for name, value in values.items():
            first_title, first_value = first.setdefault(name, (title, value))
            # Scales may differ by rounding, which same_entry forgives in lists alone, such as text weights.
            compared = (first_value, value)
            if isinstance(value, float):
                compared = ([first_value], [value])
            if not same_entry(*compared):
                differs = entry_differs(name, first_value, first_title, value, title)
                raise InputError(f"{what} are asked alike, but {differs}: {instead}.")


def check_made_with(
    task: Task, graphs: Iterable[Scores], names: Sequence[str] = ANY_CLASS
) -> None:
    """Check that graphs were made with the model, metric and baseline of a task.

    Args:
        task: The task that measures them.
        graphs: The graphs. A graph is not checked on a setting that it does not have.
        names: Entries of the identity that have to agree. If both have the same label, only the text weights of this
            class are compared; else all text weights, if both have equally many classes or the metric is a margin; none
            if texts differ by domain. Labels are compared among the same texts.
    """
    given = task.identity
    # Circuits that are cut out of one graph share its settings, which are checked once.
    for graph in {id(graph.settings): graph for graph in graphs}.values():
        made = Identity(graph.settings)
        if made.get("weights") == given["weights"]:
            _check_sites(task, graph)
        made["metric"] = made.get("ready_metric", made.get("metric", given["metric"]))
        # A record of text weights begins with the number of classes.
        texts_of_graph = made.get("text_weights", [None])
        texts_of_task = given.get("text_weights", [None])
        compared = dict.fromkeys(names)
        # Labels number the classes, so they mean the same class among the same texts alone.
        if not same_entry(texts_of_graph, texts_of_task):
            compared.pop("label", None)
        if "text_weights" in compared and made.get("label") == given.get("label"):
            compared["class_weights"] = compared.pop("text_weights")
        elif texts_of_graph[0] != texts_of_task[0] and made["metric"] != "margin":
            compared.pop("text_weights", None)
        # Texts in the images' own style differ between domains on purpose.
        if made.get("texts") == OWN_STYLE and "text_weights" in names:
            compared.pop("text_weights", None)
            compared.pop("class_weights", None)
        made.check(given, f"the circuit of {graph.title}", "the task", compared)


def _check_sites(task: Task, graph: Scores) -> None:
    """Check that a graph of the task's model is in the units of the task's encoder."""
    absent = [site for site in graph.sites if site not in task.encoder.sites]
    # Graphs of components of a residual stream name its layers, which are no sites.
    of_layers = FIRST_LAYER in graph.sites
    if absent and not of_layers:
        raise InputError(
            f"A circuit is measured in the units that it was found in, but the circuit of {graph.title} has some at "
            f"{absent[0]!r}, and the task's encoder has no such site: give the encoder that found it, with "
            "in_components where that had it and without where not."
        )
