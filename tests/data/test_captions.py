"""Captions: patterns, style words, articles, the full stop."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitry.data.captions import (
    PATTERNS,
    SHARED_STYLE_WORDS,
    SKETCH_PATTERNS,
    SKETCH_WORDS,
    STYLE_WORDS,
    caption,
    image_caption,
    readable,
    sketch_caption,
)


def captions(class_name: str, domain: str, n: int = 400, *, aligned: bool = False) -> list[str]:
    rng = np.random.default_rng(0)
    return [caption(class_name, domain, rng, aligned=aligned) for _ in range(n)]


def style_words_in(sentences: list[str]) -> set[str]:
    words = {word for own in STYLE_WORDS.values() for word in own}
    return {word for word in words for sentence in sentences if re.search(rf"\b{word}\b", sentence)}


def test_style_words_are_the_two_shared_ones_and_two_of_the_domain() -> None:
    assert dict(STYLE_WORDS) == {
        "clipart": ("image", "picture", "clipart", "illustration"),
        "infograph": ("image", "picture", "infograph", "informational chart"),
        "painting": ("image", "picture", "painting", "art"),
        "quickdraw": ("image", "picture", "quickdraw", "doodle"),
        "real": ("image", "picture", "photo", "snapshot"),
        "sketch": ("image", "picture", "sketch", "drawing"),
    }


@pytest.mark.parametrize("domain", sorted(STYLE_WORDS))
def test_a_domain_uses_all_its_words_and_no_others(domain: str) -> None:
    assert style_words_in(captions("zebra", domain)) == set(STYLE_WORDS[domain])


@pytest.mark.parametrize(("domain", "aligned"), [("sketch", True), ("real", True), ("blueprint", False)])
def test_aligned_captions_and_unknown_domains_use_only_the_shared_words(domain: str, aligned: bool) -> None:
    assert style_words_in(captions("zebra", domain, aligned=aligned)) == {"image", "picture"}


def test_aligned_captions_do_not_tell_the_domain() -> None:
    assert captions("zebra", "sketch", aligned=True) == captions("zebra", "real", aligned=True)


def test_six_patterns_each_with_and_without_its_full_stop() -> None:
    found = set(captions("zebra", "blueprint"))
    sentences = {
        "{} {s} of a zebra.",
        "{} {s} showing a zebra.",
        "this is {} {s} of a zebra.",
        "a zebra in {} {s}.",
        "a zebra, {s}.",
        "there is a zebra in this {s}.",
    }
    assert len(PATTERNS) == 6
    expected = {
        text.format(article, s=word) for text in sentences for article, word in (("an", "image"), ("a", "picture"))
    }
    assert found == expected | {text.removesuffix(".") for text in expected}


def test_the_full_stop_is_dropped_half_of_the_time() -> None:
    stops = sum(text.endswith(".") for text in captions("zebra", "real", 1000))
    assert 440 < stops < 560  # 500 +- 3.8 standard deviations, and the seed is fixed


@pytest.mark.parametrize(
    ("class_name", "noun"),
    [
        ("ice_cream", "an ice cream"),
        ("umbrella", "an umbrella"),
        ("hourglass", "an hourglass"),
        ("house", "a house"),
        ("unicycle", "a unicycle"),
        ("ukulele", "a ukulele"),
        ("European_robin", "a European robin"),
        ("t-shirt", "a t shirt"),
        ("The_Mona_Lisa", "The Mona Lisa"),
    ],
)
def test_articles(class_name: str, noun: str) -> None:
    for text in captions(class_name, "real", 60):
        assert re.search(rf"(^|[ ]){noun}\b", text), text
    if noun.startswith("The"):
        assert not any(re.search(r"\ban? The", text) for text in captions(class_name, "real", 60))


def test_the_same_generator_gives_the_same_captions() -> None:
    assert captions("fish", "clipart") == captions("fish", "clipart")


# --- captions of images ----------------------------------------------------------------------------------------------

PATHS = [f"sketch/zebra/{i}.png" for i in range(1200)]


def test_the_caption_of_an_image_is_fixed_for_all_time() -> None:
    # Stored mixtures are named after their content; these literals must never change.
    assert image_caption("sketch/axe/1.png", "axe", "sketch") == "there is an axe in this image"
    assert image_caption("sketch/axe/1.png", "axe", "sketch", 1) == "there is an axe in this sketch"
    assert sketch_caption("n01440764/sketch_1.JPEG", "tench") == "an image of a tench."


def test_captions_of_images_are_drawn_evenly() -> None:
    texts = [image_caption(path, "zebra", "sketch", seed=5) for path in PATHS]
    sentences = [
        (p.format(style=w, a_style=f"an {w}" if w == "image" else f"a {w}", a_class="a zebra").removesuffix("."), end)
        for p in PATTERNS
        for w in STYLE_WORDS["sketch"]
        for end in ("", ".")
    ]
    counts = [texts.count(sentence + end) for sentence, end in sentences]  # mean 25, standard deviation 4.9
    assert len(sentences) == 48
    assert sum(counts) == 1200
    assert min(counts) > 5
    assert max(counts) < 50


@pytest.mark.parametrize("domain", [*STYLE_WORDS, "blueprint"])
def test_aligned_captions_of_images(domain: str) -> None:
    aligned = [image_caption(path, "zebra", domain, aligned=True) for path in PATHS]
    assert style_words_in(aligned) == {"image", "picture"}
    assert aligned == [image_caption(path, "zebra", "real", aligned=True) for path in PATHS]


def test_captions_of_imagenet_sketch() -> None:
    texts = [sketch_caption(path, "zebra") for path in PATHS]
    assert all(any(word in text for word in SKETCH_WORDS) for text in texts)
    assert {word for word in SKETCH_WORDS if any(word in text for text in texts)} == set(SKETCH_WORDS)
    assert len(set(texts)) == len(SKETCH_PATTERNS) * len(SKETCH_WORDS) * 2
    aligned = [sketch_caption(path, "zebra", aligned=True) for path in PATHS]
    assert len(set(aligned)) == len(SKETCH_PATTERNS) * len(SHARED_STYLE_WORDS) * 2
    assert not any(re.search("sketch|draw|pencil|black", text) for text in aligned)
    assert "a zebra" in texts[0] or "zebra," in texts[0] or ": zebra" in texts[0]


@given(st.text(alphabet="ab_- ", max_size=20))
def test_readable_has_single_spaces_and_keeps_its_words(name: str) -> None:
    assert readable(name).split(" ") == (re.findall(r"[ab]+", name) or [""])
    assert readable(readable(name)) == readable(name)
