"""A greedy basis of texts: planted directions are found in the order of their variance."""

import numpy as np
import pytest

from circuitry.circuits import text_span

TEXTS = ("red", "round", "striped", "large")


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors that vary along two orthogonal texts, three times as far along the second; a third text is their sum."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    amounts = rng.normal(size=(200, 2)) * [1.0, 3.0]
    amounts -= amounts.mean(0)
    vectors = amounts @ axes[:2] + 5 * axes[7]
    return vectors, np.stack([axes[0], axes[1], axes[5], axes[6]])


def test_planted_texts_are_found_in_order_with_their_shares() -> None:
    vectors, texts = planted()
    found = text_span(vectors, texts, TEXTS)
    assert found["text"].tolist() == ["round", "red"]
    centred = vectors - vectors.mean(0)
    shares = [np.square(centred @ texts[i]).sum() / np.square(centred).sum() for i in (1, 0)]
    np.testing.assert_allclose(found["share"], shares, atol=1e-3)
    assert found["together"].iloc[-1] == pytest.approx(1.0)
    assert found["together"].is_monotonic_increasing
    sizes = np.linalg.eigvalsh(centred.T @ centred)[::-1]
    np.testing.assert_allclose(found["most"], np.cumsum(sizes)[:2] / sizes.sum())


def test_a_text_that_repeats_another_is_not_taken_again() -> None:
    vectors, texts = planted()
    doubled = np.stack([texts[1], texts[1], texts[0], texts[2]])
    assert text_span(vectors, doubled, ("a", "b", "c", "d"), n=3)["text"].tolist() == ["a", "c"]


def many_texts(rng: np.random.Generator) -> np.ndarray:
    """Forty texts that lie closer together than directions at random, and fill some directions more than others."""
    texts = np.ones(16) + rng.normal(size=(40, 16)) * np.geomspace(2, 0.2, 16)
    normed: np.ndarray = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    return normed


def test_names_of_a_head_that_writes_along_a_text_are_above_chance() -> None:
    rng = np.random.default_rng(0)
    texts = many_texts(rng)
    vectors = np.outer(rng.normal(size=100), texts[7]) + 0.05 * rng.normal(size=(100, 16))
    found = text_span(vectors, texts, [str(i) for i in range(40)], n=3)
    assert found["text"][0] == "7"
    assert found["chance"][0] < 0.9 * found["together"][0]
    assert (found["together"] <= found["most"] + 1e-9).all()
    assert found["chance"].is_monotonic_increasing


def test_names_of_heads_that_know_no_text_exceed_chance_as_often_as_the_level_says() -> None:
    above = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        texts = many_texts(rng)
        written = (rng.normal(size=40) / 40**0.5) @ (texts - texts.mean(0)) + texts.mean(0)  # a mixture of all
        vectors = np.outer(rng.normal(size=30), written) + 0.1 * rng.normal(size=(30, 16))
        found = text_span(vectors, texts, [str(i) for i in range(40)], n=1)
        above.append(found["together"][0] > found["chance"][0])
    assert 0.01 <= np.mean(above) <= 0.12  # 0.05 expected, with a standard error of 0.02


def test_vectors_that_do_not_vary_have_no_texts() -> None:
    _, texts = planted()
    assert text_span(np.ones((4, 8)), texts, TEXTS).empty
