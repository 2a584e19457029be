"""How much memory runs take: bytes an image, with gradients and without, and the rows that fit."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuitry import Encoder
from circuitry.encoder import baselines, mean_baseline, tensor_batches
from circuitry.encoder.tensor_batches import (
    bytes_per_image,
    memory_bytes,
    rows_that_fit,
)

LINKS: list[Any] = [(torch.square, "pool"), (torch.square, "flat"), "end"]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.flat = nn.Flatten()
        self.end = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.flat(self.pool(x.square()).square())
        end: Tensor = self.end(x)
        return end


def test_bytes_of_an_image_are_those_of_all_stages_or_of_the_largest() -> None:
    encoder = Encoder.from_stages(Net(), LINKS, (4, 4))
    # A square and a pool keep their input: twice 3 x 4 x 4 numbers in the first stage, 3 x 2 x 2 in the second. The
    # linear layer keeps nothing, because its weight gets no gradient.
    first = 4 * 2 * 48
    second = 4 * 12
    assert bytes_per_image(encoder) == 2 * (first + second)
    assert bytes_per_image(encoder, gradients=False) == first


def test_rows_without_gradients_are_more_on_a_gpu_and_as_many_on_a_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = Encoder.from_stages(Net(), LINKS, (4, 4))
    gib = 100 * 864 / 2**30
    assert rows_that_fit(encoder, gib) == 100
    assert rows_that_fit(encoder, gib, gradients=False) == 100
    monkeypatch.setattr(tensor_batches, "_measured", {})
    monkeypatch.setattr(Encoder, "device", torch.device("cuda"))
    monkeypatch.setattr(Encoder, "blank", lambda _, count: torch.zeros(count, 3, 4, 4))
    assert rows_that_fit(encoder, gib) == 100
    assert rows_that_fit(encoder, gib, gradients=False) == 50 * 864 // 384


def test_memory_is_that_of_the_device_unless_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = torch.device("cuda")
    h100 = SimpleNamespace(total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: h100)
    assert memory_bytes(gpu, None) == 40 * 2**30
    assert memory_bytes(gpu, 2.5) == 2.5 * 2**30
    assert memory_bytes(torch.device("cpu"), None) == 2**30


def test_a_mean_runs_no_more_images_at_once_than_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = Encoder.from_stages(Net(), LINKS, (4, 4))
    images = torch.rand(10, 3, 4, 4)
    whole = mean_baseline(encoder, images, progress=False)
    monkeypatch.setattr(baselines, "rows_that_fit", lambda *_: 3)
    batches = list[int]()
    run = Encoder.run_with_cache

    def watched(self: Encoder, batch: Tensor, **options: Any) -> Any:
        batches.append(len(batch))
        return run(self, batch, **options)

    monkeypatch.setattr(Encoder, "run_with_cache", watched)
    in_pieces = mean_baseline(encoder, images, progress=False)
    assert batches == [3, 3, 3, 1]
    for site, value in whole.values.items():
        torch.testing.assert_close(in_pieces.values[site], value)
