"""Whose scores of edges between heads and MLPs are nearest to exact cuts, on a trained transformer?

1. Every edge is cut alone, exactly, and all edges of each reader and writer together; the effects on the class logit
   are correlated with what attribution says, plain, along a path, and corrected (`edge_corrections`). A correction
   is refuted where it is nearer than plain in few circuits.
2. The same for edges of graphs as `attribute` stores them, between single heads and neurons.

    python experiments/benchmark_edges.py --checkpoint runs/vit/clip/checkpoints/epoch_40.pt
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitry.runs import Work, run_script
from circuitry import attribute, class_logit
from circuitry.analysis import QuickstartModel
from circuitry.bases import ResidualStream
from circuitry.circuits import EDGE_METHODS, QuadratureRule, midpoint_rule
from circuitry.circuits.component_graphs import component_scorer
from circuitry.circuits.stream_edges import PLAIN, StreamScores
from circuitry.encoder import AnyBaseline, Task, mean_baseline
from circuitry.models import image_batches
from experiments.edge_corrections import CORRECTIONS
from experiments.kept_tables import KeepSettings

import numpy as np
import pandas as pd
import torch
from scipy import stats

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


@dataclass(frozen=True)
class Config(QuickstartModel, KeepSettings):
    """Settings of the benchmark."""

    images_at_once: int = 8
    """Images of each class."""
    model: str = "vit-tiny"
    """The trained vision transformer whose edges are cut."""
    checkpoint: Path | None = None
    """Its weights (default: those that come with the package)."""
    graph_fraction: float = 0.05
    """Share of heads and neurons that graphs keep, whose edges are cut one by one."""
    n_circuits: int = 8
    """Classes whose edges are cut, one in each domain in turn."""
    seed: int = 0
    """Seed of the images."""


def main(config: Config) -> None:
    """Correlate scores with cuts, and print the tables."""
    by_circuit = pd.concat(agreement(config), ignore_index=True)
    graphs = pd.concat(agreement_of_graphs(config), ignore_index=True)
    config.keep({"agreement": summarise(by_circuit), "graphs": graphs})


def circuits(config: Config) -> Iterator[tuple[str, str, ResidualStream, Task]]:
    """Yield classes, one in each domain in turn, with either baseline: its name, theirs, the stream and the task."""
    clip = config.clip()
    folder = config.images()
    stream = ResidualStream.of(clip.encoder)
    weights = clip.text_weights(folder.all_classes)
    domains = list(folder.domains)
    n = config.images_at_once
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
                stream.components,
                task.images,
                task.metric,
                config.graph_fraction,
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
        # RelP gives edges into queries and keys no effect: it does not rank them.
        constant = np.ptp(x) == 0
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
    found = groups.mean()
    counted = ["nearer than plain", "circuits"]
    found[counted] = groups[counted].sum()
    return found.reset_index().sort_values(
        ["baseline", "edges"], kind="stable", ignore_index=True
    )


if __name__ == "__main__":
    run_script(Config, main, __doc__)
