"""Whose scores of edges between heads and MLPs are nearest to exact cuts, on a trained transformer?

1. Every edge is cut alone, exactly. All edges of each reader are cut together, too, and all edges of each writer. The
   effects on the class logit are correlated with the scores of attribution: plain, along a path, and corrected
   (`edge_corrections`). A correction is refuted if it is nearer to the cuts than plain scores in few circuits.
2. The same is done for the edges of graphs that `attribute` stores, between single heads and neurons.

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
from circuitry.data import ImageRecord
from circuitry.encoder import AnyBaseline, Task, mean_baseline
from circuitry.models import read_images
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
"""Method and rule that score edges, by the name to show."""
KINDS = {
    "all": ("",),
    "queries and keys": (".q", ".k"),
    "values": (".v",),
    "MLPs": (".mlp",),
    "embedding": ("embedding",),
}
"""Ends of the names of readers, by kind of edges."""
NODES = ("all into a reader", "all out of a writer")
"""Kinds of cuts of many edges at once."""
STATISTICS = ("spearman", "pearson", "spearman of sizes", "strongest tenth found")
"""Columns that say how alike scores and cuts are."""
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
    """Yield the tasks to score: classes, each in one domain, the domains in turn; each class with two baselines.

    Yields:
        The name of the baseline, the name of the circuit, the residual stream, and the task.
    """
    clip = config.clip()
    folder = config.images()
    stream = ResidualStream.of(clip.encoder)
    weights = clip.text_weights(folder.all_classes)
    domains = list(folder.domains)
    n = config.images_at_once
    for i, name in enumerate(folder.classes[: config.n_circuits]):
        domain = domains[i % len(domains)]
        others = list[ImageRecord]()
        for other in folder.classes:
            if other != name:
                others += folder.select(other, domain, 1, config.seed)
        others = others[:n]
        # As many as of other classes: the counterfactual pairs image with image.
        chosen = folder.select(name, domain, len(others), config.seed)
        own = read_images(clip, chosen)[1]
        unlike = read_images(clip, others)[1]
        metric = class_logit(weights, folder.label(name))
        ends: dict[str, AnyBaseline] = {"counterfactual": unlike}
        ends["mean"] = mean_baseline(stream.components, torch.cat([own, unlike]))
        for baseline, end in ends.items():
            task = Task(stream.components, own, metric, baseline=end, work=QUIET)
            yield baseline, f"{name} in {domain}", stream, task


def agreement(config: Config) -> Iterator[pd.DataFrame]:
    """Yield a table of correlations with exact cuts for each circuit and method."""
    for baseline, circuit, stream, task in circuits(config):
        cuts = with_nodes(scored(stream, task, "cuts"))
        for method, (name, rule) in METHODS.items():
            started = time.perf_counter()
            scores = scored(stream, task, name, rule)
            taken = time.perf_counter() - started
            readers = tuple(map(str, scores.readers))
            rows = pd.DataFrame(correlations(readers, with_nodes(scores), cuts))
            yield rows.assign(
                baseline=baseline, method=method, circuit=circuit, seconds=taken
            )


def agreement_of_graphs(config: Config) -> Iterator[pd.DataFrame]:
    """Yield a table of correlations with exact cuts for each circuit, of edges between single heads and neurons."""
    for baseline, circuit, stream, task in circuits(config):
        # The methods score nodes alike, so graphs keep the same units, and their edges have one order.
        by_method = {}
        for method in ("cuts", "gradient", "exact-readers"):
            graph = attribute(
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
            by_method[method] = graph.edges.to_pandas()["score"].to_numpy()
        exact = by_method.pop("cuts")
        rows = [
            (method, len(exact), stats.spearmanr(scores, exact).statistic)
            for method, scores in by_method.items()
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


def with_nodes(scores: StreamScores) -> np.ndarray:
    """Return scores [readers + 1, writers + 1].

    The last column has the scores of all edges into a reader, the last row the scores of all edges out of a writer.
    """
    corner = np.full((1, 1), np.nan)
    return np.block(
        [[scores.scores, scores.into[:, None]], [scores.out_of[None], corner]]
    )


def correlations(
    readers: tuple[str, ...], scores: np.ndarray, cuts: np.ndarray
) -> Iterator[dict[str, object]]:
    """Yield how alike scores and exact cuts are, for each kind of edges.

    Args:
        readers: Names of the readers.
        scores: Scores of a method from `with_nodes`.
        cuts: Effects of exact cuts from `with_nodes`.
    """
    edges = slice(0, -1)
    places: dict[str, Any] = {}
    for kind, ends in KINDS.items():
        # The last row of the scores is of no reader.
        of_kind = [*(reader.endswith(ends) for reader in readers), False]
        places[kind] = (np.array(of_kind), edges)
    places |= zip(NODES, ((edges, -1), (-1, edges)), strict=True)
    for kind, place in places.items():
        # A reader has no edge from components of its own layer or of later layers.
        known = ~np.isnan(cuts[place])
        x = scores[place][known]
        y = cuts[place][known]
        alike = dict.fromkeys(STATISTICS, 0.0)
        # RelP gives edges into queries and keys no effect: it does not rank them.
        if np.ptp(x) != 0:
            n_strongest = round(len(y) / 10) or 1
            strongest_scores = np.argsort(-np.abs(x))[:n_strongest]
            strongest_cuts = np.argsort(-np.abs(y))[:n_strongest]
            n_common = np.isin(strongest_scores, strongest_cuts).sum()
            measured = (
                stats.spearmanr(x, y).statistic,
                stats.pearsonr(x, y).statistic,
                stats.spearmanr(np.abs(x), np.abs(y)).statistic,
                n_common / n_strongest,
            )
            alike |= zip(STATISTICS, measured, strict=True)
        yield {"edges": kind, "n_edges": len(y), **alike}


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Return means over circuits, and the number of circuits in which a method ranks edges better than plain scores.

    Better means that the rank correlation with exact cuts is larger.
    """
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
    means = groups.mean()
    # Both are counts over circuits, not means.
    counted = ["nearer than plain", "circuits"]
    means[counted] = groups[counted].sum()
    return means.reset_index().sort_values(
        ["baseline", "edges"], kind="stable", ignore_index=True
    )


if __name__ == "__main__":
    run_script(Config, main, __doc__)
