"""Several processes for one job list: on this machine, torchrun's ranks, or an array of jobs by submitit (SLURM).

Small jobs go fastest with one process a core and one thread each, as the quickstart does. Where other programs use the
cores, threads that spin while they wait for each other (PyTorch's default) slow everything down; `short_waits` lets
them wait briefly. ``experiments/speed_of_circuits.py --of threads`` measures both.
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
from circuitry.runs.errors import InputError

T = TypeVar("T")

CLUSTERS = ("slurm", "local")

_SHORT_WAITS = {"GOMP_SPINCOUNT": "2000", "OMP_WAIT_POLICY": "passive"}
"""GNU's OpenMP, which PyTorch's wheels for Linux hold, spins for some 30 microseconds; others do not spin at all."""


class Rank(NamedTuple):
    """Which of the processes this is.

    Example:
        >>> circuitry.runs.Rank(worker=1, workers=2).order(["a", "b", "c"])
        ['b', 'a', 'c']
    """

    worker: Natural  #: Number of this process, from 0.
    workers: Count  #: How many there are.

    def order(self, jobs: Sequence[T]) -> list[T]:
        """Return jobs in this process's order: its own share first, then the shares of the others in turn."""
        shares = [(self.worker + i) % self.workers for i in range(self.workers)]
        return [job for share in shares for job in jobs[share :: self.workers]]

    def device(self, wanted: str) -> str:
        """Return the device of this process: of several on a machine each takes its own GPU."""
        number = os.environ.get("LOCAL_RANK")
        if wanted == "cuda" and number is not None:
            return f"cuda:{number}"
        return wanted


ALONE = Rank(0, 1)
"""The only process."""


def this_rank() -> Rank:
    """Return this process's rank among those that torchrun started; the only one without torchrun.

    Example:
        >>> circuitry.runs.this_rank()
        Rank(worker=0, workers=1)
    """
    worker = int(os.environ.get("RANK", "0"))
    return Rank(worker, int(os.environ.get("WORLD_SIZE", "1")))


def short_waits(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables with which threads that wait for each other soon leave the core to others.

    OpenMP reads them when PyTorch is loaded. There are none where the environment has one of them already.

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
    options: Mapping[str, str | int] | None = None,
) -> None:
    """Run ``task(worker, workers)`` once for every worker as an array of jobs, and wait for all of them.

    A job that is preempted or runs out of time is put back into the queue, as often as submitit allows.

    Args:
        task: Something that can be pickled, and goes on where it stopped when it is called again.
        cluster: ``slurm``, or ``local``: processes on this machine.
        options: submitit's parameters, e.g. ``{"timeout_min": 600, "slurm_partition": "gpu", "gpus_per_node": 1}``.
    """
    executor = cluster_executor(logs, cluster, options or {})
    jobs = executor.map_array(Requeued(task), range(workers), [workers] * workers)
    for job in jobs:
        try:
            failure = job.exception()
        except KeyboardInterrupt:
            # A cluster's jobs go on without this process.
            if cluster == "local":
                for started in jobs:
                    started.cancel(check=False)
            raise
        if failure is not None:
            errors = re.findall(
                r"^[\w.]*(?:Error|Exception|Interrupt)\b.*$", str(failure), re.MULTILINE
            )
            words = errors[-1] if errors else type(failure).__name__
            raise InputError(
                f"Job {job.job_id} failed ({words}): see its log {job.paths.stderr}, then run again."
            )


def cluster_executor(logs: Path, cluster: str, options: Mapping[str, Any]) -> Any:
    """Return submitit's executor, which starts functions as jobs that may take a day unless options say otherwise."""
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
    # What submitit raises for its parameters.
    except (AssertionError, NameError) as error:
        raise InputError(
            f"submitit refuses these options of the jobs: {error}"
        ) from error
    except RuntimeError as error:  # where there is no srun
        raise InputError(
            f"Jobs cannot be submitted here ({error}): do so on a machine with SLURM."
        ) from error
    return executor


@dataclass(frozen=True)
class Requeued:
    """A task that submitit continues in a new job when its time ends too early."""

    task: Callable[[int, int], object]  #: From worker and workers to what is done.

    def __call__(self, worker: int, workers: int) -> object:
        return self.task(worker, workers)

    def checkpoint(self, worker: int, workers: int) -> object:
        """Return what submitit puts back into the queue; it calls this method by its name."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, worker, workers)


def job_options(texts: Sequence[str]) -> dict[str, str | int]:
    """Return options given as ``name=value``, whole numbers as numbers.

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
    """How work is carried out; it changes no number except for rounding.

    Example:
        >>> quiet = circuitry.Work(memory_gib=4.0, progress=False)
        >>> task = circuitry.Task(encoder, images, metric, work=quiet)
    """

    rank: Rank = ALONE
    """Which of the processes that work on the same folder this is."""
    memory_gib: Positive = 1.0
    """Budget for activations and gradients, in GiB; weights and results come on top."""
    strict: bool = False
    """Whether an image that cannot be read is an error instead of left out with a warning."""
    progress: bool = True
    """Whether to show progress bars."""

    def bar(self, name: str) -> str | None:
        """Return the name of a progress bar, or None where none is to be shown."""
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

    memory_gib: Positive = 1.0
    """Memory for activations and gradients, in GiB."""
    strict: bool = False
    """Stop at an image that cannot be read, instead of leaving it out with a line."""
    progress: bool = True
    """Show progress bars."""
    cluster: Annotated[str | None, one_of(*CLUSTERS)] = None
    """Work by jobs of a cluster: an array on slurm, or local for processes on this machine (needs submitit)."""
    jobs: Count = 8
    """Size of the array."""
    job_options: tuple[str, ...] = ()
    """submitit's parameters of the jobs as name=value: slurm_partition=gpu gpus_per_node=1 timeout_min=600."""

    def work(self, rank: Rank = ALONE) -> Work:
        """Return these settings for one process."""
        return Work(rank, self.memory_gib, self.strict, self.progress)

    def share_out(self, share: Callable[[Work], object], logs: Path) -> bool:
        """Have the work done, and return whether this process goes on with the results: of torchrun's ranks, the first.

        ``share`` does one process's share; it goes on where it stopped, and can be pickled for an array of jobs, whose
        logs lie in ``logs``.
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
    """Do a worker's share of a script's work, as an array of jobs calls it."""
    share(settings.work(Rank(worker, workers)))
