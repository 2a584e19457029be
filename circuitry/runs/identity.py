"""What shaped a number, as one value with named entries: an `Identity`.

An encoder, a model, a task and work on a folder make theirs of what they are now. Graphs, curves, folders, caches and
autoencoders carry it. Whatever joins two results compares them entry by entry, and a refusal names the entry that
differs.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from circuitry.runs.errors import InputError
from circuitry.runs.provenance import difference, digest

UNKNOWN = "unknown"
"""What cannot be read to its leaves, such as what a function does as a hook: equal to nothing, not even to itself."""

OF_TOWER = ("weights", "modules", "behaviour")
"""Weights and buffers of an image tower; its modules and their settings; what it answers to noise."""
OF_ENCODER = (*OF_TOWER, "stages", "basis", "hooks")
"""The same, stages that run other code than the tower's and this package's, autoencoders at sites, and what hooks do
there."""
OF_MODEL = (*OF_ENCODER, "text_encoder", "preprocessing")
"""The same, everything that reads texts, and the transform of images."""
SHARED_ENTRIES = (
    *OF_MODEL,
    "metric",
    "metric_code",
    "text_weights",
    "class_weights",
    "texts",
    "classes",
    "baseline",
    "baseline_digest",
    "method",
    "method_code",
    "budget",
    "size",
    "n_others",
    "node_rule",
    "edge_rule",
    "edge_method",
    "edge_method_code",
    "scale",
)
"""Entries in which compared circuits agree: the model, what is asked of it, and how circuits are found."""
ROUNDED = ("behaviour",)
"""Entries in numbers that another machine may round otherwise: `same_entry` compares them, and no digest has them."""

_NEAR = 2e-3
"""How far numbers of the same texts, or of the same noise, may differ between machines and devices."""
_OF_HOOKS = (
    "give a Patch with a number, an activation or a baseline, which is known, do it outside of the block, or take "
    "permanent hooks off by encoder.reset_hooks(including_permanent=True)"
)
_OF_OTHERS = (
    "let it hold only numbers, texts, arrays, tensors, functions and objects of these, or give the function or object "
    "an attribute identity, a text that is another one wherever it computes something else (metric.identity = 'mine 2')"
)
"""What to do about an entry that is not known."""


class Identity(dict[str, Any]):
    """What shaped a number, by named entries, in values that JSON can hold.

    Example:
        >>> clip.identity.check(other.identity, "these circuits", "this model")
    """

    def __or__(self, more: Mapping[str, Any]) -> "Identity":  # type: ignore[override]
        return Identity({**self, **more})

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of entries that hold something `UNKNOWN`."""
        return tuple(name for name, value in self.items() if _is_unknown(value))

    @property
    def key(self) -> str:
        """Short digest of all entries but the `ROUNDED`, for the names of files.

        Raises:
            InputError: where an entry is unknown, for then nothing may be kept.
        """
        self.check_known()
        exact = {name: self[name] for name in self if name not in ROUNDED}
        return digest(exact)

    def check_known(self) -> None:
        """Raise `InputError` where an entry is unknown."""
        for name in self.unknown:
            how = _OF_HOOKS if name == "hooks" else _OF_OTHERS
            raise InputError(
                f"No result goes to a folder or a cache while the entry {name!r} is not known ({self[name]}): {how}."
            )

    def check(
        self,
        other: Mapping[str, Any],
        ours: str,
        theirs: str,
        names: Iterable[str] = OF_MODEL,
    ) -> None:
        """Raise `InputError` where an entry differs that both have; ``ours`` and ``theirs`` name the two results."""
        for name in names:
            if name not in self or name not in other:
                continue
            if not same_entry(self[name], other[name]):
                differs = entry_differs(name, self[name], ours, other[name], theirs)
                raise InputError(
                    f"Only results of one model, asked in one way, go together, but {differs}."
                )


def same_entry(a: Any, b: Any) -> bool:
    """Return whether two values of an entry agree; text weights may differ by the rounding of another machine."""
    if _is_unknown(a) or _is_unknown(b):
        return False
    both_lists = isinstance(a, list) and isinstance(b, list)
    if both_lists and any(isinstance(number, float) for number in a):
        return len(a) == len(b) and np.allclose(a, b, rtol=_NEAR, atol=_NEAR)
    return bool(_plain(a) == _plain(b))


def entry_differs(name: str, one: Any, title: str, other: Any, other_title: str) -> str:
    """Return the clause of a message that says in which entry two results differ."""
    entry = name.replace("_", " ")
    values = f" ({one!r} and {other!r})"
    if name in ("text_weights", "class_weights"):
        entry = "text weights"
        values = ""  # such numbers say nothing to a reader
    elif name == "behaviour":
        entry = "behaviour, in what the encoder answers to noise"
    elif name == "classes":  # there may be hundreds
        values = f" ({difference({name: other}, {name: one})})"
    return f"{title} and {other_title} differ in {entry}{values}"


def _is_unknown(value: Any) -> bool:
    if isinstance(value, str):
        return value == UNKNOWN
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return False
    return any(map(_is_unknown, value))


def _plain(value: Any) -> Any:
    """Make tuples lists, as they come back from a file."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
