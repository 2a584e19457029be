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
        domain: (*SHARED_STYLE_WORDS, *own)
        for domain, own in {
            "clipart": ("clipart", "illustration"),
            "infograph": ("infograph", "informational chart"),
            "painting": ("painting", "art"),
            "quickdraw": ("quickdraw", "doodle"),
            "real": ("photo", "snapshot"),
            "sketch": ("sketch", "drawing"),
        }.items()
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
        >>> caption("ice_cream", "sketch", random.Random(1))
        'a ice cream image.'
    """
    pattern = rng.choice(PATTERNS)
    end = "" if rng.random() < 0.5 else "."
    style = rng.choice(
        SHARED_STYLE_WORDS if aligned else STYLE_WORDS.get(domain, SHARED_STYLE_WORDS)
    )
    a_style = style if style in _UNCOUNTED else with_article(style)
    return pattern.format(
        style=style, a_style=a_style, class_name=in_a_sentence(class_name)
    ).removesuffix(end)


def image_rng(relative: str, seed: int = 0) -> random.Random:
    """Return the generator of one image, seeded by a hash of (seed, path below the root) alone.

    So its caption is the same in every subset, order and platform.
    """
    return random.Random(drawn_by_name(seed, relative))


def readable(class_name: str) -> str:
    """Return the class name as words: underscores and hyphens become spaces, runs of them one space."""
    return " ".join(re.split(r"[\s_-]+", class_name.strip(" _-")))


def distinct_words(names: Iterable[str]) -> tuple[str, ...]:
    """Return names as words, each once, whatever its case: models read capitals as small letters."""
    found: dict[str, str] = {}
    for word in map(readable, names):
        found.setdefault(word.casefold(), word)
    return tuple(found.values())


def with_article(noun: str) -> str:
    """Return the noun with a or an before it; a name that brings its own article (the mona lisa) keeps that."""
    if noun.lower().startswith("the "):
        return noun
    return f"{'an' if _TAKES_AN.match(noun) else 'a'} {noun}"
