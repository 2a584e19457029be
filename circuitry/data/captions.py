"""Captions of images sorted by domain and class: a sentence round a style word and the class name. No torch."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from circuitry.data.names import drawn_by_name

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

SKETCH_WORDS = (*SHARED_STYLE_WORDS, "black and white sketch", "pencil drawing")
"""Style words of ImageNet-Sketch: the shared ones and two that DomainNet's sketches do not have."""

PATTERNS = (
    "{a_style} of {a_class}.",
    "{a_style} showing {a_class}.",
    "this is {a_style} of {a_class}.",
    "{a_class} in {a_style}.",
    "{a_class}, {style}.",
    "there is {a_class} in this {style}.",
)
"""The six sentence patterns; ``a_`` marks a word with its article."""

SKETCH_PATTERNS = (
    "{a_style} of {a_class}.",
    "{a_class} as {a_style}.",
    "{a_style}: {class_name}.",
    "{a_style} depicting {a_class}.",
    "the {style} depicts {a_class}.",
    "{class_name}, {style}.",
)
"""The six sentence patterns of ImageNet-Sketch. The study says only that it has its own; these are ours, and only their
style words tell the style, so that aligned captions do not."""

# Vowels that sound like consonants (a unicycle, a ukulele, a European, a one) and the reverse (an hourglass).
_TAKES_AN = re.compile(r"(?!eu|ewe|one\b|once|uni|uk|us[ae]|ute|uto)[aeiou]|hour|heir|honest", re.IGNORECASE)


def caption(class_name: str, domain: str, rng: np.random.Generator, *, aligned: bool = False) -> str:
    """Return a random caption of an image of this class and domain; its full stop is dropped half of the time.

    With ``aligned`` only the style words that all domains share are used, so that the caption does not tell the
    domain. A domain without words of its own in `STYLE_WORDS` gets only the shared ones, too.

    Example:
        >>> caption("ice_cream", "sketch", np.random.default_rng(0))
        'an ice cream in a drawing.'
    """
    words = _style_words(domain, aligned)
    style = words[int(rng.integers(len(words)))]
    pattern = PATTERNS[int(rng.integers(len(PATTERNS)))]
    return _sentence(pattern, style, class_name, full_stop=rng.random() < 0.5)


def image_caption(relative: str, class_name: str, domain: str, seed: int = 0, *, aligned: bool = False) -> str:
    """Return the caption of one image: as `caption`, but drawn by a hash of (seed, path below the root) alone.

    So it is the same in every subset, run, library version and platform. The aligned caption of an image is its
    other caption with, where necessary, another style word.

    Example:
        >>> image_caption("sketch/axe/1.png", "axe", "sketch"), image_caption("sketch/axe/1.png", "axe", "sketch", 1)
        ('there is an axe in this image', 'there is an axe in this sketch')
    """
    return _drawn_sentence(PATTERNS, _style_words(domain, aligned), class_name, drawn_by_name(seed, relative))


def sketch_caption(relative: str, class_name: str, seed: int = 0, *, aligned: bool = False) -> str:
    """Return the caption of an image of ImageNet-Sketch, as `image_caption` with `SKETCH_PATTERNS` and `SKETCH_WORDS`.

    Example:
        >>> sketch_caption("n01440764/sketch_1.JPEG", "tench")
        'an image of a tench.'
    """
    words = SHARED_STYLE_WORDS if aligned else SKETCH_WORDS
    return _drawn_sentence(SKETCH_PATTERNS, words, class_name, drawn_by_name(seed, relative))


def _style_words(domain: str, aligned: bool) -> Sequence[str]:
    return SHARED_STYLE_WORDS if aligned else STYLE_WORDS.get(domain, SHARED_STYLE_WORDS)


def _drawn_sentence(patterns: Sequence[str], words: Sequence[str], class_name: str, drawn: bytes) -> str:
    # 256 bits divided in turn by at most six choices each: the remainders are as good as uniform and independent.
    rest, pattern = divmod(int.from_bytes(drawn), len(patterns))
    rest, stop = divmod(rest, 2)
    return _sentence(patterns[pattern], words[rest % len(words)], class_name, full_stop=stop == 0)


def _sentence(pattern: str, style: str, class_name: str, *, full_stop: bool) -> str:
    name = readable(class_name)
    sentence = pattern.format(style=style, a_style=with_article(style), class_name=name, a_class=with_article(name))
    return sentence if full_stop else sentence.removesuffix(".")


def readable(class_name: str) -> str:
    """Return the class name as words: underscores and hyphens become spaces, runs of them one space."""
    return " ".join(re.split(r"[\s_-]+", class_name.strip(" _-")))


def with_article(noun: str) -> str:
    """Return the noun with a or an before it; a name that brings its own article (the mona lisa) keeps that."""
    if noun.lower().startswith("the "):
        return noun
    return f"{'an' if _TAKES_AN.match(noun) else 'a'} {noun}"
