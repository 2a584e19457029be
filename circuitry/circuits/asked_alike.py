"""Check that a circuit and a task, or several tasks, ask the model the same question.

- `check_made_with` checks that a task may measure a circuit: the circuit must have been found with the model and the
  metric of the task, at sites that the task's encoder has.
- `check_asked_alike` checks that several tasks have the same settings. The results of these tasks are compared with
  each other, such as the results of tasks in several domains.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from circuitry.circuits.comparable import OWN_STYLE
from circuitry.circuits.graph import Scores
from circuitry.encoder.metrics import answer_metric
from circuitry.encoder.sites import FIRST_LAYER, INPUT
from circuitry.encoder.task import Task, at_model_scale
from circuitry.runs.errors import InputError
from circuitry.runs.identity import (
    OF_ENCODER,
    OF_WEIGHTS,
    Across,
    Identity,
    entry_differs,
    same_entry,
)


def named_sites(task: Task) -> list[str] | None:
    """Return the sites of a task if they are a selection, or None if the task has all sites of its encoder.

    The site of the image (`input`) is left out and makes no difference.
    """
    named = [site for site in task.sites if site != INPUT]
    every = [site for site in task.encoder.sites if site != INPUT]
    return None if named == every else named


ANY_TEXTS = (*OF_ENCODER, "metric")
"""Entries of the identity on which a circuit and the task that measures it must agree, if the task may be of another
domain. The text weights may differ, because texts may differ by domain."""
ANY_CLASS = (*ANY_TEXTS, "text_weights")
"""Entries of the identity on which a circuit and the task that measures it must agree, if the task is of the same
domain. The class may differ, because the circuit of another class is a control. The baseline may differ, because then
the task asks another question."""

_WHAT_TO_GIVE = {
    "weights": "give the model that found it; of two models of one architecture, give across='models' to lesion or "
    "judge_circuit",
    "baseline": "give the task the baseline of the one that found it, as by Task(..., baseline=first.baseline)",
}
"""Advice at the end of the error message, by the name of the setting that differs between a circuit and a task."""


def asked_of(task: Task, who: str) -> dict[str, Any]:
    """Return a dictionary of what the answers of a task depend on, except for the model.

    Its keys are metric, candidates (the number of classes), text_weights, scale and baseline.

    Args:
        task: A task whose metric has candidate classes.
        who: The caller, as the beginning of the error message if the metric has no candidate classes.
    """
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
    """Raise `InputError` if the settings of several objects, such as the tasks of one table, differ.

    The results of such objects are compared with each other. So the objects must agree in the settings on which the
    answers of the model depend, such as the metric and the baseline. The error message names two objects that differ,
    and a setting in which they differ.

    Args:
        asked: A dictionary from the name of each object in the message to the settings of the object, such as
            `asked_of` returns. A setting that an object does not have is not checked for this object.
        what: A name for all objects together, as the beginning of the message.
        instead: Advice, as the end of the message.
    """
    first: dict[str, tuple[str, Any]] = {}
    for title, values in asked.items():
        for name, value in values.items():
            first_title, first_value = first.setdefault(name, (title, value))
            # Scales may differ by rounding. `same_entry` allows rounding differences only in lists, so scales are put
            # into lists.
            compared = (first_value, value)
            if isinstance(value, float):
                compared = ([first_value], [value])
            if not same_entry(*compared):
                differs = entry_differs(name, first_value, first_title, value, title)
                raise InputError(f"{what} are asked alike, but {differs}: {instead}.")


def check_made_with(
    task: Task,
    graphs: Iterable[Scores],
    names: Sequence[str] = ANY_CLASS,
    across: Across | None = None,
) -> None:
    """Raise `InputError` unless some graphs were made with the same settings as a task.

    The settings are entries of `Task.identity`, which graphs store. Two entries are compared only in some cases:

    - ``text_weights``: If the texts depend on the domain, text weights are not compared. Otherwise, if graph and task
      have the same label, only the weights of this class are compared. If their labels differ, the weights of all
      classes are compared, provided that both have equally many classes or that the metric is a margin. If neither is
      so, text weights are not compared.
    - ``label``: Labels are indices of classes. So they are compared only if graph and task have the same text weights.

    The sites of a graph must also be sites of the task's encoder, unless they are layers of the residual stream.

    Args:
        task: The task that measures the circuits of the graphs.
        graphs: The graphs. A setting that a graph does not have is not checked.
        names: Names of the entries of the identity that must agree.
        across: With ``models`` a graph may be of another model of the task's architecture. Then the entries that the
            weights decide are not compared, and labels are compared if both have equally many classes.
    """
    given = task.identity
    # Circuits that are cut out of one graph share its settings, which are checked once.
    for graph in {id(graph.settings): graph for graph in graphs}.values():
        made = Identity(graph.settings)
        if across or made.get("weights") == given["weights"]:
            _check_sites(task, graph, across)
        made["metric"] = made.get("ready_metric", made.get("metric", given["metric"]))
        # A record of text weights begins with the number of classes.
        texts_of_graph = made.get("text_weights", [None])
        texts_of_task = given.get("text_weights", [None])
        compared = dict.fromkeys(names)
        # Labels are indices of classes, so equal labels mean the same class only if the texts are the same.
        same_texts = same_entry(texts_of_graph, texts_of_task)
        if across:
            # Two models give the same texts other weights.
            same_texts = texts_of_graph[0] == texts_of_task[0]
        if not same_texts:
            compared.pop("label", None)
        if "text_weights" in compared and made.get("label") == given.get("label"):
            compared["class_weights"] = compared.pop("text_weights")
        elif texts_of_graph[0] != texts_of_task[0] and made["metric"] != "margin":
            compared.pop("text_weights", None)
        # Texts in the own style of the images are meant to differ between domains.
        if made.get("texts") == OWN_STYLE and "text_weights" in names:
            compared.pop("text_weights", None)
            compared.pop("class_weights", None)
        if across:
            for name in OF_WEIGHTS:
                compared.pop(name, None)
        title = f"the circuit of {graph.title}"
        made.check(given, title, "the task", compared, _WHAT_TO_GIVE)


def _check_sites(task: Task, graph: Scores, across: Across | None) -> None:
    """Raise `InputError` if a graph has sites that the task's encoder does not have, or other units at a site.

    Units are counted only if the graph may be of another model.
    """
    absent = [site for site in graph.sites if site not in task.encoder.sites]
    # In graphs of heads and whole MLPs the sites are layers of the residual stream, not sites of the encoder.
    of_layers = FIRST_LAYER in graph.sites
    if absent and not of_layers:
        raise InputError(
            f"A circuit is measured in the units that it was found in, but the circuit of {graph.title} has some at "
            f"{absent[0]!r}, and the task's encoder has no such site: give the encoder that found it, with "
            "in_components where that had it and without where not."
        )
    if not across or of_layers:
        return
    for site, n_units in task.encoder.count_units(graph.inner_sites).items():
        n_found = len(graph.node_scores[site]) + len(graph.error_scores.get(site, ()))
        if n_found != n_units:
            raise InputError(
                f"Two models are compared in the same units, but at {site!r} the circuit of {graph.title} has "
                f"{n_found} units, and the task's encoder {n_units}: give models of one architecture, in the same "
                "feature basis."
            )
