"""The study's logit and its lead over the other classes, on paper."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from circuitry import InputError, class_logit, class_margin
from circuitry.encoder import MetricOfClass, metric_of_class
from circuitry.encoder.metrics import checked_metric, metric_name
from circuitry.interventions.answers import default_answers

WEIGHTS = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
EMBEDDINGS = torch.tensor([[3.0, 4], [0, -2]])


def test_logit_and_margin_by_hand() -> None:
    assert class_logit(WEIGHTS, 1)(EMBEDDINGS).tolist() == pytest.approx([0.8, -1])
    # Cosines (0.6, 0.8, -0.6) and (0, -1, 0).
    assert class_margin(WEIGHTS, 0)(EMBEDDINGS).tolist() == pytest.approx([0.6 - 0.1, 0 + 0.5])
    assert class_margin(WEIGHTS, 1)(EMBEDDINGS).tolist() == pytest.approx([0.8, -1])
    assert class_margin(WEIGHTS, 2)(EMBEDDINGS).tolist() == pytest.approx([-0.6 - 0.7, 0 + 0.5])


def test_a_margin_knows_all_classes() -> None:
    metric = class_margin(WEIGHTS, 1)
    assert metric.weights.shape == WEIGHTS.shape
    for label in range(3):
        torch.testing.assert_close(metric.weights[label], class_margin(WEIGHTS, label).weights[label])


def test_what_all_classes_share_is_no_margin() -> None:
    shifted = WEIGHTS + torch.tensor([0.5, -2.0])
    assert class_margin(shifted, 1)(EMBEDDINGS).tolist() == pytest.approx(class_margin(WEIGHTS, 1)(EMBEDDINGS).tolist())


@pytest.mark.parametrize(
    ("weights", "label", "words"),
    [
        (WEIGHTS, True, "label.*True"),
        (WEIGHTS, -1, "label.*-1"),
        (WEIGHTS, 3, "label.*3 .*3 "),
        (WEIGHTS, "cat", "label.*'cat'"),
        (WEIGHTS, 1.0, r"label.*1\.0"),
        (WEIGHTS.numpy(), 0, "ndarray"),
        (WEIGHTS[0], 0, r"\[2\]"),
    ],
)
def test_other_things_than_weights_and_a_row_of_them_are_refused(
    unchecked: None, weights: Any, label: Any, words: str
) -> None:
    for make in (class_logit, class_margin):
        with pytest.raises(InputError, match=words):
            make(weights, label)


def test_a_row_may_be_any_whole_number_and_a_margin_has_two_classes(unchecked: None) -> None:
    row: Any = np.int64(1)
    assert class_logit(WEIGHTS, row)(EMBEDDINGS).tolist() == pytest.approx([0.8, -1])
    with pytest.raises(InputError, match="two classes"):
        class_margin(WEIGHTS[:1], 0)


@pytest.mark.parametrize("make", [class_logit, class_margin])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_name_the_row(make: MetricOfClass, value: float) -> None:
    weights = WEIGHTS.clone()
    weights[2, 1] = value
    with pytest.raises(InputError, match="row 2"):
        make(weights, 0)


@pytest.mark.parametrize("make", [class_logit, class_margin])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_precision_is_that_of_the_embedding(make: MetricOfClass, dtype: torch.dtype) -> None:
    value = make(WEIGHTS, 1)(EMBEDDINGS.to(dtype))
    assert value.dtype == dtype
    assert value.tolist() == pytest.approx(make(WEIGHTS, 1)(EMBEDDINGS).tolist(), rel=1e-2)
    assert make(WEIGHTS, 1)(torch.zeros(1, 2, dtype=dtype)).tolist() == [0]  # the study's baseline at the embedding


def test_the_device_is_that_of_the_embedding() -> None:
    assert class_logit(WEIGHTS, 1)(EMBEDDINGS.to("meta")).device.type == "meta"


def test_weights_of_inference_mode_let_gradients_through() -> None:
    with torch.inference_mode():
        metric = class_margin(WEIGHTS * 1, 1)
    x = EMBEDDINGS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(metric(x).sum(), x)
    assert gradient.abs().max() > 0


def test_names() -> None:
    assert [metric_name(make(WEIGHTS, 0)) for make in (class_logit, class_margin)] == ["logit", "margin"]
    assert metric_name(test_names) == "test_names"
    assert metric_name(partial(test_names)) == "partial"
    assert metric_name("logit") == "logit"


def test_metrics_that_are_not_finite_are_named() -> None:
    def half_way(e: Tensor) -> Tensor:
        return e[:, 0].log()

    with pytest.raises(InputError, match=r"half_way.* 2 "):
        checked_metric(half_way, EMBEDDINGS)


def test_weights_of_another_width_than_the_embedding_are_refused() -> None:
    for make in (class_logit, class_margin):
        with pytest.raises(InputError, match="2 and 3"):
            make(WEIGHTS, 0)(torch.ones(4, 3))
        with pytest.raises(InputError, match="2 and 3"):
            default_answers(make(WEIGHTS, 0))(torch.ones(4, 3))


def test_a_value_that_is_no_tensor_is_named(unchecked: None) -> None:
    def as_array(e: Tensor) -> Any:
        return e[:, 0].numpy()

    with pytest.raises(InputError, match=r"as_array.*ndarray"):
        checked_metric(as_array, EMBEDDINGS)


def test_a_value_without_the_gradient_that_is_needed_is_named() -> None:
    def cut_off(e: Tensor) -> Tensor:
        return e.detach()[:, 0]

    assert checked_metric(cut_off, EMBEDDINGS).tolist() == [3, 0]  # none is needed here
    x = EMBEDDINGS.clone().requires_grad_()
    with pytest.raises(InputError, match="cut_off"):
        checked_metric(cut_off, x)
    with torch.no_grad():
        assert checked_metric(cut_off, x).tolist() == [3, 0]


def test_the_metric_of_one_class_is_none_of_every_class(unchecked: None) -> None:
    ready: Any = class_logit(WEIGHTS, 0)
    with pytest.raises(InputError, match="class_logit or class_margin"):
        metric_of_class(ready)


def test_weights_of_another_length_are_named(caplog: pytest.LogCaptureFixture) -> None:
    class_logit(WEIGHTS, 0)
    assert not caplog.text
    class_logit(100 * WEIGHTS, 0)
    assert "length 100" in caplog.text
