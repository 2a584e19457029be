"""Images to find a circuit on and images to measure it on: none in both, and which they are."""

from pathlib import Path

import pytest
import torch

from circuitry import Clip, DomainFolder
from experiments.unseen_images import read_class, split_records
from tests.study.representations.test_embeddings import draw

COUNTS = {"axe": 5, "cat": 4, "fish": 1}


@pytest.fixture
def images(tmp_path: Path) -> DomainFolder:
    return draw(
        tmp_path,
        tuple(
            f"real/{name}/{i}.png"
            for name, count in COUNTS.items()
            for i in range(count)
        ),
    )


@pytest.mark.parametrize(("n_images", "sizes"), [(9, (3, 2)), (2, (2, 2)), (1, (1, 1))])
def test_no_image_is_on_both_sides(
    n_images: int, sizes: tuple[int, int], images: DomainFolder
) -> None:
    found_on, measured_on = split_records(images, "axe", "real", n_images, 9, seed=0)
    assert (len(found_on.own), len(measured_on.own)) == sizes
    assert (
        len(found_on.others) + len(measured_on.others) == COUNTS["cat"] + COUNTS["fish"]
    )
    for one, other in zip(found_on, measured_on, strict=True):
        assert not {record.relative for record in one} & {
            record.relative for record in other
        }
    assert {record.class_name for record in [*found_on.own, *measured_on.own]} == {
        "axe"
    }
    assert {
        record.class_name for record in [*found_on.others, *measured_on.others]
    } == {"cat", "fish"}


def test_the_draw_depends_on_the_seed_alone(images: DomainFolder) -> None:
    first, *drawn = (
        split_records(images, "axe", "real", 2, 1, seed)
        for seed in (0, 0, *range(1, 8))
    )
    assert first == drawn[0]
    assert any(one != first for one in drawn)
    assert [len(side.others) for side in first] == [1, 1]


def test_images_of_a_class_come_first(clip: Clip, images: DomainFolder) -> None:
    read = read_class(clip, split_records(images, "axe", "real", 3, 2, seed=0)[0])
    assert [len(part) for part in read] == [3, 2]
    assert torch.equal(read.together, torch.cat([read.own, read.others]))
