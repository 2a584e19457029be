"""The study's logit and its lead over the other classes, on paper."""

from collections.abc import Callable
from functools import partial
from typing import Any

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


@pytest.mark.parametrize("make", [class_logit, class_margin])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_precision_is_that_of_the_embedding(make: MetricOfClass, dtype: torch.dtype) -> None:
    value = make(WEIGHTS, 1)(EMBEDDINGS.to(dtype))
    assert value.dtype == dtype
    assert value.tolist() == pytest.approx(make(WEIGHTS, 1)(EMBEDDINGS).tolist(), rel=1e-2)
    assert make(WEIGHTS, 1)(torch.zeros(1, 2, dtype=dtype)).tolist() == [0]  # the study's baseline at the embedding


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


def test_weights_of_another_length_are_named(caplog: pytest.LogCaptureFixture) -> None:
    class_logit(WEIGHTS, 0)
    assert not caplog.text
    class_logit(100 * WEIGHTS, 0)
    assert "length 100" in caplog.text


def half_way(e: Tensor) -> Tensor:
    return e[:, 0].log()


def as_array(e: Tensor) -> Any:
    return e[:, 0].numpy()


def cut_off(e: Tensor) -> Tensor:
    return e.detach()[:, 0]


BOTH = (class_logit, class_margin)
ROW_2 = torch.tensor([[1.0, 0], [0, 1], [float("nan"), 0]])
REFUSED: tuple[tuple[Callable[[], object], str], ...] = (
    *(
        (lambda make=make, label=label: make(WEIGHTS, label), f"label.*{label}")
        for make in BOTH
        for label in (True, -1, 3)
    ),
    *((lambda make=make: make(WEIGHTS.numpy(), 0), "ndarray") for make in BOTH),
    *((lambda make=make: make(WEIGHTS[0], 0), r"\[2\]") for make in BOTH),
    *((lambda make=make: make(ROW_2, 0), "row 2") for make in BOTH),
    *((lambda make=make: make(WEIGHTS, 0)(torch.ones(4, 3)), "2 and 3") for make in BOTH),
    (lambda: default_answers(class_logit(WEIGHTS, 0))(torch.ones(4, 3)), "2 and 3"),
    (lambda: class_margin(WEIGHTS[:1], 0), "two classes"),
    (lambda: checked_metric(half_way, EMBEDDINGS), r"half_way.* 2 "),
    (lambda: checked_metric(as_array, EMBEDDINGS), r"as_array.*ndarray"),
    (lambda: checked_metric(cut_off, EMBEDDINGS.clone().requires_grad_()), "cut_off"),
    (lambda: metric_of_class(class_logit(WEIGHTS, 0)), "class_logit or class_margin"),  # type: ignore[arg-type]
)


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_refusals(unchecked: None, call: Callable[[], object], words: str) -> None:
    assert checked_metric(cut_off, EMBEDDINGS).tolist() == [3, 0]  # no gradient is needed here
    with torch.no_grad():
        assert checked_metric(cut_off, EMBEDDINGS.clone().requires_grad_()).tolist() == [3, 0]
    with pytest.raises(InputError, match=words):
        call()
