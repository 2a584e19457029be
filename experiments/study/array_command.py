"""Run the lines of a block of the plan as an array of jobs: each line is a job, and only some run at the same time.

The program waits for all jobs. If some fail, the others go on, and at the end the program says where the logs are; call
it again then. Lines that are finished find their results, and do no work twice. Lines that you delete from the file are
left out.

    python -m experiments.study array study.sh mixtures --cluster local --at-once 2
    python -m experiments.study array study.sh models-on-4-gpus --at-once 20 \\
        --job-options slurm_partition=gpu gpus_per_node=4 cpus_per_task=36
"""

import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from circuitry.runs import Count, InputError, job_options, one_of, run_array
from circuitry.data import chosen_names

from tyro.conf import Positional


@dataclass(frozen=True)
class Config:
    """Settings of an array of jobs."""

    plan: Positional[Path]
    """File of the lines that the program plan printed."""
    block: Positional[str]
    """Title of the block."""
    at_once: Count = 20
    """Number of jobs that run at the same time; the others wait."""
    cluster: Annotated[str, one_of("slurm", "local")] = "slurm"
    """Where jobs run: slurm for a cluster, local for processes on this machine (needs submitit)."""
    job_options: tuple[str, ...] = ()
    """submitit's parameters of each job as name=value: slurm_partition=gpu gpus_per_node=4 cpus_per_task=36."""
    logs: Path = Path("runs/study/jobs")
    """Folder of the logs."""


def main(config: Config) -> None:
    """Run the lines of the block, and wait for them."""
    blocks = lines_of_blocks(config.plan)
    chosen_names("block", [config.block], list(blocks))
    lines = blocks[config.block]
    run_array(
        partial(run_line, lines),
        len(lines),
        config.logs / config.block,
        cluster=config.cluster,
        at_once=config.at_once,
        options=job_options(config.job_options),
    )
    print(f"{config.block}: {len(lines)} lines are done")


def lines_of_blocks(plan: Path) -> dict[str, list[str]]:
    """Return a dictionary from the title of each block in a file to its lines, without comments and empty blocks."""
    try:
        text = plan.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"The lines of the plan cannot be read ({error}): print them with the program plan."
        ) from error
    blocks: dict[str, list[str]] = {}
    title = ""
    for line in text.splitlines():
        if line.startswith("## "):
            title = line.removeprefix("## ").partition(":")[0]
        elif line and not line.startswith("#"):
            blocks.setdefault(title, []).append(line)
    return blocks


def run_line(lines: list[str], worker: int, workers: int) -> None:
    """Run the line of a worker in a shell.

    Args:
        worker: Number of the line.
        workers: Number of all lines; `run_array` passes it to every job.
    """
    done = subprocess.run(["bash", "-c", lines[worker]], check=False)
    if done.returncode:
        raise InputError(f"It ended with {done.returncode}: {lines[worker]}")
