"""Edges between heads and MLPs: how long do all of them take, and whose scores are nearest to exact cuts?

1. speed and memory, as ratios in one run, on random weights; a pass is a forward and backward run of the plain tower.
   Each model has a process of its own, whose peak of memory covers the weights, Python and PyTorch. A ratio far above 4
   refutes the numbers of arXiv 2310.10348's method (two forward passes and a backward one);
2. agreement, on a trained model if one is given: every edge is cut alone, exactly, and all edges of each reader and
   writer together, and the effects on the class logit are correlated with what attribution says, plain, along a path,
   and corrected (`edge_corrections`). A correction is refuted where it is nearer than plain in few circuits;
3. the same for edges of graphs as `attribute` stores them, between single heads and neurons.

    python experiments/benchmark_edges.py
    python experiments/benchmark_edges.py --models --checkpoint runs/vit/clip/checkpoints/epoch_40.pt
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from circuitry.runs import Work, run_script
from circuitry import Encoder, attribute, class_logit
from circuitry.analysis import QuickstartModel
from circuitry.bases import ResidualStream
from circuitry.circuits import EDGE_METHODS, QuadratureRule, midpoint_rule
from circuitry.circuits.edge_methods import component_scorer
from circuitry.circuits.stream_edges import PLAIN, StreamScores
from circuitry.encoder import AnyBaseline, Task, mean_baseline
from circuitry.models import image_batches
from circuitry.reports.result_tables import KeepSettings
from circuitry.runs.workers import peak_memory_gib
from experiments.edge_corrections import CORRECTIONS

import numpy as np
import open_clip
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

METHODS = {
    "plain": ("gradient", PLAIN),
    "5 points of the input": ("gradient", midpoint_rule(5)),
    "5 points of activations": ("path-by-layer", midpoint_rule(5)),
    "exact softmax": ("exact-softmax", PLAIN),
    "gradient dropping": ("gradient-dropping", PLAIN),
    "AtP*": ("atp-star", PLAIN),
    "RelP": ("relp", PLAIN),
    "RelP with patterns": ("relp-with-patterns", PLAIN),
    "exact readers": ("exact-readers", PLAIN),
}
"""How edges are scored, by the name to show."""
KINDS = {
    "all": "",
    "queries and keys": ".q .k",
    "values": ".v",
    "MLPs": ".mlp",
    "embedding": "embedding",
}
"""Kinds of edges by what the names of their readers end in."""
NODES = ("all into a reader", "all out of a writer")
QUIET = Work(progress=False)
POINTS = 5
"""Points of the integrated scores."""
REPEATS = 3
"""Measurements of a time; the median counts."""


@dataclass(frozen=True)
class Config(QuickstartModel, KeepSettings):
    """Settings of the benchmark."""

    models: tuple[str, ...] = ("ViT-B-32",)
    """Vision transformers whose speed is measured, by their names in open_clip."""
    images_at_once: int = 8
    """Images in the batch, and of each class."""
    model: str = "vit-tiny"
    """The trained vision transformer whose edges are cut."""
    checkpoint: Path | None = None
    """Its weights; this or --pretrained (default: none, and speed alone is measured)."""
    graph_fraction: float = 0.05
    """Share of heads and neurons that graphs keep, whose edges are cut one by one."""
    n_circuits: int = 8
    """Classes whose edges are cut, one in each domain in turn."""
    seed: int = 0
    """Seed of the images."""


def main(config: Config) -> None:
    """Measure each model, and the agreement, and print the tables."""
    tables = {}
    if config.models:
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            tables["speed"] = pd.DataFrame(
                [pool.apply(measure, (name, config)) for name in config.models]
            )
    if config.checkpoint is not None or config.pretrained is not None:
        tables["agreement"] = summarise(
            pd.concat(list(agreement(config)), ignore_index=True)
        )
        tables["graphs"] = pd.concat(
            list(agreement_of_graphs(config)), ignore_index=True
        )
    config.keep(tables)


def circuits(config: Config) -> Iterator[tuple[str, str, ResidualStream, Task]]:
    """Yield classes, one in each domain in turn, with either baseline: its name, theirs, the stream and the task."""
    clip, folder = config.clip(), config.images()
    stream, weights = (
        ResidualStream.of(clip.encoder),
        clip.text_weights(folder.all_classes),
    )
    domains, n = list(folder.domains), config.images_at_once
    for i, name in enumerate(folder.classes[: config.n_circuits]):
        domain = domains[i % len(domains)]
        others = [
            folder.select(other, domain, 1, config.seed)[0]
            for other in folder.classes
            if other != name
        ][:n]
        own, unlike = (
            torch.cat(
                [
                    batch
                    for _, batch in image_batches(clip.encoder, clip.preprocess, some)
                ]
            )
            for some in (folder.select(name, domain, len(others), config.seed), others)
        )
        metric = class_logit(weights, folder.label(name))
        ends: dict[str, AnyBaseline] = {"counterfactual": unlike}
        ends["mean"] = mean_baseline(stream.components, torch.cat([own, unlike]))
        for baseline, end in ends.items():
            task = Task(stream.components, own, metric, baseline=end, work=QUIET)
            yield baseline, f"{name} in {domain}", stream, task


def agreement(config: Config) -> Iterator[pd.DataFrame]:
    """Yield, circuit by circuit, how each method's scores correlate with exact cuts."""
    for baseline, circuit, stream, task in circuits(config):
        cuts = with_nodes(scored(stream, task, "cuts"))
        for method, (name, rule) in METHODS.items():
            started = time.perf_counter()
            found = scored(stream, task, name, rule)
            taken = time.perf_counter() - started
            rows = pd.DataFrame(
                correlations(tuple(map(str, found.readers)), with_nodes(found), cuts)
            )
            yield rows.assign(
                baseline=baseline, method=method, circuit=circuit, seconds=taken
            )


def agreement_of_graphs(config: Config) -> Iterator[pd.DataFrame]:
    """Yield, circuit by circuit, how edges of stored graphs, between single heads and neurons, correlate with cuts."""
    for baseline, circuit, stream, task in circuits(config):
        exact, *others = (
            attribute(
                *(stream.components, task.images, task.metric, config.graph_fraction),
                baseline=task.baseline,
                edges=method,
                budget="same-share",
                method="site-path",
                progress=False,
            )
            .edges.to_pandas()["score"]
            .to_numpy()
            for method in ("cuts", "gradient", "exact-readers")
        )
        rows = [
            (method, len(exact), stats.spearmanr(scores, exact).statistic)
            for method, scores in zip(
                ("gradient", "exact-readers"), others, strict=True
            )
        ]
        yield pd.DataFrame(rows, columns=["method", "n_edges", "spearman"]).assign(
            baseline=baseline, circuit=circuit
        )


def scored(
    stream: ResidualStream,
    task: Task,
    method: str = "gradient",
    rule: QuadratureRule = PLAIN,
) -> StreamScores:
    """Score all edges between heads and MLPs."""
    with task.running(gradients=True):
        of_edges = CORRECTIONS.get(method) or EDGE_METHODS[method]
        return component_scorer(of_edges)(stream, task, rule)


def with_nodes(found: StreamScores) -> np.ndarray:
    """Return scores [readers, writers] with those of all edges into a reader behind, out of a writer below."""
    return np.block(
        [
            [found.scores, found.into[:, None]],
            [found.out_of[None], np.full((1, 1), np.nan)],
        ]
    )


def correlations(
    readers: tuple[str, ...], scores: np.ndarray, cuts: np.ndarray
) -> Iterator[dict[str, object]]:
    """Yield, for each kind of edges, correlations of scores with exact cuts, and the strongest tenth found."""
    of_kind = {
        kind: [reader.endswith(tuple(end.split() or [""])) for reader in readers]
        for kind, end in KINDS.items()
    }
    places: dict[str, Any] = {
        kind: (np.array([*rows, False]), slice(0, -1)) for kind, rows in of_kind.items()
    }
    places |= dict(zip(NODES, ((slice(0, -1), -1), (-1, slice(0, -1))), strict=True))
    for kind, place in places.items():
        x, y = (one[place][~np.isnan(cuts[place])] for one in (scores, cuts))
        strongest = [
            set(np.argsort(-np.abs(one))[: round(len(y) / 10) or 1]) for one in (x, y)
        ]
        constant = (
            np.ptp(x) == 0
        )  # RelP gives edges into queries and keys no effect: it does not rank them
        yield {
            "edges": kind,
            "n_edges": len(y),
            "spearman": 0.0 if constant else stats.spearmanr(x, y).statistic,
            "pearson": 0.0 if constant else stats.pearsonr(x, y).statistic,
            "spearman of sizes": 0.0
            if constant
            else stats.spearmanr(np.abs(x), np.abs(y)).statistic,
            "strongest tenth found": 0.0
            if constant
            else len(strongest[0] & strongest[1]) / len(strongest[1]),
        }


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Return means over circuits, and in how many the ranks are nearer to those of exact cuts than plain ones are."""
    places = ["baseline", "edges", "circuit"]
    plain = table[table["method"] == "plain"].set_index(places)["spearman"]
    beaten = (
        plain[pd.MultiIndex.from_frame(table[places])].to_numpy()
        < table["spearman"].to_numpy()
    )
    table = table.assign(
        edges=pd.Categorical(table["edges"], [*KINDS, *NODES]), circuits=1
    )
    table["nearer than plain"] = beaten.astype(int)
    groups = table.drop(columns="circuit").groupby(
        ["baseline", "edges", "method"], sort=False, observed=True
    )
    found, counted = groups.mean(), ["nearer than plain", "circuits"]
    found[counted] = groups[counted].sum()
    return found.reset_index().sort_values(
        ["baseline", "edges"], kind="stable", ignore_index=True
    )


def measure(name: str, config: Config) -> dict[str, object]:
    """Return seconds, ratios and memory of one model."""
    tower = open_clip.create_model(name).visual.eval().requires_grad_(False)
    stream = ResidualStream.of(Encoder.from_tower(tower))
    torch.manual_seed(0)
    images = torch.randn(config.images_at_once, 3, *stream.encoder.image_size)
    work = Work(memory_gib=0.45, progress=False)
    task = Task(stream.components, images, metric, work=work)
    scored(
        stream, Task(stream.components, images[:1], metric, work=work)
    )  # weights are read once
    start = peak_memory_gib()
    inputs = images.clone().requires_grad_()
    one_pass = seconds(lambda: torch.autograd.grad(metric(tower(inputs)).sum(), inputs))
    plain = seconds(lambda: scored(stream, task))
    peak = peak_memory_gib()
    rule = midpoint_rule(POINTS)
    integrated = seconds(lambda: scored(stream, task, rule=rule))
    found = {
        "model": name,
        "edges": int(stream.edges.sum()),
        "pass s": one_pass,
        "scores / pass": plain / one_pass,
    }
    found |= {
        f"{POINTS} points / scores": integrated / plain,
        "peak GiB before": start,
        "peak GiB": peak,
    }
    return found | {"cores": torch.get_num_threads()}


def metric(embedding: Tensor) -> Tensor:
    """Return one number per image."""
    return embedding[:, 0]


def seconds(run: Callable[[], object]) -> float:
    """Return the median time of a run."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return median(times)


if __name__ == "__main__":
    run_script(Config, main, __doc__)
