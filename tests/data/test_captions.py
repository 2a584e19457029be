"""Captions: the study's sentences, style words and draws; names of classes and their ImageNet partners."""

import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitry.data import caption, imagenet_partners
from circuitry.data.captions import (
    PATTERNS,
    STYLE_WORDS,
    image_rng,
    readable,
    with_article,
)
from circuitry.data.imagenet_classes import (
    STUDY_HELD_OUT,
    class_key,
    imagenet_index,
    study_held_out,
)
from circuitry.data.names import chosen_names
from tests.conftest import shared


def style_words_in(sentences: list[str]) -> set[str]:
    words = {word for own in STYLE_WORDS.values() for word in own}
    return {
        word
        for word in words
        for sentence in sentences
        if re.search(rf"\b{word}\b", sentence)
    }


def all_sentences(cls: str, words: dict[str, str]) -> set[str]:
    """Every sentence by hand: style word -> the word with its article."""
    stopped = {
        sentence
        for word, styled in words.items()
        for sentence in (
            f"{styled} of a {cls}.",
            f"a {cls} {word}.",
            f"{styled} depicting a {cls}.",
            f"a {cls} depicted in {styled}.",
            f"{styled} showing a {cls}.",
            f"a {cls} is visible in {styled}.",
        )
    }
    return stopped | {sentence[:-1] for sentence in stopped}


@pytest.mark.parametrize(
    ("class_name", "cls", "domain", "own"),
    [
        (
            "axe",
            "axe",
            "infograph",
            {
                "infograph": "an infograph",
                "informational chart": "an informational chart",
            },
        ),
        ("cat", "cat", "quickdraw", {"quickdraw": "a quickdraw", "doodle": "a doodle"}),
        ("cat", "cat", "real", {"photo": "a photo", "snapshot": "a snapshot"}),
        ("cat", "cat", "sketch", {"sketch": "a sketch", "drawing": "a drawing"}),
        (
            "The_Mona_Lisa",
            "The Mona Lisa",
            "painting",
            {"painting": "a painting", "art": "art"},
        ),
        (
            "t-shirt",
            "t-shirt",
            "clipart",
            {"clipart": "a clipart", "illustration": "an illustration"},
        ),
    ],
)
def test_six_patterns_with_and_without_full_stop(
    class_name: str, cls: str, domain: str, own: dict[str, str]
) -> None:
    expected = all_sentences(cls, {"image": "an image", "picture": "a picture", **own})
    assert len(expected) == 48
    rng = random.Random(0)
    assert {caption(class_name, domain, rng) for _ in range(2000)} == expected


def test_a_stream_by_hand() -> None:
    """Mersenne Twister's numbers, drawn here bit by bit: pattern, then full stop, then word."""
    bits, rng = random.Random(42), random.Random(42)

    def below(n: int) -> int:
        while (k := bits.getrandbits(n.bit_length())) >= n:
            pass
        return k

    for _ in range(200):
        pattern, stop = below(6), bits.random() < 0.5
        word = ("image", "picture", "photo", "snapshot")[below(4)]
        a = "an" if word == "image" else "a"
        sentences = (
            *(
                f"{a} {word} of a ice cream.",
                f"a ice cream {word}.",
                f"{a} {word} depicting a ice cream.",
            ),
            f"a ice cream depicted in {a} {word}.",
            *(
                f"{a} {word} showing a ice cream.",
                f"a ice cream is visible in {a} {word}.",
            ),
        )
        expected = sentences[pattern] if stop else sentences[pattern][:-1]
        assert caption("ice_cream", "real", rng) == expected


def test_sentences_are_the_lent_ones() -> None:
    lent = json.loads(shared("facts/study_texts.json").read_text())
    ours = [
        p.replace("{a_style}", "{aan}{term}").replace("{style}", "{term}")
        for p in PATTERNS
    ]
    assert [p.replace("{class_name}", "{cls}") for p in ours] == lent[
        "domainnet_patterns"
    ]
    terms = lent["domainnet_terms"]
    lent_words = {
        domain: [*terms["all"], *words]
        for domain, words in terms.items()
        if domain != "all"
    }
    of_pacs = {"art_painting", "cartoon", "photo"}
    assert lent_words == {
        domain: list(words)
        for domain, words in STYLE_WORDS.items()
        if domain not in of_pacs
    }


PATHS = [f"sketch/zebra/{i}.png" for i in range(1200)]


def test_the_caption_of_an_image_is_fixed_for_all_time() -> None:
    drawn = [
        caption("axe", "sketch", image_rng("sketch/axe/1.png", seed)) for seed in (0, 1)
    ]
    assert drawn == ["a axe is visible in an image", "a drawing showing a axe"]


@pytest.mark.parametrize("domain", [*STYLE_WORDS, "blueprint"])
def test_aligned_captions_of_images_differ_in_the_word_alone(domain: str) -> None:
    aligned = [
        caption("zebra", domain, image_rng(path), aligned=True) for path in PATHS
    ]
    assert style_words_in(aligned) == {"image", "picture"}
    assert aligned == [
        caption("zebra", "real", image_rng(path), aligned=True) for path in PATHS
    ]
    every = "|".join(
        sorted(
            {word for own in STYLE_WORDS.values() for word in own},
            key=len,
            reverse=True,
        )
    )
    for path, text in zip(PATHS, aligned, strict=True):
        plain = caption("zebra", domain, image_rng(path))
        assert re.sub(rf"\b(an? )?({every})\b", "STYLE", plain) == re.sub(
            rf"\b(an? )?({every})\b", "STYLE", text
        )


@settings(deadline=None)
@given(st.text(alphabet="ab_- ", max_size=20))
def test_readable_has_single_spaces_and_keeps_its_words(name: str) -> None:
    assert readable(name).split(" ") == (re.findall(r"[ab]+", name) or [""])
    assert readable(readable(name)) == readable(name)


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("umbrella", "an umbrella"),
        ("hourglass", "an hourglass"),
        ("house", "a house"),
        ("unicycle", "a unicycle"),
        ("ukulele", "a ukulele"),
        ("European robin", "a European robin"),
        ("The Mona Lisa", "The Mona Lisa"),
    ],
)
def test_articles(noun: str, expected: str) -> None:
    assert with_article(noun) == expected


def test_labels_and_partners_by_hand() -> None:
    names = list(imagenet_partners())
    assert len(names) == 345
    labels = [
        0,
        11,
        13,
        15,
        25,
        58,
        174,
        190,
        197,
        218,
        225,
        250,
        305,
        319,
        320,
    ]  # as the study gives them
    assert [names.index(name) for name in STUDY_HELD_OUT] == labels
    partners = imagenet_partners()
    assert partners["bear"] == (294, 295, 296)  # brown, American black, ice bear
    assert partners["angel"] == ()
    indices = [i for own in partners.values() for i in own]
    assert (
        len(indices) == len(set(indices)) == 450
    )  # no ImageNet class has two partners
    assert set(indices) <= set(range(1000))


def test_the_table_is_the_lent_one() -> None:
    lent = json.loads(shared("facts/domainnet_to_imagenet.json").read_text())
    assert list(imagenet_partners().items()) == [
        (name, tuple(own or ())) for name, own in lent.items()
    ]


def test_the_index_is_the_place_among_the_sorted_folders() -> None:
    wnids = [f"n{7 * i:08d}" for i in range(1000)]
    assert imagenet_index(reversed(wnids)) == {wnid: i for i, wnid in enumerate(wnids)}


@settings(deadline=None)
@given(st.text(alphabet="aB_- ", max_size=12))
def test_spellings_share_a_key(name: str) -> None:
    assert (
        class_key(name.upper().replace(" ", "_"))
        == class_key(name.lower().replace("_", "-"))
        == class_key(name)
    )


def test_names_are_found_in_any_spelling() -> None:
    asked = ["Traffic light", "axe", "traffic_light"]
    assert chosen_names("class", asked, ["axe", "traffic-light"], class_key) == (
        "traffic-light",
        "axe",
    )
    assert study_held_out(["cat", "traffic_light", "axe"]) == ("axe", "traffic_light")
    assert len({class_key(name) for name in imagenet_partners()}) == 345
