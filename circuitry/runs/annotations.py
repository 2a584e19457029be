"""Check whether a value is of an annotated type, and describe types in words for error messages.

Does not import torch.
"""

from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Set,
)
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

LIST_TYPES = (list, tuple, Collection, Iterable, Iterator, Sequence, Set)
"""Types of collections without keys; the values may have an order or not."""


def is_of_type(value: Any, kind: Any) -> bool:
    """Return whether a value is of a type, without checking the values that it holds.

    Args:
        kind: The type without brackets: ``list`` for the annotation ``list[int]``. If no value can be checked against
            it, as for a protocol that is not checkable, the result is True.
    """
    if kind in (Any, object) or isinstance(kind, TypeVar):
        return True
    if kind is Callable:
        return callable(value)
    # Numbers of numpy count, but True is no number, although `bool` is an `int`.
    if kind in (int, float):
        number = {int: Integral, float: Real}[kind]
        return isinstance(value, number) and not isinstance(value, bool)
    # Texts, mappings and matrices can be iterated over, too, but they are not lists.
    no_list = isinstance(value, str | bytes | Mapping) or getattr(value, "ndim", 1) != 1
    if kind in LIST_TYPES and no_list:
        return False
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol that cannot be checked
        return True


class Said(str):
    """A text whose ``repr`` has no quotes, so that a signature shows it like code and not like a string."""

    __repr__ = str.__str__


def annotation_in_words(hint: Any, names: Sequence[tuple[Any, str]]) -> Said:
    """Return an annotation as text, as it would be written in code.

    The names of modules and the conditions in an ``Annotated`` are left out.

    Args:
        names: Pairs of an annotation and a name. If an annotation equals the first of a pair, the name is written in
            its place.
    """
    for known, name in names:
        if known == hint:
            return Said(name)
    if hint is ...:
        return Said("...")
    if isinstance(hint, list):  # the arguments of a function
        words = [annotation_in_words(argument, names) for argument in hint]
        return Said(f"[{', '.join(words)}]")
    kind = get_origin(hint)
    if kind is Literal or isinstance(hint, str) or not (kind or isinstance(hint, type)):
        return Said(str(hint).removeprefix("typing."))
    words = [annotation_in_words(inner, names) for inner in get_args(hint)]
    if kind is Annotated:
        return words[0]
    if kind in (Union, UnionType):
        return Said(" | ".join(words))
    if hint is NoneType:
        return Said("None")
    name = (kind or hint).__name__
    if not words:
        return Said(name)
    return Said(f"{name}[{', '.join(words)}]")


_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "True or False",
    Path: "a path",
    NoneType: "None",
    Callable: "a function",
}
_HOW_TO_GET = {
    "int": "give a whole number such as 3",
    "float": "give a number such as 0.1",
    "Tensor": "prepare pictures by clip.preprocess, make other arrays one by torch.as_tensor",
    "ndarray": "make it one by numpy.asarray",
}
"""Advice on how to get a value of a type of Python or of another package, by the name of the type.

A class of circuitry has its own advice as an attribute ``HOW_TO_GET``.
"""


def type_in_words(hint: Any, name: str) -> str:
    """Return the type of an annotation in words, such as ``a whole number``.

    Args:
        name: Name of the argument, such as ``classes``. The type of a list is then described as ``a list of classes``.
            For all other types the name is ignored.
    """
    kind = get_origin(hint) or hint
    if kind in LIST_TYPES:
        return f"a list of {name}"
    if hasattr(hint, "dim_str"):  # a type of jaxtyping
        return (
            f"{hint.dtype.__name__.lower()} {hint.array_type.__name__} [{hint.dim_str}]"
        )
    if kind in _WORDS:
        return _WORDS[kind]
    article = "an" if kind.__name__[0] in "AEIO" else "a"
    return f"{article} {kind.__name__}"


def how_to_give(value: Any, hint: Any, name: str) -> str:
    """Return advice on how to make a value that fits an annotation.

    Args:
        value: The value that was given and does not fit.
        name: Name of the argument, from which the advice may build an expression such as ``list(NAME)``.
    """
    kind = get_origin(hint) or hint
    inner = get_args(hint)
    if kind in LIST_TYPES:
        # Classes of circuitry, such as `Task`, say how to make an object of them.
        how = getattr(inner[0], "HOW_TO_GET", None) if inner else None
        if how:
            return f"write [{name}]" if is_of_type(value, inner[0]) else str(how)
        if isinstance(value, Iterable) and not isinstance(value, str | bytes):
            return f"write list({name})"
        text = repr(value) if isinstance(value, str | int | float) else name
        return f"write ({text},)" if kind is tuple else f"write [{text}]"
    if hasattr(hint, "dim_str"):
        return "give one of this type and shape"
    return (
        getattr(kind, "HOW_TO_GET", None)
        or _HOW_TO_GET.get(kind.__name__)
        or f"give {type_in_words(hint, name)}"
    )
