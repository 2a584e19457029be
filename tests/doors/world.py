"""Small models, images and results, and a good value of any parameter: drawn from them by its annotation."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from beartype.door import is_bearable
from PIL import Image

import circuitry
from circuitry import (
    bases,
    circuits,
    comparison,
    interventions,
    questions,
    training,
)
from circuitry.comparison.ceiling import pair_cells
from circuitry.runs.annotations import LIST_TYPES
from circuitry.runs.arguments import Condition
from experiments.representations.representation_folder import RepresentationSettings
from tests.comparison.similarities import similarities
from tests.support.feature_bases import make_sae
from tests.support.noise_images import write_noise
from tests.support.tiny_clip import Tiny
from tests.support.towers import make_tower
from tests.support.work import QUIET

CLASSES, DOMAINS = ("axe", "cat", "fish", "key"), ("real", "sketch")
SIZES = {"d": 16, "features": 20, "classes": 4, "w": 64, "h": 64, "n": 20, "folds": 2}
"""Sizes by their names in annotations; others are 3."""


class World:
    """A CLIP model and a transformer, 24 images, and what was found on them; ``scale`` makes other weights."""

    def __init__(self, folder: Path, scale: float = 1.0) -> None:
        torch.manual_seed(0)
        self.folder, self.scratch = folder, folder / "scratch"
        root = write_noise(folder / "images", DOMAINS, CLASSES, 3)
        tiny = Tiny.write(folder)
        state = {
            name: scale * weight if weight.is_floating_point() else weight
            for name, weight in tiny.state.items()
        }
        clip, data = replace(tiny, state=state).load(), circuitry.DomainFolder(root)
        encoder, batch, sites = (
            clip.encoder,
            torch.randn(3, 3, 64, 64),
            list(clip.encoder.sites[-3:]),
        )
        rule, weights = circuitry.left_rule(1), F.normalize(torch.randn(4, 16), dim=-1)
        settings = questions.ExtractionSettings(
            rule=rule,
            size=0.1,
            sites=tuple(sites),
            n_images=2,
            folds=2,
            texts=["a {}."],
        )
        questions.Extraction(clip, data, folder / "graphs", settings).run(QUIET)
        metric = circuitry.class_logit(weights, 1)
        few = interventions.AblationSettings(sizes=(1.0,), random_draws=1)
        task = circuitry.Task(
            encoder,
            batch,
            metric,
            others=torch.randn(3, 3, 64, 64),
            sites=sites,
            work=QUIET,
        )
        graph = circuits.attribute_folds(task, settings, np.array([0, 0, 1])).whole
        vit = circuitry.in_components(circuitry.Encoder.from_tower(make_tower("vit")))
        sae = replace(make_sae(16, dtype=torch.float32), site=sites[-1])
        found, other = (similarities(3, ("u",), seed) for seed in range(2))
        array = comparison.FoldArray.from_table(found.folds)
        self.task, self.graph, self.comparison, self.few = task, graph, found, few
        self.curve, self.effects = (
            circuitry.faithfulness_curve(task, graph, few),
            circuitry.patch_effects(task),
        )
        self.mean = circuitry.mean_baseline(encoder, batch)
        self.graphs = circuitry.GraphFolder(folder / "graphs")
        self.in_stream = circuitry.Task(
            vit, torch.randn(3, 3, 32, 32), metric, work=QUIET
        )
        self.tables = [
            found.values,
            found.folds,
            found.summary(),
            comparison.domain_matrix(found.values),
            overlaps(),
        ]
        self.named = _by_name(self, clip, data, sae)
        self.named |= {
            "metric": metric,
            "weights": weights,
            "comparisons": [found, other],
        }
        self.values = [
            *(
                clip,
                data,
                encoder,
                data.records[0],
                task,
                graph,
                graph.circuit(2),
                graph.edges,
                self.graphs,
                rule,
            ),
            *(
                self.curve,
                self.effects,
                self.mean,
                found,
                array,
                pair_cells(array),
                sae,
                QUIET,
                few,
                Image.new("RGB", (64, 64)),
            ),
            *(
                comparison.draw_resamples(["a", "b", "c"], 4, resamples=10),
                bases.ResidualStream.of(vit),
                batch,
            ),
            *(circuitry.Patch(sites[0], 0.0), pd.Series([0.1, 0.2])),
            *(*self.tables[:1], self.named["checks"]),
            settings,
            circuits.AttributionSettings(0.1, rule=rule, edge_rule=rule),
            RepresentationSettings(n_images=3, n_folds=2, sites=tuple(sites[-2:])),
            training.SaeTraining(steps=2, batch_size=8, resample_every=0),
        ]

    def one(self, kind: type) -> Any:
        """Return what there is of a class."""
        return next(one for one in self.values if type(one) is kind)

    def good(self, hint: Any, name: str) -> Any:
        """Return a value that fits an annotation."""
        kind, inner = get_origin(hint) or hint, get_args(hint)
        if kind is Annotated:
            return self._meeting(
                [one for one in inner[1:] if isinstance(one, Condition)], inner[0], name
            )
        if name in self.named and is_bearable(self.named[name], hint):
            return self.named[name]
        if kind in (Union, UnionType):
            return self.good(next(one for one in inner if one is not NoneType), name)
        if kind is Literal:
            return inner[0]
        if kind is circuits.Scores:
            return self.graph  # scores by themselves would be of no site of the task
        if found := [one for one in self.values if type(one) is kind]:
            return found[0]
        if hasattr(hint, "dim_str"):
            return _array(hint)
        if name in ("out", "folder", "path", "logs", "cache_dir", "data", "checkpoint"):
            return self.scratch / name
        simple: Any = {
            int: 2,
            float: 0.5,
            str: "x",
            bool: False,
            np.ndarray: np.arange(3.0),
            object: "x",
            Any: "x",
            Callable: len,
            type: dict,
        }
        if kind in simple:
            return simple[kind]
        if kind in (dict, Mapping):
            return (
                {self.good(inner[0], "key"): self.good(inner[1], name)} if inner else {}
            )
        if kind in LIST_TYPES:
            fixed = kind is tuple and inner[-1] is not Ellipsis
            some = [self.good(one, name) for one in (inner if fixed else inner[:1])]
            return tuple(some) if kind is tuple else some
        return kind(
            **self.arguments(kind.__new__ if issubclass(kind, tuple) else kind.__init__)
        )

    def _meeting(self, conditions: list[Condition], hint: Any, name: str) -> Any:
        taken = next((one.taken for one in conditions if one.taken), ())
        if taken and isinstance(taken[0], str):
            return taken[0]
        if hint is pd.DataFrame:
            return next(
                table
                for table in self.tables
                if not any(one.wrong(table) for one in conditions)
            )
        if hint is float and taken:
            return 0.5
        known = self.named.get(name)
        return (
            self.good(hint, name)
            if hint is not int
            else max(known if isinstance(known, int) else 2, *taken[:1])
        )

    def arguments(self, function: Any, *, more: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return good values for a function's required parameters, and for those named."""
        hints = get_type_hints(function, include_extras=True)
        several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return {
            one.name: self.good(hints[one.name], one.name)
            for one in inspect.signature(function).parameters.values()
            if one.name in hints
            and one.kind not in several
            and (one.default is one.empty or one.name in more)
        }


def _by_name(world: World, clip: Any, data: Any, sae: Any) -> dict[str, Any]:
    """Return values by the names of parameters."""
    tower, preprocess, tokenizer, model = (
        clip.encoder.tower,
        clip.preprocess,
        clip.tokenizer,
        clip.model,
    )
    net, root, records = tower, data.root, list(data.records)
    sites = list(clip.encoder.sites[-3:])
    site, stages, links, image_size, saes = (
        sites[0],
        list(clip.encoder.stages),
        ["conv1"],
        (64, 64),
        {sites[-1]: sae},
    )
    classes, domains, class_name, domain = (
        ["axe", "cat"],
        ["real", "sketch"],
        "axe",
        "real",
    )
    class_names, texts, labels, folds = (
        classes,
        ["a", "b", "c"],
        ["a", "b"] * 10,
        np.array([0, 0, 1]),
    )
    table = values = world.tables[0]
    matrix = similarity = world.tables[-1]
    tasks, curves = {("axe", one): world.task for one in DOMAINS}, [world.curve]
    baseline = world.mean
    graphs = {
        ("axe", one): replace(world.graph, class_name="axe", domain=one)
        for one in DOMAINS
    }
    circuit, pair = world.graph.circuit(None), sites[:2]
    units, kept, n_units = (
        dict.fromkeys(pair, np.array([0, 1])),
        {"u": np.arange(2)},
        {"u": 5},
    )
    circuits, heads = [circuit], {"all": lambda found: found[:, :4]}
    foreign, key, shown, made_with = (
        circuits,
        ("axe", "real"),
        [(list("abc"), world.task)],
        world.graphs.manifest["config"],
    )
    measure = "node_overlap"
    scores = {"u": np.arange(3.0)}
    edges = [("embed", "blocks.0.attn.0.q")]
    label, unit, seed, permutations, resamples, size, n_images = 1, 0, 0, 5, 10, 0.3, 2
    rule = edge_rule = circuitry.left_rule(1)
    masks = circuitry.circuits.MaskSettings(steps=2)
    checks = interventions.CheckSettings(n_images=2, n_others=2, seen=True)

    def statistic(means: Any) -> Any:
        return means.reshape(len(means), -1)

    return locals()


def _array(hint: Any) -> Any:
    """Return an array of an annotation's type and shape."""
    sizes = [
        SIZES.get(name, 3)
        for name in hint.dim_str.replace("*", "").split()
        if name != "..."
    ]
    whole = torch.arange(np.prod(sizes, dtype=int)).reshape(sizes) % 3
    kind = hint.__name__.partition("[")[0]
    found = (
        whole.sin()
        if kind in ("Float", "Shaped")
        else whole
        if kind == "Int"
        else whole > 0
    )
    return (
        found
        if hint.array_type is torch.Tensor
        else found.double().numpy()
        if kind == "Float"
        else found.numpy()
    )


def overlaps() -> pd.DataFrame:
    """Return what the own parts of two classes have in common, over two halves and in two styles."""
    rows = [
        (a, half_a, b, half_b, 0.5 if a == b else 0.25)
        for a, half_a, b, half_b in (
            ("real", 1, "real", 2),
            ("sketch", 1, "sketch", 2),
            ("real", 1, "sketch", 2),
            ("real", 2, "sketch", 1),
        )
    ]
    columns = ["domain_a", "half_a", "domain_b", "half_b", "overlap"]
    table = pd.DataFrame(rows, columns=columns).assign(
        chance=0.1, edges=0.5, edges_chance=0.0, n_a=8, n_b=8
    )
    of_classes = [table.assign(class_a=name, class_b=name) for name in CLASSES]
    return pd.concat(of_classes, ignore_index=True)
