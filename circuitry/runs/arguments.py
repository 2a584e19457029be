"""Check the arguments that users give to public functions against the annotations. No torch.

1. `checked` marks a door: a call that the function does not take, or whose arguments do not fit the annotations, is
   refused in one sentence; an attribute that a class lacks, too;
2. an annotation asks for more than a type by a `Condition`: `Names`, `Count`, `Share`, `FINITE`;
3. numpy's numbers, text for a path and a list for a tuple are taken as what they mean.
"""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
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
ABOVE_ZERO = float(np.nextafter(0, 1))
_LARGEST = float(np.finfo(float).max)


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


def _none_at_all(values: Collection[Any]) -> str | None:
    return None if len(values) else "none"


def _infinite(array: Any) -> str | None:
    if hasattr(array, "detach"):
        array = array.detach().cpu().double().numpy()
    numbers = np.asarray(array)
    if numbers.dtype.kind not in "biufc":
        return shown(array)
    return None if np.isfinite(numbers).all() else "an array with NaN or infinity"


def one_of(*choices: str) -> Condition:
    """Return the condition that a value is one of some words.

    Example:
        >>> from typing import Annotated
        >>> Side = Annotated[str, circuitry.runs.one_of("left", "right")]
    """

    def wrong(word: Any) -> str | None:
        return None if word in choices else shown(word)

    wanted = f"one of {', '.join(map(repr, choices))}"
    return Condition(wanted, wrong, "choose one", choices)


def between(wanted: str, least: int | float, most: int | float, how: str) -> Condition:
    """Return the condition that a number lies in ``least`` to ``most``; ``wanted`` and ``how`` say so."""

    def wrong(number: Any) -> str | None:
        return None if least <= number <= most else shown(number)

    return Condition(wanted, wrong, how, (least, most))


def at_least(least: int) -> Condition:
    """Return the condition that a whole number is not smaller.

    Example:
        >>> from typing import Annotated
        >>> Folds = Annotated[int, circuitry.runs.at_least(2)]
    """
    wanted = f"a whole number of at least {least}"
    return between(wanted, least, _LARGEST, f"give one such as {max(3, least)}")


DISTINCT = Condition("distinct values", _repeated, "give each once")
SOME = Condition("at least one value", _none_at_all, "give one or more")
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
ShareOrZero = Annotated[
    float, between("a share in [0, 1]", 0, 1, "give one such as 0.1")
]
Positive = Annotated[
    float, between("a positive number", ABOVE_ZERO, _LARGEST, "give one such as 0.1")
]
_NAMED = [
    (hint, name) for name, hint in globals().items() if get_origin(hint) is Annotated
]


class _MisfitError(Exception):
    """Raised for a value that does not fit its annotation; ``inner`` says that its outer type fits."""

    def __init__(
        self, wanted: str, name: str, given: str, how: str, *, inner: bool = True
    ) -> None:
        self.wanted = wanted
        self.name = name
        self.given = given
        self.how = how
        self.inner = inner

    def as_input_error(self) -> InputError:
        return InputError(
            f"Expected {self.wanted} as {self.name}, but {self.given} was given: {self.how}."
        )


FORMERLY = {"node_fraction": "size", "parts": "folds", "n_parts": "n_folds"}
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
        # A class has no signature of its own: what it takes is what its `__init__` takes.
        made.__getattr__ = _missing  # type: ignore[attr-defined]
        return made
    signature = inspect.signature(made)
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    # Values of *args and **kwargs are not checked: their annotations are of each value, not of the argument.
    named = list[str]()
    for parameter in signature.parameters.values():
        if parameter.kind not in several:
            named.append(parameter.name)

    # Read at the first call: annotations may name classes that are defined later.
    @functools.cache
    def hints() -> dict[str, Any]:
        known = get_type_hints(made, include_extras=True)
        return {name: known[name] for name in named if name in known}

    @functools.wraps(made)
    def door(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise _wrong_call(made, signature, kwargs, error) from None
        given = bound.arguments
        try:
            # In one context the sizes of all arguments have to agree.
            with jaxtyped("context"):
                for name, hint in hints().items():
                    if name in given:
                        given[name] = _fitting(given[name], hint, name)
        except _MisfitError as misfit:
            raise misfit.as_input_error() from None
        # A wrong path shows only when it is opened; of the paths in the error, those given here are the user's.
        try:
            return made(*bound.args, **bound.kwargs)
        except OSError as error:
            refuse_path(error, given.values())
            raise

    setattr(door, DOOR, True)
    # What `help` shows.
    door.__signature__ = _readable(signature)  # type: ignore[attr-defined]
    return door  # type: ignore[return-value]


def _missing(self: object, name: str) -> Any:
    """Stand for an attribute that an object lacks; Python asks only where there is none, or a property fails."""
    try:
        return object.__getattribute__(self, name)
    except AttributeError:
        if name.startswith("_") or hasattr(type(self), name):
            raise
        kind = type(self)
        # Constants of a class are no attributes that a user looks for.
        names = list[str]()
        for own in dir(self):
            if not own.startswith("_") and not own.isupper():
                names.append(own)
        written = _function_of_package(name)
        error = unknown_name(
            f"attribute of {kind.__name__}", name, [*names, *written], written
        )
        raise AttributeError(str(error), name=name, obj=self) from None


def _function_of_package(name: str) -> dict[str, str]:
    """Return how to call the package's function of a name, such as ``circuitry.attribute(...)``; empty without one."""
    package = sys.modules[__name__.partition(".")[0]]
    for offered in dir(package):
        # Rooms are listed there, too, and cannot be called.
        if offered.startswith(name) and callable(getattr(package, offered)):
            return {name: f"{package.__name__}.{offered}(...)"}
    return {}


def _wrong_call(
    made: Callable[..., Any],
    signature: inspect.Signature,
    given: Collection[str],
    error: TypeError,
) -> InputError:
    """Return the error of a call with missing, superfluous or unknown arguments."""
    name = made.__qualname__.rpartition("<locals>.")[2].removesuffix(".__init__")
    taken = dict(signature.parameters)
    taken.pop("self", None)
    taken.pop("cls", None)
    for argument in given:
        if argument not in taken:
            return _unknown_argument(name, argument, taken)
    words = []
    for argument, parameter in taken.items():
        needed = parameter.default is parameter.empty
        words.append(argument if needed else f"{argument}=")
    call = f"{name}({', '.join(words)})"
    if inspect.isgeneratorfunction(inspect.unwrap(made)):  # a context manager
        call = f"with {call}:"
    return InputError(f"{name} cannot be called like this ({error}): write {call}.")


def _unknown_argument(
    name: str, unknown: str, taken: Mapping[str, inspect.Parameter]
) -> InputError:
    """Return the error of an argument that is not ``taken``; it shows names that are near.

    Fields of settings are among them: ``settings=AttributionSettings(method=)`` for ``method``.
    """
    written: dict[str, str] = {}
    for argument, parameter in taken.items():
        kind = type(parameter.default).__name__
        for field_name in getattr(parameter.default, "__dataclass_fields__", ()):
            if field_name.islower():
                written[field_name] = f"{argument}={kind}({field_name}=)"
    # Last, since an argument wins over a field of the same name.
    for argument in taken:
        written[argument] = f"{argument}="
    if FORMERLY.get(unknown) in taken:
        written[unknown] = f"{FORMERLY[unknown]}="
    return unknown_name(f"argument of {name}", unknown, written, written)


def _readable(signature: inspect.Signature) -> inspect.Signature:
    """Return a signature whose annotations are short texts."""

    def in_words(hint: Any) -> Any:
        if hint is inspect.Signature.empty:
            return hint
        return annotation_in_words(hint, _NAMED)

    parameters = list[inspect.Parameter]()
    for parameter in signature.parameters.values():
        parameters.append(parameter.replace(annotation=in_words(parameter.annotation)))
    returned = in_words(signature.return_annotation)
    return signature.replace(parameters=parameters, return_annotation=returned)


def fitting(value: Any, hint: Any, name: str) -> Any:
    """Return a value as its annotation means it; raise `InputError` where it does not fit."""
    try:
        return _fitting(value, hint, name)
    except _MisfitError as misfit:
        raise misfit.as_input_error() from None


def _is_plain(kind: type, hint: Any) -> bool:
    """Return whether a type alone says that a value fits; shapes, 64 bits and null characters need the value itself."""
    return kind is hint and hint not in (int, str) and not hasattr(hint, "layout")


def _fitting(value: Any, hint: Any, name: str) -> Any:
    if _is_plain(type(value), hint):
        return value
    kind = get_origin(hint) or hint
    inner = get_args(hint)
    if kind is Annotated:
        value = _fitting(value, inner[0], name)
        for condition in inner[1:]:
            if isinstance(condition, Condition) and value is not None:
                wrong = condition.wrong(value)
                if wrong is not None:
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
        wanted = "text without null characters and lone surrogates"
        raise _MisfitError(wanted, name, shown(str(value)), "remove them")
    lacking = lacking_values(value)
    if lacking is not None:
        wanted = "an array with all its values"
        how = "fill in what is not there, or leave it out"
        raise _MisfitError(wanted, name, lacking, how)
    if not is_of_type(value, kind):
        wanted = type_in_words(hint, name)
        how = how_to_give(value, hint, name)
        raise _MisfitError(wanted, name, shown(value), how, inner=False)
    if kind is int and abs(value) >= 2**63:
        wanted = "a whole number of 64 bits"
        raise _MisfitError(wanted, name, shown(value), "give a smaller one")
    # Other mappings may read from disk when they are asked for a value.
    if isinstance(value, dict | MappingProxyType) and len(inner) == 2:
        keys = _each(value, inner[0], [f"key of {name}"] * len(value))
        names = [f"{name}[{key!r}]" for key in value]
        return dict(zip(keys, _each(value.values(), inner[1], names), strict=True))
    if isinstance(value, list | tuple | set | frozenset | range):
        return _list_fitting(value, kind, inner, name)
    # Nothing is masked, as was checked above.
    if isinstance(value, np.ma.MaskedArray):
        return value.data
    if isinstance(value, np.generic) and kind in (int, float, str):
        return value.item()
    return value


def _can_be_written(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def lacking_values(array: Any) -> str | None:
    """Describe an array or a tensor without values in every place; None where all are there."""
    if np.ma.is_masked(array):
        return "one with masked values"
    if not hasattr(array, "is_meta"):
        return None
    if array.is_meta:
        return "a tensor without values, of the device meta"
    if array.is_nested or str(array.layout) != "torch.strided":
        return "a tensor that is sparse or nested"
    return None


def _fitting_any(value: Any, hints: Sequence[Any], name: str) -> Any:
    """Return a value as the first fitting annotation means it.

    Where none fits, the error is the one deepest inside a value of a right type.
    """
    # Not by catching a misfit, which would keep alive all that its frames hold.
    if value is None and type(None) in hints:
        return None
    kinds = {get_origin(hint) or hint for hint in hints}
    if isinstance(value, str | Path) and not kinds.isdisjoint((Path, os.PathLike)):
        value = type(value)(at_home(value))
    misfits = []
    for hint in hints:
        try:
            return _fitting(value, hint, name)
        except _MisfitError as misfit:
            misfits.append(misfit)
    inner = [misfit for misfit in misfits if misfit.inner]
    if inner:
        raise max(inner, key=lambda misfit: misfit.name.count("["))
    wanted = dict.fromkeys(misfit.wanted for misfit in misfits)
    wanted.pop("None", None)
    first = misfits[0]
    raise _MisfitError(" or ".join(wanted), name, first.given, first.how, inner=False)


def _list_fitting(
    value: Collection[Any], kind: Any, inner: tuple[Any, ...], name: str
) -> Any:
    """Return a list, a tuple or a set with what lies in it as its annotation means it."""
    if kind not in LIST_TYPES or not inner:
        return value
    # tuple[str, int] has a type for each place, tuple[str, ...] one for all.
    fixed = kind is tuple and inner[-1] is not Ellipsis
    if fixed and len(inner) != len(value):
        raise _MisfitError(f"{len(inner)} values", name, shown(value), "give as many")
    if fixed and len(set(inner)) > 1:
        places = [f"{name}[{place}]" for place in range(len(inner))]
        return tuple(map(_fitting, value, inner, places))
    items = _each(value, inner[0], name)
    if type(value) in (list, tuple):
        return type(value)(items)  # type: ignore[call-arg]
    return value


def _each(
    values: Collection[Any], hint: Any, names: str | Sequence[str]
) -> Collection[Any]:
    """Return each value as its annotation means it; ``names`` are those of the values, or of their list."""
    # The quick way, since thousands of records or names are given at a time.
    kinds = set(map(type, values))
    if hint is Any or all(_is_plain(kind, hint) for kind in kinds):
        return values
    if hint is str and kinds == {str} and _can_be_written("".join(values)):
        return values
    if isinstance(names, str):
        names = [f"{names}[{place}]" for place in range(len(values))]
    fitted = []
    for value, name in zip(values, names, strict=True):
        try:
            with jaxtyped("context"):  # sizes of one are not those of the next
                fitted.append(_fitting(value, hint, name))
        except _MisfitError as misfit:
            misfit.inner = True
            raise
    return fitted
