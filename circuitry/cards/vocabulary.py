"""Words for naming units. Does not import torch.

These are the words of this package, words from a file, and words that name domains.
"""

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from circuitry.data.captions import SHARED_STYLE_WORDS, STYLE_WORDS, readable
from circuitry.data.file_check import read_text
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError


def unit_words() -> tuple[str, ...]:
    """Return the package's words: colours, textures, materials, shapes, parts, scenes, lines, media and lettering."""
    return _lines((files(__package__) / "words.txt").read_text(encoding="utf-8"))


@checked
def read_vocabulary(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read words and phrases from a UTF-8 text file with a word or phrase on each line.

    Empty lines and comments (#) are ignored.

    Example:
        >>> from circuitry.cards import read_vocabulary
        >>> Path("words.txt").write_text("# colours\\nred\\ndark blue\\n", encoding="utf-8")
        24
        >>> read_vocabulary("words.txt")
        ('red', 'dark blue')
    """
    words = _lines(read_text(Path(path)))
    if not words:
        raise InputError(
            f"Expected a word or phrase on each line of the vocabulary {path}, but there is none."
        )
    return words


def words_of_domains(domains: Sequence[str]) -> frozenset[str]:
    """Return the words that name the given domains.

    These are the names of the domains and, for domains of DomainNet, their style words.
    """
    words = set(domains)
    for domain in domains:
        # Words that several domains share are left out, because they do not name a domain.
        for phrase in set(STYLE_WORDS.get(domain, ())) - set(SHARED_STYLE_WORDS):
            words |= {phrase, *phrase.split()}
    return frozenset(map(readable, words))


def _lines(text: str) -> tuple[str, ...]:
    lines = map(str.strip, text.splitlines())
    words = [line for line in lines if line and not line.startswith("#")]
    # Repeated words are dropped. The order is the order of the file.
    return tuple(dict.fromkeys(words))
