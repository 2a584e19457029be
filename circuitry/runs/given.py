"""What is given to a public function, checked at its door where objects are easily taken for one another. No torch."""

from collections.abc import Iterable, Mapping

from circuitry.runs.errors import InputError

_HOW_TO_GET = {
    "Integral": "give a whole number such as 3",
}
"""How to get an object of Python's own kinds; classes of this package say it in their attribute ``HOW_TO_GET``."""


def check_kinds(**given: tuple[object, type]) -> None:
    """Refuse an argument, by name, that is not of the class beside it.

    Raises:
        InputError: which says how to get what is meant.

    Example:
        >>> check_kinds(graph=(graph, AttributionGraph), stream=(stream, ResidualStream))
    """
    for name, (value, kind) in given.items():
        if not isinstance(value, kind):
            wanted = f"{'an' if kind.__name__[0] in 'AEI' else 'a'} {kind.__name__}"
            how = getattr(kind, "HOW_TO_GET", None) or _HOW_TO_GET[kind.__name__]
            raise InputError(f"Expected {wanted} as {name}, but {type(value).__name__} was given: {how}.")


def check_lists(**given: object) -> None:
    """Refuse an argument, by name, that is one thing where a list of them is wanted; None stands for the default.

    Raises:
        InputError: which says how to write it.

    Example:
        >>> check_lists(classes=classes, sites=sites)
    """
    for name, value in given.items():
        if value is not None and (isinstance(value, str | Mapping) or not isinstance(value, Iterable)):
            write = f"[{value!r}]" if isinstance(value, str | int | float) else f"[{name}]"
            raise InputError(f"Expected a list of {name}, but {shown(value)} was given: write {write}.")


def shown(value: object) -> str:
    """Return a text or a number as it is, of anything else what it is."""
    if isinstance(value, str):
        return f"the string {value!r}"
    return repr(value) if isinstance(value, int | float) else type(value).__name__
