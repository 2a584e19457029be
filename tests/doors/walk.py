"""Call every public name with odd values, one parameter at a time, and sort what comes back.

    python -m tests.doors.walk 2000 0

prints the table of sentences, tracebacks and values of so many calls, drawn at random with a seed. A value fits where
beartype, which the package does not use, says that the odd value is of the annotation after all.
"""

import contextlib
import importlib
import inspect
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from beartype.door import is_bearable

import circuitry
from circuitry import InputError
from tests.doors.good_values import GoodValues
from tests.doors.odd_values import anything, spoiled, write_odd_files

SECONDS = 2
"""A call that computes longer is stopped: its arguments were taken."""
UNCALLED = {"run_array", "run_script", "WorkSettings.share_out", "short_waits", "serve_explorer"}
"""Starts of processes and of a server: with an odd argument they would run it."""


class _TooLong(BaseException):
    """A call computes too long. No Exception, and no OSError: what is called may handle those."""


class Door(NamedTuple):
    """A public function, class or method."""

    name: str
    call: Callable[..., Any]
    hints: dict[str, Any]
    required: tuple[str, ...]


class Outcome(NamedTuple):
    """What came of a call."""

    kind: str
    """sentence, value that fits, value, slow, error of the caller's own function, or traceback."""
    door: str
    parameter: str
    odd: str
    words: str


def public_names() -> Iterator[tuple[str, Any]]:
    """Yield the public functions and classes by name, once."""
    seen = set()
    for stub in sorted(Path(circuitry.__file__).parent.rglob("__init__.pyi")):
        room = importlib.import_module(
            ".".join(["circuitry", *stub.parent.relative_to(Path(circuitry.__file__).parent).parts])
        )
        for name in room.__all__:
            value = getattr(room, name)
            if (
                callable(value)
                and not isinstance(value, types.GenericAlias)
                and hasattr(value, "__name__")
                and str(value.__module__).startswith("circuitry")
                and name not in seen
            ):
                seen.add(name)
                yield name, value


def doors(values: GoodValues) -> Iterator[Door]:
    """Yield what can be called: functions, classes, their methods on a good instance."""
    for name, value in public_names():
        if inspect.isclass(value) and not issubclass(value, Exception):
            yield from _methods(name, value, values)
        elif not inspect.isclass(value) and name not in UNCALLED:
            yield from _door(name, value, value)


def _methods(name: str, kind: type, values: GoodValues) -> Iterator[Door]:
    yield from _door(name, kind, kind.__new__ if issubclass(kind, tuple) else kind.__init__)
    instance = next((one for one in values.instances if type(one) is kind), None)
    for method, value in vars(kind).items():
        static = isinstance(value, classmethod | staticmethod)
        function = value.__func__ if static else value
        if method.startswith("_") or not inspect.isfunction(function) or f"{name}.{method}" in UNCALLED:
            continue
        if static or instance is not None:
            yield from _door(f"{name}.{method}", getattr(kind if static else instance, method), function)


def _door(name: str, call: Callable[..., Any], function: Callable[..., Any]) -> Iterator[Door]:
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in ("self", "cls", "_cls")]
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = [p for p in parameters if p.kind not in several]
    hints = get_type_hints(function, include_extras=True)
    if parameters and all(p.name in hints for p in parameters):
        required = tuple(p.name for p in parameters if p.default is inspect.Parameter.empty)
        yield Door(name, call, {p.name: hints[p.name] for p in parameters}, required)


class Walk:
    """Good and odd values, and the calls."""

    def __init__(self, folder: Path) -> None:
        self.values = GoodValues(folder)
        self.files = self._start_anew()
        self.anything = frozenset({**anything(self.values), **self.files})
        self.doors = [door for door in doors(self.values) if self._can_be_called(door)]
        self.places = [(door, parameter) for door in self.doors for parameter in door.hints]

    def _start_anew(self) -> dict[str, Any]:
        """Make the folder that a call may write into, without what the call before left there."""
        shutil.rmtree(self.values.scratch, ignore_errors=True)
        return write_odd_files(self.values.scratch)

    def _can_be_called(self, door: Door) -> bool:
        try:
            self.good(door)
        except StopIteration:
            return False
        return True

    def draw(self, rng: random.Random, door: Door, parameter: str) -> str:
        """Draw an odd value, a good one spoiled as often as anything else."""
        odd = self.odd(door, parameter)
        spoilt = [name for name in odd if name not in self.anything]
        return rng.choice(spoilt if spoilt and rng.random() < 0.5 else sorted(self.anything))

    def good(self, door: Door) -> dict[str, Any]:
        """Return a good value for every required parameter, and for `work`."""
        places, few = self.values.by_place, ("work", "permutations", "resamples")
        more = [name for name in door.hints if name in few or f"{door.name}.{name}" in places]
        named = dict.fromkeys((*door.required, *more))
        return {name: self.values.of(door.name, name, door.hints[name]) for name in named}

    def odd(self, door: Door, parameter: str) -> dict[str, Any]:
        """Return odd values of a parameter by what they are."""
        try:
            good = self.values.of(door.name, parameter, door.hints[parameter])
        except StopIteration:
            good = None
        return anything(self.values) | self.files | spoiled(good)

    def call(self, door: Door, parameter: str, odd: str | None) -> Outcome:
        """Call a door with one odd value."""
        self._start_anew()
        try:
            with _quietly(self.values.scratch):
                arguments = self.good(door) | ({} if odd is None else {parameter: self.odd(door, parameter)[odd]})
                found = door.call(**arguments)
                if isinstance(found, types.GeneratorType):
                    next(found, None)
                words = repr(found)[:150]
            fits = odd is None or is_bearable(arguments[parameter], door.hints[parameter])
            kind = "value that fits" if fits else "value"
        except InputError as error:
            kind, words = "sentence", str(error)
        except _TooLong:
            kind, words = "slow", ""
        except Exception as error:
            kind = "traceback"
            if odd in ("a class", "a function") and "Callable" in str(door.hints[parameter]):
                kind = "error of the caller's own function"
            words = f"{type(error).__name__}: {str(error)[:150]}\n{_where(error)}"
        return Outcome(kind, door.name, parameter, str(odd), words)


def _where(error: Exception) -> str:
    return " < ".join(
        f"{Path(f.filename).name}:{f.lineno}" for f in reversed(traceback.extract_tb(error.__traceback__)[-6:])
    )


@contextlib.contextmanager
def _quietly(folder: Path) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TooLong

    before, here = signal.signal(signal.SIGVTALRM, stop), os.getcwd()
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    (folder / "here").mkdir()
    os.chdir(folder / "here")
    try:
        with (
            warnings.catch_warnings(),
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stderr(nowhere),
            contextlib.redirect_stdout(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        os.chdir(here)


def main(calls: int, seed: int) -> None:
    """Print what comes of calls drawn at random, every parameter at least once."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        walk = Walk(Path(folder))
        outcomes = []
        for door, parameter in rng.choices(walk.places, k=max(0, calls - len(walk.places))) + walk.places:
            outcomes.append(walk.call(door, parameter, walk.draw(rng, door, parameter)))
    for one in outcomes:
        if one.kind not in ("sentence", "value that fits"):
            print(f"{one.kind}: {one.door}({one.parameter} = {one.odd}) {one.words}")
    for kind, count in Counter(one.kind for one in outcomes).most_common():
        print(f"{count:6} {kind}")
    print(f"{len(outcomes):6} calls of {len(walk.doors)} functions, classes and methods, seed {seed}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
