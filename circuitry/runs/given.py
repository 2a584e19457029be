"""Check the arguments that users give to public functions against the annotations. No torch.

1. `checked` marks a door: a call that the function does not take, or whose arguments do not fit the annotations, is
   refused in one sentence; an attribute that a class lacks, too;
2. an annotation asks for more than a type by a `Condition`: `Names`, `Count`, `Share`, `FINITE`;
3. numpy's numbers, text for a path and a list for a tuple are taken as what they mean.
"""

import functools
import inspect
import os
from collections.abc import Callable, Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
from jaxtyping import jaxtyped

import circuitry
from circuitry.runs.annotations import (
    LIST_TYPES,
    annotation_in_words,
    how_to_give,
    is_of_type,
    type_in_words,
)
from circuitry.runs.errors import InputError, refuse_path, shown, unknown_name
from circuitry.runs.files import at_home

Made = TypeVar("Made", bound=Callable[..., Any])
ABOVE_ZERO, _LARGEST = float(np.nextafter(0, 1)), float(np.finfo(float).max)


class Condition(NamedTuple):
    """A condition on a value beside its type, written into an ``Annotated``."""

    wanted: str
    """The expected value, in words."""
    wrong: Callable[[Any], str | None]
    """From a value of the type to a description of the fault, None without fault."""
    how: str
    """Advice, in words."""
    taken: tuple[str | int | float, ...] = ()
    """The allowed words, or the smallest and the largest number; empty for conditions of another kind."""

    def __repr__(self) -> str:
        return self.wanted


def _repeated(values: Sequence[Any]) -> str | None:
    seen = set()
    for value in values:
        if value in seen:
            return f"{shown(value)} twice"
        seen.add(value)
    return None


def _infinite(array: Any) -> str | None:
    numbers = np.asarray(
        array.detach().cpu().double() if hasattr(array, "detach") else array
    )
    if numbers.dtype.kind not in "biufc":
        return shown(array)
    return None if np.isfinite(numbers).all() else "an array with NaN or infinity"


def one_of(*choices: str) -> Condition:
    """Return the condition of being one of some words."""
    wanted = f"one of {', '.join(map(repr, choices))}"
    return Condition(
        wanted,
        lambda word: None if word in choices else shown(word),
        "choose one",
        choices,
    )


def between(wanted: str, least: int | float, most: int | float, how: str) -> Condition:
    """Return the condition of being a number from ``least`` to ``most``, in words."""
    return Condition(
        wanted, lambda x: None if least <= x <= most else shown(x), how, (least, most)
    )


def at_least(least: int) -> Condition:
    """Return the condition of being no smaller."""
    return between(
        f"a whole number of at least {least}",
        least,
        _LARGEST,
        f"give one such as {max(3, least)}",
    )


DISTINCT = Condition("distinct values", _repeated, "give each once")
SOME = Condition(
    "at least one value",
    lambda values: None if len(values) else "none",
    "give one or more",
)
FINITE = Condition("finite numbers", _infinite, "find out what made them")

Names = Annotated[Sequence[str], DISTINCT]
Count = Annotated[int, at_least(1)]
Natural = Annotated[int, at_least(0)]
Seed = Annotated[
    int, between("a seed in 0 .. 2^32 - 1", 0, 2**32 - 1, "give one such as 0")
]
Share = Annotated[
    float, between("a share in (0, 1]", ABOVE_ZERO, 1, "give one such as 0.1")
]
Amount = Annotated[
    float, between("a finite number of at least 0", 0, _LARGEST, "give one such as 0.1")
]
Part = Annotated[float, between("a share in [0, 1]", 0, 1, "give one such as 0.1")]
Positive = Annotated[
    float, between("a positive number", ABOVE_ZERO, _LARGEST, "give one such as 0.1")
]
_NAMED = [
    (hint, name) for name, hint in globals().items() if get_origin(hint) is Annotated
]


class _MisfitError(Exception):
    """A value does not fit its annotation; ``inner`` where its type does."""

    def __init__(
        self, wanted: str, name: str, given: str, how: str, *, inner: bool = True
    ) -> None:
        self.wanted, self.name, self.given, self.how, self.inner = (
            wanted,
            name,
            given,
            how,
            inner,
        )

    def told(self) -> InputError:
        return InputError(
            f"Expected {self.wanted} as {self.name}, but {self.given} was given: {self.how}."
        )


FORMERLY = {"node_fraction": "size"}
"""Arguments by the names that they had before."""
DOOR = "checks_its_arguments"
"""Attribute of functions that check what they are given."""


def checked(made: Made) -> Made:
    """Return a function, or a class, that refuses arguments which it does not take or which do not fit its annotations.

    Sizes of the same name in the shapes of several arguments have to agree. Paths that the file system refuses are
    refused, too. A dataclass that inherits from a checked one has its own ``__init__``, so it is to be checked itself.

    Example:
        >>> @checked
        ... def rank(names: Names, share: Share = 0.1) -> None: ...
    """
    if isinstance(made, type):
        made.__init__ = checked(made.__init__)  # type: ignore[misc]
        made.__getattr__ = _missing  # type: ignore[attr-defined]
        return made
    signature = inspect.signature(made)
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.kind not in several
    ]

    @functools.cache
    def hints() -> dict[
        str, Any
    ]:  # when first called: annotations may name what is defined later
        return {
            name: hint
            for name, hint in get_type_hints(made, include_extras=True).items()
            if name in named
        }

    @functools.wraps(made)
    def door(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise _wrong_call(made, signature, kwargs, error) from None
        given = bound.arguments
        try:
            with jaxtyped("context"):
                given |= {
                    name: _fitting(given[name], hint, name)
                    for name, hint in hints().items()
                    if name in given
                }
        except _MisfitError as misfit:
            raise misfit.told() from None
        try:
            return made(*bound.args, **bound.kwargs)
        except OSError as error:
            refuse_path(error, given.values())
            raise

    setattr(door, DOOR, True)
    door.__signature__ = _readable(signature)  # type: ignore[attr-defined]  # what `help` shows
    return door  # type: ignore[return-value]


def _missing(self: object, name: str) -> Any:
    """Stand for an attribute that an object lacks; Python asks only where there is none, or a property fails."""
    try:
        return object.__getattribute__(self, name)
    except AttributeError:
        if name.startswith("_") or hasattr(type(self), name):
            raise
        names = [
            one for one in dir(self) if not one.startswith("_") and not one.isupper()
        ]
        functions = [
            one
            for one in dir(circuitry)
            if one.startswith(name) and not find_spec(f"circuitry.{one}")
        ]
        written = {name: f"circuitry.{functions[0]}(...)"} if functions else {}
        sentence = str(
            unknown_name(
                f"attribute of {type(self).__name__}", name, [*names, *written], written
            )
        )
        raise AttributeError(sentence, name=name, obj=self) from None


def _wrong_call(
    made: Callable[..., Any],
    signature: inspect.Signature,
    given: Collection[str],
    error: TypeError,
) -> InputError:
    """Return what to say of a call that a function does not take."""
    name = made.__qualname__.rpartition("<locals>.")[2].removesuffix(".__init__")
    taken = {
        one: parameter
        for one, parameter in signature.parameters.items()
        if one not in ("self", "cls")
    }
    if unknown := [one for one in given if one not in taken]:
        written: dict[str, str] = {}
        for one, parameter in taken.items():
            kind, inner = (
                type(parameter.default).__name__,
                getattr(parameter.default, "__dataclass_fields__", {}),
            )
            written |= {
                field_name: f"{one}={kind}({field_name}=)"
                for field_name in inner
                if field_name.islower()
            }
        written |= {one: f"{one}=" for one in taken}
        written |= {old: f"{new}=" for old, new in FORMERLY.items() if new in taken}
        current = [one for one in written if one not in FORMERLY or one == unknown[0]]
        return unknown_name(f"argument of {name}", unknown[0], current, written)
    call = ", ".join(
        one if parameter.default is parameter.empty else f"{one}="
        for one, parameter in taken.items()
    )
    within = (
        ("with ", ":")
        if inspect.isgeneratorfunction(inspect.unwrap(made))
        else ("", "")
    )
    return InputError(
        f"{name} cannot be called like this ({error}): write {within[0]}{name}({call}){within[1]}."
    )


def _readable(signature: inspect.Signature) -> inspect.Signature:
    """Return a signature whose annotations are short texts."""

    def said(hint: Any) -> Any:
        return (
            hint
            if hint is inspect.Signature.empty
            else annotation_in_words(hint, _NAMED)
        )

    parameters = [
        one.replace(annotation=said(one.annotation))
        for one in signature.parameters.values()
    ]
    return signature.replace(
        parameters=parameters, return_annotation=said(signature.return_annotation)
    )


def fitting(value: Any, hint: Any, name: str) -> Any:
    """Return a value as its annotation means it; raise `InputError` where it does not fit."""
    try:
        return _fitting(value, hint, name)
    except _MisfitError as misfit:
        raise misfit.told() from None


def _fitting(value: Any, hint: Any, name: str) -> Any:
    if (
        type(value) is hint
        and hint is not int
        and hint is not str
        and not hasattr(hint, "layout")
    ):
        return value
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        value = _fitting(value, inner[0], name)
        for condition in inner[1:]:
            if (
                isinstance(condition, Condition)
                and value is not None
                and (wrong := condition.wrong(value)) is not None
            ):
                raise _MisfitError(condition.wanted, name, wrong, condition.how)
        return value
    if kind in (Union, UnionType):
        return _fitting_any(value, inner, name)
    if kind is Literal:
        return _fitting(value, Annotated[str, one_of(*inner)], name)
    if kind is Path and isinstance(value, str | Path):
        value = Path(at_home(value))
    if kind is tuple and isinstance(value, list):
        value = tuple(value)
    if isinstance(value, str | Path) and not _can_be_written(str(value)):
        raise _MisfitError(
            "text without null characters and lone surrogates",
            name,
            shown(str(value)),
            "remove them",
        )
    if (lacking := lacking_values(value)) is not None:
        raise _MisfitError(
            "an array with all its values",
            name,
            lacking,
            "fill in what is not there, or leave it out",
        )
    if not is_of_type(value, kind):
        words = (
            type_in_words(hint, name),
            name,
            shown(value),
            how_to_give(value, hint, name),
        )
        raise _MisfitError(*words, inner=False)
    if kind is int and abs(value) >= 2**63:
        raise _MisfitError(
            "a whole number of 64 bits", name, shown(value), "give a smaller one"
        )
    if (
        isinstance(value, dict | MappingProxyType) and len(inner) == 2
    ):  # others may read when they are asked
        keys = _each(value, inner[0], [f"key of {name}"] * len(value))
        return dict(
            zip(
                keys,
                _each(value.values(), inner[1], [f"{name}[{key!r}]" for key in value]),
                strict=True,
            )
        )
    if (
        isinstance(value, list | tuple | set | frozenset | range)
        and kind in LIST_TYPES
        and inner
    ):
        return _list_fitting(value, kind, inner, name)
    if isinstance(value, np.ma.MaskedArray):
        return value.data
    return (
        value.item()
        if kind in (int, float, str) and isinstance(value, np.generic)
        else value
    )


def _can_be_written(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def lacking_values(array: Any) -> str | None:
    """Say what an array or a tensor has in place of some of its values; None where all are there."""
    if np.ma.is_masked(array):
        return "one with masked values"
    if not hasattr(array, "is_meta"):
        return None
    if array.is_meta:
        return "a tensor without values, of the device meta"
    return (
        "a tensor that is sparse or nested"
        if array.is_nested or str(array.layout) != "torch.strided"
        else None
    )


def _fitting_any(value: Any, hints: Sequence[Any], name: str) -> Any:
    """Return a value as one of several annotations means it; the misfit within a right type counts."""
    if (
        value is None and type(None) in hints
    ):  # a caught misfit would keep what its frames hold alive
        return None
    if isinstance(value, str | Path) and any(
        (get_origin(hint) or hint) in (Path, os.PathLike) for hint in hints
    ):
        value = type(value)(at_home(value))
    misfits = []
    for hint in hints:
        try:
            return _fitting(value, hint, name)
        except _MisfitError as misfit:
            misfits.append(misfit)
    if inner := [misfit for misfit in misfits if misfit.inner]:
        raise max(inner, key=lambda misfit: misfit.name.count("["))
    wanted = " or ".join(
        dict.fromkeys(misfit.wanted for misfit in misfits if misfit.wanted != "None")
    )
    raise _MisfitError(wanted, name, misfits[0].given, misfits[0].how, inner=False)


def _list_fitting(
    value: Collection[Any], kind: Any, inner: tuple[Any, ...], name: str
) -> Any:
    """Return a list, a tuple or a set with what lies in it as its annotation means it."""
    fixed = kind is tuple and inner[-1] is not Ellipsis
    if fixed and len(inner) != len(value):
        raise _MisfitError(f"{len(inner)} values", name, shown(value), "give as many")
    if fixed and len(set(inner)) > 1:
        return tuple(
            _fitting(*pair, f"{name}[{place}]")
            for place, pair in enumerate(zip(value, inner, strict=True))
        )
    found = _each(value, inner[0], name)
    return type(value)(found) if type(value) in (list, tuple) else value  # type: ignore[call-arg]


def _each(
    values: Collection[Any], hint: Any, names: str | Sequence[str]
) -> Collection[Any]:
    """Return several values as their annotation means them; quickly where all are just of its type, as many images."""
    plain = (
        set(map(type, values)) <= {hint}
        and hint is not int
        and not hasattr(hint, "layout")
    )
    if hint is Any or (plain and (hint is not str or _can_be_written("".join(values)))):
        return values
    found = []
    for place, one in enumerate(values):
        try:
            with jaxtyped("context"):  # sizes of one are not those of the next
                found.append(
                    _fitting(
                        one,
                        hint,
                        f"{names}[{place}]" if isinstance(names, str) else names[place],
                    )
                )
        except _MisfitError as misfit:
            misfit.inner = True
            raise
    return found
