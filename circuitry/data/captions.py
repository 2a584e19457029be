"""Captions of images sorted by domain and class. Does not import torch.

A caption is a sentence with a word for the style of the domain and the name of the class.

Sentences, style words and the order of random draws are the same as in the study. If a single `random.Random` is used
for all of the study's lists, the captions are exactly the captions of the study.
"""

import random
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from circuitry.data.names import drawn_by_name, in_a_sentence

SHARED_STYLE_WORDS = ("image", "picture")
"""Style words that fit every domain, so that they say nothing about the domain."""

STYLE_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "art_painting": (*SHARED_STYLE_WORDS, "painting", "art"),
        "cartoon": (*SHARED_STYLE_WORDS, "cartoon", "comic"),
        "clipart": (*SHARED_STYLE_WORDS, "clipart", "illustration"),
        "infograph": (*SHARED_STYLE_WORDS, "infograph", "informational chart"),
        "painting": (*SHARED_STYLE_WORDS, "painting", "art"),
        "photo": (*SHARED_STYLE_WORDS, "photo", "snapshot"),
        "quickdraw": (*SHARED_STYLE_WORDS, "quickdraw", "doodle"),
        "real": (*SHARED_STYLE_WORDS, "photo", "snapshot"),
        "sketch": (*SHARED_STYLE_WORDS, "sketch", "drawing"),
    }
)
"""Style words of each domain: the two shared words, then two words that fit no unlike domain. The words of DomainNet's
domains are the study's. The domains of PACS are art_painting, cartoon, photo and sketch."""

PATTERNS = (
    "{a_style} of a {class_name}.",
    "a {class_name} {style}.",
    "{a_style} depicting a {class_name}.",
    "a {class_name} depicted in {a_style}.",
    "{a_style} showing a {class_name}.",
    "a {class_name} is visible in {a_style}.",
)
"""The six sentence patterns of the study. The article of a class is always "a", as in "a axe", "a The Mona Lisa"."""

_UNCOUNTED = frozenset({"art"})
"""Style words that take no article."""

# Vowels that sound like consonants (a unicycle, a ukulele, a European, a one) and the reverse (an hourglass).
_TAKES_AN = re.compile(
    r"(?!eu|ewe|one\b|once|uni|uk|us[ae]|ute|uto)[aeiou]|hour|heir|honest",
    re.IGNORECASE,
)


def caption(
    class_name: str, domain: str, rng: random.Random, *, aligned: bool = False
) -> str:
    """Return a random caption of an image of this class and domain. Half of the captions have no full stop.

    Args:
        class_name: The class. Underscores become spaces.
        domain: The domain. A domain that is not in `STYLE_WORDS` gets the shared style words only.
        rng: The generator of random numbers.
        aligned: Whether only the style words that all domains share are used, so that the caption does not reveal the
            domain. The same state of ``rng`` gives the same sentence pattern with and without ``aligned``; only the
            style word may differ.

    Example:
        >>> import random
        >>> circuitry.data.caption("ice_cream", "sketch", random.Random(1))
        'a ice cream image'
    """
    # The order of the three draws is the study's.
    pattern = rng.choice(PATTERNS)
    drops_full_stop = rng.random() >= 0.5
    words: tuple[str, ...] = SHARED_STYLE_WORDS
    if not aligned:
        words = STYLE_WORDS.get(domain, SHARED_STYLE_WORDS)
    style = rng.choice(words)
    sentence = pattern.format(
        style=style,
        a_style=style if style in _UNCOUNTED else with_article(style),
        class_name=in_a_sentence(class_name),
    )
    return sentence.removesuffix(".") if drops_full_stop else sentence


def image_rng(relative: str, seed: int = 0) -> random.Random:
    """Return the generator of random numbers for one image. Its seed is a hash of (seed, path below the root).

    Therefore the caption of an image does not depend on other images, on their order, or on the platform.

    Example:
        >>> rng = circuitry.data.image_rng("real/cat/1.png", seed=3)
        >>> circuitry.data.caption("cat", "real", rng)
        '...cat...'
    """
    return random.Random(drawn_by_name(seed, relative))


def readable(class_name: str) -> str:
    """Return the class name as words. Each run of underscores, hyphens and spaces becomes one space.

    Example:
        >>> circuitry.data.readable("ice_cream")
        'ice cream'
    """
    return " ".join(re.split(r"[\s_-]+", class_name.strip(" _-")))


def distinct_words(names: Iterable[str]) -> tuple[str, ...]:
    """Return names as words, without duplicates.

    Names that differ only in their case are duplicates, because models do not distinguish capital and small letters.
    """
    words: dict[str, str] = {}
    for name in names:
        word = readable(name)
        words.setdefault(word.casefold(), word)
    return tuple(words.values())


def with_article(noun: str) -> str:
    """Return the noun with "a" or "an" before it. A name that begins with "the" (the mona lisa) is not changed."""
    if noun.lower().startswith("the "):
        return noun
    return f"{'an' if _TAKES_AN.match(noun) else 'a'} {noun}"
