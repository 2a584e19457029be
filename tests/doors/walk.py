"""Call every door with odd values: each public function and constructor that checks its arguments (`checked`).

    python -m tests.doors.walk 2000 0       # calls, seed

An odd value is refused in a sentence (InputError), or fits the annotation. What else comes of a call is printed: a
traceback, or a value of something that does not fit. After changes of annotations print it for some seeds.
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
from circuitry.runs.given import DOOR
from tests.doors.odd_values import anything, spoiled, write_odd_files
from tests.doors.world import World

SECONDS = 2
"""A call that computes longer is stopped: its arguments were taken."""
FEW = ("work", "permutations", "resamples")
"""Parameters that are given although they have a default."""


class _TooLong(BaseException):
    """A call computes too long. No Exception, and no OSError: what is called may handle those."""


class Door(NamedTuple):
    """A public function, class or loader that checks its arguments."""

    name: str
    call: Callable[..., Any]
    function: Callable[..., Any]
    hints: dict[str, Any]


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
    package = Path(circuitry.__file__).parent
    for stub in sorted(package.rglob("__init__.pyi")):
        room = importlib.import_module(".".join(["circuitry", *stub.parent.relative_to(package).parts]))
        for name in room.__all__:
            value = getattr(room, name)
            if inspect.isfunction(value) or (inspect.isclass(value) and not isinstance(value, types.GenericAlias)):
                if name not in seen:
                    yield name, value
                seen.add(name)


def doors() -> Iterator[Door]:
    """Yield the doors: functions, constructors, and class methods that load."""
    for name, value in public_names():
        found = [(name, value, value.__init__ if inspect.isclass(value) else value)]
        if inspect.isclass(value):
            made = [(key, one.__func__) for key, one in vars(value).items() if isinstance(one, classmethod)]
            found += [(f"{name}.{key}", getattr(value, key), function) for key, function in made]
        for place, call, function in found:
            if hasattr(function, DOOR):
                several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
                hints = get_type_hints(function, include_extras=True)
                parameters = inspect.signature(function).parameters.values()
                named = {
                    one.name: hints[one.name] for one in parameters if one.kind not in several if one.name in hints
                }
                yield Door(place, call, function, named)


class Walk:
    """Good and odd values, and the calls."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.files = self._start_anew()
        self.anything = frozenset({**anything(self.world), **self.files})
        self.doors = list(doors())
        self.places = [(door, parameter) for door in self.doors for parameter in door.hints]

    def _start_anew(self) -> dict[str, Any]:
        """Make the folder that a call may write into, without what the call before left there."""
        shutil.rmtree(self.world.scratch, ignore_errors=True)
        return write_odd_files(self.world.scratch)

    def draw(self, rng: random.Random, door: Door, parameter: str) -> str:
        """Draw an odd value, a good one spoiled as often as anything else."""
        spoilt = sorted(set(self.odd(door, parameter)) - self.anything)
        return rng.choice(spoilt if spoilt and rng.random() < 0.5 else sorted(self.anything))

    def odd(self, door: Door, parameter: str) -> dict[str, Any]:
        """Return odd values of a parameter by what they are."""
        good = None
        with contextlib.suppress(Exception):  # of an option that nothing good is known for
            good = self.world.good(door.hints[parameter], parameter)
        return anything(self.world) | self.files | spoiled(good)

    def call(self, door: Door, parameter: str, odd: str | None) -> Outcome:
        """Call a door with one odd value, or with good ones alone."""
        self._start_anew()
        try:
            with _quietly(self.world.scratch):
                arguments = self.world.arguments(door.function, more=FEW)
                arguments |= {} if odd is None else {parameter: self.odd(door, parameter)[odd]}
                words = repr(door.call(**arguments))[:150]
            fits = odd is None or is_bearable(arguments[parameter], door.hints[parameter])
            kind = "value that fits" if fits else "value"
        except InputError as error:
            kind, words = "sentence", str(error)
        except _TooLong:
            kind, words = "slow", ""
        except Exception as error:
            own = odd in ("a class", "a function") and "Callable" in str(door.hints[parameter])
            kind = "error of the caller's own function" if own else "traceback"
            where = reversed(traceback.extract_tb(error.__traceback__)[-6:])
            places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in where)
            words = f"{type(error).__name__}: {str(error)[:150]}\n{places}"
        return Outcome(kind, door.name, parameter, str(odd), words)


@contextlib.contextmanager
def _quietly(folder: Path) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    (folder / "here").mkdir()
    try:
        with contextlib.chdir(folder / "here"), warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
                yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def main(calls: int, seed: int) -> None:
    """Print what comes of calls drawn at random, every parameter at least once."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        walk = Walk(Path(folder))
        places = rng.choices(walk.places, k=max(0, calls - len(walk.places))) + walk.places
        outcomes = [walk.call(door, parameter, walk.draw(rng, door, parameter)) for door, parameter in places]
    for one in outcomes:
        if one.kind not in ("sentence", "value that fits"):
            print(f"{one.kind}: {one.door}({one.parameter} = {one.odd}) {one.words}")
    for kind, count in Counter(one.kind for one in outcomes).most_common():
        print(f"{count:6} {kind}")
    print(f"{len(outcomes):6} calls of {len(walk.doors)} functions, classes and loaders, seed {seed}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
