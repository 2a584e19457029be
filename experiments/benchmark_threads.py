"""How fast is attribution on a quiet machine and beside busy processes, by how its threads wait for each other?

Threads that spin while they wait (GNU OpenMP's default, so PyTorch's on Linux) hold a core that another program could
use; the scripts of this package let them wait briefly (`runs.short_waits`), and share small jobs out to one process a
core with one thread each. Refuted if that is slower than spinning on a quiet machine by more
than a tenth for the large models, or if any way of the package's is slower beside busy processes.

Ways take turns, quiet and busy, and every measurement is a process of its own: OpenMP reads its settings once.

    python experiments/benchmark_threads.py
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from circuitry.runs import run_script, short_waits
from circuitry.reports.result_tables import KeepSettings

import pandas as pd

BUSY = "while True: pass"
TIMED = """
import sys
import time
import open_clip
import torch
from circuitry import Encoder, attribute, class_logit
from circuitry.models.open_clip_models import register_model

model, n_images, repeats = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.manual_seed(0)
encoder = Encoder.from_tower(open_clip.create_model(register_model(model)).visual.eval())
images = torch.randn(n_images, 3, *encoder.image_size)
metric = class_logit(torch.randn(10, encoder(images[:1]).shape[1]), 0)
seconds = []
for _ in range(repeats):
    started = time.perf_counter()
    attribute(encoder, images, metric, method="site-path", budget="same-share", progress=False)
    seconds.append(time.perf_counter() - started)
print(sorted(seconds)[repeats // 2])
"""


IMAGES = {"rn-tiny": 14, "RN50": 1, "ViT-B-32": 1}
"""Images that a circuit is found on, by model."""
BUSY_PROCESSES = 2
"""Processes that keep cores busy beside the benchmark."""
REPEATS = 3
"""Circuits in a measurement, which is their median."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
WAYS: dict[str, Mapping[str, str]] = {
    "threads that spin": {"GOMP_SPINCOUNT": "300000"},  # GNU's default
    "threads that wait passively": {"GOMP_SPINCOUNT": "0"},
    "threads that wait briefly": short_waits({}),
    "one thread": ONE_THREAD,
    "a process a core, one thread each": ONE_THREAD,
}
"""Environments by how a machine's cores are used."""


@dataclass(frozen=True)
class Config(KeepSettings):
    """Settings of the benchmark."""

    models: tuple[str, ...] = tuple(IMAGES)
    """Models of open_clip or of this package; random weights."""
    rounds: int = 3
    """How often every way is measured, quiet and busy in turn."""


def seconds_a_circuit(way: str, model: str) -> float:
    """Return the seconds by which a circuit more takes longer: of n processes at once, an n-th of the slowest's."""
    n_processes = (
        len(os.sched_getaffinity(0)) if way.startswith("a process a core") else 1
    )
    ours = {
        name: value
        for name, value in os.environ.items()
        if name not in {*short_waits({}), *ONE_THREAD}
    }
    command = [sys.executable, "-c", TIMED, model, str(IMAGES[model]), str(REPEATS)]
    running = [
        subprocess.Popen(
            command, env={**ours, **WAYS[way]}, stdout=subprocess.PIPE, text=True
        )
        for _ in range(n_processes)
    ]
    printed = [process.communicate()[0] for process in running]
    return max(map(float, printed)) / n_processes


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Keep so many cores busy meanwhile."""
    running = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(number)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def main(config: Config) -> None:
    """Print the median seconds a circuit of every model and way, quiet and beside busy processes."""
    rows = []
    for model in config.models:
        found: dict[tuple[str, int], list[float]] = {
            (way, busy): [] for way in WAYS for busy in (0, BUSY_PROCESSES)
        }
        for _ in range(config.rounds):
            for (way, busy), seconds in found.items():
                with busy_processes(busy):
                    seconds.append(seconds_a_circuit(way, model))
        times = {key: median(seconds) for key, seconds in found.items()}
        rows += [
            (model, IMAGES[model], way, times[way, 0], times[way, BUSY_PROCESSES])
            for way in WAYS
        ]
    table = pd.DataFrame(
        rows,
        columns=[
            "model",
            "images",
            "way",
            "seconds, quiet",
            f"seconds, {BUSY_PROCESSES} busy",
        ],
    )
    config.keep({"threads": table}, cores=len(os.sched_getaffinity(0)))


if __name__ == "__main__":
    run_script(Config, main, __doc__)
