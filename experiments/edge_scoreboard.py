"""Which method finds the edges between heads and MLPs that recover the answer, and how few of them?

Every method ranks, or learns, the edges of the residual stream of a vision transformer, queries, keys and values of
heads apart; sets of the same sizes are then kept while all other edges carry the baseline, on images that they were not
found on, beside what they leave out and random edges. A method is refuted as a way to circuits of edges if its sets
reach no more selectivity than as many random edges at every size.

Classes are the first in the alphabet, each in one domain, the domains in turn. Edges are found on half of the images of
a class and measured on the other; of every other class in the domain one image is for finding, another for measuring.
The baseline is the mean over the images that edges are found on, the metric the class's logit. Edges are ranked over
the whole graph by absolute score; masks are trained once, from the largest size to the smallest.

    python experiments/edge_scoreboard.py      # vit-tiny, on the images of the quickstart
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from circuitry.runs import Work, run_script
from circuitry import (
    AttributionGraph,
    DomainFolder,
    class_logit,
    left_rule,
    midpoint_rule,
)
from circuitry.analysis import QuickstartModel
from circuitry.bases import ResidualStream
from circuitry.circuits import (
    EDGE_METHODS,
    LEARNED,
    Circuit,
    MaskSettings,
    Scores,
    attribute_components,
    cut_effects,
    learn_masks,
)
from circuitry.encoder import Task, mean_baseline
from circuitry.interventions import AblationSettings, measure_circuits
from experiments.edge_corrections import register_corrections
from experiments.judging.scoreboard import (
    JOB,
    Judged,
    over_classes,
    rank_agreement,
    scoreboard_tables,
)
from experiments.kept_tables import KeepSettings
from experiments.operations import OperationCounter
from experiments.unseen_images import ClassRecords, read_class

import numpy as np
import pandas as pd
from scipy.special import expit

METHODS = ("gradient", "path", "atp-star", "relp", "exact", LEARNED)
RANDOM_DRAWS = 3
"""Random sets of edges of every size."""


@dataclass(frozen=True)
class Config(QuickstartModel, KeepSettings):
    """Settings of the script."""

    model: str = "vit-tiny"
    """A vision transformer: open_clip model name, a name shipped here, hf-hub:org/model, or a model-config JSON."""
    n_images: int = 8
    """Images of a class that edges are found on, and as many to measure on."""
    n_classes: int = 8
    """Classes whose edges are judged."""
    sizes: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)
    """Shares of the edges that are kept."""
    steps: int = 300
    """Steps of training masks, for all sizes together."""
    seed: int = 0
    """Seed of images, masks and random edges."""


def main(config: Config) -> None:
    """Judge class by class, print and write the tables."""
    register_corrections()
    clip = config.clip()
    images = config.images()
    classes = images.classes[: config.n_classes]
    stream = ResidualStream.of(clip.encoder)
    weights = clip.text_weights(images.all_classes)
    judged = dict[tuple[str, ...], Judged]()
    for name in classes:
        found_on, measured_on = (
            read_class(clip, side) for side in parts_of(config, images, name)
        )
        baseline = mean_baseline(stream.components, found_on.together)
        metric = class_logit(weights, images.label(name))
        seen, unseen = (
            Task(
                stream.components,
                side.own,
                metric,
                baseline=baseline,
                others=side.others,
                work=Work(progress=False),
            )
            for side in (found_on, measured_on)
        )
        random = None
        for method in METHODS:
            budget = LEARNED if method == LEARNED else "global"
            one = judged[name, method, budget, "mean", "logit"] = judge(
                config, seen, unseen, method, random
            )
            random = one.curve.random
    config.keep(
        tables_of(judged, config.sizes),
        ("summary",),
        model_digest=clip.digest,
        judged=classes,
    )


def parts_of(
    config: Config, images: DomainFolder, name: str
) -> tuple[ClassRecords, ClassRecords]:
    """Return images of a class and one of every other to find edges on, and as many to measure on."""
    domain = images.domains[images.classes.index(name) % len(images.domains)]
    own = images.select(name, domain, 2 * config.n_images, config.seed)
    others = [
        images.select(other, domain, 2, config.seed)
        for other in images.classes
        if other != name
    ]
    half = len(own) // 2
    return ClassRecords(own[:half], [two[0] for two in others]), ClassRecords(
        own[half:], [two[1] for two in others]
    )


def judge(
    config: Config, seen: Task, unseen: Task, method: str, random: np.ndarray | None
) -> Judged:
    """Find the edges of a class by a method, and measure them on images that they were not found on.

    Random sets of the same sizes are the same for all methods: those measured with the first are given to the others.
    """
    started = time.process_time()
    with OperationCounter() as counter:
        graph, sets = find(config, seen, method)
    seconds = time.process_time() - started
    draws = RANDOM_DRAWS if random is None else 0
    curve = measure_circuits(
        unseen, sets, AblationSettings(random_draws=draws, seed=config.seed)
    )
    return Judged(
        curve if random is None else replace(curve, random=random),
        graph,
        seconds,
        counter.total,
    )


def find(
    config: Config, task: Task, method: str
) -> tuple[AttributionGraph, Sequence[Circuit]]:
    """Return the edges with their scores by a method, positive where they help, and its sets by size."""
    rule = midpoint_rule(5) if method == "path" else left_rule(1)
    scorer = method if method in EDGE_METHODS else "gradient"
    graph = attribute_components(task, method=scorer, rule=rule, ports=True)
    edges = graph.edges
    if method == LEARNED:
        masks = MaskSettings(steps=config.steps, batch_size=16, seed=config.seed)
        found = learn_masks(
            task, config.sizes, masks, among=Circuit(graph, edges.units, edges)
        )
        surely = {pair: expit(scores) for pair, scores in found.scores.scores.items()}
        return replace(
            graph, edge_scores={**graph.edge_scores, **surely}
        ), found.circuits
    if method == "exact":
        edges = cut_effects(task, edges)
    sets = [Circuit(graph, edges.units, edges.top(size)) for size in config.sizes]
    return replace(graph, edge_scores={**graph.edge_scores, **edges.scores}), sets


def tables_of(
    judged: dict[tuple[str, ...], Judged], sizes: Sequence[float]
) -> dict[str, pd.DataFrame]:
    """Return the tables of the scoreboard, with the rank correlation of scores and exact effects over all edges."""
    n_edges = len(scores_of(next(iter(judged.values())).graph)["edges"])
    counted = f"{n_edges} edges between heads and MLPs"
    tables = scoreboard_tables(judged, sizes, (0.5, 0.8), counted)
    rows = []
    exact = {job[0]: one.graph for job, one in judged.items() if job[1] == "exact"}
    for job, one in judged.items():
        agreement = rank_agreement(scores_of(one.graph), scores_of(exact[job[0]]))
        rows.append((*job, counted, "rank correlation", agreement))
    ranks = pd.DataFrame(rows, columns=[*JOB, "counted", "what", "value"])
    by_class = pd.concat([tables["by_class"], ranks], ignore_index=True)
    return {**tables, "by_class": by_class, "summary": over_classes(by_class)}


def scores_of(graph: Scores) -> dict[str, np.ndarray]:
    """Return the scores of all edges of a graph, in the order of units."""
    assert isinstance(graph, AttributionGraph)
    kept = {site: np.argsort(units) for site, units in graph.kept_units.items()}
    blocks = graph.edge_scores.items()
    return {
        "edges": np.concatenate(
            [
                scores[np.ix_(kept[down], kept[up])].ravel()
                for (up, down), scores in blocks
            ]
        )
    }


if __name__ == "__main__":
    run_script(Config, main, __doc__)
