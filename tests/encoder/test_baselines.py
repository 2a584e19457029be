"""What a baseline may be, its name and digest; what is made of images is tested in tests/circuits."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from circuitry import Encoder, InputError, Task, attribute
from circuitry.encoder import Baseline, Counterfactual, as_baseline, mean_baseline
from circuitry.encoder.baselines import ZERO, check_count, default_baseline
from tests.support.assert_same import assert_same
from tests.support.towers import make_tower

IMAGES = torch.randn(3, 3, 4, 4)


@pytest.mark.parametrize(
    ("tower", "name"),
    [("resnet", "zero"), ("efficientnet", "zero"), ("vit", "mean-position"), ("convnext", "mean-position")],
)
def test_the_default_is_chosen_by_the_norms_of_the_tower(tower: str, name: str) -> None:
    assert default_baseline(Encoder.from_tower(make_tower(tower))) == name


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
    one_each = Baseline("mine", {"a": torch.arange(3.0)[:, None], "b": torch.zeros(1, 2)}).select(every_other)
    assert one_each.values["a"].tolist() == [[0], [2]]
    assert one_each.values["b"].shape == (1, 2)
    assert torch.equal(Counterfactual(IMAGES).select(every_other).images, IMAGES[[0, 2]])
    assert Counterfactual(IMAGES[:1]).select(slice(1, None, 2)).images.shape == (1, 3, 4, 4)
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
    ways: list[tuple[Any, Any]] = [(images[:3], images[3:]), ([images[:1], images[1:3]], iter(images[3:, None]))]
    tasks = [Task(encoder, own, torch.sum, baseline=f"mean-{per}", others=others) for own, others in ways]
    read: list[np.ndarray] = []
    with torch.no_grad(), resnet.layer2.register_forward_hook(lambda *io: read.append(io[-1].numpy())):
        resnet(images)
    expected = read[0].mean(axis=0 if per == "position" else (0, 2, 3), dtype=float, keepdims=True)
    for task in tasks:
        assert isinstance(task.baseline, Baseline)
        assert task.baseline.name == f"mean-{per}"
        found = task.baseline.values["layer2.1"].numpy()
        assert_same(found, np.broadcast_to(expected, found.shape), at_least=0.1)
    assert Task(encoder, images, torch.sum, baseline=tasks[0].baseline).baseline is tasks[0].baseline
    assert repr(tasks[0]).startswith("Task: 3 images of a class, 4 images of other classes; metric ")
    assert f"baseline mean-{per}, " in repr(tasks[1])
    assert repr(tasks[0].baseline) == f"Baseline(name='mean-{per}')"


NAN = float("nan")
REFUSED: tuple[tuple[Callable[[Encoder, torch.Tensor], object], str], ...] = (
    *((lambda *_, value=value: as_baseline(value), r"'zero'.*Baseline") for value in ("mean", None, 0)),
    (lambda *_: as_baseline(torch.zeros(3, 4, 4)), r"images.*\[3, 4, 4\]"),
    (lambda *_: as_baseline(torch.zeros(0, 3, 4, 4)), r"images.*\[0, 3, 4, 4\]"),
    (lambda *_: Baseline("mine", {"a": torch.zeros(1, 2), "b": torch.tensor([[NAN, 0]])}), "'mine' at site 'b'"),
    (lambda *_: Counterfactual(torch.full((1, 3, 4, 4), NAN)), "'input'"),
    (lambda *_: Baseline("mine", {"a": torch.zeros(2, 3), "b": torch.zeros(4, 3)}), r"'mine' has \d .*'a' .*\d"),
    (lambda *_: check_count(Counterfactual(IMAGES), 2), "3 .*'input'.* 2 "),
    (lambda encoder, images: mean_baseline(encoder, iter(images[0])), r"\[64, 64\]"),
    (lambda encoder, images: mean_baseline(encoder, [images / 0]), "'mean-position' at site 'input'"),
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
    (lambda *of: Task(of[0], of[1], torch.sum, baseline="other-domains"), r"FolderBaseline\('other-domains'.*extract"),
)


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_refusals(call: Callable[[Encoder, torch.Tensor], object], words: str, resnet: Any) -> None:
    for baseline in (ZERO, Counterfactual(IMAGES[:1]), Counterfactual(IMAGES)):
        check_count(baseline, 3)
    with pytest.raises(InputError, match=words):
        call(Encoder.from_tower(resnet), torch.randn(2, 3, 64, 64))
