"""Share out one list of jobs among several processes.

These are processes on this machine, the ranks of torchrun, or an array of jobs that submitit starts (SLURM).

Small jobs are fastest with one process for each core and one thread in each process, as in the quickstart. By default,
threads of PyTorch spin while they wait for each other. If other programs use the same cores, this slows everything
down; `short_waits` makes the threads spin only briefly. ``experiments/speed_of_circuits.py --of threads`` measures
both.
"""

import importlib.util
import os
import re
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

from circuitry.runs.arguments import Count, Natural, Positive, checked, one_of
from circuitry.runs.errors import InputError, name_some

T = TypeVar("T")

CLUSTERS = ("slurm", "local")

_SHORT_WAITS = {"GOMP_SPINCOUNT": "2000", "OMP_WAIT_POLICY": "passive"}
"""Environment variables for short waits.

With these variables, GNU's OpenMP (in PyTorch's wheels for Linux) spins for about 30 microseconds. Other OpenMP
libraries do not spin at all.
"""


class Rank(NamedTuple):
    """The number of this process among the processes that share some work.

    Example:
        >>> circuitry.runs.Rank(worker=1, workers=2).order(["a", "b", "c"])
        ['b', 'a', 'c']
    """

    worker: Natural  #: Number of this process, from 0.
    workers: Count  #: How many processes there are.

    def order(self, jobs: Sequence[T]) -> list[T]:
        """Return jobs in the order of this process: its own share first, then the shares of the other processes."""
        shares = [(self.worker + i) % self.workers for i in range(self.workers)]
        return [job for share in shares for job in jobs[share :: self.workers]]

    def device(self, wanted: str) -> str:
        """Return the device of this process.

        If ``wanted`` is "cuda" and torchrun has started this process, each process on a machine gets its own GPU.
        """
        number = os.environ.get("LOCAL_RANK")
        if wanted == "cuda" and number is not None:
            return f"cuda:{number}"
        return wanted


ALONE = Rank(0, 1)
"""The rank of a process that works alone."""


def this_rank() -> Rank:
    """Return the rank of this process among the processes that torchrun started, or `ALONE` without torchrun.

    Example:
        >>> circuitry.runs.this_rank()
        Rank(worker=0, workers=1)
    """
    worker = int(os.environ.get("RANK", "0"))
    return Rank(worker, int(os.environ.get("WORLD_SIZE", "1")))


def short_waits(environment: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables that make waiting threads give up their core soon.

    OpenMP reads these variables when PyTorch is loaded. The result is empty if the environment already contains one of
    the variables.

    Example:
        >>> circuitry.runs.short_waits({})  # as in: os.environ |= short_waits(os.environ), before torch is imported
        {'GOMP_SPINCOUNT': '2000', 'OMP_WAIT_POLICY': 'passive'}
    """
    if _SHORT_WAITS.keys() & environment.keys():
        return {}
    return dict(_SHORT_WAITS)


def run_array(
    task: Callable[[int, int], object],
    workers: Count,
    logs: Path,
    *,
    cluster: str = "slurm",
    at_once: Count | None = None,
    options: Mapping[str, str | int] | None = None,
) -> None:
    """Run ``task(worker, workers)`` once for each worker as an array of jobs, and wait for all jobs.

    A job that fails does not stop the others. A job that is preempted or runs out of time is put back into the queue,
    as often as submitit allows.

    Args:
        task: A function that can be pickled. If it is called again, it goes on where it stopped.
        workers: How many jobs the array has.
        logs: Folder of the logs.
        cluster: ``slurm``, or ``local`` for processes on this machine.
        at_once: How many jobs run at the same time (default: all that the machine or cluster takes).
        options: submitit's parameters, e.g. ``{"timeout_min": 600, "slurm_partition": "gpu", "gpus_per_node": 1}``.

    Raises:
        InputError: if jobs cannot be submitted, or, after all jobs have ended, if some failed.

    Example:
        >>> circuitry.runs.run_array(print, 2, Path("logs"), cluster="local")  # prints "0 2" and "1 2" into two logs
    """
    parallelism = {"slurm_array_parallelism": at_once}
    executor = cluster_executor(logs, cluster, parallelism | dict(options or {}))
    together = workers
    if cluster == "local" and at_once is not None:
        # SLURM itself keeps jobs waiting. Jobs on this machine start when they are submitted.
        together = at_once
    failures = list[str]()
    for first in range(0, workers, together):
        numbers = range(first, min(first + together, workers))
        totals = [workers] * len(numbers)
        jobs = executor.map_array(Requeued(task), numbers, totals)
        try:
            for job in jobs:
                if job.exception() is not None:
                    failures.append(failure_of(job))
        except KeyboardInterrupt:
            # The jobs of a cluster go on without this process, so only local jobs are cancelled.
            if cluster == "local":
                for job in jobs:
                    job.cancel(check=False)
            raise
    if failures:
        raise InputError(
            f"{len(failures)} of {workers} jobs failed: {name_some(failures)}. Run again: what is finished stays."
        )


def failure_of(job: Any) -> str:
    """Return the last words of a job that failed, with the path of its log."""
    failure = job.exception()
    errors = re.findall(
        r"^[\w.]*(?:Error|Exception|Interrupt)\b.*$", str(failure), re.MULTILINE
    )
    words = errors[-1] if errors else type(failure).__name__
    return f"{words} (see the log {job.paths.stderr})"


def cluster_executor(logs: Path, cluster: str, options: Mapping[str, Any]) -> Any:
    """Return submitit's executor, which starts functions as jobs.

    A job may take a day, unless the options set another time. For the arguments see `run_array`.

    Raises:
        InputError: if submitit is not installed, refuses the options, or cannot submit jobs on this machine.
    """
    if importlib.util.find_spec("submitit") is None:
        raise InputError(
            "Arrays of jobs need submitit: pip install submitit (or '.[cluster]' in the checkout of circuitry)."
        )
    if cluster not in CLUSTERS:
        raise InputError(
            f"Jobs run on {' or '.join(CLUSTERS)}, but {cluster!r} was asked for."
        )
    import submitit

    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
        executor.update_parameters(**({"timeout_min": 24 * 60} | dict(options)))
    # Submitit raises these errors for wrong parameters.
    except (AssertionError, NameError) as error:
        raise InputError(
            f"submitit refuses these options of the jobs: {error}"
        ) from error
    except RuntimeError as error:  # the program srun is missing
        raise InputError(
            f"Jobs cannot be submitted here ({error}): do so on a machine with SLURM."
        ) from error
    return executor


@dataclass(frozen=True)
class Requeued:
    """A task that submitit continues in a new job, if its job ends before the task is finished."""

    task: Callable[[int, int], object]
    """Takes the number of the worker, and how many workers there are."""

    def __call__(self, worker: int, workers: int) -> object:
        return self.task(worker, workers)

    def checkpoint(self, worker: int, workers: int) -> object:
        """Return the job that is put back into the queue. Submitit calls this method when a job is stopped early."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, worker, workers)


def job_options(texts: Sequence[str]) -> dict[str, str | int]:
    """Return a dictionary of options that are given as ``name=value``. A whole number becomes an ``int``.

    Example:
        >>> circuitry.runs.job_options(["slurm_partition=gpu", "gpus_per_node=1"])
        {'slurm_partition': 'gpu', 'gpus_per_node': 1}
    """
    options: dict[str, str | int] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise InputError(
                f"An option of the jobs is written name=value, but {text!r} was given."
            )
        options[name] = int(value) if value.isdecimal() else value
    return options


@checked
@dataclass(frozen=True)
class Work:
    """How work is carried out. This does not change results, except for rounding.

    Example:
        >>> quiet = circuitry.Work(memory_gib=4.0, progress=False)
        >>> task = circuitry.Task(encoder, images, metric, work=quiet)
    """

    rank: Rank = ALONE
    """The rank of this process among the processes that work on the same folder."""
    memory_gib: Positive | None = None
    """Memory for activations and gradients, in GiB. Weights and results need memory in addition. Default: half of the
    memory of a GPU, and 1 GiB on any other device."""
    strict: bool = False
    """Whether an image that cannot be read raises an error. If False, the image is left out with a warning."""
    progress: bool = True
    """Whether to show progress bars."""

    def bar(self, name: str) -> str | None:
        """Return the name of a progress bar, or None if this process shows no progress bars."""
        return name if self.progress and self.rank.worker == 0 else None


@checked
@dataclass(frozen=True)
class WorkSettings:
    """How a script's work is carried out: alone, by torchrun's ranks, or by an array of jobs.

    Example:
        >>> settings = circuitry.runs.WorkSettings(progress=False)
        >>> settings.share_out(lambda work: print("worker", work.rank.worker), Path("logs"))
        worker 0
        True
    """

    memory_gib: Positive | None = None
    """Memory for activations and gradients, in GiB. Default: half of the memory of a GPU, and 1 GiB on any other
    device."""
    strict: bool = False
    """Stop at an image that cannot be read, instead of leaving it out with a warning."""
    progress: bool = True
    """Show progress bars."""
    cluster: Annotated[str | None, one_of(*CLUSTERS)] = None
    """Share out the work to an array of jobs: slurm for jobs of a cluster, local for processes on this machine (needs
    submitit)."""
    jobs: Count = 8
    """Number of jobs in the array."""
    job_options: tuple[str, ...] = ()
    """submitit's parameters of the jobs as name=value: slurm_partition=gpu gpus_per_node=1 timeout_min=600."""

    def work(self, rank: Rank = ALONE) -> Work:
        """Return the `Work` of one process with these settings."""
        return Work(rank, self.memory_gib, self.strict, self.progress)

    def share_out(self, share: Callable[[Work], object], logs: Path) -> bool:
        """Share out the work, wait until it is done, and return whether this process should go on with the results.

        If torchrun has started several processes, the result is True only in the first of them. Without torchrun the
        result is True.

        Args:
            share: Does the share of one process. If it is called again, it goes on where it stopped. For an array of
                jobs it must be possible to pickle it.
            logs: Folder of the logs of an array of jobs.
        """
        if self.cluster is not None:
            run_array(
                partial(_share, share, self),
                self.jobs,
                logs,
                cluster=self.cluster,
                options=job_options(self.job_options),
            )
            share(self.work())
            return True
        rank = this_rank()
        share(self.work(rank))
        return rank.worker == 0


def peak_memory_gib() -> float:
    """Return the largest resident memory of this process so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _share(
    share: Callable[[Work], object], settings: WorkSettings, worker: int, workers: int
) -> None:
    """Do the share of one worker; each job of an array calls this function."""
    share(settings.work(Rank(worker, workers)))
