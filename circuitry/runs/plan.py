"""What work needs, said before it begins: runs of the tower, time, memory and disk. Does not import torch.

The unit of work is a *forward*: one run of one image through the tower. A run forward and back counts as two forwards,
because weights take no gradients. How many forwards a job needs is stated beside the code of the job, as a function of
its settings and of numbers of images. Products of edges are counted in forwards, too. What else runs outside the tower
is left out: text weights and heads.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple


@dataclass(frozen=True)
class Forwards:
    """Runs of one image through the tower.

    Example:
        >>> both = circuitry.runs.Forwards(alone=2) + circuitry.runs.Forwards(back=6) * 4
        >>> both.count
        50
    """

    alone: int = 0
    """Runs forward that no run back follows."""
    back: int = 0
    """Runs forward and back."""

    @property
    def count(self) -> int:
        """The number of forwards; a run forward and back counts twice."""
        return self.alone + 2 * self.back

    def __add__(self, more: "Forwards") -> "Forwards":
        return Forwards(self.alone + more.alone, self.back + more.back)

    def __mul__(self, times: int) -> "Forwards":
        return Forwards(self.alone * times, self.back * times)


@dataclass(frozen=True)
class Step:
    """A step of some work, and what its unfinished jobs need.

    Example:
        >>> circuitry.runs.Step("evaluation", 1, circuitry.runs.Forwards(alone=300), images=300).disk
        0
    """

    name: str
    """What the step does."""
    jobs: int
    """Number of jobs that are not done."""
    forwards: Forwards
    """Runs of the tower."""
    images: int = 0
    """Number of image files that are read."""
    disk: int = 0
    """Bytes of the results, about."""


class Speed(NamedTuple):
    """What a tower needs on a device for one image, as measured by a few images.

    Example:
        >>> speed = circuitry.runs.Speed("cpu", 0.1, 0.2, 0.01, 2**28, 4, 4)
        >>> speed.seconds(circuitry.runs.Step("curves", 1, circuitry.runs.Forwards(alone=100)))
        10.0
    """

    device: str  #: Name of the device.
    alone: float  #: Seconds of a run forward.
    back: float  #: Seconds of a run forward and back.
    read: float  #: Seconds to read and prepare an image file.
    memory: int  #: Bytes of the activations and gradients of an image.
    rows: int  #: Number of images that fit into a run forward and back.
    rows_alone: int  #: Number of images that fit into a run forward.

    def seconds(self, step: Step) -> float:
        """Return the seconds that a step takes."""
        runs = step.forwards.alone * self.alone + step.forwards.back * self.back
        return runs + step.images * self.read


@dataclass(frozen=True)
class Plan:
    """What is left of some work, step by step, and what it needs on this machine.

    Example:
        >>> steps = [circuitry.runs.Step("curves", 2, circuitry.runs.Forwards(alone=600), images=6)]
        >>> print(circuitry.runs.Plan(steps, circuitry.runs.Speed("cpu", 0.1, 0.2, 0.01, 2**28, 4, 4)))
        step ...
        curves ...
    """

    steps: Sequence[Step]
    """The steps, in order."""
    speed: Speed
    """How fast the tower is here."""

    def __str__(self) -> str:
        together = Step(
            "together",
            sum(step.jobs for step in self.steps),
            sum((step.forwards for step in self.steps), Forwards()),
            sum(step.images for step in self.steps),
            sum(step.disk for step in self.steps),
        )
        lines = [
            f"{'step':24}{'jobs':>8}{'forwards':>14}{'images read':>14}{'time':>12}{'disk':>12}"
        ]
        for step in (*self.steps, together):
            time = time_in_words(self.speed.seconds(step))
            disk = bytes_in_words(step.disk)
            lines.append(
                f"{step.name:24}{step.jobs:8,}{step.forwards.count:14,}{step.images:14,}{time:>12}{disk:>12}"
            )
        speed = self.speed
        lines.append(
            "A forward is a run of one image through the tower; a run forward and back counts as two. What runs "
            "outside the tower, such as texts, is not in it, except for the products of edges.\n"
            f"Measured on {speed.device}: {speed.alone:.3g} s forward, {speed.back:.3g} s forward and back, "
            f"{speed.read:.3g} s to read an image. The time is that of one worker.\n"
            f"Activations and gradients: {bytes_in_words(speed.memory)} an image; {speed.rows:,} images fit into a "
            f"run, {speed.rows_alone:,} without gradients."
        )
        return "\n".join(lines)

    def facts(self) -> dict[str, Any]:
        """Return the plan in plain values, as ``--json`` prints it."""
        steps = [
            asdict(step) | {"seconds": self.speed.seconds(step)} for step in self.steps
        ]
        return {"steps": steps, "speed": self.speed._asdict()}


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """The option of commands that can say beforehand what they need.

    Example:
        >>> circuitry.runs.PlanSettings(dry_run=True).dry_run
        True
    """

    # There is no page to open.
    NOT_BOTH: ClassVar = (("dry_run", "open"),)

    dry_run: bool = False
    """Only say what the work that is left needs: runs of the tower, time, memory and disk. A few images are run to
    measure the time; nothing is written."""


def time_in_words(seconds: float) -> str:
    """Return a time in words.

    Example:
        >>> circuitry.runs.plan.time_in_words(5400)
        '1.5 h'
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"


def bytes_in_words(n_bytes: int) -> str:
    """Return a number of bytes in words.

    Example:
        >>> circuitry.runs.plan.bytes_in_words(3 * 2**20)
        '3.0 MiB'
    """
    if n_bytes < 2**30:
        return f"{n_bytes / 2**20:,.1f} MiB"
    return f"{n_bytes / 2**30:,.1f} GiB"
