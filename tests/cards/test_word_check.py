"""Probabilities of words, whether a model's words work, and the vocabulary."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip import IMAGENET_CLASSNAMES

from circuitry import Clip, load_clip
from circuitry.cards import WordCheck, read_vocabulary, unit_words, vocabulary_of, word_probabilities
from circuitry.cards.unit_card import FEWEST
from circuitry.cards.vocabulary import words_of_domains
from circuitry.cards.word_check import check_words
from circuitry.models.classifier import Classifier


def classifier(clip: Clip, outputs: int) -> Classifier:
    rows = torch.randn(outputs, 16)
    of = {"fish": (0, 2), "cat": (1,)}
    values = {name: getattr(clip, name) for name in ("name", "model", "encoder", "preprocess", "tokenizer")}
    return Classifier(**values, rows=rows, bias=torch.randn(outputs), classes=of)


def test_probabilities_are_the_softmax_of_the_model_s_logits(clip: Clip) -> None:
    words, embeddings = ("red", "blue", "fur"), torch.randn(5, 16)
    texts = clip.model.encode_text(clip.tokenizer(list(words)))  # type: ignore[operator]
    scale = clip.model.logit_scale.exp()  # type: ignore[operator]
    logits = scale * F.normalize(embeddings, dim=-1) @ F.normalize(texts, dim=-1).T
    expected = (logits.exp() / logits.exp().sum(1, keepdim=True)).detach().numpy()
    np.testing.assert_allclose(word_probabilities(clip, words, embeddings), expected, rtol=1e-4)


def test_words_by_default_are_those_that_the_model_knows() -> None:
    clip = load_clip("rn-tiny")
    words = vocabulary_of(clip, ["cup", "photo"])
    assert words[:2] == ("cup", "photo")
    assert "sketch" in words
    assert "tench" not in words
    assert len(clip.text_weights(words, ["{}"])) == len(words) < 100


def test_a_classifier_s_words_are_its_outputs(clip: Clip) -> None:
    embeddings, small = torch.randn(5, 16), classifier(clip, 4)
    assert vocabulary_of(small, ["fish"]) == ("fish", "cat")
    logits = (embeddings @ small.rows.T + small.bias).numpy().astype(float)
    every = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = np.stack([every[:, 0] + every[:, 2], every[:, 1]], 1)
    np.testing.assert_allclose(word_probabilities(small, ("fish", "cat"), embeddings), expected, rtol=1e-4)
    imagenet = classifier(clip, len(IMAGENET_CLASSNAMES))
    assert vocabulary_of(imagenet, ["fish"]) == tuple(IMAGENET_CLASSNAMES)
    assert word_probabilities(imagenet, IMAGENET_CLASSNAMES, embeddings).shape == (5, 1000)


@pytest.mark.parametrize(
    ("right", "works", "words"),
    [
        (30, True, ["work", "30%", "10%", f"{FEWEST} images"]),
        (12, False, ["do not work", "12%", "10%"]),
        (0, False, ["do not work", "0%"]),
    ],
)
def test_words_work_above_chance(right: int, works: bool, words: list[str]) -> None:
    answers = np.arange(100) < right
    found = check_words("rn-tiny", {"real": answers[:50], "sketch": answers[50:]}, 10)
    assert (found.accuracy, found.chance, found.n_images, found.works) == (right / 100, 0.1, 100, works)
    assert found.by_domain == {"real": min(right, 50) / 50, "sketch": max(right - 50, 0) / 50}
    assert all(word in found.sentence for word in ["rn-tiny", "100", *words])


def test_no_image_is_no_evidence() -> None:
    found = check_words("rn-tiny", {}, 10)
    assert not found.works
    assert replace(found, accuracy=0.0) == WordCheck("rn-tiny", 0.0, {}, 0.1, 0, works=False)


def test_our_own_words_are_distinct_and_plain() -> None:
    words = unit_words()
    assert 400 <= len(words) == len({word.lower() for word in words}) <= 500
    assert {"striped", "wood", "circle", "wheel", "thin lines", "photograph", "handwriting"} <= set(words)


def test_vocabularies(clip: Clip, tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("# colours\nred\n\n  dark blue \nred\n")
    assert read_vocabulary(file) == ("red", "dark blue")
    assert vocabulary_of(clip, ["ice_cream", "real"], ["red", "real"]) == ("ice cream", "real", "red")
    everything = vocabulary_of(clip, ["ice_cream"])
    assert everything[0] == "ice cream"
    assert {"tench", "striped", "doodle"} <= set(everything)
    assert words_of_domains(["infograph", "real", "night_time"]) == {
        *("infograph", "informational chart", "informational", "chart", "real", "photo", "snapshot", "night time")
    }
