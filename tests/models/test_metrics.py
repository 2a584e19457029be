"""The study's logit and its lead over the other classes, on paper."""

import pytest
import torch

from circuitry import InputError, class_logit, class_margin

WEIGHTS = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
EMBEDDINGS = torch.tensor([[3.0, 4], [0, -2]])


def test_logit_and_margin_by_hand() -> None:
    assert class_logit(WEIGHTS, 1)(EMBEDDINGS).tolist() == pytest.approx([0.8, -1])
    # Cosines (0.6, 0.8, -0.6) and (0, -1, 0).
    assert class_margin(WEIGHTS, 0)(EMBEDDINGS).tolist() == pytest.approx([0.6 - 0.1, 0 + 0.5])
    assert class_margin(WEIGHTS, 1)(EMBEDDINGS).tolist() == pytest.approx([0.8, -1])
    assert class_margin(WEIGHTS, 2)(EMBEDDINGS).tolist() == pytest.approx([-0.6 - 0.7, 0 + 0.5])


def test_what_all_classes_share_is_no_margin() -> None:
    shifted = WEIGHTS + torch.tensor([0.5, -2.0])
    assert class_margin(shifted, 1)(EMBEDDINGS).tolist() == pytest.approx(class_margin(WEIGHTS, 1)(EMBEDDINGS).tolist())


def test_labels_are_rows() -> None:
    with pytest.raises(InputError, match="a row of the 3 text weights, but 3 was given"):
        class_margin(WEIGHTS, 3)
    with pytest.raises(InputError, match="at least two classes, but there is one"):
        class_margin(WEIGHTS[:1], 0)
