"""Which method finds the edges between heads and MLPs that recover the answer, and how few of them?

Every method ranks, or learns, the edges of the residual stream of a vision transformer, queries, keys and values of
heads apart; sets of the same sizes are then kept while all other edges carry the baseline, on images that they were not
found on, beside what they leave out and random edges. A method is refuted as a way to circuits of edges if its sets
reach no more selectivity than as many random edges at every size.

| method | an edge's score |
|---|---|
| ``gradient`` | attribution patching, one backward pass |
| ``path`` | the same over five points of the way to the baseline |
| ``atp-star``, ``relp`` | the same with corrections by name (`circuits.stream_edges`) |
| ``exact`` | the effect of cutting it alone, a run per edge |
| ``learned`` | how surely a mask on all edges keeps it |

The protocol, fixed before selectivity on unseen images was looked at:

1. Classes: the first in the alphabet; each in one domain, the domains in turn.
2. Images of a class are drawn by the seed; edges are found on the first half and measured on the second. Of every other
   class in the domain one image is for finding, another for measuring.
3. Baseline: the mean over the images that edges are found on. Metric: the class's cosine logit. Edges are ranked over
   the whole graph by absolute score; one grid of sizes for all; masks are trained once, from the largest size to the
   smallest. Random edges are drawn among all.
4. The size that reaches a target is the smallest from which on all sizes of the grid reach it; 1 where none does.
5. All numbers are made class by class; tables have means over classes with Student's 95 % intervals.

    python experiments/edge_scoreboard.py      # vit-tiny, on the images of the quickstart
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from circuitry.runs import Job, JobFolder, Work, run_script, versions, whole_file
from circuitry import AttributionGraph, Clip, DomainFolder, class_logit, left_rule, midpoint_rule
from circuitry.analysis import QuickstartModel
from circuitry.bases import ResidualStream
from circuitry.circuits import EDGE_METHODS, LEARNED, Circuit, attribute_components, cut_effects
from circuitry.circuits.cost import OperationCounter
from circuitry.data import image_listing
from circuitry.encoder import Task, mean_baseline
from circuitry.interventions import AblationSettings, FaithfulnessCurve, MaskSettings, learn_masks, measure_circuits
from circuitry.judging import Judged, over_classes, rank_agreement, scoreboard_tables
from circuitry.judging.scoreboard import JOB
from circuitry.reports import Report, write_results
from circuitry.reports.sections.compared import with_intervals
from experiments.study.measure_charts import size_curves
from experiments.study.scoreboard_command import scoreboard_findings
from experiments.unseen_images import ClassImages, ClassRecords, read_class

import numpy as np
import pandas as pd
from scipy.special import expit

FORMAT = "circuitry edge scoreboard 1"
METHODS = ("gradient", "path", "atp-star", "relp", "exact", LEARNED)
TARGETS = (0.5, 0.8)
"""The smallest size that reaches this selectivity is sought."""


@dataclass(frozen=True)
class Config(QuickstartModel):
    """Settings of the script."""

    model: str = "vit-tiny"
    """A vision transformer: open_clip model name, a name shipped here, hf-hub:org/model, or a model-config JSON."""
    out: Path = Path("runs/edge-scoreboard")
    """Folder of tables and report."""
    results: Path | None = None
    """Also write the tables and their provenance here, where figures read them."""
    n_images: int = 8
    """Images of a class that edges are found on, and as many to measure on."""
    n_classes: int = 8
    """Classes whose edges are judged."""
    sizes: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)
    """Shares of the edges that are kept."""
    steps: int = 300
    """Steps of training masks, for all sizes together."""
    batch_size: int = 16
    """Images of a step."""
    random_draws: int = 3
    """Random sets of edges of every size."""
    seed: int = 0
    """Seed of images, masks and random edges."""


def main(config: Config) -> None:
    """Judge class by class, resumed where it was left, write, and say where the report is."""
    clip, images = config.clip(), config.images()
    classes = images.classes[: config.n_classes]
    names = ("n_images", "sizes", "steps", "batch_size", "random_draws", "seed")
    asked = {name: getattr(config, name) for name in names} | {"sizes": list(config.sizes), "classes": list(classes)}
    provenance = {"model": clip.name, "model_digest": clip.digest, **asked}
    records = {name: parts_of(config, images, name) for name in classes}
    both_sides = [one for sides in records.values() for side in sides for part in side for one in part]
    listed = sorted(set(both_sides), key=lambda one: one.relative)
    listings = {"images": image_listing(listed)}
    folder = JobFolder(config.out / "jobs", FORMAT, provenance, [(name,) for name in classes], listings)
    stream, weights = ResidualStream.of(clip.encoder), clip.text_weights(images.all_classes)

    def do(job: Job, read: list[ClassImages]) -> list[Path]:
        found_on, measured_on = read
        baseline = mean_baseline(stream.components, found_on.together)
        metric = class_logit(weights, images.label(job[0]))
        seen, unseen = (
            Task(stream.components, side.own, metric, baseline=baseline, others=side.others, work=Work(progress=False))
            for side in (found_on, measured_on)
        )
        random, paths = None, list[Path]()
        for method in METHODS:
            one = judge(config, seen, unseen, method, random)
            random = one.curve.random
            paths += save(one, folder.path / job[0] / method)
        return paths

    folder.run(do, prepare=lambda job: [read_class(clip, side) for side in records[job[0]]], progress="classes")
    tables = tables_of(load(folder), config.sizes)
    print(write_results(write_report(clip, tables), tables, config.out, config.results, provenance | versions()))


def parts_of(config: Config, images: DomainFolder, name: str) -> tuple[ClassRecords, ClassRecords]:
    """Return images of a class and one of every other to find edges on, and as many to measure on."""
    domain = images.domains[images.classes.index(name) % len(images.domains)]
    own = images.select(name, domain, 2 * config.n_images, config.seed)
    others = [images.select(other, domain, 2, config.seed) for other in images.classes if other != name]
    half = len(own) // 2
    return ClassRecords(own[:half], [two[0] for two in others]), ClassRecords(own[half:], [two[1] for two in others])


def save(judged: Judged, stem: Path) -> list[Path]:
    """Write what is known of a class and a method."""
    paths = [Path(f"{stem}.{kind}") for kind in ("curve.safetensors", "graph.safetensors", "json")]
    judged.curve.save(paths[0])
    judged.graph.save(paths[1])
    with whole_file(paths[2]) as temporary:
        temporary.write_text(json.dumps({"seconds": judged.seconds, "operations": judged.operations}))
    return paths


def load(folder: JobFolder) -> dict[tuple[str, ...], Judged]:
    """Read what is known of all classes and methods."""
    found = dict[tuple[str, ...], Judged]()
    for job in folder.jobs:
        files = folder.files(job)
        for i, method in enumerate(METHODS):
            curve, graph, cost = files[3 * i : 3 * i + 3]
            read = FaithfulnessCurve.load(curve), AttributionGraph.load(graph)
            budget = LEARNED if method == LEARNED else "global"
            found[job[0], method, budget, "mean", "logit"] = Judged(*read, **json.loads(cost.read_text()))
    return found


def judge(config: Config, seen: Task, unseen: Task, method: str, random: np.ndarray | None) -> Judged:
    """Find the edges of a class by a method, and measure them on images that they were not found on.

    Random sets of the same sizes are the same for all methods: those measured with the first are given to the others.
    """
    started = time.process_time()
    with OperationCounter() as counter:
        graph, sets = find(config, seen, method)
    seconds = time.process_time() - started
    draws = config.random_draws if random is None else 0
    curve = measure_circuits(unseen, sets, AblationSettings(random_draws=draws, seed=config.seed))
    return Judged(curve if random is None else replace(curve, random=random), graph, seconds, counter.total)


def find(config: Config, task: Task, method: str) -> tuple[AttributionGraph, Sequence[Circuit]]:
    """Return the edges with their scores by a method, positive where they help, and its sets by size."""
    rule = midpoint_rule(5) if method == "path" else left_rule(1)
    scorer = method if method in EDGE_METHODS else "gradient"
    graph = attribute_components(task, method=scorer, rule=rule, ports=True)
    edges = graph.edges
    if method == LEARNED:
        masks = MaskSettings(steps=config.steps, batch_size=config.batch_size, seed=config.seed)
        found = learn_masks(task, config.sizes, masks, among=Circuit(graph, edges.units, edges))
        surely = {pair: expit(scores) for pair, scores in found.scores.scores.items()}
        return replace(graph, edge_scores={**graph.edge_scores, **surely}), found.circuits
    if method == "exact":
        edges = cut_effects(task, edges)
    sets = [Circuit(graph, edges.units, edges.top(size)) for size in config.sizes]
    return replace(graph, edge_scores={**graph.edge_scores, **edges.scores}), sets


def tables_of(judged: dict[tuple[str, ...], Judged], sizes: Sequence[float]) -> dict[str, pd.DataFrame]:
    """Return the tables of the scoreboard, with the rank correlation of scores and exact effects over all edges."""
    n_edges = len(scores_of(next(iter(judged.values())).graph)["edges"])
    counted = f"{n_edges} edges between heads and MLPs"
    tables = scoreboard_tables(judged, sizes, TARGETS, counted)
    rows = []
    exact = {job[0]: one.graph for job, one in judged.items() if job[1] == "exact"}
    for job, one in judged.items():
        agreement = rank_agreement(scores_of(one.graph), scores_of(exact[job[0]]))
        rows.append((*job, counted, "rank correlation", agreement))
    ranks = pd.DataFrame(rows, columns=[*JOB, "counted", "what", "value"])
    by_class = pd.concat([tables["by_class"], ranks], ignore_index=True)
    return {**tables, "by_class": by_class, "summary": over_classes(by_class)}


def scores_of(graph: AttributionGraph) -> dict[str, np.ndarray]:
    """Return the scores of all edges, in the order of units."""
    kept = {site: np.argsort(units) for site, units in graph.kept_units.items()}
    blocks = graph.edge_scores.items()
    return {"edges": np.concatenate([scores[np.ix_(kept[down], kept[up])].ravel() for (up, down), scores in blocks])}


def write_report(clip: Clip, tables: dict[str, pd.DataFrame]) -> Report:
    """Put curves and the summary on a page."""
    summary = tables["summary"]
    n_classes = int(summary["n_classes"].max())
    report = Report(f"Which edges of {clip.name} recover the answer?", f"Heads and MLPs, {n_classes} classes.")
    report.summary(scoreboard_findings(summary))
    report.section("How selective and how faithful are sets of edges?")
    for measure in ("selectivity", "faithfulness"):
        curves = tables["curves"].query("measure == @measure")
        report.figure(size_curves(curves, measure, f"{measure.capitalize()} of edges"), f"{measure} over size.")
    report.section("How few edges recover the answer, and at what cost?")
    wide = summary.assign(cell=with_intervals(summary)).pivot(index="method", columns="what", values="cell")
    report.table(
        wide.loc[list(METHODS)].rename_axis(columns=None).reset_index(),
        "Means over classes with Student's 95 % intervals: the smallest share of the edges from which on a selectivity "
        "is reached (kept: the method's, random: as many at random); CPR and CMD over the grid of sizes; rank "
        "correlation of the scores with the exact effects; seconds of the processor.",
    )
    return report


if __name__ == "__main__":
    run_script(Config, main, __doc__)
