"""Captions of images sorted by domain and class: a sentence round a style word and the class name."""

import re
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

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
"""Domain -> its style words: the two shared ones, then two of its own (method.md, section 8)."""

PATTERNS = (
    "{a_style} of {a_class}.",
    "{a_style} showing {a_class}.",
    "this is {a_style} of {a_class}.",
    "{a_class} in {a_style}.",
    "{a_class}, {style}.",
    "there is {a_class} in this {style}.",
)
"""The six sentence patterns; ``a_`` marks a word with its article."""

# Vowels that sound like consonants (a unicycle, a ukulele, a European, a one) and the reverse (an hourglass).
_TAKES_AN = re.compile(r"(?!eu|ewe|one\b|once|uni|uk|us[ae]|ute|uto)[aeiou]|hour|heir|honest", re.IGNORECASE)


def caption(class_name: str, domain: str, rng: np.random.Generator, *, aligned: bool = False) -> str:
    """A random caption of an image of this class and domain; its final full stop is dropped half of the time.

    ``aligned=True`` uses only the style words that all domains share, so that the caption does not tell the
    domain.  A domain without words of its own in ``STYLE_WORDS`` gets only the shared ones too.

    Example:
        >>> caption("ice_cream", "sketch", np.random.default_rng(0))
        'an ice cream in a drawing.'
    """
    words = SHARED_STYLE_WORDS if aligned else STYLE_WORDS.get(domain, SHARED_STYLE_WORDS)
    style = words[int(rng.integers(len(words)))]
    pattern = PATTERNS[int(rng.integers(len(PATTERNS)))]
    sentence = pattern.format(style=style, a_style=with_article(style), a_class=with_article(readable(class_name)))
    return sentence if rng.random() < 0.5 else sentence.removesuffix(".")


def readable(class_name: str) -> str:
    """The class name as words: underscores and hyphens become spaces, runs of them one space."""
    return " ".join(re.split(r"[\s_-]+", class_name.strip(" _-")))


def with_article(noun: str) -> str:
    """The noun with a or an before it; a name that brings its own article (the mona lisa) keeps that."""
    if noun.lower().startswith("the "):
        return noun
    return f"{'an' if _TAKES_AN.match(noun) else 'a'} {noun}"
