"""Check calls within the package by beartype, and sizes in shapes in the first calls of a function in each test.

The option ``--jaxtyping-packages`` decorates every function as it is imported; its own wrapper costs half of all tests.
Libraries are imported here first: within that import Python finds no compiled file of theirs.
"""

import functools
from collections.abc import Callable
from dataclasses import is_dataclass
from importlib import import_module
from types import CodeType
from typing import Any

import jaxtyping
from beartype import beartype

_jaxtyped: Any = jaxtyping.jaxtyped
ENOUGH = 30
"""Calls of a function that are checked in a test: some are called a million times, all alike."""
_test = 0
"""Number of tests begun."""
_called: set[CodeType] = set()
"""Functions within functions that were checked: each is once, however often the outer one makes it."""


def begin_test() -> None:
    """Check calls of functions again that were called often enough in the test before."""
    global _test
    _test += 1


def _decorated(made: Any = None, *, typechecker: Any = None) -> Any:
    if made is None:  # the call of the import hook, which decorates by what it returns
        return _decorated
    if made == "context":
        return _jaxtyped(made)
    if not isinstance(made, type):
        return (
            _once_checked(made) if "<locals>" in made.__qualname__ else _checked(made)
        )
    if (
        is_dataclass(made) and made.__init__.__globals__ is not globals()
    ):  # and no door, which refuses in a sentence
        made.__init__ = _checked(made.__init__)  # type: ignore[method-assign]
    return made


def _with_check(function: Callable[..., Any]) -> Callable[..., Any]:
    annotations = function.__annotations__
    function.__annotations__ = {
        name: _resolved(hint, function) for name, hint in annotations.items()
    }
    checked = beartype(function)
    function.__annotations__ = annotations
    return checked


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    has_shapes = "jaxtyping." in str(function.__annotations__)
    checked: Callable[..., Any] | None = None
    test, calls = 0, 0

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked, test, calls
        checked = checked or _with_check(
            function
        )  # at the first call: most functions have none in a process
        if test != _test:
            test, calls = _test, 0
        calls += 1
        if calls > ENOUGH or jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        if not has_shapes:
            return checked(*args, **kwargs)
        with _jaxtyped("context"):
            return checked(*args, **kwargs)

    return call


def _resolved(hint: Any, function: Any) -> Any:
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, function.__globals__)
    except (
        NameError,
        TypeError,
    ):  # a class that is being made; what is imported, or takes arguments, for mypy alone
        return Any


def _once_checked(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if jaxtyping.config.jaxtyping_disable or function.__code__ in _called:
            return function(*args, **kwargs)
        _called.add(function.__code__)
        return _checked(function)(*args, **kwargs)

    # A check belongs to what it checks, where an identity tells the package's code from others'.
    made: Any = call
    made.__code__ = made.__code__.replace(co_filename=function.__code__.co_filename)
    return call


for _library in (
    *(
        "captum.attr",
        "huggingface_hub",
        "jinja2",
        "networkx",
        "open_clip",
        "pandas",
        "plotly.express",
        "plotly.io",
    ),
    *(
        "safetensors.torch",
        "scipy.cluster.hierarchy",
        "scipy.stats",
        "sklearn.linear_model",
        "sklearn.pipeline",
    ),
    *("starlette.applications", "transformer_lens", "transformers", "tyro", "uvicorn"),
):
    import_module(_library)
jaxtyping.jaxtyped = _decorated  # type: ignore[assignment]
