"""Check the arguments that users give to public functions against the annotations. Does not import torch.

1. `checked` decorates a public function or class. A call raises `InputError` with one sentence if the function does
   not accept the arguments, or if their values do not fit the annotations. A class that is decorated also suggests
   similar names for an attribute that it lacks.
2. An annotation can demand more than a type, by a `Condition` such as `FINITE`. The annotations `Names`, `Count` and
   `Share` contain such conditions.
3. Some values are converted to the annotated type: a number of numpy to a number of Python, a text to a path, and a
   list to a tuple.
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
OF_ARRAYS = ("is_meta", "ndim", "shape")
"""Attributes by which an array or a tensor is told from other values."""
_LARGEST = float(np.finfo(float).max)


class Condition(NamedTuple):
    """A condition that a value must meet in addition to its type, written into an ``Annotated``."""

    wanted: str
    """The expected value, in words."""
    wrong: Callable[[Any], str | None]
    """Takes a value of the type. Returns a description of its fault, or None if the value meets the condition."""
    how: str
    """Advice on what to give instead, in words."""
    taken: tuple[str | int | float, ...] = ()
    """The allowed words, or the smallest and the largest allowed number. Empty for a condition of another kind."""

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
    """Return the condition that a number is at least ``least`` and at most ``most``.

    Args:
        wanted: The condition in words.
        how: Advice on what to give instead, in words.
    """

    def wrong(number: Any) -> str | None:
        return None if least <= number <= most else shown(number)

    return Condition(wanted, wrong, how, (least, most))


def at_least(least: int) -> Condition:
    """Return the condition that a whole number is at least ``least``.

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
    """Raised for a value that does not fit its annotation.

    ``inner`` is True if the value itself has the right type, for example if it is a list as annotated. Then the fault
    is in one of the values that it contains, or a condition of the annotation is not met.
    """

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
"""Former name of an argument -> its present name."""
DOOR = "checks_its_arguments"
"""Name of the attribute that marks functions which check their arguments."""


def checked(made: Made) -> Made:
    """Decorate a function or a class, so that it checks the arguments of each call.

    A call raises `InputError` if the function does not accept the arguments, or if a value does not fit its
    annotation. If the shapes of several arguments contain a size of the same name, these sizes have to agree. A path
    that the file system refuses raises `InputError`, too. If a user asks for an attribute that an object of the class
    lacks, the error suggests similar names.

    A dataclass that inherits from a checked dataclass has an ``__init__`` of its own, so it has to be decorated, too.

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
    # *args and **kwargs are not checked: their annotations describe each value, not the whole argument.
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
        # A wrong path shows only when it is opened. It is the user's fault if the path was given in this call.
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
    """Raise an AttributeError that suggests similar names, for an attribute that an object lacks.

    Classes have this function as ``__getattr__``. Python calls it only if the attribute does not exist, or if a
    property raises an AttributeError. In the latter case, the error of the property is raised again.
    """
    try:
        return object.__getattribute__(self, name)
    except AttributeError:
        # Whether a value is an array is asked of every argument, and looking for similar names takes a millisecond.
        if name.startswith("_") or name in OF_ARRAYS or hasattr(type(self), name):
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
    """Return how to call a function of the package whose name begins with ``name``.

    The result is a dictionary such as ``{"attribute": "circuitry.attribute(...)"}``. It is empty if no function of the
    package has such a name.
    """
    package = sys.modules[__name__.partition(".")[0]]
    for offered in dir(package):
        # The package lists its rooms, too, which cannot be called.
        if offered.startswith(name) and callable(getattr(package, offered)):
            return {name: f"{package.__name__}.{offered}(...)"}
    return {}


def _wrong_call(
    made: Callable[..., Any],
    signature: inspect.Signature,
    given: Collection[str],
    error: TypeError,
) -> InputError:
    """Return the error for a call with missing, superfluous or unknown arguments.

    Args:
        given: The names of the keyword arguments of the call.
        error: The error by which Python refuses the arguments.
    """
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
    """Return the error for an argument that a function does not accept.

    Its message suggests similar names of arguments, and of fields of settings: for ``method`` it suggests
    ``settings=AttributionSettings(method=)``.

    Args:
        name: Name of the function.
        unknown: Name of the argument.
        taken: The parameters of the function by name.
    """
    written: dict[str, str] = {}
    for argument, parameter in taken.items():
        kind = type(parameter.default).__name__
        for field_name in getattr(parameter.default, "__dataclass_fields__", ()):
            if field_name.islower():
                written[field_name] = f"{argument}={kind}({field_name}=)"
    # Arguments are added last, because an argument takes precedence over a field of the same name.
    for argument in taken:
        written[argument] = f"{argument}="
    if FORMERLY.get(unknown) in taken:
        written[unknown] = f"{FORMERLY[unknown]}="
    return unknown_name(f"argument of {name}", unknown, written, written)


def _readable(signature: inspect.Signature) -> inspect.Signature:
    """Return the given signature with each annotation replaced by a short text.

    The result is the signature that ``help`` shows.
    """

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
    """Check a value against an annotation, and return the value converted to the annotated type.

    A number of numpy becomes a number of Python, a text becomes a path, and a list becomes a tuple, if the annotation
    says so.

    Args:
        name: Name of the value for the message.

    Raises:
        InputError: if the value does not fit the annotation.
    """
    try:
        return _fitting(value, hint, name)
    except _MisfitError as misfit:
        raise misfit.as_input_error() from None


def _is_plain(kind: type, hint: Any) -> bool:
    """Return whether the type of a value is enough to know that the value fits an annotation.

    It is not enough for three types. Whole numbers must also fit into 64 bits, texts must contain no null characters,
    and arrays and tensors must have a value in every place.
    """
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
    # Mappings of other types are not checked, since they may read each value from disk.
    if isinstance(value, dict | MappingProxyType) and len(inner) == 2:
        keys = _each(value, inner[0], [f"key of {name}"] * len(value))
        names = [f"{name}[{key!r}]" for key in value]
        return dict(zip(keys, _each(value.values(), inner[1], names), strict=True))
    if isinstance(value, list | tuple | set | frozenset | range):
        return _list_fitting(value, kind, inner, name)
    # No value is masked, as was checked above.
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
    """Describe an array or a tensor that lacks values; return None if it has a value in every place.

    Values are lacking in a masked array, in a tensor of the device meta, and in a sparse or nested tensor.
    """
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
    """Return a value converted to the first of several annotations that the value fits.

    If the value fits no annotation, an error is raised. If the value has the right type for one of the annotations (for
    example if it is a list as annotated), the error names the most deeply nested value that does not fit. Otherwise the
    error lists all types that would fit.
    """
    # None needs no attempt at each annotation: a caught misfit would keep alive all objects in its frames.
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
    """Return a list or a tuple with its values converted to the annotated types; check a set, and return it unchanged.

    Args:
        kind: The annotation without its brackets.
        inner: The annotations in the brackets.
    """
    if kind not in LIST_TYPES or not inner:
        return value
    # tuple[str, int] has a type for each place, tuple[str, ...] has one type for all places.
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
    """Return values converted to an annotated type.

    Args:
        names: The name of each value for messages, or the name of the list that holds the values.
    """
    # Two shortcuts, since thousands of records or names may be given in one call.
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
            with jaxtyped("context"):  # sizes need not agree between values
                fitted.append(_fitting(value, hint, name))
        except _MisfitError as misfit:
            misfit.inner = True
            raise
    return fitted
