"""Images that come once, as a stream of batches, are read once and given on every pass."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from circuitry import Encoder, InputError
from circuitry.encoder.tensor_batches import ImageBatches, _name_pixels, checked_batches
from tests.support.towers import make_tower


@pytest.mark.parametrize("read_before", [0, 1, 2, 5])
def test_a_pass_that_was_broken_off_loses_no_image(read_before: int) -> None:
    asked: list[int] = []

    def once() -> Iterator[Tensor]:
        for i in range(4):
            asked.append(i)
            yield torch.full((2, 3, 64, 64), float(i))

    batches = ImageBatches(once(), Encoder.from_tower(make_tower("resnet")), rows=1)
    assert len(list(islice(batches, read_before))) == read_before
    assert len(asked) == -(-read_before // 2)  # no more than was asked for
    for _ in range(2):
        assert [float(image[0, 0, 0, 0]) for image in batches] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert asked == [0, 1, 2, 3]


@pytest.mark.parametrize("way", ["pairs", "single images", "a data set"])
def test_images_come_as_people_have_them(way: str) -> None:
    images = torch.randn(3, 3, 64, 64)
    ways: dict[str, Any] = {
        "pairs": DataLoader(TensorDataset(images, torch.zeros(3)), batch_size=2),
        "single images": list(images),
        "a data set": TensorDataset(images, torch.zeros(3)),
    }
    batches = ImageBatches(ways[way], Encoder.from_tower(make_tower("resnet")), rows=4)
    assert torch.equal(torch.cat(list(batches)), images)


def test_pixels_are_no_normalised_images(caplog: pytest.LogCaptureFixture) -> None:
    pixels = torch.rand(1, 3, 64, 64)
    _name_pixels.cache_clear()
    list(checked_batches(pixels))
    assert "clip.preprocess" in caplog.text
    with pytest.raises(InputError, match=r"to 2\d\d.*clip\.preprocess"):
        list(checked_batches(255 * pixels))


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 3, 8, 8), (3, 4, 4)])
def test_two_images_are_no_image_and_label(shape: tuple[int, ...]) -> None:
    first, second = torch.randn(shape), torch.randn(3, 8, 8)
    with pytest.raises(InputError, match=r"list.*torch\.stack"):
        list(checked_batches([[first, second]]))
    for label in (torch.zeros(2), torch.zeros(2, 5), torch.zeros(2, 8, 8, dtype=torch.long), torch.zeros(1, 8, 8), 3):
        (found,) = checked_batches([[first, label]])
        assert torch.equal(found.reshape(shape), first)
