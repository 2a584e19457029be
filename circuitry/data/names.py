"""Look up names that users give, and draw random numbers by name. No torch."""

import hashlib
from collections.abc import Callable, Iterable, Sequence

from circuitry.runs.errors import InputError, unknown_name


def chosen_names(
    kind: str,
    given: Iterable[str] | None,
    available: Sequence[str],
    key: Callable[[str], str] = str,
) -> tuple[str, ...]:
    """Return the given names, each once, after checking that they exist; None means all.

    Names with an equal ``key`` are the same name; it is returned in its available spelling.

    Raises:
        InputError: For no names, or an unknown name; the message shows similar names of this ``kind``.

    Example:
        >>> circuitry.data.chosen_names("class", ["clock"], folder.classes)
        ('clock',)
    """
    if given is None:
        return tuple(available)
    names = tuple(given)
    if not names:
        raise InputError(
            f"Expected at least one {kind} name, but none was given; None takes all."
        )
    known = {key(name): name for name in available}
    for name in names:
        if key(name) not in known:
            raise unknown_name(kind, name, available)
    return tuple(dict.fromkeys(known[key(name)] for name in names))


def in_a_sentence(class_name: str) -> str:
    """Return a class name for captions and prompts: underscores become spaces, hyphens stay."""
    return " ".join(class_name.replace("_", " ").split())


def drawn_by_name(seed: int, name: str) -> bytes:
    """Return 32 random bytes that depend on seed and name alone, not on platform or library version, to rank by.

    Example:
        >>> len(circuitry.data.drawn_by_name(0, "real/cat/1.png"))
        32
    """
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()
