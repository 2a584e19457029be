"""How fast are circuits found and compared? The tables of docs/results/speed.md, one question a call, on the CPU.

Each ratio is of times within one call, so that the load of the machine hardly matters. Towers have random weights.

    python experiments/speed_of_circuits.py                     # partial runs against runs of the whole tower
    python experiments/speed_of_circuits.py --of growth         # with images, units and sites; the study's circuits
    python experiments/speed_of_circuits.py --of edges          # of a transformer
    python experiments/speed_of_circuits.py --of similarity     # of many circuits; 4.8 GiB on disk
    python experiments/speed_of_circuits.py --of threads        # beside busy processes
"""

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

from circuitry.runs import Work, claim, one_of, run_script, short_waits
from circuitry import (
    AttributionGraph,
    Encoder,
    GraphFolder,
    Task,
    class_logit,
    compare_domains,
)
from circuitry.circuits import (
    AttributionSettings,
    Measure,
    QuadratureRule,
    attribute_components,
    left_rule,
    midpoint_rule,
    parse_rule,
    score_edges,
    score_units,
    strongest_units,
)
from circuitry.circuits.graph_folder import EXTRACTION_FORMAT, WHOLE, graph_file
from circuitry.data import DEFAULT_FOLDS
from circuitry.gates import Edges, patch_effects
from circuitry.models import matrix_rate, register_model
from circuitry.runs.workers import peak_memory_gib
from experiments.kept_tables import KeepSettings
from experiments.operations import count_operations

import numpy as np
import open_clip
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

T = TypeVar("T")
Scores = Mapping[str, np.ndarray]
"""Scores by site, or by pair of sites."""

STUDY_RULE = left_rule(10)
"""The quadrature rule of the study."""
SHARE = 0.1
"""Share of the units of each site that the study keeps."""
STUDY_IMAGES = 345 * 6 * 50
"""Images of the study's full setting: classes times domains times images of each class in each domain."""
GPU_TFLOPS = 19.5
"""10^12 operations a second of a GPU, for the estimate: an A100's single-precision peak without tensor cores."""
GPU_FRACTION = 0.4
"""Share of the GPU's peak that is assumed to be reached; it was not measured."""
GPU_RATE = GPU_FRACTION * (GPU_TFLOPS * 1e12)
PATH = midpoint_rule(5)
"""Points of the path of a transformer's edges."""
DEFAULTS = {
    "partial-runs": (("RN50", "rn-tiny"), 2),
    "growth": (("RN50",), 4),
    "edges": (("ViT-B-32",), 8),
    "threads": (("rn-tiny",), 14),
}
"""Models, and the number of images, for each measurement."""
COLUMNS = (
    "model",
    "scores",
    "full-tower seconds",
    "circuitry seconds",
    "ratio",
    "largest relative difference",
)
QUIET = Work(progress=False)
FEW = Work(memory_gib=0.45, progress=False)
"""How the edges of a transformer are scored: images go through in small batches."""


@dataclass(frozen=True)
class Config(KeepSettings):
    """Settings of the measurements."""

    of: Annotated[
        str, one_of("partial-runs", "growth", "edges", "similarity", "threads")
    ] = "partial-runs"
    """What is measured."""
    models: tuple[str, ...] = ()
    """Models of open_clip or of this package (default: `DEFAULTS` of the measurement)."""
    images: int | None = None
    """Number of images (default: `DEFAULTS` of the measurement)."""
    classes: int = 100
    """Classes whose circuits are compared, each in six domains."""
    out: Path = Path("runs/speed")
    """Folder of the circuits to compare; a second run reuses them."""


def main(config: Config) -> None:
    """Measure one kind of speed, print and write its tables."""
    # Circuits to compare have no model and no images.
    models, images = DEFAULTS.get(config.of, ((), 0))
    models = config.models or models
    images = config.images or images
    # Pages tell these beside the tables.
    facts: dict[str, Any] = {"threads": torch.get_num_threads()}
    if models:
        facts |= {"models": models, "images": images}
    if config.of == "partial-runs":
        speeds = [partial_runs(name, images) for name in models]
        tables = {"speed": pd.concat([*speeds, patching("rn-tiny", 16)])}
    elif config.of == "growth":
        tables = growth(models[0], images)
        facts |= {"gpu_tflops": GPU_TFLOPS, "gpu_fraction": GPU_FRACTION}
    elif config.of == "edges":
        tables = {"speed": edge_speed(models[0], images)}
        facts |= {"points": len(PATH.points), "memory_gib": FEW.memory_gib}
    elif config.of == "similarity":
        tables = {"similarity": similarity(config.out, config.classes)}
        facts["folds"] = DEFAULT_FOLDS
    else:
        tables = {"threads": threads(models[0], images)}
    config.keep(tables, **facts)


class Timed(NamedTuple, Generic[T]):
    """The value of a call, and its time."""

    value: T
    """The returned value."""
    seconds: float
    """Seconds on the wall."""


def timed(run: Callable[..., T], *given: object) -> Timed[T]:
    """Call a function with arguments, and return its value and time."""
    started = time.perf_counter()
    value = run(*given)
    return Timed(value, time.perf_counter() - started)


def random_task(name: str, n_images: int) -> tuple[nn.Module, Tensor, Task]:
    """Return a random tower, random images, and a task with the logit of the first of ten random classes.

    The tower has run once, since a first run is slower.
    """
    torch.manual_seed(0)
    model = open_clip.create_model(register_model(name))
    tower = model.visual.eval().requires_grad_(False)
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            # open_clip starts the last norm of each block at zero, which would leave the block without effect.
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_mean = 0.1 * torch.randn(module.num_features)
    encoder = Encoder.from_tower(tower)
    images = torch.randn(n_images, 3, *encoder.image_size)
    weights = F.normalize(torch.randn(10, tower.output_dim), dim=-1)
    with torch.no_grad():
        tower(images)
    task = Task(encoder, images, class_logit(weights, 0), work=QUIET)
    return tower, images, task


# Partial runs against runs of the whole tower.


class FullTower:
    """The plain way to score units and edges, by runs of the whole tower with the activation at one site replaced.

    The hooks stay in the tower. This package refuses towers with hooks, so its own times must be measured before.
    """

    def __init__(self, tower: nn.Module, images: Tensor, task: Task) -> None:
        self.tower = tower
        self.images = images
        self.task = task
        self.replaced: dict[str, Tensor] = {}
        """Tensors that replace the activation of a site in the next run."""
        self.seen: dict[str, Tensor] = {}
        """The activations of the last run."""
        for site in self.sites:
            tower.get_submodule(site).register_forward_hook(self.hook(site))
        with torch.no_grad():
            self.metric()
        self.clean = dict(self.seen)

    @property
    def sites(self) -> list[str]:
        """Return the sites after the image."""
        return [site for site in self.task.sites if site != "input"]

    def hook(self, site: str) -> Callable[[nn.Module, object, Tensor], Tensor]:
        """Return the hook that replaces and reads the activation at a site."""

        def write(_: nn.Module, __: object, output: Tensor) -> Tensor:
            self.seen[site] = self.replaced.get(site, output)
            return self.seen[site]

        return write

    def metric(self) -> Tensor:
        """Return the metric [images] of a run with the replaced activations."""
        return self.task.metric(self.tower(self.images))

    def effect(self, site: str, scalar: Callable[[], Tensor]) -> Tensor:
        """Return integrated gradients of a scalar from clean to zero at a site by the study's rule [units]."""
        clean = self.clean[site]
        n = len(STUDY_RULE.points)
        total = torch.zeros_like(clean)
        for k in range(n):
            self.replaced[site] = ((1 - k / n) * clean).requires_grad_()
            total += torch.autograd.grad(scalar(), self.replaced[site])[0]
        del self.replaced[site]
        # The path ends at zero, so the change along it is the clean activation.
        effect = total / n * clean
        return (effect.flatten(2).sum(2) if effect.dim() > 2 else effect).mean(0)

    def nodes(self) -> dict[str, np.ndarray]:
        """Return the scores of all units."""

        def scalar() -> Tensor:
            return self.metric().sum()

        return {site: self.effect(site, scalar).numpy() for site in self.sites}

    def into_unit(self, up: str, down: str, unit: int) -> Tensor:
        """Return integrated gradients of the change of a unit, with respect to the units [units] of a site before."""
        return self.effect(up, lambda: self.unit_moves(down, unit))

    def unit_moves(self, site: str, unit: int) -> Tensor:
        """Return how far a unit has moved from its clean activation in a run."""
        self.tower(self.images)
        return F.mse_loss(self.seen[site][:, unit], self.clean[site][:, unit])

    def without(self, site: str, unit: int) -> float:
        """Return by how much the mean metric falls when a unit is set to zero."""
        with torch.no_grad():
            before = self.metric()
            self.replaced[site] = self.clean[site].clone()
            self.replaced[site][:, unit] = 0
            loss = (before - self.metric()).mean()
        del self.replaced[site]
        return float(loss)


def partial_runs(name: str, n_images: int) -> pd.DataFrame:
    """Return the seconds of the plain way and of this package by kind of score, and the difference of their scores.

    The plain way scores the edges into one unit of each site; its seconds are multiplied by the number of units.
    """
    tower, images, task = random_task(name, n_images)
    with task.encoder.fast():  # as `attribute` does
        ours = timed(unit_scores, task, STUDY_RULE)
        kept = strongest_units(
            {site: abs(scores) for site, scores in ours.value.items()}, SHARE
        )
        edges = timed(edge_scores, task, kept, STUDY_RULE)
        radau_nodes = timed(unit_scores, task, parse_rule("gauss-radau-5"))
        radau_edges = timed(edge_scores, task, kept, parse_rule("gauss-radau-4"))
    runs = FullTower(tower, images, task)
    plain = timed(runs.nodes)
    plain_edges = into_one_unit(runs, kept)
    # Edges into the first kept unit of each site, as the plain way scores them.
    first = {"/".join(pair): scores[0] for pair, scores in edges.value.scores.items()}
    node_difference = worst(ours.value, plain.value)
    edge_difference = worst(first, plain_edges.value)
    table = [
        speed(name, "nodes", plain, ours, node_difference),
        speed(name, "edges", plain_edges, edges, edge_difference),
        speed(name, "nodes, gauss-radau-5", plain, radau_nodes),
        speed(name, "edges, gauss-radau-4", plain_edges, radau_edges),
    ]
    return pd.DataFrame(table, columns=COLUMNS)


def patching(name: str, n_images: int) -> pd.DataFrame:
    """Return the row of `partial_runs` for exact patching of every unit.

    The plain way patches one unit of each site; its seconds are multiplied by the number of units.
    """
    tower, images, task = random_task(name, n_images)
    exact = timed(patch_effects, task)
    plain = without_one_unit(FullTower(tower, images, task))
    # Together, since a unit that is never active has an effect of zero.
    theirs = {"all": np.array(list(plain.value.values()))}
    ours = {"all": np.array([exact.value.scores[site][0] for site in plain.value])}
    row = speed(name, "patching", plain, exact, worst(ours, theirs))
    return pd.DataFrame([row], columns=COLUMNS)


def speed(
    name: str,
    scores: str,
    plain: Timed[Any],
    ours: Timed[Any],
    difference: float = math.nan,
) -> tuple[str, str, float, float, float, float]:
    """Return a row of the table of partial runs, with `COLUMNS`."""
    ratio = plain.seconds / ours.seconds
    return name, scores, plain.seconds, ours.seconds, ratio, difference


def unit_scores(task: Task, rule: QuadratureRule) -> Scores:
    """Return the scores of the study's method."""
    return score_units(task, "site-path", AttributionSettings(rule=rule))


def edge_scores(task: Task, units: Scores, rule: QuadratureRule) -> Edges:
    """Return the scores of the edges between units of neighbouring sites."""
    return score_edges(task, units, rule=rule)


def into_one_unit(runs: FullTower, kept: Scores) -> Timed[Scores]:
    """Return scores of the edges into the first kept unit of each site, and the seconds that all edges would take."""
    rows = {}
    seconds = 0.0
    for up, down in pairwise(runs.sites):
        unit = int(kept[down][0])
        effect = timed(runs.into_unit, up, down, unit)
        # How far a unit moves is a mean over images already; an edge helps where it keeps the unit in its place.
        rows[f"{up}/{down}"] = -len(runs.images) * effect.value.numpy()[kept[up]]
        seconds += effect.seconds * len(kept[down])
    return Timed(rows, seconds)


def without_one_unit(runs: FullTower) -> Timed[dict[str, float]]:
    """Return the exact effect of the first unit of each site, and the seconds that all units would take."""
    losses = {}
    seconds = 0.0
    for site in runs.sites:
        loss = timed(runs.without, site, 0)
        losses[site] = loss.value
        seconds += loss.seconds * runs.clean[site].shape[1]
    return Timed(losses, seconds)


def worst(ours: Scores, theirs: Scores) -> float:
    """Return the largest difference of two scores over sites or pairs of sites, as a norm relative to the norm."""
    return max(
        float(np.linalg.norm(ours[key] - theirs[key]) / np.linalg.norm(theirs[key]))
        for key in theirs
    )


# How cost grows, and what the study's circuits would cost.


def growth(name: str, n_images: int) -> dict[str, pd.DataFrame]:
    """Return the tables of cost: growth with images, units and sites, rates of operations, and hours of the study."""
    _, images, task = random_task(name, n_images)
    # One point, since the cost of more is in proportion.
    rule = midpoint_rule(1)
    sites = task.encoder.sites
    rows = list[tuple[Any, ...]]()
    for n in (n_images // 4, n_images // 2, n_images):
        rows.append(("images", n, *cost(task, images[:n], rule, SHARE, sites)))
    image = images[:1]
    for share in (0.05, 0.1, 0.2):
        rows.append(("share of units", share, *cost(task, image, rule, share, sites)))
    for last in (sites[-6:], sites[-11:], sites):
        rows.append(("sites", len(last), *cost(task, image, rule, SHARE, last)))
    columns = ["images", "kept units", "sites", "node seconds", "edge seconds"]
    table = pd.DataFrame(rows, columns=["what grows", "value", *columns])
    full = table.iloc[-1]  # one image, all sites
    counted = count_operations(task.encoder, task.metric, as_studied(rule))
    rates = {
        "matrix products": matrix_rate("cpu"),
        "node": counted.nodes / full["node seconds"],
        "edge": counted.edges / full["edge seconds"],
    }
    reached = pd.Series(rates).rename_axis("what").reset_index(name="GFLOP/s")
    reached["GFLOP/s"] /= 1e9
    best = reached["GFLOP/s"].iloc[0]
    reached["share of matrix products"] = reached["GFLOP/s"] / best
    return {"growth": table, "rates": reached, "study": study_hours(task)}


def cost(
    task: Task, images: Tensor, rule: QuadratureRule, share: float, sites: Sequence[str]
) -> tuple[int, int, int, float, float]:
    """Return the number of images, kept units and sites, the seconds of node scores, and the seconds of edge scores."""
    fewer = Task(task.encoder, images, task.metric, sites=sites, work=QUIET)
    with task.encoder.fast():
        nodes = timed(unit_scores, fewer, rule)
        kept = strongest_units(nodes.value, share)
        edges = timed(edge_scores, fewer, kept, rule)
    n_kept = sum(map(len, kept.values()))
    return len(images), n_kept, len(sites), nodes.seconds, edges.seconds


def as_studied(rule: QuadratureRule) -> AttributionSettings:
    """Return the study's settings with another rule."""
    return AttributionSettings(SHARE, "same-share", rule, method="site-path")


def study_hours(task: Task) -> pd.DataFrame:
    """Return the hours that the study's circuits of one model would take on a GPU, by counted operations."""
    rows = []
    for rule in (STUDY_RULE, midpoint_rule(10)):
        counted = count_operations(task.encoder, task.metric, as_studied(rule))
        # Edges are scored of all images, and of each fold: two times in all.
        an_image = counted.nodes + 2 * counted.edges
        hours = STUDY_IMAGES * an_image / GPU_RATE / 3600
        rows.append(
            {
                "rule": rule.name,
                "images": STUDY_IMAGES,
                "TFLOP an image": an_image / 1e12,
                "TFLOP/s of a GPU": GPU_RATE / 1e12,
                "GPU hours": hours,
            }
        )
    return pd.DataFrame(rows)


# Edges of a transformer.


def edge_speed(name: str, n_images: int) -> pd.DataFrame:
    """Return the time and memory of scoring all edges between heads and MLPs.

    The time is relative to a pass: the tower forward and backward. The peak of memory is the peak of this process, with
    weights, Python and PyTorch.
    """
    tower, images, task = random_task(name, n_images)
    task = Task(task.encoder, images, task.metric, work=FEW)
    first = Task(task.encoder, images[:1], task.metric, work=FEW)
    # Weights are read once, which is not timed.
    attribute_components(first)
    before = peak_memory_gib()
    pixels = images.clone().requires_grad_()

    def one_pass() -> object:
        return torch.autograd.grad(task.metric(tower(pixels)).sum(), pixels)

    pass_seconds = median_seconds(one_pass)
    plain = median_seconds(lambda: attribute_components(task))
    peak = peak_memory_gib()
    integrated = median_seconds(lambda: attribute_components(task, rule=PATH))
    row = {
        "model": name,
        "edges": attribute_components(first, ports=True).edges.count,
        "pass s": pass_seconds,
        "scores / pass": plain / pass_seconds,
        "5 points / scores": integrated / plain,
        "peak GiB before": before,
        "peak GiB": peak,
        "cores": torch.get_num_threads(),
    }
    return pd.DataFrame([row])


def median_seconds(run: Callable[[], object]) -> float:
    """Return the median time of three calls."""
    return median(timed(run).seconds for _ in range(3))


# Similarity of many circuits.

UNITS = {"input": 3, "act1": 32, "act2": 32, "act3": 64, "avgpool": 64}
for _stage, _blocks in enumerate((3, 4, 6, 3), start=1):
    UNITS |= {f"layer{_stage}.{i}": 128 * 2**_stage for i in range(_blocks)}
UNITS |= {"attnpool": 1024}
"""Units of RN50 by site."""
DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")


def similarity(out: Path, n_classes: int) -> pd.DataFrame:
    """Return the time and memory of comparing random circuits of the size of RN50 by five measures in one pass."""
    folder = out / f"{n_classes}-classes"
    if not (folder / "manifest.json").is_file():
        write_graphs(folder, n_classes)
    measures = [Measure("node_overlap"), Measure("edge_jaccard")]
    measures += [Measure("wl_kernel", depth) for depth in (1, 2, 3)]
    compared = timed(lambda: compare_domains(GraphFolder(folder), measures=measures))
    comparison = compared.value["edge_jaccard"]
    row = {
        "pairs": len(comparison.values) + len(comparison.folds),
        "measures": len(measures),
        "seconds": compared.seconds,
        "peak GiB": peak_memory_gib(),
    }
    return pd.DataFrame([row])


def write_graphs(folder: Path, n_classes: int) -> None:
    """Write random graphs, whole and of folds. The scores of a class have half of their variance in common."""
    rng = np.random.default_rng(0)
    inner = [site for site in UNITS if site != "input"]
    keys = []
    for i in range(n_classes):
        shared = {site: rng.normal(size=n) for site, n in UNITS.items()}
        for domain in DOMAINS:
            keys.append((f"class-{i}", domain))
            for fold in (WHOLE, *range(DEFAULT_FOLDS)):
                scores = {}
                for site, of_class in shared.items():
                    scores[site] = of_class + rng.normal(size=len(of_class))
                kept = strongest_units(scores, SHARE)
                edges = {}
                for up, down in pairwise(inner):
                    edges[up, down] = rng.normal(size=(len(kept[down]), len(kept[up])))
                graph = AttributionGraph(
                    sites=tuple(UNITS),
                    node_scores=scores,
                    completeness={},
                    n_images=50,
                    class_name=f"class-{i}",
                    domain=domain,
                    kept_units=kept,
                    edge_scores=edges,
                )
                graph.save(graph_file(folder, f"class-{i}", domain, fold))
    made_with = {"n_folds": DEFAULT_FOLDS, "model": "random", "seed": 0}
    claim(folder, EXTRACTION_FORMAT, made_with, jobs=keys)


# Threads beside busy processes.

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
A_PROCESS_A_CORE = "a process a core, one thread each"
WAYS: dict[str, dict[str, str]] = {
    # The default of GNU's OpenMP, and so of PyTorch.
    "threads that spin": {"GOMP_SPINCOUNT": "300000"},
    "threads that wait passively": {"GOMP_SPINCOUNT": "0"},
    # As scripts of this package set them.
    "threads that wait briefly": short_waits({}),
    "one thread": ONE_THREAD,
    A_PROCESS_A_CORE: ONE_THREAD,
}
"""Environment variables by how a machine's cores are used."""
BUSY_PROCESSES = 2
CIRCUITS = """
import sys
from circuitry import attribute
from experiments.speed_of_circuits import median_seconds, random_task

_, images, task = random_task(sys.argv[1], int(sys.argv[2]))
options = {"method": "site-path", "budget": "same-share", "progress": False}
print(median_seconds(lambda: attribute(task.encoder, images, task.metric, **options)))
"""


def threads(name: str, n_images: int) -> pd.DataFrame:
    """Return the seconds that a circuit takes by how threads wait, on a quiet machine and beside busy processes."""
    rows = []
    for way in WAYS:
        quiet = seconds_a_circuit(way, name, n_images)
        with busy_processes():
            busy = seconds_a_circuit(way, name, n_images)
        rows.append((name, n_images, way, quiet, busy))
    columns = ["model", "images", "way", "seconds, quiet", "seconds, 2 busy"]
    return pd.DataFrame(rows, columns=columns)


def seconds_a_circuit(way: str, name: str, n_images: int) -> float:
    """Return the seconds that one more circuit takes. If n processes run, it is an n-th of the slowest one's time.

    Each measurement is a process of its own, since OpenMP reads its settings once.
    """
    cores = len(os.sched_getaffinity(0))
    n_processes = cores if way == A_PROCESS_A_CORE else 1
    set_here = {*short_waits({}), *ONE_THREAD}
    environment = {key: said for key, said in os.environ.items() if key not in set_here}
    command = [sys.executable, "-c", CIRCUITS, name, str(n_images)]
    running = []
    for _ in range(n_processes):
        process = subprocess.Popen(
            command,
            env=environment | WAYS[way],
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
    return max(float(process.communicate()[0]) for process in running) / n_processes


@contextmanager
def busy_processes() -> Iterator[None]:
    """Keep two cores busy within the block."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command) for _ in range(BUSY_PROCESSES)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


if __name__ == "__main__":
    run_script(Config, main, __doc__)
