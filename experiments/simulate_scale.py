"""What does ``circuitry own-parts`` cost beside the tower, at the size of DomainNet?

The script makes small pictures of many classes in several domains, and a tower that has as many units as CLIP's RN50
and takes little time. Several processes then run the command together, as the ranks of torchrun do. So the time, memory
and files are nearly those of the package alone. With ``--kill-after`` all processes are killed in the middle of the
work, and started again.

    python experiments/simulate_scale.py --classes 20 --domains 3
    python experiments/simulate_scale.py --classes 345 --domains 6 --kill-after 1200
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from circuitry.runs import InputError, run_script
from circuitry.encoder import Encoder
from circuitry.models import Clip, from_encoder
from circuitry.runs.arguments import Count, Natural
from circuitry.runs.errors import name_some

import numpy as np
import torch
from PIL.Image import Image, fromarray
from torch import Tensor, nn

N_SITES = 12
WIDTH = 1892
"""Units of a site. All sites together have as many units as those of RN50."""
SIZE = 8
"""Height and width of a picture."""
NOISE = 12
"""Standard deviation of the noise of an image, of 256 levels."""
N_CLASSES = "SIMULATED_CLASSES"
"""Environment variable that tells the processes the number of classes."""


@dataclass(frozen=True)
class Config:
    """Size of the simulation."""

    out: Path = Path("runs/scale")
    """Folder of the pictures and results."""
    classes: Count = 20
    """Number of classes."""
    domains: Count = 3
    """Number of domains."""
    images: Count = 12
    """Number of pictures of each class in each domain."""
    workers: Count = 2
    """Number of processes."""
    kill_after: Natural = 0
    """Kill all processes after so many seconds, and start them again; 0 for never."""


class Mixing(nn.Module):
    """A stage of the tower in which each unit reads two units of the stage before."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Parameter(1 + 0.1 * torch.randn(WIDTH))
        self.beside = nn.Parameter(0.3 * torch.randn(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.own * x + self.beside * x.roll(1, -1)
        return torch.where(mixed > 0, mixed, 0.5 * mixed)


def class_name(label: int) -> str:
    """Return the name of a class."""
    return f"class{label:03}"


def typical_pictures(n_classes: int) -> np.ndarray:
    """Return the typical picture of each class [classes, height, width, 3]."""
    rng = np.random.default_rng(0)
    return rng.uniform(40, 215, (n_classes, SIZE, SIZE, 3))


def prepared(picture: Image) -> Tensor:
    """Return a picture as a tensor [3, height, width] with values around 0."""
    pixels = torch.from_numpy(np.array(picture, np.float32))
    return pixels.permute(2, 0, 1) / 128 - 1


def make_model() -> Clip:
    """Return the model: a random tower, and the embedding of each class's typical picture as its row."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, WIDTH))
    last = nn.Linear(WIDTH, 128, bias=False)
    tower = nn.Sequential(first, *(Mixing() for _ in range(N_SITES - 1)), last).eval()
    links = [str(i) for i in range(len(tower))]
    encoder = Encoder.from_stages(tower, links, (SIZE, SIZE), unit_dim=-1)
    pictures = typical_pictures(int(os.environ[N_CLASSES])).astype(np.uint8)
    with torch.no_grad():
        rows = tower(torch.stack([prepared(fromarray(one)) for one in pictures]))
    named = {class_name(label): row for label, row in enumerate(rows)}
    return from_encoder(encoder, prepared, named, name="simulated")


def write_pictures(folder: Path, config: Config) -> None:
    """Write noisy pictures of each class in each domain. A domain shifts all of its pictures."""
    rng = np.random.default_rng(1)
    for domain in range(config.domains):
        shift = rng.normal(0, NOISE, (SIZE, SIZE, 3))
        for label, typical in enumerate(typical_pictures(config.classes)):
            place = folder / f"domain{domain}" / class_name(label)
            place.mkdir(parents=True, exist_ok=True)
            for i in range(config.images):
                noise = rng.normal(0, NOISE, typical.shape)
                pixels = (typical + shift + noise).clip(0, 255).astype(np.uint8)
                fromarray(pixels).save(place / f"{i}.png")


def start(config: Config) -> list[subprocess.Popen[bytes]]:
    """Start the processes that share the work."""
    command = [sys.executable, "-m", "circuitry", "own-parts"]
    command += ["--model", f"{Path(__file__).resolve()}:make_model", "--no-progress"]
    command += [
        "--data",
        str(config.out / "pictures"),
        "--out",
        str(config.out / "run"),
    ]
    processes = list[subprocess.Popen[bytes]]()
    for worker in range(config.workers):
        rank = {"RANK": str(worker), "WORLD_SIZE": str(config.workers)}
        threads = {"OMP_NUM_THREADS": "1", N_CLASSES: str(config.classes)}
        environment = {**os.environ, **rank, **threads}
        with log_of(worker, config).open("ab") as log:
            processes.append(
                subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            )
    return processes


def log_of(worker: int, config: Config) -> Path:
    """Return the path of the log of a process."""
    return config.out / f"worker-{worker}.log"


def wait(processes: Sequence[subprocess.Popen[bytes]]) -> dict[int, str]:
    """Wait for the processes, and print how each of them ended, its time and its memory.

    Returns:
        For each process that failed, how it ended.
    """
    failed = dict[int, str]()
    for worker, process in enumerate(processes):
        # `Popen.wait` does not tell what a process used.
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        ended = f"exit code {process.returncode}"
        if process.returncode < 0:
            ended = f"killed by {signal.Signals(-process.returncode).name}"
        if process.returncode != 0:
            failed[worker] = ended
        print(
            f"worker {worker}: {ended}, {used.ru_utime + used.ru_stime:.0f} s of processor, "
            f"{used.ru_maxrss / 2**20:.2f} GiB"
        )
    return failed


def main(config: Config) -> None:
    """Make the pictures, run the command, and print what it needed."""
    write_pictures(config.out / "pictures", config)
    began = time.time()
    processes = start(config)
    if config.kill_after:
        time.sleep(config.kill_after)
        for process in processes:
            # `Popen.kill` would take the exit code of a process that has ended, which `wait` needs.
            os.kill(process.pid, signal.SIGKILL)
        wait(processes)
        print(f"killed after {time.time() - began:.0f} s, and started again")
        processes = start(config)
    failed = wait(processes)
    if failed:
        workers = [
            f"worker {worker} ({ended}, see {log_of(worker, config)})"
            for worker, ended in failed.items()
        ]
        raise InputError(
            f"{len(failed)} of {config.workers} failed: {name_some(workers)}. Run again: what is finished stays."
        )
    files = [path for path in (config.out / "run").rglob("*") if path.is_file()]
    n_bytes = sum(path.stat().st_size for path in files)
    print(f"{time.time() - began:.0f} s, {len(files)} files, {n_bytes / 1e6:.0f} MB")


if __name__ == "__main__":
    run_script(Config, main, __doc__)
