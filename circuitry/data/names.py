"""Look up names that users give, and rank things in a random order by their names. Does not import torch."""

import hashlib
from collections.abc import Callable, Iterable, Sequence

from circuitry.runs.errors import InputError, unknown_name


def chosen_names(
    kind: str,
    given: Iterable[str] | None,
    available: Sequence[str],
    key: Callable[[str], str] = str,
) -> tuple[str, ...]:
    """Return the given names without duplicates, after checking that they exist.

    Args:
        kind: Word for what is named, such as "class" or "domain", for messages.
        given: The names, or None for all available names.
        available: All names that exist.
        key: Function that returns the same key for all spellings of a name (default: the name itself). Names are
            returned as they are spelled in ``available``.

    Raises:
        InputError: For an empty list, or an unknown name. The message suggests similar names.

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
    """Return a class name as it is written in captions and prompts: underscores become spaces, hyphens stay."""
    return " ".join(class_name.replace("_", " ").split())


def drawn_by_name(seed: int, name: str) -> bytes:
    """Return 32 pseudo-random bytes for a name. Things that are sorted by these bytes are in a random order.

    The bytes depend on the seed and the name only, and not on the platform or the versions of libraries.

    Example:
        >>> len(circuitry.data.drawn_by_name(0, "real/cat/1.png"))
        32
    """
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()
