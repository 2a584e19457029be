"""Captions of images sorted by domain and class: a sentence round a style word and the class name. No torch.

Sentences, style words and the order of the draws are the study's, so that one `random.Random` through all of its lists
gives its captions to the last character.
"""

import random
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from circuitry.data.names import drawn_by_name, in_a_sentence

SHARED_STYLE_WORDS = ("image", "picture")
"""Style words that fit every domain and say nothing about it."""

STYLE_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "clipart": (*SHARED_STYLE_WORDS, "clipart", "illustration"),
        "infograph": (*SHARED_STYLE_WORDS, "infograph", "informational chart"),
        "painting": (*SHARED_STYLE_WORDS, "painting", "art"),
        "quickdraw": (*SHARED_STYLE_WORDS, "quickdraw", "doodle"),
        "real": (*SHARED_STYLE_WORDS, "photo", "snapshot"),
        "sketch": (*SHARED_STYLE_WORDS, "sketch", "drawing"),
    }
)
"""Domain -> its style words: the two shared ones, then two of its own, as in the study."""

PATTERNS = (
    "{a_style} of a {class_name}.",
    "a {class_name} {style}.",
    "{a_style} depicting a {class_name}.",
    "a {class_name} depicted in {a_style}.",
    "{a_style} showing a {class_name}.",
    "a {class_name} is visible in {a_style}.",
)
"""The study's six sentence patterns; classes have the article "a" whatever their name: "a axe", "a The Mona Lisa"."""

_UNCOUNTED = frozenset({"art"})
"""Style words without an article."""

# Vowels that sound like consonants (a unicycle, a ukulele, a European, a one) and the reverse (an hourglass).
_TAKES_AN = re.compile(
    r"(?!eu|ewe|one\b|once|uni|uk|us[ae]|ute|uto)[aeiou]|hour|heir|honest",
    re.IGNORECASE,
)


def caption(
    class_name: str, domain: str, rng: random.Random, *, aligned: bool = False
) -> str:
    """Return a random caption of an image of this class and domain; its full stop is dropped half of the time.

    With ``aligned`` only the style words that all domains share are used, so that the caption does not tell the
    domain; the same state of ``rng`` then gives the same sentence round another word. A domain without words of its own
    in `STYLE_WORDS` gets only the shared ones, too.

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
    """Return the generator of one image, seeded by a hash of (seed, path below the root) alone.

    So its caption is the same in every subset, order and platform.

    Example:
        >>> rng = circuitry.data.image_rng("real/cat/1.png", seed=3)
        >>> circuitry.data.caption("cat", "real", rng)
        '...cat...'
    """
    return random.Random(drawn_by_name(seed, relative))


def readable(class_name: str) -> str:
    """Return the class name as words: underscores and hyphens become spaces, runs of them one space.

    Example:
        >>> circuitry.data.readable("ice_cream")
        'ice cream'
    """
    return " ".join(re.split(r"[\s_-]+", class_name.strip(" _-")))


def distinct_words(names: Iterable[str]) -> tuple[str, ...]:
    """Return names as words, each once, whatever its case: models read capitals as small letters."""
    words: dict[str, str] = {}
    for name in names:
        word = readable(name)
        words.setdefault(word.casefold(), word)
    return tuple(words.values())


def with_article(noun: str) -> str:
    """Return the noun with a or an before it; a name that brings its own article (the mona lisa) keeps that."""
    if noun.lower().startswith("the "):
        return noun
    return f"{'an' if _TAKES_AN.match(noun) else 'a'} {noun}"
