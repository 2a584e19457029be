"""Examples in docstrings call public functions, classes and methods with arguments that these have."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from itertools import pairwise
from textwrap import dedent
from typing import Any, ClassVar, get_origin, get_type_hints

from tests.test_imports import PUBLIC, modules

PLACES = [getattr(importlib.import_module(package), name) for package, name in PUBLIC]
OBJECTS = {
    place.__name__: [inspect.signature(place)]
    for place in PLACES
    if inspect.isfunction(place)
}
"""How the public functions and classes are called, by name."""
LIBRARIES = ("np", "pd", "subprocess", "torch")
"""Their functions may have names of ours, with other arguments."""
METHODS: dict[str, list[inspect.Signature]] = {}
"""How the methods of public classes are called on an object, by name."""
for kind in {
    place
    for place in PLACES
    if isinstance(place, type) and not issubclass(place, Exception)
}:
    OBJECTS[kind.__name__] = [inspect.signature(kind)]
    for name, method in inspect.getmembers(kind, inspect.isroutine):
        if not name.startswith("_") and str(
            getattr(method, "__module__", None)
        ).startswith("circuitry"):
            signature, static = (
                inspect.signature(method),
                isinstance(inspect.getattr_static(kind, name), staticmethod),
            )
            of_object = list(signature.parameters.values())[
                inspect.isfunction(method) and not static :
            ]
            METHODS.setdefault(name, []).append(signature.replace(parameters=of_object))


def examples(module: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            lines = [
                line.strip() for line in (ast.get_docstring(node) or "").splitlines()
            ]
            yield "\n".join(
                line[4:] for line in lines if line.startswith((">>> ", "... "))
            )


def misfits(code: str) -> list[str]:
    """Return what is wrong with the calls in an example; arguments that it leaves out are written ``...``."""
    found = []
    for call in (
        node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)
    ):
        owner = ast.unparse(call.func).rpartition(".")[0]
        if owner.partition(".")[0] in LIBRARIES:
            continue
        of_object = owner != "" and not re.fullmatch(r"circuitry(\.\w+)*", owner)
        name = ast.unparse(call.func).rpartition(".")[2]
        known = (METHODS if of_object else OBJECTS).get(name, [])
        given, named = (
            map(ast.unparse, call.args),
            {keyword.arg: None for keyword in call.keywords},
        )
        arguments = [
            argument
            for argument in given
            if argument != "..." and not argument.startswith("*")
        ]
        partly = len(arguments) < len(call.args) or None in named
        errors = list[str]()
        for signature in known:
            try:
                bind = signature.bind_partial if partly else signature.bind
                bind(*arguments, **{key: None for key in named if key is not None})
            except TypeError as error:
                errors.append(f"{ast.unparse(call)}: {error}")
        found += errors if len(errors) == len(known) else []
    return found


def test_examples_give_arguments_that_exist() -> None:
    wrong = {
        module: [each for example in examples(module) for each in misfits(example)]
        for module in modules()
    }
    assert {module: each for module, each in wrong.items() if each} == {}


def undescribed(kind: type) -> Iterator[str]:
    """Yield the fields that neither a text beside or below them nor the help of their option describes."""
    source, hints = (
        dedent(inspect.getsource(kind)),
        get_type_hints(kind, include_extras=True),
    )
    (definition,) = ast.parse(source).body
    for node, below in pairwise([*getattr(definition, "body", ()), None]):
        hint: Any = (
            hints[name := ast.unparse(node.target)]
            if isinstance(node, ast.AnnAssign)
            else ClassVar
        )
        beside = (
            node is not None and "  #: " in source.splitlines()[node.end_lineno - 1]
        )
        helped = any(
            getattr(mark, "help", None) for mark in getattr(hint, "__metadata__", ())
        )
        if not (
            ClassVar in (hint, get_origin(hint))
            or isinstance(below, ast.Expr)
            or beside
            or helped
        ):
            yield f"{kind.__name__}.{name}"


def test_every_field_of_a_public_class_is_described() -> None:
    kinds = {
        kind
        for kind in PLACES
        if isinstance(kind, type) and (is_dataclass(kind) or hasattr(kind, "_fields"))
    }
    assert sorted(field for kind in kinds for field in undescribed(kind)) == []
