"""Which method finds the edges between heads and MLPs that recover the answer, and how few of them?

Every method ranks, or learns, the edges of the residual stream of a vision transformer; the queries, keys and values of
a head are separate. Then sets of edges of the same sizes are kept, while all other edges carry the baseline. They are
measured on other images than they were found on, beside their complements and random edges. A method is refuted as a
way to circuits of edges if its sets reach no more selectivity than as many random edges at every size.

Classes are the first in the alphabet, each in one domain, the domains in turn. Edges are found on half of the images of
a class, and measured on the other half. Of every other class in the domain one image is used to find edges, and another
one to measure them. The baseline is the mean over the images that edges are found on, and the metric is the logit of
the class. Edges are ranked over the whole graph by absolute score. Masks are trained once, from the largest size to the
smallest.

    python experiments/edge_scoreboard.py      # vit-tiny, on the images of the quickstart
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

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
from circuitry.encoder import OperationCounter, Task, mean_baseline
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
from experiments.unseen_images import ClassRecords, read_class

import numpy as np
import pandas as pd
from scipy.special import expit

METHODS = ("gradient", "path", "atp-star", "relp", "exact", LEARNED)
"""Methods that are judged; ``path`` is the gradient at five points, ``exact`` cuts edge by edge."""
RANDOM_DRAWS = 3
"""Random sets of edges of every size."""


@dataclass(frozen=True)
class Config(QuickstartModel, KeepSettings):
    """Settings of the script."""

    model: str = "vit-tiny"
    """A vision transformer: open_clip model name, a name shipped here, hf-hub:org/model, or a model-config JSON."""
    n_images: int = 8
    """Images of a class that edges are found on; the edges are measured on as many further images."""
    n_classes: int = 8
    """Classes whose edges are judged."""
    sizes: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)
    """Shares of the edges that are kept."""
    steps: int = 300
    """Steps of training masks, for all sizes together."""
    seed: int = 0
    """Seed of images, masks and random edges."""


def main(config: Config) -> None:
    """Judge the methods class by class, print and write the tables."""
    register_corrections()
    clip = config.clip()
    images = config.images()
    classes = images.classes[: config.n_classes]
    stream = ResidualStream.of(clip.encoder)
    weights = clip.text_weights(images.all_classes)
    judged = dict[tuple[str, ...], Judged]()
    for name in classes:
        to_find, to_measure = halves_of(config, images, name)
        found_on = read_class(clip, to_find)
        measured_on = read_class(clip, to_measure)
        task = partial(
            Task,
            stream.components,
            metric=class_logit(weights, images.label(name)),
            # The baseline is made of the images that edges are found on alone.
            baseline=mean_baseline(stream.components, found_on.together),
            work=Work(progress=False),
        )
        seen = task(found_on.own, others=found_on.others)
        unseen = task(measured_on.own, others=measured_on.others)
        random = None
        for method in METHODS:
            budget = LEARNED if method == LEARNED else "global"
            of_method = judge(config, seen, unseen, method, random)
            judged[name, method, budget, "mean", "logit"] = of_method
            random = of_method.curve.random
    config.keep(
        tables_of(judged, config.sizes),
        ("summary",),
        model_digest=clip.digest,
        judged=classes,
    )


def halves_of(
    config: Config, images: DomainFolder, name: str
) -> tuple[ClassRecords, ClassRecords]:
    """Return images to find edges on, and images to measure them on.

    Each half has half of the drawn images of the class, and one image of every other class.
    """
    domain = images.domains[images.classes.index(name) % len(images.domains)]
    own = images.select(name, domain, 2 * config.n_images, config.seed)
    others_to_find = []
    others_to_measure = []
    for other in images.classes:
        if other != name:
            two = images.select(other, domain, 2, config.seed)
            others_to_find.append(two[0])
            others_to_measure.append(two[1])
    half = len(own) // 2
    to_find = ClassRecords(own[:half], others_to_find)
    return to_find, ClassRecords(own[half:], others_to_measure)


def judge(
    config: Config, seen: Task, unseen: Task, method: str, random: np.ndarray | None
) -> Judged:
    """Find the edges of a class by a method, and measure them on images that they were not found on.

    Args:
        config: Settings of the script.
        seen: Task with the images to find edges on.
        unseen: Task with the images to measure edges on.
        method: Name of the method.
        random: Values of random sets from an earlier method; None to measure them. All methods share the random sets.
    """
    started = time.process_time()
    with OperationCounter() as counter:
        graph, sets = find(config, seen, method)
    # Seconds of the processor, since other processes share the machine.
    seconds = time.process_time() - started
    draws = RANDOM_DRAWS if random is None else 0
    curve = measure_circuits(
        unseen, sets, AblationSettings(random_draws=draws, seed=config.seed)
    )
    if random is not None:
        curve = replace(curve, random=random)
    return Judged(curve, graph, seconds, counter.total)


def find(
    config: Config, task: Task, method: str
) -> tuple[AttributionGraph, Sequence[Circuit]]:
    """Return the edges with their scores by a method, and the circuits that it finds, one for each size.

    The score of an edge is positive if the edge helps the metric.
    """
    rule = midpoint_rule(5) if method == "path" else left_rule(1)
    # Masks and cuts replace the scores; they need the edges alone.
    scorer = method if method in EDGE_METHODS else "gradient"
    graph = attribute_components(task, method=scorer, rule=rule, ports=True)
    edges = graph.edges
    if method == LEARNED:
        masks = MaskSettings(steps=config.steps, batch_size=16, seed=config.seed)
        every_edge = Circuit(graph, edges.units, edges)
        learned = learn_masks(task, config.sizes, masks, among=every_edge)
        scores = dict(graph.edge_scores)
        for pair, logits in learned.scores.scores.items():
            # The probability that a mask keeps the edge.
            scores[pair] = expit(logits)
        return replace(graph, edge_scores=scores), learned.circuits
    if method == "exact":
        edges = cut_effects(task, edges)
    sets = [Circuit(graph, edges.units, edges.top(size)) for size in config.sizes]
    return replace(graph, edge_scores={**graph.edge_scores, **edges.scores}), sets


def tables_of(
    judged: dict[tuple[str, ...], Judged], sizes: Sequence[float]
) -> dict[str, pd.DataFrame]:
    """Return the tables of the scoreboard.

    They also have the rank correlation of the scores of each method with exact effects, over all edges.
    """
    n_edges = len(scores_of(next(iter(judged.values())).graph)["edges"])
    counted = f"{n_edges} edges between heads and MLPs"
    tables = scoreboard_tables(judged, sizes, (0.5, 0.8), counted)
    rows = []
    exact = {
        name: of_method.graph
        for (name, method, *_), of_method in judged.items()
        if method == "exact"
    }
    for job, of_method in judged.items():
        of_cuts = scores_of(exact[job[0]])
        agreement = rank_agreement(scores_of(of_method.graph), of_cuts)
        rows.append((*job, counted, "rank correlation", agreement))
    ranks = pd.DataFrame(rows, columns=[*JOB, "counted", "what", "value"])
    by_class = pd.concat([tables["by_class"], ranks], ignore_index=True)
    return {**tables, "by_class": by_class, "summary": over_classes(by_class)}


def scores_of(graph: Scores) -> dict[str, np.ndarray]:
    """Return the scores of all edges of a graph, in the order of units."""
    assert isinstance(graph, AttributionGraph)
    # Graphs of two methods keep all units, but in the order of their own scores.
    order = {site: np.argsort(units) for site, units in graph.kept_units.items()}
    by_block = [
        scores[np.ix_(order[down], order[up])].ravel()
        for (up, down), scores in graph.edge_scores.items()
    ]
    return {"edges": np.concatenate(by_block)}


if __name__ == "__main__":
    run_script(Config, main, __doc__)
