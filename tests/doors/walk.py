"""Call doors with odd values: public functions and constructors that check their arguments (`checked`).

An odd value is refused in a sentence (InputError), or taken: the call returns, or computes until it is stopped. What
means the same as a good value gives the same result. Of two at once, either may be refused. The whole walk:

    python -m tests.doors.walk --calls 3000 --seed 0
"""

import argparse
import contextlib
import importlib
import inspect
import os
import random
import shutil
import signal
import tempfile
import traceback
import types
import warnings
from collections import Counter, UserList
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import jaxtyping
import numpy as np
import pandas as pd
import torch
from torch import nn

from circuitry import Encoder, InputError
from circuitry.runs.arguments import DOOR
from tests.doors.odd_values import anything, same, spoiled, write_odd_files
from tests.doors.world import World
from tests.test_imports import PUBLIC

SECONDS = 2
"""A call that computes longer is stopped: its arguments were taken."""
FEW = ("work", "permutations", "resamples", "size")
"""Parameters that are given although they have a default."""
TWO = 0.15
"""Share of the calls with two odd values."""
NEAR = 1e-3, 1e-5
"""How far results may be apart, as a share and in all."""


class _TooLong(BaseException):
    """A call computes too long. No Exception, and no OSError: what is called may handle those."""


class Door(NamedTuple):
    """A public function, class or loader that checks its arguments."""

    name: str
    call: Callable[..., Any]
    function: Callable[..., Any]
    hints: dict[str, Any]


def public_names() -> Iterator[tuple[str, Any]]:
    """Yield the public functions and classes by name, once."""
    for name, package in {name: package for package, name in reversed(PUBLIC)}.items():
        value = getattr(importlib.import_module(package), name)
        if inspect.isfunction(value) or (
            inspect.isclass(value) and not isinstance(value, types.GenericAlias)
        ):
            yield name, value


def doors() -> Iterator[Door]:
    """Yield the doors: functions, constructors, and class methods that load."""
    for name, value in public_names():
        found = [(name, value, value.__init__ if inspect.isclass(value) else value)]
        if inspect.isclass(value):
            made = [
                (key, one.__func__)
                for key, one in vars(value).items()
                if isinstance(one, classmethod)
            ]
            found += [
                (f"{name}.{key}", getattr(value, key), function)
                for key, function in made
            ]
        for place, call, function in found:
            if hasattr(function, DOOR):
                several = (
                    inspect.Parameter.VAR_POSITIONAL,
                    inspect.Parameter.VAR_KEYWORD,
                )
                hints = get_type_hints(function, include_extras=True)
                parameters = inspect.signature(function).parameters.values()
                named = [
                    one.name
                    for one in parameters
                    if one.kind not in several
                    if one.name in hints
                ]
                yield Door(place, call, function, {name: hints[name] for name in named})


class Outcome(NamedTuple):
    """What came of a call: ``sentence``, ``value``, ``equal`` or ``computing``; the others are faults."""

    kind: str
    value: Any = None
    """What was returned; the error of a fault."""


FAULTS = "traceback", "another value"


class Walk:
    """Good and odd values, and the calls."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.doors = list(doors())
        self.places = [
            (door, parameter) for door in self.doors for parameter in door.hints
        ]

    def calls(self, number: int, seed: int) -> Iterator[tuple[str, Outcome]]:
        """Yield so many calls drawn at random, in words, and what came of them."""
        rng = random.Random(seed)
        for door, parameter in rng.choices(self.places, k=number):
            others = [
                name for name in door.hints if name != parameter and rng.random() < TWO
            ]
            yield self._call(door, rng, [parameter, *others[:1]])

    def _call(
        self, door: Door, rng: random.Random, parameters: Sequence[str]
    ) -> tuple[str, Outcome]:
        """Call a door with odd values: anything, a good one spoiled, or in another container, each as often."""
        shutil.rmtree(self.world.scratch, ignore_errors=True)
        files = write_odd_files(self.world.scratch)
        odd, plain, told, own = dict[str, Any](), dict[str, Any](), list[str](), False
        for parameter in parameters:
            good = self.good(door, parameter)
            alike = same(good)
            values = rng.choice(
                [anything(self.world) | files, *filter(None, (spoiled(good), alike))]
            )
            drawn = rng.choice(sorted(values))
            odd[parameter] = values[drawn]
            if values is alike:
                plain[parameter] = (
                    good.half().to(good.dtype) if drawn == "half" else good
                )
            told.append(f"{parameter} = {drawn}")
            own |= drawn in ("a class", "a function") and "Callable" in str(
                door.hints[parameter]
            )
        name, found = f"{door.name}({', '.join(told)})", self.run(door, odd)
        if found.kind == "traceback" and own:  # the caller's function is what fails
            found = Outcome("value")
        if found.kind == "value" and plain.keys() == odd.keys():
            expected = self.run(door, plain)
            if expected.kind == "value":
                ours, theirs = dict(leaves(found.value)), dict(leaves(expected.value))
                differ = [
                    at
                    for at in ours | theirs
                    if not _near(ours.get(at), theirs.get(at))
                ]
                found = (
                    Outcome("another value", AssertionError(f"at {differ[:3]}"))
                    if differ
                    else Outcome("equal")
                )
        return name, found

    def good(self, door: Door, parameter: str) -> Any:
        """Return a good value; None of an option that nothing good is known for."""
        with contextlib.suppress(Exception):
            return self.world.good(door.hints[parameter], parameter)

    def run(self, door: Door, given: Mapping[str, Any]) -> Outcome:
        """Call a door, with good values of what is needed beside those that are given."""
        before = self.world.scratch
        before.mkdir(exist_ok=True)
        self.world.scratch = out = Path(tempfile.mkdtemp(dir=before))
        try:
            with _quietly(out):
                return Outcome(
                    "value",
                    door.call(
                        **(self.world.arguments(door.function, more=FEW) | dict(given))
                    ),
                )
        except InputError:
            return Outcome("sentence")
        except _TooLong:
            return Outcome("computing")
        except Exception as error:
            return Outcome("traceback", error)
        finally:
            self.world.scratch = before


def leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Yield numbers and words of a result by their places in it."""
    inner: Any = {}
    if isinstance(value, Encoder):
        yield at, value.identity.key
    elif isinstance(value, np.ndarray | np.generic | torch.Tensor | int | float):
        yield (
            at,
            np.asarray(value.detach() if isinstance(value, torch.Tensor) else value),
        )
    elif isinstance(value, str | Path):
        yield at, np.asarray(Path(value).name)  # each call has a folder of its own
    elif isinstance(value, nn.Module):
        inner = value.state_dict()
    elif isinstance(value, pd.DataFrame | pd.Series):
        inner = {
            str(name): list(column) for name, column in pd.DataFrame(value).items()
        }
    elif isinstance(value, Mapping):
        inner = value
    elif isinstance(value, list | tuple | UserList):
        inner = dict(enumerate(value))
    elif not callable(value) and hasattr(value, "__dict__") and at.count("/") < 6:
        inner = {
            name: one
            for name, one in vars(value).items()
            if name[0] != "_" and name not in ("path", "work")
        }
    for name, one in inner.items():
        yield from leaves(one, f"{at}/{name}")


def _near(ours: Any, theirs: Any) -> bool:
    if (
        not isinstance(ours, np.ndarray)
        or not isinstance(theirs, np.ndarray)
        or ours.shape != theirs.shape
    ):
        return ours is theirs or ours == theirs
    if theirs.dtype.kind in "biuf" and ours.dtype.kind in "biuf":
        return np.allclose(
            ours.astype(float), theirs.astype(float), *NEAR, equal_nan=True
        )
    return bool((ours.astype(str) == theirs.astype(str)).all())


@contextlib.contextmanager
def _quietly(folder: Path) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TooLong

    timers = {
        signal.SIGVTALRM: (signal.ITIMER_VIRTUAL, SECONDS),
        signal.SIGALRM: (signal.ITIMER_REAL, 10 * SECONDS),
    }
    before, home = (
        {kind: signal.signal(kind, stop) for kind in timers},
        os.environ.get("HOME", "/"),
    )
    os.environ["HOME"] = str(folder)
    try:
        for timer in timers.values():
            signal.setitimer(*timer)
        with (
            contextlib.chdir(folder),
            warnings.catch_warnings(),
            open(os.devnull, "w") as nowhere,
        ):
            warnings.simplefilter("ignore")
            with (
                contextlib.redirect_stderr(nowhere),
                contextlib.redirect_stdout(nowhere),
            ):
                yield
    finally:
        os.environ["HOME"] = home
        for kind, (which, _) in timers.items():
            signal.setitimer(which, 0)
            signal.signal(kind, before[kind])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("--calls", 3000), ("--seed", 0)):
        parser.add_argument(name, type=int, default=default)
    asked, counts = parser.parse_args(), Counter[str]()
    jaxtyping.config.update("jaxtyping_disable", True)
    with tempfile.TemporaryDirectory() as folder:
        for name, found in Walk(Path(folder)).calls(asked.calls, asked.seed):
            counts[found.kind] += 1
            if found.kind in FAULTS:
                print(
                    f"{found.kind} of {name}",
                    *traceback.format_exception(found.value)[-3:],
                    flush=True,
                )
    print(pd.Series(counts, name="calls").rename_axis("outcome").to_string())


if __name__ == "__main__":
    main()
