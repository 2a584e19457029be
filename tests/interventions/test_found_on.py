"""Images know themselves: a circuit is told from the images that found it, however they come."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from circuitry import (
    Circuit,
    Task,
    attribute,
    faithfulness_curve,
    judge_circuit,
)
from circuitry.circuits import AttributionSettings, Scores, attribute_folds, own_part
from circuitry.circuits.graph import PIXELS
from circuitry.encoder.tensor_batches import ImageBatches, digests_of, pixel_digests
from circuitry.interventions import (
    AblationSettings,
    find_circuit,
    lesion,
)
from tests.support.planted_classes import planted_classes
from tests.support.work import QUIET

NET = planted_classes()
TASK = replace(NET.task(0), work=QUIET)
FEW = AblationSettings(sizes=(0.5,), random_draws=1)


@pytest.fixture(scope="module")
def part() -> Circuit:
    return own_part(TASK, share=0.1)


def tensors(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images of a task, and its others."""
    assert isinstance(task.images, torch.Tensor)
    assert isinstance(task.others, torch.Tensor)
    return task.images, task.others


def other_images(task: Task) -> Task:
    images, others = tensors(task)
    return replace(task, images=images + 0.01, others=others + 0.01)


def test_digests_are_of_pixels_whatever_their_type_batches_and_order() -> None:
    images = torch.randn(5, 3, 8, 8)
    digests = pixel_digests(images)
    assert len(set(digests)) == 5
    assert digests == pixel_digests(images.double())
    assert pixel_digests(images[[3, 1]]) == (digests[3], digests[1])
    assert digests_of([images[:2], images[2:]]) == digests
    changed = images.clone()
    changed[2, 0, 0, 0] += 0.05
    assert [a == b for a, b in zip(digests, pixel_digests(changed), strict=True)] == [
        True,
        True,
        False,
        True,
        True,
    ]


def test_batches_of_a_loader_are_digested_in_the_pass_that_is_made_anyway() -> None:
    read = list[int]()

    class Loader(list[torch.Tensor]):
        def __iter__(self) -> Any:
            read.append(1)
            return super().__iter__()

    images = torch.randn(5, *tensors(TASK)[0].shape[1:])
    batches = ImageBatches(Loader(torch.split(images, 2)), TASK.encoder, 64)
    list(batches)
    assert digests_of(batches) == pixel_digests(images)
    assert digests_of(ImageBatches(batches, TASK.encoder, 1)) == pixel_digests(images)
    assert len(read) == 1


FOUND: dict[str, Callable[[], Scores]] = {
    "own part": lambda: own_part(TASK, share=0.1).source,
    "ranked": lambda: find_circuit(TASK, method="gradient", size=0.3).source,
    "learned": lambda: find_circuit(TASK, method="learned", size=0.3).source,
    "attribute": lambda: attribute(
        TASK.encoder, TASK.images, TASK.metric, others=TASK.others, progress=False
    ),
}


@pytest.mark.parametrize("how", FOUND)
def test_whatever_finds_a_circuit_leaves_the_digests_of_its_images(how: str) -> None:
    expected = {digest for some in tensors(TASK) for digest in pixel_digests(some)}
    assert set(FOUND[how]().provenance[PIXELS]) == expected


def test_graphs_of_folds_have_the_digests_of_their_images() -> None:
    images, others = tensors(TASK)
    folds = np.arange(len(images)) % 2
    found = attribute_folds(
        TASK, AttributionSettings(size=0.3, method="gradient"), folds
    )
    for number, graph in found.folds.items():
        expected = {
            *pixel_digests(images[torch.from_numpy(folds == number)]),
            *pixel_digests(others),
        }
        assert set(graph.provenance[PIXELS]) == expected


def test_a_part_of_two_styles_has_the_digests_of_both() -> None:
    second = other_images(TASK)
    found = own_part([TASK, second], share=0.1).source.provenance[PIXELS]
    sets = (*tensors(TASK), *tensors(second))
    assert set(found) == {digest for some in sets for digest in pixel_digests(some)}


def test_a_test_on_the_very_images_cannot_be_told(
    part: Circuit, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = judge_circuit(other_images(TASK), part, minimality=False)
    assert caplog.messages == []
    assert fresh["n_seen"].unique().tolist() == [0]
    assert fresh["holds"].isin([True, False]).all()
    table = judge_circuit(TASK, part, minimality=False)
    n = len(tensors(TASK)[0])
    assert table["holds"].isna().all()
    assert table["n_seen"].unique().tolist() == [n]
    (told,) = caplog.messages
    assert f"images of the class ({n}), others of the class" in told
    assert "images that found the circuits" in told
    half = other_images(TASK)
    mixed = torch.cat([tensors(TASK)[0][:1], tensors(half)[0][1:]])
    some = judge_circuit(replace(half, images=mixed), part, minimality=False)
    assert some["n_seen"].unique().tolist() == [1]
    assert some["holds"].notna().all()


def test_circuits_of_earlier_files_say_nothing(
    part: Circuit, caplog: pytest.LogCaptureFixture
) -> None:
    older = replace(part, source=replace(part.source, provenance={}))
    assert judge_circuit(TASK, older, minimality=False)["holds"].notna().all()
    lesion({("a", "x"): TASK}, {("a", "x"): older})
    assert caplog.messages == []


MEASURED: dict[str, Callable[[Task, Circuit], object]] = {
    "A lesion": lambda task, part: lesion({("a", "x"): task}, {("a", "x"): part}),
    "Faithfulness": lambda task, part: faithfulness_curve(task, part.source, FEW),
}


@pytest.mark.parametrize("what", MEASURED)
def test_measures_on_the_very_images_are_told(
    what: str, part: Circuit, caplog: pytest.LogCaptureFixture
) -> None:
    MEASURED[what](other_images(TASK), part)
    assert caplog.messages == []
    MEASURED[what](TASK, part)
    assert [
        line
        for line in caplog.messages
        if line.startswith(f"{what} is measured on images that found")
    ]
