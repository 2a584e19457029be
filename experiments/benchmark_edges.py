"""How long do all edges between heads and MLPs take, and how much memory? As ratios in one run, on random weights.

A pass is a forward and backward run of the plain tower on the same images. Each model is measured in a process of its
own, so that its peak of memory is its own; the peak covers the weights, Python and PyTorch. The numbers of arXiv
2310.10348's method (two forward passes and a backward one) are refuted by a ratio far above 4.

    python experiments/benchmark_edges.py
    python experiments/benchmark_edges.py --models ViT-L-14 --images 8
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import open_clip
import pandas as pd
import torch
from torch import Tensor, nn

from circuitry import Encoder
from circuitry.circuits import midpoint_rule, score_edges
from circuitry.circuits.residual_edges import PLAIN
from circuitry.models import ResidualStream
from circuitry.runs.command_line import run_script
from circuitry.runs.workers import Work


@dataclass(frozen=True)
class Config:
    """Settings of the benchmark."""

    models: tuple[str, ...] = ("ViT-B-32",)
    """Vision transformers, by their names in open_clip."""
    images: int = 8
    """Images in the batch."""
    points: int = 5
    """Points of the integrated scores."""
    memory_gib: float = 0.45
    """Budget of the scores."""
    repeats: int = 3
    """Measurements, of which the median counts."""


def main(config: Config) -> None:
    """Measure each model and print the table."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows = [pool.apply(measure, (name, config)) for name in config.models]
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.2f}".format))


def measure(name: str, config: Config) -> dict[str, object]:
    """Return seconds, ratios and memory of one model."""
    tower = open_clip.create_model(name).visual.eval().requires_grad_(False)
    stream = ResidualStream.of(Encoder.from_tower(tower))
    torch.manual_seed(0)
    images = torch.randn(config.images, 3, *stream.encoder.image_size)
    work = Work(memory_gib=config.memory_gib, progress=False)
    score_edges(stream, images[:1], metric, work=work)  # weights are taken apart once
    start = peak_gib()
    one_pass = seconds(lambda: plain_pass(tower, images), config.repeats)
    plain = seconds(lambda: score_edges(stream, images, metric, rule=PLAIN, work=work), config.repeats)
    peak = peak_gib()
    rule = midpoint_rule(config.points)
    integrated = seconds(lambda: score_edges(stream, images, metric, rule=rule, work=work), config.repeats)
    return {
        "model": name,
        "edges": int(stream.edges.sum()),
        "pass s": one_pass,
        "scores / pass": plain / one_pass,
        f"{config.points} points / scores": integrated / plain,
        "peak GiB before": start,
        "peak GiB": peak,
        "cores": torch.get_num_threads(),
    }


def metric(embedding: Tensor) -> Tensor:
    """Return one number per image."""
    return embedding[:, 0]


def plain_pass(tower: nn.Module, images: Tensor) -> None:
    """Run the tower forward and backward."""
    x = images.clone().requires_grad_()
    torch.autograd.grad(metric(tower(x)).sum(), x)


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Return the median time of a run."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return median(times)


def peak_gib() -> float:
    """Return the largest memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


if __name__ == "__main__":
    run_script(Config, main, __doc__)
