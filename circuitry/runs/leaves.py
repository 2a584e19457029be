"""Digests of functions and objects: equal code with equal values has an equal digest. Does not import torch.

A value is read down to plain values, which are then digested:

1. Plain values, arrays and tensors are read as their content. Dictionaries and sets are read in sorted order.
2. A function or class of Python, or of an installed library, is read as its import path.
3. A function of a user is read as its code, nested code, default values, closed-over values, and the globals that it
   uses. A class of a user is read as everything that it defines.
4. An object is read as its class and its attributes. If its class is written in C, it is read as its pickled content.
5. An object or function with an attribute ``identity`` is read as this attribute alone, if the attribute is a text
   (like the identity of a `Patch`) or a dictionary (like the identity of a `Clip`).

A value that cannot be read is `UNKNOWN`, and so is every object that contains such a value. `UNKNOWN` is equal to
nothing, so a result of such an object is never mistaken for a stored result.
"""

import dis
import enum
import functools
import json
import logging
import re
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from circuitry.runs.identity import ROUNDED, UNKNOWN, Identity
from circuitry.runs.provenance import digest, weights_digest

_PLAIN = (type(None), bool, int, float, str)
_BY_TEXT = (
    complex,
    bytes,
    range,
    slice,
    np.generic,
    np.dtype,
    PurePath,
    re.Pattern,
    type(Ellipsis),
    type(NotImplemented),
)
"""Types whose values are read as their text (``str``)."""
_OF_TORCH = ("device", "Size", "layout", "memory_format")
"""Types of PyTorch whose values are read as their text (``str``)."""
_HOLD_ATTRIBUTES = (
    object,
    dict,
    list,
    tuple,
    set,
    frozenset,
    str,
    int,
    float,
    deque,
    types.SimpleNamespace,
)
"""Types written in C whose objects hold only attributes, items and a plain value. `Leaves` reads all of these."""
_OF_CLASSES = {
    "__dict__",
    "__weakref__",
    "__module__",
    "__qualname__",
    "__doc__",
    "__annotations__",
    "__slots__",
    "__abstractmethods__",
    "_abc_impl",
    "__parameters__",
    "__orig_bases__",
    "__match_args__",
    "__hash__",
    "__dataclass_fields__",
    "__dataclass_params__",
    "__firstlineno__",
    "__static_attributes__",
}
"""Attributes that Python itself adds to a class. They are not read."""
_INSTALLED = {"site-packages", "dist-packages"}
_STANDARD = Path(sysconfig.get_paths()["stdlib"])
_HEAP_TYPE = 1 << 9
"""Flag of types that are defined in Python (``Py_TPFLAGS_HEAPTYPE``)."""


def entry_of(value: Any, name: str) -> str | dict[str, str]:
    """Return the digest of a value, for use as an entry of an `Identity`.

    If something in the value cannot be read, return a dictionary instead. Its keys say where in the value this is, and
    each of its values is "unknown".

    Args:
        value: Any function or object.
        name: How to call the value in the keys of that dictionary: "the list" gives keys such as "the list[1]".

    Example:
        >>> Identity(metric_code=entry_of(lambda embeddings: embeddings[:, 3], "the metric"))
        >>> entry_of([1, open("notes.txt")], "the list")
        {'the list[1]': 'unknown'}
    """
    leaves = Leaves()
    content = leaves.read(value, name)
    return leaves.unknown or digest(content)


class Leaves:
    """Reads functions and objects down to plain values (their leaves); see `entry_of`."""

    def __init__(
        self, names: Mapping[int, str] | None = None, without: Collection[str] = ()
    ) -> None:
        """Prepare to read values.

        Args:
            names: Texts that replace some objects, by the `id` of the object.
            without: Names of attributes that are not read.
        """
        self.unknown: dict[str, str] = {}
        """Place of each value that cannot be read, such as "the list[1]" -> "unknown"."""
        self.foreign = False
        """Whether code of a user was read, or an object whose class is defined by a user."""
        self._names = dict(names or {})
        self._without = set(without)
        # The ids of the objects that are being read, the outermost first. An object that is met again holds itself.
        self._open = list[int]()
        self._kept = list[Any]()

    def read(self, value: Any, place: str) -> Any:
        """Return a plain value as it is, and any other value as a list with its digest.

        Args:
            place: Where the value was found, in words. It is noted in `unknown` if the value cannot be read.
        """
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:
            return value
        if type(value).__name__ == "dtype" and type(value).__module__ == "torch":
            return str(value).removeprefix("torch.")  # as in configurations
        # A value that is held in several places is read once, and has the same digest in all these places.
        number = id(value)
        if number in self._names:
            return ["named", self._names[number]]
        # The value holds itself. The number of levels in between is the same in every process, unlike an `id`.
        if number in self._open:
            return ["held by", len(self._open) - self._open.index(number)]
        self._open.append(number)
        # As long as the walk keeps the value, no other object gets its `id`.
        self._kept.append(value)
        try:
            content = self._read(value, place)
        # Properties and pickling of foreign objects may raise any exception, including RecursionError.
        except Exception:
            content = self._cannot(place)
        finally:
            self._open.pop()
        short = content if isinstance(content, str) else digest(content)
        # A value that cannot be read is not remembered, so that each place that holds it is noted in `unknown`.
        if place not in self.unknown:
            self._names[number] = short
        return ["named", short]

    def _read(self, value: Any, place: str) -> Any:
        own = _own_identity(value)
        if own is not None:
            # The attribute `identity` is read instead of all other attributes of the object.
            self.foreign |= _import_path(type(value)) is None
            if Identity(own=own).unknown:
                return self._cannot(place)
            if not isinstance(own, str):
                return ["identity", self._exact(own, place)]
            return ["identity", own]
        if isinstance(value, types.ModuleType):
            return [type(value).__name__, value.__name__]
        if isinstance(value, logging.Logger):
            return [type(value).__name__, value.name]
        if isinstance(value, type):
            return self._class(value, place)
        if (routine := self._routine(value, place)) is not None:
            return routine
        return self._object(value, place)

    def _routine(self, value: Any, place: str) -> Any:
        """Return the content of a function, method, property or code object in plain values.

        The result is None for any other object.
        """
        if isinstance(value, types.CodeType):
            return self._code(value, place)
        if isinstance(value, types.FunctionType):
            return self._function(value, place)
        if isinstance(value, types.MethodType):
            held = self.read(value.__self__, f"{place}.__self__")
            return ["method", self.read(value.__func__, place), held]
        if isinstance(value, functools.partial):
            held = [value.func, value.args, value.keywords]
            return ["partial", *(self.read(one, place) for one in held)]
        if isinstance(value, staticmethod | classmethod):
            return [type(value).__name__, self.read(value.__func__, place)]
        if isinstance(value, property):
            getter = self.read(value.fget, place)
            return ["property", getter, self.read(value.fset, place)]
        if isinstance(value, functools.cached_property):
            return ["cached property", self.read(value.func, place)]
        if isinstance(value, functools._lru_cache_wrapper):
            return ["cached", self.read(value.__wrapped__, place)]
        if isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType):
            # The function of a module is identified by its name, a method also by the object that it belongs to.
            held = None
            if not isinstance(value.__self__, types.ModuleType):
                held = self.read(value.__self__, place)
            return [
                "built in",
                getattr(value, "__module__", None),
                value.__qualname__,
                held,
            ]
        if isinstance(
            value,
            types.MethodDescriptorType
            | types.WrapperDescriptorType
            | types.ClassMethodDescriptorType,
        ):
            return [
                "built in",
                self.read(value.__objclass__, place),
                value.__qualname__,
            ]
        if isinstance(value, types.GetSetDescriptorType | types.MemberDescriptorType):
            return ["slot", value.__qualname__]
        return None

    def _function(self, value: types.FunctionType, place: str) -> Any:
        if (path := _import_path(value)) is not None:
            return path
        of_library = is_of_library(value.__module__) and _in_library(
            value.__code__.co_filename
        )
        self.foreign |= not of_library
        cells = dict(
            zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        )
        held = dict[str, Any]()
        for name, cell in cells.items():
            held[name] = self._cell(cell, f"{place}, {name} that it closes over")
        defaults = [value.__defaults__, value.__kwdefaults__, vars(value)]
        read = [self.read(one, f"{place}, a default") for one in defaults]
        # The code of a library and the globals of its modules change only with the version of the library.
        taken = {} if of_library else self._globals(value, place)
        return [
            "function",
            self._code(value.__code__, place),
            sorted(held.items()),
            read,
            sorted(taken.items()),
        ]

    def _cell(self, cell: types.CellType, place: str) -> Any:
        try:
            content = cell.cell_contents
        except ValueError:  # it is not filled yet
            return ["empty"]
        return self.read(content, place)

    def _globals(self, value: types.FunctionType, place: str) -> dict[str, Any]:
        """Return the content of the global variables that a function reads, by name."""
        content = dict[str, Any]()
        for code in _nested(value.__code__):
            for name in _global_names(code):
                # Names that the module lacks are builtins, or fail when the function is called.
                if name in value.__globals__:
                    taken = value.__globals__[name]
                    content[name] = self.read(taken, f"{place}, its global {name}")
                    content |= self._taken(taken, name, code, place)
        return content

    def _taken(
        self, module: Any, name: str, code: types.CodeType, place: str
    ) -> dict[str, Any]:
        """Return the attributes that some code may read from a module, as a dictionary from names to contents.

        A name in the dictionary begins with the name of the module's variable, as in ``settings.size``. Byte code
        contains the names of the attributes that the code reads, but not the objects from which the code reads them. So
        every attribute of the module with one of these names is included.

        Args:
            module: The value of a global variable of the code. The result is empty if the value is not a module, or if
                the module belongs to Python, to an installed package or to circuitry.
            name: Name of this global variable.
            code: The code.
            place: See `read`.
        """
        if not isinstance(module, types.ModuleType) or is_of_library(module.__name__):
            return {}
        taken = dict[str, Any]()
        for attribute in code.co_names:
            if attribute in vars(module):
                path = f"{name}.{attribute}"
                inner = vars(module)[attribute]
                taken[path] = self.read(inner, f"{place}, its global {path}")
        return taken

    def _code(self, code: types.CodeType, place: str) -> Any:
        # File and line numbers are left out: code that only moved is the same code.
        counts = [
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_flags,
        ]
        names = [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars]
        constants = [self.read(one, place) for one in code.co_consts]
        jumps = getattr(code, "co_exceptiontable", b"")
        return [code.co_code.hex(), jumps.hex(), counts, names, constants]

    def _class(self, kind: type, place: str) -> Any:
        if (path := _import_path(kind)) is not None:
            return path
        self.foreign = True
        own = dict[str, Any]()
        for name, inner in vars(kind).items():
            if name not in _OF_CLASSES:
                own[name] = inner
        bases = [self.read(base, place) for base in kind.__bases__]
        return [
            "class",
            kind.__qualname__,
            bases,
            self._attributes(own, f"{place}, class {kind.__name__}"),
        ]

    def _object(self, value: Any, place: str) -> Any:
        kind = type(value)
        if isinstance(value, _BY_TEXT) or _is_of_torch(kind):
            return [kind.__name__, str(value)]
        if isinstance(value, enum.Enum):
            return [self.read(kind, place), value.name]
        if isinstance(value, _tensor_type()):
            return ["tensor", self._tensor(value)]
        if isinstance(value, np.ufunc):
            return ["ufunc", value.__name__]
        if isinstance(value, np.ndarray):
            return ["array", value.dtype.str, value.shape, self._numbers(value, place)]
        if isinstance(value, types.MappingProxyType):
            return ["mapping", self._items(value.items(), place)]
        content = self._content(value, place)
        if kind in (dict, list, tuple, set, frozenset, deque):
            return content
        self.foreign |= _import_path(kind) is None
        if not _is_of_attributes(kind) or not (
            hasattr(value, "__dict__") or hasattr(kind, "__slots__")
        ):
            return self._pickled(value, place)
        return [self.read(kind, place), content, self._attributes(_state(value), place)]

    def _content(self, value: Any, place: str) -> Any:
        """Return the items of a container, or the plain value of an object whose class derives from a plain type.

        The result is None for any other object.
        """
        if isinstance(value, dict):
            return ["mapping", self._items(value.items(), place)]
        if isinstance(value, list | tuple | deque):
            return [
                "list",
                [self.read(one, f"{place}[{i}]") for i, one in enumerate(value)],
            ]
        if isinstance(value, set | frozenset):
            # The order of a set differs between processes.
            return ["set", sorted(json.dumps(self.read(one, place)) for one in value)]
        for kind in (str, int, float):
            if isinstance(value, kind):
                return kind(value)
        return None

    def _items(self, items: Iterable[tuple[Any, Any]], place: str) -> Any:
        pairs = list[list[Any]]()
        for key, inner in items:
            name = json.dumps(self.read(key, place))
            pairs.append([name, self.read(inner, f"{place}[{key!r}]")])
        # The items are sorted, because equal mappings may have been filled in different orders.
        return sorted(pairs, key=lambda pair: pair[0])

    def _attributes(self, named: Mapping[str, Any], place: str) -> Any:
        content = dict[str, Any]()
        for name, inner in named.items():
            if name not in self._without:
                content[name] = self.read(inner, f"{place}.{name}")
        return sorted(content.items())

    def _exact(self, own: Mapping[str, Any], place: str) -> Any:
        """Return the content of the attribute ``identity`` of an object.

        Entries that another machine may round differently (`ROUNDED`) are left out.

        Args:
            own: The attribute.
            place: See `read`.
        """
        return self._items(
            [pair for pair in own.items() if pair[0] not in ROUNDED], place
        )

    def _tensor(self, value: Any) -> Any:
        if not value.is_quantized:
            return weights_digest({"": value})
        # The same stored integers mean other numbers if the scale or the zero point is another one.
        if "channel" in str(value.qscheme()):
            scales = value.q_per_channel_scales()
            zeros = value.q_per_channel_zero_points()
        else:
            scales = value.q_scale()
            zeros = value.q_zero_point()
        return [
            weights_digest({"": value.int_repr()}),
            str(value.qscheme()),
            str(scales),
            str(zeros),
        ]

    def _numbers(self, array: np.ndarray, place: str) -> Any:
        if array.dtype.hasobject:
            return self.read(array.tolist(), place)
        return digest(np.ascontiguousarray(array).tobytes().hex())

    def _pickled(self, value: Any, place: str) -> Any:
        """Return the pickled content of an object whose class is written in C.

        Any exception is raised that pickling raises.
        """
        reduced = value.__reduce_ex__(4)
        # If the result is a text, it is the name of a global object.
        if isinstance(reduced, str):
            reduced = [reduced]
        pieces = list[Any]()
        for piece in reduced:
            # Items of lists and dictionaries come as iterators, which have no content of their own.
            pieces.append(list(piece) if hasattr(piece, "__next__") else piece)
        return [
            "pickled",
            type(value).__name__,
            [self.read(piece, place) for piece in pieces],
        ]

    def _cannot(self, place: str) -> str:
        self.unknown[place] = UNKNOWN
        return UNKNOWN


def _own_identity(value: Any) -> str | Mapping[str, Any] | None:
    """Return the attribute ``identity`` of a value if it is a text or a dictionary, otherwise None."""
    identity = None
    # The attribute may be a property of a user, which may raise anything.
    with suppress(Exception):
        identity = getattr(value, "identity", None)
    if identity and isinstance(identity, str | dict):
        return identity
    return None


def _import_path(value: Any) -> str | None:
    """Return the import path of a function or class of a library.

    The result is None if the module is not of a library, or if the path does not lead to this function or class.
    """
    module, name = getattr(value, "__module__", None), value.__qualname__
    if not isinstance(module, str) or not is_of_library(module):
        return None
    # The path of a lambda, a nested function or a replaced attribute leads to another object, or to no object.
    at_path: Any = sys.modules[module]
    for step in name.split("."):
        at_path = getattr(at_path, step, None)
    return f"{module}.{name}" if at_path is value else None


def is_of_library(module: str | None) -> bool:
    """Return whether a module belongs to Python, to an installed package or to circuitry."""
    if module is None or module not in sys.modules:
        return False
    if module.partition(".")[0] == "circuitry":
        return True
    file = getattr(sys.modules[module], "__file__", None)
    # Modules that are written in C, and built into Python, have no file.
    if file is None:
        return (
            module != "__main__" and module.partition(".")[0] in sys.stdlib_module_names
        )
    return _in_library(file)


@functools.cache
def _in_library(file: str) -> bool:
    """Return whether a file belongs to Python, to an installed package or to circuitry."""
    path = Path(file)
    ours = Path(__file__).parents[1]
    return (
        bool(_INSTALLED & set(path.parts))
        or path.is_relative_to(_STANDARD)
        or path.is_relative_to(ours)
    )


def _is_of_torch(kind: type) -> bool:
    return kind.__module__ in ("torch", "torch._C") and kind.__name__ in _OF_TORCH


def _tensor_type() -> Any:
    """Return the class of PyTorch's tensors, or an empty tuple if PyTorch is not loaded."""
    # This module must not load PyTorch. If PyTorch is not loaded, there are no tensors.
    return getattr(sys.modules.get("torch"), "Tensor", ())


def _is_of_attributes(kind: type) -> bool:
    """Return whether the whole content of objects of a class is in their attributes, their items and a plain value.

    A plain value is, for example, the number in an object of a subclass of ``float``. The result is False for classes
    that are written in C, except for a few known ones. Their objects may have content that Python code cannot see, and
    that appears only when an object is pickled.
    """
    return all(
        base.__flags__ & _HEAP_TYPE or base in _HOLD_ATTRIBUTES for base in kind.__mro__
    )


def _state(value: Any) -> dict[str, Any]:
    """Return the attributes of an object by name.

    Cached properties are left out, because they are computed from other attributes.
    """
    attributes = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                attributes[name] = getattr(value, name)
    # With its cached properties, an object would change when one of them is used for the first time.
    state = dict[str, Any]()
    for name, inner in attributes.items():
        of_class = getattr(type(value), name, None)
        if not isinstance(of_class, functools.cached_property):
            state[name] = inner
    return state


def _nested(code: types.CodeType) -> Iterable[types.CodeType]:
    """Yield a code object and all code objects that are nested in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def _global_names(code: types.CodeType) -> list[str]:
    reads = {"LOAD_GLOBAL", "LOAD_NAME"}
    return sorted(
        {
            str(step.argval)
            for step in dis.get_instructions(code)
            if step.opname in reads
        }
    )
