"""Look up names that users give, and draw random numbers by name. No torch."""

import difflib
import hashlib
from collections.abc import Callable, Iterable, Sequence

from circuitry.runs.errors import InputError

_SHOWN = 20
"""Names that an error lists at most."""


def chosen_names(
    kind: str, given: Iterable[str] | None, available: Sequence[str], key: Callable[[str], str] = str
) -> tuple[str, ...]:
    """Return the given names, each once, after checking that they exist; None means all.

    Names with an equal ``key`` are the same name; it is returned in its available spelling.

    Raises:
        InputError: For no names, a single string, or an unknown name; the message shows similar names of this ``kind``.

    Example:
        >>> chosen_names("class", ["axe", "axe"], ("axe", "lion"))
        ('axe',)
    """
    if given is None:
        return tuple(available)
    if isinstance(given, str):
        raise InputError(
            f"Expected a sequence of {kind} names, but the single string {given!r} was given: write ({given!r},)."
        )
    names = tuple(given)
    if not names:
        raise InputError(f"Expected at least one {kind} name, but none was given; None takes all.")
    known = {key(name): name for name in available}
    for name in names:
        if key(name) not in known:
            raise unknown_name(kind, name, available)
    return tuple(dict.fromkeys(known[key(name)] for name in names))


def unknown_name(kind: str, name: str, available: Iterable[str]) -> InputError:
    """Return the error for an unknown name: it shows similar names, or else the available ones."""
    names = list(available)
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    shown = f"available: {', '.join(names[:_SHOWN]) or 'none'}{more}"
    hint = f"perhaps you meant {' or '.join(near)}" if near else shown
    return InputError(f"There is no {kind} {name!r} here; {hint}.")


def in_a_sentence(class_name: str) -> str:
    """Return a class name for captions and prompts: underscores become spaces, hyphens stay."""
    return " ".join(class_name.replace("_", " ").split())


def drawn_by_name(seed: int, name: str) -> bytes:
    """Return 32 random bytes that depend on seed and name alone, not on platform or library version, to rank by."""
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()
