"""Everything that a result depends on, as a dictionary: an `Identity`.

An identity has named entries, such as "weights" and "metric". Encoders, models, tasks and questions (analyses that fill
a folder with results) compute their identity from their present state. Graphs, curves, folders of results, caches and
autoencoders store the identity of the model and the task that made them. Code that combines two results compares their
identities entry by entry. If an entry differs, an error names it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from circuitry.runs.errors import InputError
from circuitry.runs.provenance import difference, digest

UNKNOWN = "unknown"
"""Value of an entry that cannot be read completely, such as the effect of a function that is used as a hook.

An unknown value is equal to nothing, not even to another unknown value.
"""

OF_TOWER = ("weights", "modules", "behaviour")
"""Entries that identify an image tower: weights and buffers, modules with their settings, and outputs for noise."""
OF_ENCODER = (*OF_TOWER, "stages", "basis", "hooks")
"""Entries that identify an encoder.

These are the entries of its image tower, the stages that run other code than the tower's and this package's code, the
autoencoders at its sites, and the effects of its hooks.
"""
OF_MODEL = (*OF_ENCODER, "text_encoder", "preprocessing")
"""Entries that identify a model: those of its encoder, everything that reads texts, and the transform of images."""
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
"""Entries that must agree for circuits to be compared: model, metric, classes, and how circuits are found."""
Across = Literal["models"]
"""What the results of a comparison may differ in. ``models``: in the weights, as models of one architecture do."""
OF_WEIGHTS = (
    "weights",
    "behaviour",
    "text_encoder",
    "text_weights",
    "class_weights",
    "scale",
)
"""Entries that the weights of a model decide. Across models they must agree only between results of one model."""
ROUNDED = ("behaviour",)
"""Entries that consist of numbers which another machine may round differently.

They are compared within a tolerance (see `same_entry`), and no digest includes them.
"""

_NEAR = 2e-3
"""Tolerance for text weights of the same texts, and for outputs for the same noise, on other machines or devices."""
_OF_HOOKS = (
    "give a Patch with a number, an activation or a baseline, which is known, do it outside of the block, or take "
    "permanent hooks off by encoder.reset_hooks(including_permanent=True)"
)
_OF_OTHERS = (
    "let it hold only numbers, texts, arrays, tensors, functions and objects of these, or give the function or object "
    "an attribute identity, a text that is another one wherever it computes something else (metric.identity = 'mine 2')"
)
"""Advice for error messages about an unknown entry: `_OF_HOOKS` for hooks, `_OF_OTHERS` for any other entry."""


class Identity(dict[str, Any]):
    """Everything that a result depends on (model, data, settings, code), as named entries that JSON can hold.

    Example:
        >>> clip.identity.check(other.identity, "these circuits", "this model")
    """

    def __or__(self, more: Mapping[str, Any]) -> "Identity":  # type: ignore[override]
        return Identity({**self, **more})

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the entries that are `UNKNOWN`, or that contain an unknown value."""
        return tuple(name for name, value in self.items() if _is_unknown(value))

    @property
    def key(self) -> str:
        """Short digest of the entries, which is used in names of files.

        Entries whose numbers another machine may round differently (`ROUNDED`) are left out of the digest.

        Raises:
            InputError: if an entry is unknown, because then no result may be stored under the key.
        """
        self.check_known()
        exact = {name: self[name] for name in self if name not in ROUNDED}
        return digest(exact)

    def check_known(self) -> None:
        """Raise `InputError` if an entry is unknown."""
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
        advice: Mapping[str, str] = {},
    ) -> None:
        """Raise `InputError` if an entry differs between this identity and another one.

        An entry that only one of the two identities has is ignored.

        Args:
            ours: Name of the result that has this identity, for the message.
            theirs: Name of the result that has the other identity.
            names: Names of the entries to compare.
            advice: What to do about an entry that differs, as the end of the message, by the name of the entry.
        """
        for name in names:
            if name not in self or name not in other:
                continue
            if not same_entry(self[name], other[name]):
                differs = entry_differs(name, self[name], ours, other[name], theirs)
                instead = f": {advice[name]}" if name in advice else ""
                raise InputError(
                    f"Only results of one model, asked in one way, go together, but {differs}{instead}."
                )


def same_entry(a: Any, b: Any) -> bool:
    """Return whether two values of the same entry of an `Identity` agree.

    An unknown value agrees with nothing. Lists of decimal numbers, such as text weights, agree if they differ by no
    more than a tolerance, because another machine may round them differently.
    """
    if _is_unknown(a) or _is_unknown(b):
        return False
    both_lists = isinstance(a, list) and isinstance(b, list)
    if both_lists and any(isinstance(number, float) for number in a):
        return len(a) == len(b) and np.allclose(a, b, rtol=_NEAR, atol=_NEAR)
    return bool(_plain(a) == _plain(b))


def entry_differs(name: str, one: Any, title: str, other: Any, other_title: str) -> str:
    """Return the clause of a message that says in which entry two results differ.

    Args:
        name: Name of the entry.
        one: The value of the entry in the first result.
        title: Name of the first result.
        other: The value of the entry in the second result.
        other_title: Name of the second result.
    """
    entry = name.replace("_", " ")
    values = f" ({one!r} and {other!r})"
    if name in ("text_weights", "class_weights"):
        entry = "text weights"
        values = ""  # a reader learns nothing from these numbers
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
    """Return a value with lists in place of tuples, as JSON returns it from a file."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
