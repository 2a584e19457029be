"""Call doors with odd values: public functions and constructors that check their arguments (`checked`).

An odd value is refused in a sentence (InputError), or taken: the call returns, or computes until it is stopped.
"""

import contextlib
import importlib
import inspect
import os
import random
import shutil
import signal
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from circuitry import InputError
from circuitry.runs.given import DOOR
from tests.doors.odd_values import anything, spoiled, write_odd_files
from tests.doors.world import World
from tests.test_imports import PUBLIC

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


def public_names() -> Iterator[tuple[str, Any]]:
    """Yield the public functions and classes by name, once."""
    for name, package in {name: package for package, name in reversed(PUBLIC)}.items():
        value = getattr(importlib.import_module(package), name)
        if inspect.isfunction(value) or (inspect.isclass(value) and not isinstance(value, types.GenericAlias)):
            yield name, value


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
                named = [one.name for one in parameters if one.kind not in several if one.name in hints]
                yield Door(place, call, function, {name: hints[name] for name in named})


class Walk:
    """Good and odd values, and the calls."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.places = [(door, parameter) for door in doors() for parameter in door.hints]

    def call(self, door: Door, parameter: str, rng: random.Random) -> str:
        """Call a door with one odd value, a good one spoiled as often as anything else; return which it was."""
        shutil.rmtree(self.world.scratch, ignore_errors=True)
        odd, good = anything(self.world) | write_odd_files(self.world.scratch), None
        with contextlib.suppress(Exception):  # of an option that nothing good is known for
            good = self.world.good(door.hints[parameter], parameter)
        if spoilt := spoiled(good):
            odd = rng.choice([odd, spoilt])
        drawn = rng.choice(sorted(odd))
        try:
            with _quietly(self.world.scratch):
                arguments = self.world.arguments(door.function, more=FEW)
                door.call(**(arguments | {parameter: odd[drawn]}))
        except (InputError, _TooLong):
            pass
        except Exception as error:
            if drawn not in ("a class", "a function") or "Callable" not in str(door.hints[parameter]):
                raise AssertionError(f"{door.name}({parameter} = {drawn})") from error
        return drawn


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
