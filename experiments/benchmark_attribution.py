"""How much faster is this package's attribution than running the whole tower every time, at equal scores?

The baseline is the plain way: integrated gradients by hooks, one full forward and backward pass of the tower
per point of the path, per site (nodes) and per kept unit (edges); edge times are extrapolated from a few
units per pair of sites. Both do the study's setting on the same inputs in the same process; this package also rules
of fewer points, and conductance, whose scores are others (a row sets its seconds against those of this package's
study setting). Exact patching of every unit at every site is set against one run of the whole tower per unit,
in the same way. Refuted if the scores differ by more than 1e-4 or the ratios fall short of those in the README.

With --scale instead: how the cost grows with images, kept units and sites; which fraction of this machine's
matrix-product rate the edge pass reaches; and, by counted operations, how long the study's full setting takes on GPUs.

    python experiments/benchmark_attribution.py            # RN50 at 224 px and the tiny model
    python experiments/benchmark_attribution.py --scale
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

from circuitry.runs import Work, run_script
from circuitry import Encoder, Task, class_logit
from circuitry.circuits import (
    AttributionSettings,
    count_operations,
    parse_rule,
    score_units,
)
from circuitry.circuits.budgets import strongest_units
from circuitry.circuits.chain_edges import chain_edges
from circuitry.circuits.circuit_settings import DEFAULT_RULE, STUDY_RULE
from circuitry.circuits.nodes import part_effects
from circuitry.gates import patch_effects
from circuitry.models.open_clip_models import register_model
from circuitry.reports.result_tables import KeepSettings

import open_clip
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Scores = dict[str, Tensor]
EdgeRows = dict[tuple[str, str], Tensor]
POINTS = len(STUDY_RULE.points)
STUDY_CLASSES, STUDY_DOMAINS, STUDY_IMAGES = 345, 6, 50
"""The study's full setting: images of each class in each domain of DomainNet."""
AS_STUDIED: dict[str, Any] = {"method": "site-path", "budget": "same-share"}
"""How the study ranks and keeps units."""
NODE_RULE, EDGE_RULE = "gauss-radau-5", "gauss-radau-4"
"""Other rules to be timed; what they leave of error is what benchmark_rules.py says of a model."""
SWEEP_MODEL, SWEEP_IMAGES = "rn-tiny", 16
"""Whose every unit is patched."""
GPU_RATE = 0.4 * 19.5e12
"""Operations a second of a GPU, for the estimate: an A100's single-precision peak without tensor cores is assumed to be
reached to 40 %, which was not measured."""


@dataclass(frozen=True)
class Config(KeepSettings):
    """Settings of the benchmark."""

    models: tuple[str, ...] = ("RN50", "rn-tiny")
    """ResNets of open_clip or of this package; random weights."""
    images: int = 2
    """Images per model."""
    units_per_pair: int = 2
    """Downstream units per pair of sites (units per site for patching) that the baseline really computes."""
    scale: bool = False
    """Measure how the cost of the first model grows, and estimate the study's full setting, instead."""


class FullTower:
    """The baseline: every gradient by a run of the whole tower, with the activation at one site replaced."""

    def __init__(
        self, tower: nn.Module, sites: tuple[str, ...], images: Tensor
    ) -> None:
        self.tower, self.images = tower, images
        self.replaced: dict[str, Tensor] = {}
        self.seen: Scores = {}
        for site in sites[1:]:  # the first is the image
            tower.get_submodule(site).register_forward_hook(self._writer(site))
        with torch.no_grad():
            self.embedding = self.run()
        self.clean = {"input": images} | {
            site: activation.detach() for site, activation in self.seen.items()
        }

    def run(self) -> Tensor:
        """Return the embeddings, with what is replaced."""
        embedding: Tensor = self.tower(self.replaced.get("input", self.images))
        return embedding

    def _writer(
        self, site: str
    ) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
        def write(_: nn.Module, __: tuple[Tensor], output: Tensor) -> Tensor:
            self.seen[site] = self.replaced.get(site, output)
            return self.seen[site]

        return write

    def effect(self, site: str, scalar: Callable[[Tensor], Tensor]) -> Tensor:
        """Integrated gradients of a scalar along the path from clean to zero at a site: mean change [units]."""
        a = self.clean[site]
        total = torch.zeros_like(a)
        for k in range(POINTS):
            self.replaced[site] = ((1 - k / POINTS) * a).requires_grad_()
            total += torch.autograd.grad(scalar(self.run()), self.replaced[site])[0]
        del self.replaced[site]
        effect = total / POINTS * -a
        return (effect.flatten(2).sum(2) if effect.dim() > 2 else effect).mean(0)

    def without(
        self, site: str, unit: int, metric: Callable[[Tensor], Tensor]
    ) -> float:
        """Exact effect on the mean metric of putting a unit to zero."""
        self.replaced[site] = self.clean[site].clone()
        self.replaced[site][:, unit] = 0
        with torch.no_grad():
            effect = (metric(self.embedding) - metric(self.run())).mean()
        del self.replaced[site]
        return float(effect)

    def gap(self, site: str, unit: int, _: Tensor) -> Tensor:
        """How far a unit has moved from its clean activation."""
        return F.mse_loss(self.seen[site][:, unit], self.clean[site][:, unit])


def baseline(
    tower: nn.Module,
    sites: tuple[str, ...],
    images: Tensor,
    weights: Tensor,
    units_per_pair: int,
) -> tuple[Scores, EdgeRows, float, float]:
    """Return node scores, the computed rows of the edge scores, seconds for nodes and for all edges."""
    runs = FullTower(tower, sites, images)
    started = time.perf_counter()
    nodes = {
        site: -runs.effect(site, lambda e: (F.normalize(e) @ weights[0]).sum())
        for site in sites
    }
    node_seconds, edge_seconds = time.perf_counter() - started, 0.0
    kept = {
        site: v.abs().topk(math.ceil(0.1 * len(v))).indices for site, v in nodes.items()
    }
    edges: EdgeRows = {}
    for up, down in pairwise(sites[1:]):
        units = kept[down][:units_per_pair]
        started = time.perf_counter()
        rows = [runs.effect(up, partial(runs.gap, down, int(unit))) for unit in units]
        edge_seconds += (time.perf_counter() - started) * len(kept[down]) / len(units)
        edges[up, down] = (
            len(images) * torch.stack(rows)[:, kept[up]]
        )  # the gap is a mean over images already
    return nodes, edges, node_seconds, edge_seconds


def timed(
    encoder: Encoder,
    images: Tensor,
    weights: Tensor,
    settings: AttributionSettings,
    sites: Sequence[str] | None = None,
) -> tuple[Scores, EdgeRows, float, float]:
    """Return this package's node scores, scores of all edges between kept units, and the seconds that each took."""
    task = Task(
        encoder, images, class_logit(weights, 0), sites=sites, work=Work(progress=False)
    )
    with task.running(gradients=True):
        started = time.perf_counter()
        nodes = part_effects(task, settings.node_rule)[0]
        node_seconds = time.perf_counter() - started
        kept = strongest_units(nodes.scores, settings.size or 0.1)
        started = time.perf_counter()
        edges = chain_edges(task, kept, settings.resolved_edge_rule)
        edge_seconds = time.perf_counter() - started
    node_scores = {site: torch.from_numpy(v) for site, v in nodes.scores.items()}
    return (
        node_scores,
        {pair: torch.from_numpy(v) for pair, v in edges.items()},
        node_seconds,
        edge_seconds,
    )


def _prepared(name: str, n_images: int) -> tuple[nn.Module, Encoder, Tensor, Tensor]:
    """Return tower, encoder, images and text weights, all random, after a first run."""
    torch.manual_seed(0)
    tower = (
        open_clip.create_model(register_model(name)).visual.eval().requires_grad_(False)
    )
    _randomise_norms(tower)
    encoder = Encoder.from_tower(tower)
    images = torch.randn(n_images, 3, *encoder.image_size)
    weights = F.normalize(torch.randn(10, tower.output_dim), dim=-1)
    with torch.no_grad():
        tower(images)
    return tower, encoder, images, weights


def run(config: Config) -> pd.DataFrame:
    """Time both ways for every model and return one row per model and kind of score."""
    table = []
    for name in config.models:
        tower, encoder, images, weights = _prepared(name, config.images)
        with encoder.fast():  # as `attribute` does
            study = AttributionSettings(rule=STUDY_RULE)
            nodes, edges, node_seconds, edge_seconds = timed(
                encoder, images, weights, study
            )
            better = AttributionSettings(
                rule=parse_rule(NODE_RULE), edge_rule=parse_rule(EDGE_RULE)
            )
            *_, better_nodes, better_edges = timed(encoder, images, weights, better)
            started = time.perf_counter()
            score_units(
                Task(
                    encoder, images, class_logit(weights, 0), work=Work(progress=False)
                ),
                "conductance",
            )
            by_conductance = time.perf_counter() - started
        naive_nodes, naive_edges, naive_node_seconds, naive_edge_seconds = baseline(
            tower, encoder.sites, images, weights, config.units_per_pair
        )
        first_rows = {
            pair: scores[: config.units_per_pair] for pair, scores in edges.items()
        }
        for what, slow, fast, error in (
            ("nodes", naive_node_seconds, node_seconds, _worst(nodes, naive_nodes)),
            (
                "edges",
                naive_edge_seconds,
                edge_seconds,
                _worst(first_rows, naive_edges),
            ),
            (f"nodes, {NODE_RULE}", naive_node_seconds, better_nodes, math.nan),
            (f"edges, {EDGE_RULE}", naive_edge_seconds, better_edges, math.nan),
            (
                "nodes, conductance against study",
                node_seconds,
                by_conductance,
                math.nan,
            ),
        ):
            table.append((name, what, slow, fast, slow / fast, error))
    table.append(sweep(config.units_per_pair))
    columns = [
        "model",
        "scores",
        "full-tower seconds",
        "circuitry seconds",
        "ratio",
        "largest relative difference",
    ]
    return pd.DataFrame(table, columns=columns)


def sweep(units_per_site: int) -> tuple[str, str, float, float, float, float]:
    """Time exact patching of every unit both ways and return its row."""
    tower, encoder, images, weights = _prepared(SWEEP_MODEL, SWEEP_IMAGES)
    metric = class_logit(weights, 0)
    started = time.perf_counter()
    exact = patch_effects(Task(encoder, images, metric, work=Work(progress=False)))
    fast, slow = time.perf_counter() - started, 0.0
    runs, mine, theirs = (
        FullTower(tower, encoder.sites, images),
        list[float](),
        list[float](),
    )
    for site, activation in runs.clean.items():
        n = activation.shape[1]
        units = range(0, n, max(1, n // units_per_site))[:units_per_site]
        started = time.perf_counter()
        theirs += [runs.without(site, unit, metric) for unit in units]
        slow += (time.perf_counter() - started) * n / len(units)
        mine += [float(exact.scores[site][unit]) for unit in units]
    both = (torch.tensor(effects, dtype=torch.double) for effects in (mine, theirs))
    return (
        SWEEP_MODEL,
        "patching",
        slow,
        fast,
        slow / fast,
        _worst(*({"all": effects} for effects in both)),
    )


def cost_table(encoder: Encoder, images: Tensor, weights: Tensor) -> pd.DataFrame:
    """Return seconds with one point per rule, for growing numbers of images, kept units and sites."""
    one = parse_rule("midpoint-1")
    every, n = encoder.sites, len(images)
    settings: list[tuple[str, float, int, float, tuple[str, ...]]]
    settings = [("images", k, k, 0.1, every) for k in (n // 4, n // 2, n)]
    settings += [
        ("share of units", fraction, 1, fraction, every)
        for fraction in (0.05, 0.1, 0.2)
    ]
    settings += [
        ("sites", len(sites), 1, 0.1, sites)
        for sites in (every[-6:], every[-11:], every)
    ]
    rows = []
    for what, value, k, fraction, sites in settings:
        chosen = AttributionSettings(size=fraction, rule=one)
        nodes, _, node_seconds, edge_seconds = timed(
            encoder, images[:k], weights, chosen, sites
        )
        kept = sum(math.ceil(fraction * len(v)) for v in nodes.values())
        rows.append((what, value, k, kept, len(sites), node_seconds, edge_seconds))
    counts = ["images", "kept units", "sites"]
    return pd.DataFrame(
        rows, columns=["what grows", "value", *counts, "node seconds", "edge seconds"]
    )


def scale_tables(config: Config) -> dict[str, pd.DataFrame]:
    """Return how the cost grows, how much of the machine is used, and what the study's full setting would take."""
    _, encoder, images, weights = _prepared(config.models[0], max(4, config.images))
    rate = matrix_product_rate()
    with encoder.fast():
        growth = cost_table(encoder, images, weights)
    metric, whole = class_logit(weights, 0), growth.iloc[-1]  # one image, all sites
    single = AttributionSettings(
        0.1, "same-share", parse_rule("midpoint-1"), method="site-path"
    )
    once = count_operations(encoder, metric, single)
    reached = [
        ("matrix products", rate),
        *(
            (k, getattr(once, f"{k}s") / whole[f"{k} seconds"])
            for k in ("node", "edge")
        ),
    ]
    rates = [(what, reach / 1e9, reach / rate) for what, reach in reached]
    hours, n_images = [], STUDY_CLASSES * STUDY_DOMAINS * STUDY_IMAGES
    for rule in (STUDY_RULE, DEFAULT_RULE):
        nodes, edges = count_operations(encoder, metric, replace(single, rule=rule))
        total = nodes + 2 * edges  # edges of all images, and of all parts
        hours.append(
            (
                rule.name,
                n_images,
                total / 1e12,
                GPU_RATE / 1e12,
                n_images * total / GPU_RATE / 3600,
            )
        )
    return {
        "growth": growth,
        "rates": pd.DataFrame(
            rates, columns=["what", "GFLOP/s", "share of matrix products"]
        ),
        "study": pd.DataFrame(
            hours,
            columns=[
                "rule",
                "images",
                "TFLOP an image",
                "TFLOP/s of a GPU",
                "GPU hours",
            ],
        ),
    }


def _randomise_norms(tower: nn.Module) -> None:
    """Give batch norms random statistics and scales: open_clip starts the last of each block at zero."""
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_mean = 0.1 * torch.randn(module.num_features)


def _worst(mine: dict[Any, Tensor], theirs: dict[Any, Tensor]) -> float:
    """Return the largest norm of a difference relative to the norm, over sites or pairs of sites."""
    return max(
        float((mine[key] - theirs[key]).norm() / theirs[key].norm()) for key in theirs
    )


def main(config: Config) -> None:
    """Run the benchmark and print its tables."""
    tables = scale_tables(config) if config.scale else {"speed": run(config)}
    config.keep(tables, threads=torch.get_num_threads())


def matrix_product_rate(size: int = 2048, seconds: float = 2.0) -> float:
    """Return the floating-point operations per second that single-precision matrix products reach, at their best.

    Times a large product, as such and as a convolution with 1x1 kernels, which PyTorch computes by other code.
    """
    a, b = (torch.randn(size, size) for _ in range(2))
    image, kernels = b.view(1, size, size, 1), a.view(size, size, 1, 1)
    products: tuple[Callable[[], Tensor], ...] = (
        lambda: a @ b,
        lambda: F.conv2d(image, kernels),
    )
    best = float("inf")
    for product in products:
        deadline, once = time.perf_counter() + seconds / 2, False
        while time.perf_counter() < deadline or not once:
            started, once = time.perf_counter(), True
            product().flatten()[
                0
            ].item()  # reading one number waits for a GPU to finish
            best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


if __name__ == "__main__":
    run_script(Config, main, __doc__)
