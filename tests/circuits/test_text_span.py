"""A greedy basis of texts: planted directions are found in the order of their variance."""

import numpy as np
import pytest

from circuitry.circuits.text_span import text_span
from circuitry.runs.errors import InputError

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


def test_a_text_that_repeats_another_is_not_taken_again() -> None:
    vectors, texts = planted()
    doubled = np.stack([texts[1], texts[1], texts[0], texts[2]])
    assert text_span(vectors, doubled, ("a", "b", "c", "d"), n=3)["text"].tolist() == ["a", "c"]


def test_vectors_that_do_not_vary_have_no_texts() -> None:
    _, texts = planted()
    assert text_span(np.ones((4, 8)), texts, TEXTS).empty


def test_sizes_that_do_not_fit_are_told() -> None:
    vectors, texts = planted()
    with pytest.raises(InputError, match="an embedding of 8 numbers each, on at least two images, but 3 texts"):
        text_span(vectors, texts, TEXTS[:3])
