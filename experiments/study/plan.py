"""A long study as one plan: steps that are commands, with their needs, outputs and costs.

1. A `Step` is data: a command line, the steps that it needs, the files that show it is finished, its `Cost`.
2. A `Plan` is a list of steps, each after those that it needs, and a `JobFolder` with one job for each step.
3. `Plan.run` does the unfinished steps in order, in this process; `Plan.submit` makes each a job of SLURM's that waits
   for the jobs of the steps that it needs. After a kill the same call continues.
4. `Plan.check_room` compares disk and GPU hours with what the unfinished steps cost.
"""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from circuitry.runs import (
    InputError,
    Job,
    JobFolder,
    Requeued,
    cluster_executor,
    file_lock,
    interrupted_by_sigterm,
)
from circuitry.data import chosen_names

_FORMAT = "circuitry plan 1"
LOGS = "logs"


@dataclass(frozen=True)
class Cost:
    """What a step costs."""

    operations: float = 0.0  # floating-point operations
    gpu_hours: float = 0.0  # hours, summed over its GPUs
    gpus: int = 0  # GPUs at a time
    disk_gib: float = 0.0  # size of all files that it leaves, in GiB
    training_steps: int = 0  # steps of the optimizer of a training

    def __add__(self, other: "Cost") -> "Cost":
        """Return the cost of one after the other."""
        return Cost(
            self.operations + other.operations,
            self.gpu_hours + other.gpu_hours,
            max(self.gpus, other.gpus),
            self.disk_gib + other.disk_gib,
            self.training_steps + other.training_steps,
        )

    def __str__(self) -> str:
        steps = (
            f", {self.training_steps:,} training steps" if self.training_steps else ""
        )
        return (
            f"{self.operations:.3g} operations, {self.gpu_hours:,.1f} GPU hours on {self.gpus} at a time, "
            f"{self.disk_gib:,.1f} GiB{steps}"
        )


@dataclass(frozen=True)
class Step:
    """One command of a plan."""

    name: str  # unique name
    kind: (
        str  # kind of work, e.g. ``trainings``, by which many steps are chosen at once.
    )
    command: tuple[str, ...]  # program and arguments; ``python`` is this interpreter
    outputs: tuple[str, ...]
    """Small files below the plan's folder that a finished step leaves; their checksums are kept."""
    needs: tuple[str, ...] = ()  # steps that must be finished before
    cost: Cost = Cost()


class Plan:
    """Steps in order, each after those that it needs, and the folder of their outputs."""

    def __init__(
        self, folder: Path, steps: Sequence[Step], where: Path = Path()
    ) -> None:
        self.folder, self.steps, self.where = Path(folder), tuple(steps), Path(where)
        self._known = {step.name: step for step in self.steps}

    @cached_property
    def _jobs(self) -> JobFolder:
        commands = {
            step.name: shlex.join(step.command).replace(str(self.folder), "OUT")
            for step in self.steps
        }
        return JobFolder(
            self.folder, _FORMAT, commands, [(step.name,) for step in self.steps]
        )

    def chosen(self, names: Collection[str]) -> list[Step]:
        """Return the steps of these names or kinds in order, all without names; InputError for an unknown one."""
        kinds = dict.fromkeys(step.kind for step in self.steps)
        if names:
            chosen_names(
                "kind or name of a step",
                tuple(names),
                tuple(dict.fromkeys([*kinds, *self._known])),
            )
        return [
            step
            for step in self.steps
            if not names or step.name in names or step.kind in names
        ]

    def unfinished(self, names: Collection[str] = ()) -> list[Step]:
        """Return the chosen steps that are not finished, in order. Before the first step nothing is written."""
        if not (self.folder / "manifest.json").is_file():
            return self.chosen(names)
        left = set(self._jobs.unfinished())
        return [step for step in self.chosen(names) if (step.name,) in left]

    def check_room(
        self,
        names: Collection[str] = (),
        *,
        disk_gib: float | None = None,
        hours: float | None = None,
    ) -> None:
        """Check that disk and GPU hours suffice for the unfinished steps."""
        needed = sum((step.cost for step in self.unfinished(names)), Cost())
        there = next(
            path
            for path in (self.folder.absolute(), *self.folder.absolute().parents)
            if path.is_dir()
        )
        free = shutil.disk_usage(there).free / 2**30 if disk_gib is None else disk_gib
        if needed.disk_gib > free:
            raise InputError(
                f"The unfinished steps need about {needed.disk_gib:,.0f} GiB, but {self.folder} has {free:,.0f}: "
                "choose another disk, or fewer models or kept checkpoints."
            )
        if hours is not None and needed.gpu_hours > hours:
            raise InputError(
                f"The unfinished steps need about {needed.gpu_hours:,.0f} GPU hours, but {hours:,.0f} were given: "
                "give more, or choose fewer models."
            )

    def run(self, names: Collection[str] = ()) -> None:
        """Do the chosen unfinished steps in order, up to the first that fails."""
        with ExitStack() as stack:
            try:
                stack.enter_context(file_lock(self.folder, "plan", wait=False))
            except BlockingIOError:
                raise InputError(
                    f"Another process runs the plan in {self.folder}: wait for it."
                ) from None
            stack.enter_context(interrupted_by_sigterm())
            self.run_steps(names)

    def run_steps(self, names: Collection[str]) -> None:
        """Do the chosen unfinished steps, while other processes may do others."""
        self._jobs.run(self._do, only=[(step.name,) for step in self.chosen(names)])

    def submit(
        self,
        names: Collection[str] = (),
        options: Mapping[str, str | int] | None = None,
    ) -> dict[str, str]:
        """Submit the chosen unfinished steps to SLURM, and return their job numbers by name."""
        left = self.unfinished(names)
        self._check_needs(left)
        submitted: dict[str, str] = {}
        for step in left:
            given: dict[str, Any] = {"name": step.name}
            if step.cost.gpus:
                given["gpus_per_node"] = step.cost.gpus
            if ids := [submitted[name] for name in step.needs if name in submitted]:
                given["slurm_additional_parameters"] = {
                    "dependency": f"afterok:{':'.join(ids)}"
                }
            executor = cluster_executor(
                self.folder / LOGS, "slurm", {**given, **(options or {})}
            )
            submitted[step.name] = executor.submit(
                Requeued(partial(_run_step, self, step.name)), 0, 1
            ).job_id
        return submitted

    def _check_needs(self, steps: Sequence[Step]) -> None:
        coming = {step.name for step in steps}
        for step in steps:
            for name in step.needs:
                if name not in coming and not self._jobs.is_done((name,)):
                    raise InputError(
                        f"The step {step.name!r} needs the unfinished step {name!r}: choose both."
                    )

    def _do(self, job: Job, _: object) -> list[Path]:
        """Run the command of a step, write its log, and return its outputs."""
        step = self._known[job[0]]
        self._check_needs([step])
        log = self.folder / LOGS / f"{step.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"[{step.name}] {shlex.join(step.command)}", flush=True)
        command = [
            sys.executable if part == "python" else part for part in step.command
        ]
        with (
            open(log, "a", encoding="utf-8") as file,
            subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, cwd=self.where
            ) as process,
        ):
            try:
                process.wait()
            except BaseException:  # it tidies up and ends with this process
                process.terminate()
                raise
        if process.returncode:
            last = (
                log.read_text(encoding="utf-8", errors="replace")
                .strip()
                .splitlines()[-1:]
            )
            raise InputError(
                f"The step {step.name!r} failed ({''.join(last)}): see {log}, then run again."
            )
        paths = [self.folder / name for name in step.outputs]
        if missing := [path for path in paths if not path.is_file()]:
            raise InputError(
                f"The step {step.name!r} did not write {missing[0]}: see {log}."
            )
        return paths


def _run_step(plan: Plan, name: str, worker: int, workers: int) -> None:
    """Do one step of a plan, in a job of SLURM's."""
    plan.run_steps((name,))
