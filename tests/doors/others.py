"""Other objects of the right kind: of another model, or by another metric. Beside what is of the first model they would
give numbers of two models, which no table, curve or page may hold."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_type_hints

import numpy as np
import torch
import torch.nn.functional as F

import circuitry
from circuitry import bases, circuits, explorer
from tests.doors.walk import FEW, Door, Walk
from tests.doors.world import World

WEIGHTS, NET, METRIC, TEXTS = (
    "other weights",
    "another architecture",
    "another metric",
    "other texts",
)
CLASS = "another class"


COMPARED = "similarity(a) similarity(b) node_overlap(a) node_overlap(b)"
CONTROLLED = "judge_circuit(task) judge_circuit(circuit) measure_circuits(task) measure_circuits(circuits)"
CONTROLLED += (
    " faithfulness_curve(task) faithfulness_curve(graph) faithfulness_curve(foreign)"
)
CONTROLLED += " optimal_baseline(task) optimal_baseline(circuit)"
DOORS_THAT_TAKE_ANOTHER: dict[str, tuple[str, tuple[str, ...]]] = {
    "a circuit of another class is a control": (CONTROLLED, (CLASS,)),
    "circuits of two classes are compared": (COMPARED, (CLASS,)),
    "curves of classes are pooled": ("pool_curves(curves)", (CLASS,)),
    "embeddings are of no metric": (
        "kept_embeddings(task) kept_embeddings(circuits)",
        (METRIC, CLASS, TEXTS),
    ),
    "a task refuses when it runs": ("Task(baseline)", (WEIGHTS, NET)),
    "checks may ask another question": (
        "export_explorer(curves)",
        (CLASS, METRIC, TEXTS),
    ),
}
"""Calls that take another object, by why that is fair."""


def listed(table: dict[str, tuple[str, tuple[str, ...]]]) -> set[tuple[str, str]]:
    """Return the calls of a table, each with the name of the other object."""
    return {
        (call, name)
        for calls, names in table.values()
        for call in calls.split()
        for name in names
    }


class Others:
    """By type of an object what there is of another model or metric."""

    def __init__(self, world: World, other: World) -> None:
        task, stream, folds = world.task, world.in_stream, np.array([0, 0, 1])
        texts = F.normalize(
            torch.randn(4, 16, generator=torch.Generator().manual_seed(5)), dim=-1
        )
        tasks = {
            WEIGHTS: other.task,
            NET: stream,
            METRIC: replace(
                task, metric=circuitry.class_margin(world.named["weights"], 1)
            ),
            CLASS: replace(
                task, metric=circuitry.class_logit(world.named["weights"], 2)
            ),
            TEXTS: replace(task, metric=circuitry.class_logit(texts, 1)),
        }
        settings = world.one(circuits.AttributionSettings)
        graphs = {
            name: circuits.attribute_folds(one, settings, folds).whole
            for name, one in tasks.items()
        }
        few = replace(world.few, sizes=(1.0,))
        self.world = world
        self.of: dict[type, dict[str, Any]] = {
            circuitry.Task: tasks,
            circuitry.AttributionGraph: graphs,
            circuitry.Circuit: {
                name: graph.circuit(None) for name, graph in graphs.items()
            },
            type(world.curve): {
                n: circuitry.faithfulness_curve(one, graphs[n], few)
                for n, one in tasks.items()
            },
            circuitry.Encoder: {WEIGHTS: other.task.encoder, NET: stream.encoder},
            circuitry.Clip: {WEIGHTS: other.named["clip"]},
            circuitry.GraphFolder: {WEIGHTS: other.graphs},
            bases.ResidualStream: {
                WEIGHTS: bases.ResidualStream.of(other.in_stream.encoder)
            },
            circuitry.Baseline: {
                WEIGHTS: other.mean,
                NET: circuitry.mean_baseline(stream.encoder, stream.images),
            },
        }

    def instead(self, good: Any) -> dict[str, Any]:
        """Return what takes the place of a value, or of the last of several."""
        if isinstance(good, dict) and good:
            (*_, last), named = good, ("class_name", "domain")
            found = self.instead(good[last])
            if isinstance(good[last], circuitry.AttributionGraph):
                found = {
                    k: replace(v, **{name: getattr(good[last], name) for name in named})
                    for k, v in found.items()
                }
            return {name: {**good, last: one} for name, one in found.items()}
        if isinstance(good, list | tuple) and good and not hasattr(good, "_fields"):
            return {name: [*good, one] for name, one in self.instead(good[-1]).items()}
        return self.of.get(type(good), {})

    def counted(self, given: Any) -> int:
        """Return how many objects are of a model."""
        if isinstance(given, dict | list | tuple) and not hasattr(given, "_fields"):
            return sum(
                map(self.counted, given.values() if isinstance(given, dict) else given)
            )
        return type(given) in self.of


def mixed(walk: Walk, others: Others) -> Iterator[tuple[Door, str, str, Any]]:
    """Yield each door, parameter and name of another object that may stand beside objects of the first model."""
    page = explorer.export_explorer
    for door in (
        *walk.doors,
        Door("export_explorer", page, page, get_type_hints(page, include_extras=True)),
    ):
        for parameter in door.hints:
            for name, one in others.instead(walk.good(door, parameter)).items():
                with contextlib.suppress(
                    StopIteration
                ):  # what it needs beside has no good value
                    arguments = walk.world.arguments(door.function, more=FEW)
                    if others.counted(arguments | {parameter: one}) > 1:
                        yield door, parameter, name, one
