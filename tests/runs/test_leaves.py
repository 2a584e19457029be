"""What functions and objects are, read to their leaves: other things have other digests, equal ones the same."""

import functools
import operator
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from circuitry.runs.identity import UNKNOWN, Identity
from circuitry.runs.leaves import entry_of


def defined(code: str, name: str = "f", **more: Any) -> Any:
    """Return what code defines, as if in a module of somebody's."""
    module = ModuleType("somebodys_module")
    vars(module).update(more)
    exec(code, vars(module))
    return vars(module)[name]


@dataclass
class Settings:
    gain: float = 1.0
    names: list[str] = field(default_factory=list)


class Slotted:
    __slots__ = ("gain",)

    def __init__(self, gain: float) -> None:
        self.gain = gain


class Counted(dict[str, int]):
    def __init__(self, gain: float, **more: int) -> None:
        super().__init__(more)
        self.gain = gain


class Kind(Enum):
    A = 1
    B = 2


def helpers(code: str) -> ModuleType:
    module = ModuleType("somebodys_helpers")
    exec(code, vars(module))
    return module


def layer(gain: float) -> nn.Module:
    made = nn.Linear(1, 1)
    nn.init.constant_(made.weight, gain)
    nn.init.constant_(made.bias, 0.0)
    return made


def wrapped(sign: int) -> Callable[[float], float]:
    @functools.wraps(abs)
    def found(x: float) -> float:
        return sign * x

    return found


DIFFERENT: dict[str, tuple[Any, ...]] = {
    "plain": (0, 1, True, 1.5, "1", None, b"1", 1j),
    "containers": (
        [1, 2],
        [2, 1],
        {1: 2},
        {"1": 2},
        {1, 2},
        (1, [2]),
        slice(1, 2),
        range(1, 2),
        deque([5]),
    ),
    "arrays": (
        np.zeros(2),
        np.zeros(3),
        np.ones(2),
        np.zeros(2, int),
        np.array([None, 1]),
        np.array([None, 2]),
    ),
    "tensors": (
        torch.zeros(2),
        torch.ones(2),
        torch.zeros(2, 1),
        torch.zeros(2).half(),
    ),
    "of torch": (
        torch.float32,
        torch.float16,
        torch.device("cpu"),
        torch.device("meta"),
    ),
    "enums": (Kind.A, Kind.B, Kind),
    "objects": (
        Settings(),
        Settings(2.0),
        Settings(names=["a"]),
        Slotted(1.0),
        Slotted(2.0),
    ),
    "derived": (
        Counted(1.0, a=1),
        Counted(2.0, a=1),
        Counted(1.0, a=2),
        OrderedDict(a=1),
    ),
    "modules": (
        layer(1.0),
        layer(2.0),
        nn.ReLU(),
        nn.GELU(),
        nn.GELU(approximate="tanh"),
    ),
    "of libraries": (
        F.relu,
        F.gelu,
        torch.relu,
        torch.Tensor.relu,
        np.exp,
        np.log,
        operator.add,
        "a".join,
        "b".join,
    ),
    "partials": tuple(functools.partial(max, *given) for given in ((1,), (2,), ())),
    "code": tuple(
        defined(f"def f(x{more}): return {body}")
        for more, body in (
            *(
                ("", "x"),
                ("", "-x"),
                ("", "x + 1"),
                ("", "x + 2"),
                (", y=1", "x"),
                (", y=2", "x"),
            ),
            *(
                (", *, y=1", "x"),
                (", *, y=2", "x"),
                ("", "(lambda: x + 1)()"),
                ("", "(lambda: x + 2)()"),
            ),
            *(("", "[x for _ in (1, 2)]"), ("", "[x for _ in (1, 3)]")),
        )
    ),
    "globals": tuple(
        defined("def f(x): return K * x", K=k)
        for k in (1, 2, torch.ones(1), Settings())
    ),
    "globals within": tuple(
        defined("def f(x): return (lambda: K * x)()", K=k) for k in (1, 2)
    ),
    "functions that are called": tuple(
        defined("def g(x): return K * x\ndef f(x): return g(x)", K=k) for k in (1, 2)
    ),
    "functions of modules": tuple(
        defined("def f(x): return h.g(x)", h=helpers(f"def g(x): return {k} * x"))
        for k in (1, 2)
    ),
    "methods": tuple(
        defined(
            "class C:\n  def m(self): return self.k\nf = C()\nf.k = K\nf = f.m", K=k
        )
        for k in (1, 2)
    ),
    "classes": tuple(
        defined(f"class f:\n  k = 1\n  def m(self): return {k} * self.k")
        for k in (1, 2)
    ),
    "attributes of classes": tuple(
        defined(f"class C:\n  k = {k}\nf = C()") for k in (1, 2)
    ),
    "decorated": tuple(
        torch.no_grad()(defined(f"def f(x): return {k} * x")) for k in (1, 2)
    ),
    "kept": tuple(
        functools.cache(defined(f"def f(x): return {k} * x")) for k in (1, 2)
    ),
    "under a library's name": (wrapped(1), wrapped(-1), abs),
    "attributes of functions": tuple(
        defined("def f(x): return f.k\nf.k = K", K=k) for k in (1, 2)
    ),
    "identities": tuple(
        defined("def f(x): return x\nf.identity = K", K=k)
        for k in ("mine 1", "mine 2", {"a": 1})
    ),
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_other_things_are_others(kind: str) -> None:
    found = [entry_of(one, "it") for one in DIFFERENT[kind]]
    assert all(isinstance(one, str) for one in found), found
    assert len({*map(str, found)}) == len(found), found


def calls_itself() -> Callable[[int], int]:
    def down(n: int) -> int:
        return down(n - 1) if n else 0

    return down


def holds_itself() -> Settings:
    made = Settings()
    made.names.append(made)  # type: ignore[arg-type]
    return made


EQUAL: dict[str, Callable[[], Any]] = {
    "orders": iter([{"a": 1, "b": {3, 1, 2}}, {"b": {2, 1, 3}, "a": 1}]).__next__,
    "functions": lambda: defined(
        "def g(x): return x\ndef f(x, *, y=(1, 2)): return [g(x) for _ in y]"
    ),
    "functions that call themselves": calls_itself,
    "objects that hold themselves": holds_itself,
    "arrays": lambda: {"a": np.arange(6).reshape(2, 3).T, "b": torch.arange(3)},
    "objects": lambda: [Settings(2.0), Counted(1.0, b=2), Slotted(3.0), object()],
    "modules": lambda: nn.Sequential(layer(2.0), nn.ReLU()),
    "generators": lambda: np.random.default_rng(3),
    "lines": iter(
        [defined("def f(x): return x"), defined("\n\n\ndef f(x): return x")]
    ).__next__,
}


@pytest.mark.parametrize("kind", EQUAL)
def test_equal_things_are_the_same(kind: str) -> None:
    one, other = EQUAL[kind](), EQUAL[kind]()
    assert one is not other
    assert isinstance(entry_of(one, "it"), str)
    assert entry_of(one, "it") == entry_of(other, "it") == entry_of(one, "another")


class Lazy:
    def __init__(self) -> None:
        self.gain = 1.0

    @functools.cached_property
    def twice(self) -> float:
        return 2 * self.gain


def test_what_an_object_computes_and_keeps_does_not_change_it() -> None:
    lazy = Lazy()
    before = entry_of(lazy, "it")
    assert lazy.twice == 2.0
    assert entry_of(lazy, "it") == before


def numbers() -> Iterator[int]:
    yield 1


UNREAD: dict[str, tuple[Any, str]] = {
    "a generator": (numbers(), "it"),
    "in a list": ([1, numbers()], "it[1]"),
    "in a mapping": ({"a": threading.Lock()}, "it['a']"),
    "in an object": (Settings(names=[numbers()]), "it.names[0]"),  # type: ignore[list-item]
    "closed over": (
        (lambda made: lambda: made)(numbers()),
        "it, made that it closes over",
    ),
    "a default": (defined("def f(x=K): return x", K=numbers()), "it, a default[0]"),
    "a global": (defined("def f(x): return K", K=numbers()), "it, its global K"),
    "an identity": (Settings(names=Identity(hooks={"a": [UNKNOWN]})), "it.names"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("kind", UNREAD)
def test_what_cannot_be_read_is_unknown_by_its_place(kind: str) -> None:
    value, place = UNREAD[kind]
    found = entry_of(value, "it")
    if kind == "an identity":  # the text that says so is read
        value.names = type("Held", (), {"identity": value.names})()
        found = entry_of(value, "it")
    assert found == {place: UNKNOWN}
    assert Identity(metric_code=found).unknown == ("metric_code",)


def test_an_attribute_that_raises_is_none() -> None:
    class Raising:
        @property
        def identity(self) -> str:
            raise RuntimeError("not now")

    assert isinstance(entry_of(Raising(), "it"), str)
