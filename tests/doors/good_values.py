"""A good value for every parameter of the public names: by function and name, by name, or by type."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from PIL import Image

import circuitry
from circuitry import bases, circuits, encoder, interventions, judging, models, reports, runs, study, training
from circuitry.comparison.ceiling import pair_cells
from circuitry.reports.figures import domain_marks
from circuitry.study import mixtures
from tests.doors.places import by_place
from tests.doors.world import World
from tests.support.work import QUIET

SIMPLE: tuple[Any, ...] = (int, str, float, bool, dict, list, tuple, object, np.ndarray, pd.DataFrame, torch.Tensor)


class GoodValues:
    """Values of the parameters, made of a `World`."""

    def __init__(self, folder: Path) -> None:
        self.world, self.folder, self.scratch = World(folder), folder, folder / "scratch"
        self.instances = _instances(self.world)
        self.by_name = _by_name(self.world)
        self.by_place = by_place(self.world)

    def of(self, door: str, name: str, hint: Any) -> Any:
        """Return a value of a door's parameter; StopIteration where there is none."""
        if f"{door}.{name}" in self.by_place:
            return self.by_place[f"{door}.{name}"]
        if name in ("out", "folder", "path", "logs"):
            return self.scratch / f"{name} of {door}"
        for kind in _kinds(hint):
            if kind not in SIMPLE and (fits := [one for one in self.instances if type(one) is kind]):
                return fits[0]
        if name in self.by_name:
            return self.by_name[name]
        simple = {int: 1, str: "x", float: 0.5, bool: False, dict: {}, Path: self.folder / "no"}
        return next(simple[kind] for kind in _kinds(hint) if kind in simple)


def _kinds(hint: Any) -> Iterator[Any]:
    """Yield the classes that an annotation names."""
    if get_origin(hint) is Annotated:
        yield from _kinds(get_args(hint)[0])
    elif hasattr(hint, "array_type"):
        yield hint.array_type
    elif isinstance(hint, type) or get_origin(hint) is None:
        yield hint
    elif isinstance(get_origin(hint), type) and "Union" not in str(get_origin(hint)):
        yield get_origin(hint)
    else:
        for one in get_args(hint):
            yield from _kinds(one)


def _instances(w: World) -> list[Any]:
    some = models.FolderSettings(n_images=2)
    return [
        *(w.encoder, w.clip, w.images, w.record, w.task, w.metric, w.graph, w.graph.circuit(2), w.graph.edges),
        *(w.graphs, w.curve, w.found, w.gated, w.extraction, w.settings, w.ablation, w.checks, w.masks, w.stream),
        *(w.comparison, w.array, pair_cells(w.array), w.draws, w.embeddings, w.sae, w.features, w.shown[0], w.check),
        *(w.shown[0].grams, w.shape, w.similarity, QUIET, runs.Rank(0, 1), runs.WorkSettings(), w.graph.completeness),
        circuitry.Baseline("mean", {w.sites[0]: torch.zeros(1, w.graph.n_units(w.sites[0]), 1, 1)}),
        *(encoder.Counterfactual(w.batch), circuitry.Patch(w.sites[0], 0.0), circuitry.left_rule(1)),
        *(interventions.CausalChecks(w.clip, w.images, w.graphs, w.checks), models.FolderWork(w.clip, w.images, some)),
        *(circuits.RuleErrors(w.task, w.settings), circuits.Measure("edge_jaccard"), circuits.ReadingSettings(), some),
        *(
            encoder.TokenGrid(("class",), 2, 2),
            models.FolderBaseline("zero", w.clip, w.images),
            bases.Component("mlp", 0),
        ),
        *(judging.planted_convolution(), study.EvaluationSet.of(w.images), reports.Report("Title"), go.Figure()),
        study.StudyRun(w.folder / "run", "RN50", "natural-only", None),
        interventions.ClassScorer(w.weights, {"axe": 0, "cat": 1}),
        *(
            training.TrainingWork(workers=0, progress=False),
            training.SaeTraining(steps=2, batch_size=8, resample_every=0),
        ),
        *(training.LabelTable(("axe", "cat"), {"axe": 0, "cat": 1}), training.SupervisedTraining(model="x", epochs=1)),
        *(mixtures.MixtureSettings("natural-only", "sketch"), reports.Finding("a", "b", "c"), Image.new("RGB", (8, 8))),
        runs.JobFolder(w.folder / "jobs", "x 1", {"a": 1}, [("a",)]),
        *(random.Random(0), np.random.default_rng(0), torch.device("cpu"), slice(0, 1), _supervised(w)),
    ]


def _supervised(w: World) -> training.SupervisedModel:
    table = training.LabelTable(("axe", "cat"), {"axe": 0, "cat": 1})
    return training.SupervisedModel("x", w.encoder, torch.nn.Linear(16, 2), table, w.clip.preprocess)


def _by_name(w: World) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "seed": 0,
        "n": 2,
        "points": 2,
        "label": 1,
        "unit": 0,
        "part": 0,
        "feature": 0,
        "depth": 1,
        "n_parts": 2,
        "n_images": 2,
        "permutations": 5,
        "resamples": 10,
        "fraction": 0.5,
        "share": 0.5,
        "value": 0.0,
        "index": 0,
        "class_name": "axe",
        "domain": "real",
        "site": w.sites[0],
        "name": "x",
        "group": "all",
        "title": "Title",
        "measure": "value",
        "method": "gradient",
        "by": "unit",
        "what": "graph",
        "format_name": "x 1",
        "classes": ["axe", "cat"],
        "class_names": ["axe", "cat"],
        "domains": ["real", "sketch"],
        "names": ["a", "b"],
        "sites": list(w.sites),
        "held_out": ["axe"],
        "texts": ["a", "b"],
        "labels": ["a", "b"] * 10,
        "epochs": [1],
        "items": [str(i) for i in range(20)],
        "sizes": [0.5],
        "targets": [0.5],
        "columns": ["real", "sketch"],
        "measures": ["value"],
        "kernels": ["linear"],
        "records": list(w.images.records),
        "jobs": [("a",)],
        "key": ("axe", "real"),
        "keys": [("axe", "real")],
        "job": ("a",),
        "edges": w.edge_names,
        "curves": [w.curve],
        "config": {"a": 1},
        "provenance": {"a": 1},
        "facts": {"a": 1},
        "tables": {"a": w.values},
        "about": {},
        "families": {"c000": "x"},
        "groups": {"few": ["axe"]},
        "marks": domain_marks(["real", "sketch"]),
        "vectors": w.embeddings.vectors,
        "weights": w.weights,
        "embeddings": w.weights,
        "weight": w.weights[0],
        "images": w.batch,
        "others": w.others,
        "values": np.arange(3.0),
        "rows": np.arange(2),
        "which": np.arange(2),
        "x": np.eye(3),
        "y": np.eye(3),
        "a": rng.normal(size=(4, 3)),
        "b": rng.normal(size=(4, 5)),
        "samples": torch.randn(20, 6),
        "chance": np.zeros(1),
        "without_each": np.arange(3.0),
        "activation": w.batch,
        "table": w.values,
        "parts": w.parts,
        "accuracy": w.accuracy,
        "evaluated": w.accuracy,
        "matrix": w.matrix,
        "predictions": w.predictions,
        "summary": w.comparison.summary(),
        "exact": {"u": np.arange(3.0)},
        "metric": w.metric,
        "preprocess": w.clip.preprocess,
        "heads": w.heads,
        "tower": w.tower,
        "do": lambda job, ready: [],
        "statistic": lambda means: means.reshape(len(means), -1),
        "circuit": w.graph.circuit(None),
        "circuits": [w.graph.circuit(None)],
        "units": {w.sites[0]: [0, 1]},
        "graphs": w.graphs,
        "tasks": w.tasks,
        "scores": {"u": np.arange(3.0)},
        "saes": {w.sites[-1]: w.sae},
        "activations": w.cache,
        "comparisons": [w.comparison, w.other_comparison],
        "patches": [circuitry.Patch(w.sites[0], 0.0)],
        "judged": {("axe", "real"): judging.Judged(w.curve, w.graph, 1.0, 1)},
        "clean": {w.sites[0]: torch.zeros(1, 1)},
    }
