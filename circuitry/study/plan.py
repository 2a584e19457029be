"""A long study as one plan: steps that are commands, with what they need, leave behind and cost.

1. A `Step` is data: a command line, the steps that it needs, the files that show it is finished, its `Cost`.
2. `Plan` is a list of steps in an order that they can be done in, and a folder, which is a `JobFolder`: the steps that
   are finished stay so while those files are unchanged, and the folder of another plan is refused with the difference.
3. `Plan.run` does what is left in order, in this process; `Plan.submit` hands it to SLURM, a job for each step that
   waits for those it needs. A step that was killed is called again and goes on by itself.
4. `Plan.check_room` says beforehand when the disk or the hours for what is left are not there.
"""

import difflib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from filelock import Timeout

from circuitry.runs.errors import InputError
from circuitry.runs.files import file_lock
from circuitry.runs.jobs import Job, JobFolder
from circuitry.runs.manifest import NAME
from circuitry.runs.workers import Requeued, cluster_executor

FORMAT = "circuitry plan 1"
LOGS = "logs"


@dataclass(frozen=True)
class Cost:
    """What a step takes."""

    operations: float = 0.0
    """Floating-point operations."""
    gpu_hours: float = 0.0
    """Hours of all its GPUs together."""
    gpus: int = 0
    """GPUs at a time."""
    disk_gib: float = 0.0
    """What it leaves on the disk, in GiB."""

    def __add__(self, other: "Cost") -> "Cost":
        """Return the cost of both, one after the other."""
        return Cost(
            self.operations + other.operations,
            self.gpu_hours + other.gpu_hours,
            max(self.gpus, other.gpus),
            self.disk_gib + other.disk_gib,
        )


@dataclass(frozen=True)
class Step:
    """One command of a plan."""

    name: str
    """Name by which other steps need it."""
    kind: str
    """What sort of work it is, e.g. ``trainings``; all steps of a kind can be chosen together."""
    command: tuple[str, ...]
    """Program and arguments; ``python`` is this interpreter."""
    outputs: tuple[str, ...]
    """Files below the plan's folder that a finished step leaves, small ones: they are read whole to be checked."""
    needs: tuple[str, ...] = ()
    """Steps that must be finished before."""
    cost: Cost = Cost()
    """What it takes."""

    @property
    def job(self) -> Job:
        """Name it as a job of the folder."""
        return (self.name,)


class Plan:
    """Steps in order, and the folder in which they are done.

    Args:
        folder: Folder of all outputs.
        steps: Each after those that it needs.
        where: Folder in which commands run.

    Raises:
        InputError: For two steps of one name, a step that needs one that does not come before it, and the folder of
            another plan, with what differs.

    Example:
        >>> draw = Step("draw", "data", ("python", "draw.py"), outputs=("list.txt",))
        >>> train = Step("train", "trainings", ("python", "train.py"), outputs=("run.json",), needs=("draw",))
        >>> Plan(Path("runs/x"), [draw, train]).run()
    """

    def __init__(self, folder: Path, steps: Sequence[Step], where: Path = Path()) -> None:
        self.folder, self.steps, self.where = Path(folder), tuple(steps), Path(where)
        known: dict[str, Step] = {}
        for step in self.steps:
            if step.name in known:
                raise InputError(f"The plan has two steps of the name {step.name!r}: give each its own.")
            if missing := [name for name in step.needs if name not in known]:
                raise InputError(f"The step {step.name!r} needs {missing[0]!r}, which is no step before it.")
            known[step.name] = step
        self._known = known
        moved = {name: shlex.join(step.command).replace(str(self.folder), "OUT") for name, step in known.items()}
        self._commands = moved

    @cached_property
    def _jobs(self) -> JobFolder:
        return JobFolder(self.folder, FORMAT, self._commands, [step.job for step in self.steps])

    def chosen(self, names: Collection[str]) -> list[Step]:
        """Return the steps of these names or kinds, in order; all without names. InputError for an unknown one."""
        known = {*self._known, *(step.kind for step in self.steps)}
        if unknown := [name for name in names if name not in known]:
            kinds = ", ".join(dict.fromkeys(step.kind for step in self.steps))
            near = ", ".join(difflib.get_close_matches(unknown[0], known, 3))
            raise InputError(
                f"The plan has no step {unknown[0]!r}; its kinds of steps are {kinds}"
                f"{near and f', and near it are {near}'}."
            )
        return [step for step in self.steps if not names or step.name in names or step.kind in names]

    def unfinished(self, names: Collection[str] = ()) -> list[Step]:
        """Return the chosen steps that are left to do, in order; nothing is written where nothing was begun."""
        if not (self.folder / NAME).is_file():
            return self.chosen(names)
        left = set(self._jobs.unfinished())
        return [step for step in self.chosen(names) if step.job in left]

    def check_room(
        self, names: Collection[str] = (), *, disk_gib: float | None = None, hours: float | None = None
    ) -> None:
        """Refuse to begin what cannot be finished: when disk or time for the steps that are left is not there.

        Args:
            names: Chosen steps.
            disk_gib: GiB that may be filled, where a quota holds (default: what the disk has free).
            hours: GPU hours that are there (default: as many as it takes).

        Raises:
            InputError: With what is needed and what is there.
        """
        needed = sum((step.cost for step in self.unfinished(names)), Cost())
        there = next(path for path in (self.folder.absolute(), *self.folder.absolute().parents) if path.is_dir())
        free = shutil.disk_usage(there).free / 2**30 if disk_gib is None else disk_gib
        if needed.disk_gib > free:
            raise InputError(
                f"What is left of the plan fills about {needed.disk_gib:,.0f} GiB, but {self.folder} has {free:,.0f}: "
                "choose another disk, or fewer models or kept checkpoints."
            )
        if hours is not None and needed.gpu_hours > hours:
            raise InputError(
                f"What is left of the plan takes about {needed.gpu_hours:,.0f} GPU hours, but {hours:,.0f} were given: "
                "give more, or choose fewer models."
            )

    def run(self, names: Collection[str] = ()) -> None:
        """Do what is left of the chosen steps, in order; stop at the first that fails.

        Raises:
            InputError: When another process runs the plan, and for a step that fails or leaves something out.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(file_lock(self.folder, "plan", wait=False))
            except Timeout:
                raise InputError(f"Another process runs the plan in {self.folder}: wait for it.") from None
            stack.enter_context(_step_ends_with_this_process())
            self.run_steps(names)

    def run_steps(self, names: Collection[str]) -> None:
        """Do what is left of the chosen steps, beside other processes that do others."""
        self._jobs.run(self._do, only={step.job for step in self.chosen(names)})

    def submit(self, names: Collection[str] = (), options: Mapping[str, str | int] | None = None) -> dict[str, str]:
        """Submit what is left of the chosen steps to SLURM, and return the number of each one's job.

        A job begins when those of the steps that it needs have succeeded. A job whose time ends is put back.

        Args:
            names: Chosen steps.
            options: submitit's parameters of every job; its GPUs are the step's.

        Raises:
            InputError: For a needed step that is neither finished nor among them, and what submitit raises.
        """
        left = self.unfinished(names)
        self._check_needs(left)
        submitted: dict[str, str] = {}
        for step in left:
            ids = [submitted[name] for name in step.needs if name in submitted]
            waits: dict[str, Any] = {"slurm_additional_parameters": {"dependency": f"afterok:{':'.join(ids)}"}}
            gpus: dict[str, Any] = {"gpus_per_node": step.cost.gpus} if step.cost.gpus else {}
            given = {"name": step.name, **gpus, **(waits if ids else {}), **(options or {})}
            executor = cluster_executor(self.folder / LOGS, "slurm", given)
            submitted[step.name] = executor.submit(Requeued(partial(_run_step, self, step.name)), 0, 1).job_id
        return submitted

    def _check_needs(self, steps: Sequence[Step]) -> None:
        coming = {step.name for step in steps}
        for step in steps:
            for name in step.needs:
                if name not in coming and not self._jobs.is_done(self._known[name].job):
                    raise InputError(f"The step {step.name!r} needs {name!r}, which is not finished: choose it, too.")

    def _do(self, job: Job, _: object) -> list[Path]:
        """Call the command of a step, with its own log, and return the files that it left."""
        step = self._known[job[0]]
        self._check_needs([step])
        log = self.folder / LOGS / f"{step.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"[{step.name}] {shlex.join(step.command)}", flush=True)
        command = [sys.executable if part == "python" else part for part in step.command]
        with open(log, "a", encoding="utf-8") as file:
            done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False, cwd=self.where)
        if done.returncode:
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise InputError(
                f"The step {step.name!r} failed ({''.join(last)}): see {log}, then run again: it goes on from there."
            )
        paths = [self.folder / name for name in step.outputs]
        if missing := [path for path in paths if not path.is_file()]:
            raise InputError(f"The step {step.name!r} ended without {missing[0]}: see {log}.")
        return paths


@contextmanager
def _step_ends_with_this_process() -> Iterator[None]:
    """Exit on SIGTERM as on Ctrl-C, by an exception, on which `subprocess.run` kills the command that it waits for."""
    if threading.current_thread() is not threading.main_thread():  # only there signals can be handled
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_step(plan: Plan, name: str, worker: int, workers: int) -> None:
    """Do one step of a plan, as a job of SLURM's calls it."""
    plan.run_steps((name,))
