"""The study's logit and its lead over the other classes on paper; what a baseline may be, its name and digest."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from circuitry import Encoder, InputError, Task, attribute, class_logit, class_margin
from circuitry.encoder import (
    Baseline,
    Counterfactual,
    MetricOfClass,
    as_baseline,
    mean_baseline,
    metric_of_class,
)
from circuitry.encoder.baselines import ZERO, check_count
from circuitry.encoder.metrics import checked_metric, given_classes
from circuitry.gates.fisher import default_answers
from tests.support.assert_same import assert_same

WEIGHTS = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
EMBEDDINGS = torch.tensor([[3.0, 4], [0, -2]])


def test_logit_and_margin_by_hand() -> None:
    assert class_logit(WEIGHTS, 1)(EMBEDDINGS).tolist() == pytest.approx([0.8, -1])
    # Cosines (0.6, 0.8, -0.6) and (0, -1, 0).
    assert class_margin(WEIGHTS, 0)(EMBEDDINGS).tolist() == pytest.approx(
        [0.6 - 0.1, 0 + 0.5]
    )
    assert class_margin(WEIGHTS, 1)(EMBEDDINGS).tolist() == pytest.approx([0.8, -1])
    assert class_margin(WEIGHTS, 2)(EMBEDDINGS).tolist() == pytest.approx(
        [-0.6 - 0.7, 0 + 0.5]
    )


def test_a_margin_knows_all_classes() -> None:
    metric = class_margin(WEIGHTS, 1)
    assert metric.weights.shape == WEIGHTS.shape
    for label in range(3):
        torch.testing.assert_close(
            metric.weights[label], class_margin(WEIGHTS, label).weights[label]
        )


@pytest.mark.parametrize("make", [class_logit, class_margin])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_precision_is_that_of_the_embedding(
    make: MetricOfClass, dtype: torch.dtype
) -> None:
    value = make(WEIGHTS, 1)(EMBEDDINGS.to(dtype))
    assert value.dtype == dtype
    assert value.tolist() == pytest.approx(
        make(WEIGHTS, 1)(EMBEDDINGS).tolist(), rel=1e-2
    )
    assert make(WEIGHTS, 1)(torch.zeros(1, 2, dtype=dtype)).tolist() == [
        0
    ]  # the study's baseline at the embedding


def test_weights_of_inference_mode_let_gradients_through() -> None:
    with torch.inference_mode():
        metric = class_margin(WEIGHTS * 1, 1)
    x = EMBEDDINGS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(metric(x).sum(), x)
    assert gradient.abs().max() > 0


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


IN_BATCHES = (
    lambda e: e.softmax(0)[:, 0],
    lambda e: e[:, 0] - e[:, 0].mean(),
    lambda e: (e * WEIGHTS[:2]).sum(1),
)
BOTH = (class_logit, class_margin)
REFUSED: tuple[tuple[Callable[[], object], str], ...] = (
    *(
        (lambda make=make, label=label: make(WEIGHTS, label), f"label.*{label}")
        for make in BOTH
        for label in (True, -1, 3)
    ),
    *((lambda make=make: make(WEIGHTS.numpy(), 0), "ndarray") for make in BOTH),
    *((lambda make=make: make(WEIGHTS[0], 0), r"\[2\]") for make in BOTH),
    *(
        (lambda make=make: make(WEIGHTS, 0)(torch.ones(4, 3)), "2 and 3")
        for make in BOTH
    ),
    (lambda: default_answers(class_logit(WEIGHTS, 0))(torch.ones(4, 3)), "2 and 3"),
    (lambda: class_margin(WEIGHTS[:1], 0), "two classes"),
    (lambda: checked_metric(half_way, EMBEDDINGS), r"half_way.* 2 "),
    (lambda: checked_metric(as_array, EMBEDDINGS), r"as_array.*ndarray"),
    (lambda: checked_metric(cut_off, EMBEDDINGS.clone().requires_grad_()), "cut_off"),
    *((lambda one=one: checked_metric(one, EMBEDDINGS), "alone") for one in IN_BATCHES),
    (lambda: metric_of_class(class_logit(WEIGHTS, 0)), "class_logit or class_margin"),  # type: ignore[arg-type]
)


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_refusals(unchecked: None, call: Callable[[], object], words: str) -> None:
    assert checked_metric(cut_off, EMBEDDINGS).tolist() == [
        3,
        0,
    ]  # no gradient is needed here
    with torch.no_grad():
        assert checked_metric(
            cut_off, EMBEDDINGS.clone().requires_grad_()
        ).tolist() == [3, 0]
    with pytest.raises(InputError, match=words):
        call()


IMAGES = torch.randn(3, 3, 4, 4)


def test_every_way_to_give_a_baseline() -> None:
    assert as_baseline("zero") is ZERO
    mean = Baseline("mean", {"a": torch.ones(1, 2)})
    assert as_baseline(mean) is mean
    one_each = as_baseline(IMAGES)
    assert isinstance(one_each, Counterfactual)
    assert one_each.images is IMAGES
    assert as_baseline(one_each) is one_each


def test_digests_tell_what_shapes_a_number() -> None:
    different: list[Baseline | Counterfactual] = [
        ZERO,
        Baseline("zero", {"a": torch.zeros(1, 2)}),
        Baseline("zero", {"b": torch.zeros(1, 2)}),
        Baseline("zero", {"a": torch.ones(1, 2)}),
        Counterfactual(IMAGES),
        Counterfactual(IMAGES[:1]),
        Baseline("zero", {"input": IMAGES}),
    ]
    assert len({baseline.digest for baseline in different}) == len(different)
    assert Counterfactual(IMAGES.clone()).digest == Counterfactual(IMAGES).digest
    assert Baseline("other", {}).digest == ZERO.digest


def test_selection_keeps_what_is_for_all_images() -> None:
    every_other = slice(0, None, 2)
    one_each = Baseline(
        "mine", {"a": torch.arange(3.0)[:, None], "b": torch.zeros(1, 2)}
    ).select(every_other)
    assert one_each.values["a"].tolist() == [[0], [2]]
    assert one_each.values["b"].shape == (1, 2)
    assert torch.equal(
        Counterfactual(IMAGES).select(every_other).images, IMAGES[[0, 2]]
    )
    assert Counterfactual(IMAGES[:1]).select(slice(1, None, 2)).images.shape == (
        1,
        3,
        4,
        4,
    )
    # A part with a single image takes that one, whatever the others have.
    assert Counterfactual(IMAGES).select(slice(2, None)).n_images is None


def test_means_are_over_batches_of_images(resnet: Any) -> None:
    encoder, images = Encoder.from_tower(resnet), torch.randn(3, 3, 64, 64)
    expected = mean_baseline(encoder, [images])
    pairs: Any = DataLoader(TensorDataset(images, torch.zeros(3)), batch_size=3)
    for given in ([images[:0], images, images[:0]], iter([images]), images, pairs):
        assert mean_baseline(encoder, given).digest == expected.digest


@pytest.mark.parametrize("per", ["position", "unit"])
def test_a_mean_by_name_is_over_all_images_of_a_task(resnet: Any, per: str) -> None:
    encoder, images = Encoder.from_tower(resnet), torch.randn(7, 3, 64, 64)
    ways: list[tuple[Any, Any]] = [
        (images[:3], images[3:]),
        ([images[:1], images[1:3]], iter(images[3:, None])),
    ]
    tasks = [
        Task(encoder, own, torch.sum, baseline=f"mean-{per}", others=others)
        for own, others in ways
    ]
    read: list[np.ndarray] = []
    with (
        torch.no_grad(),
        resnet.layer2.register_forward_hook(lambda *io: read.append(io[-1].numpy())),
    ):
        resnet(images)
    expected = read[0].mean(
        axis=0 if per == "position" else (0, 2, 3), dtype=float, keepdims=True
    )
    for task in tasks:
        assert isinstance(task.baseline, Baseline)
        assert task.baseline.name == f"mean-{per}"
        found = task.baseline.values["layer2.1"].numpy()
        assert_same(found, np.broadcast_to(expected, found.shape), at_least=0.1)
    assert (
        Task(encoder, images, torch.sum, baseline=tasks[0].baseline).baseline
        is tasks[0].baseline
    )
    assert repr(tasks[0]).startswith(
        "Task: 3 images of a class, 4 images of other classes; metric "
    )
    assert "1 image of other classes" in repr(
        Task(encoder, images, torch.sum, others=images[0])
    )
    assert f"baseline mean-{per}, " in repr(tasks[1])
    assert repr(tasks[0].baseline) == f"Baseline(name='mean-{per}')"
    assert (
        repr(encoder) == "Encoder of ModifiedResNet: 11 sites, images of 64 x 64 pixels"
    )
    assert (
        repr(class_logit(torch.eye(64), 3))
        == "ClassLogit(label=3, name='logit', scale=None)"
    )


def test_an_answer_is_the_class_above_all_others() -> None:
    nan = float("nan")
    rows = [
        [0.1, 0.7, 0.2],
        [0.5, 0.5, 0.1],
        [0.5, 0.1, 0.5],
        [0.1, 0.5, 0.5],
        [0.9, 0.2, 0.2],
        [nan] * 3,
        [0.9, nan, 0.0],
    ]
    expected = [1, -1, -1, -1, 0, -1, -1]
    assert given_classes(torch.tensor(rows)).tolist() == expected
    for label in range(3):
        given = class_logit(torch.eye(3), label).is_given(torch.tensor([rows]))
        assert given.tolist() == [[row == label for row in expected]]


NAN = float("nan")
BASELINES_REFUSED: tuple[tuple[Callable[[Encoder, torch.Tensor], object], str], ...] = (
    *(
        (lambda *_, value=value: as_baseline(value), r"'zero'.*Baseline")
        for value in ("mean", None, 0)
    ),
    (lambda *_: as_baseline(torch.zeros(3, 4, 4)), r"images.*\[3, 4, 4\]"),
    (lambda *_: as_baseline(torch.zeros(0, 3, 4, 4)), r"images.*\[0, 3, 4, 4\]"),
    (
        lambda *_: Baseline(
            "mine", {"a": torch.zeros(1, 2), "b": torch.tensor([[NAN, 0]])}
        ),
        "'mine' at site 'b'",
    ),
    (lambda *_: Counterfactual(torch.full((1, 3, 4, 4), NAN)), "'input'"),
    (
        lambda *_: Baseline("mine", {"a": torch.zeros(2, 3), "b": torch.zeros(4, 3)}),
        r"'mine' has \d .*'a' .*\d",
    ),
    (lambda *_: check_count(Counterfactual(IMAGES), 2), "3 .*'input'.* 2 "),
    (lambda encoder, images: mean_baseline(encoder, iter(images[0])), r"\[64, 64\]"),
    (
        lambda encoder, images: mean_baseline(encoder, [images / 0]),
        "'mean-position' at site 'input'",
    ),
    (
        lambda *of: Task(of[0], of[1], torch.sum, baseline="mean-unit"),
        r"mean_baseline\(encoder, images, 'unit'\).*others",
    ),
    (
        lambda *of: attribute(of[0], of[1], torch.sum, baseline="mean-position"),
        r"mean_baseline\(.*'position'\).*others",
    ),
    (
        lambda *of: Task(of[0], of[1], torch.sum, baseline="counterfactual"),
        r"FolderBaseline\('counterfactual'.*extract",
    ),
    (
        lambda *of: Task(of[0], of[1], torch.sum, baseline="other-domains"),
        r"FolderBaseline\('other-domains'.*extract",
    ),
)


@pytest.mark.parametrize(("call", "words"), BASELINES_REFUSED)
def test_refusals_of_baselines(
    call: Callable[[Encoder, torch.Tensor], object], words: str, resnet: Any
) -> None:
    for baseline in (ZERO, Counterfactual(IMAGES[:1]), Counterfactual(IMAGES)):
        check_count(baseline, 3)
    with pytest.raises(InputError, match=words):
        call(Encoder.from_tower(resnet), torch.randn(2, 3, 64, 64))
