"""Devices that are there."""

import pytest
import torch

from circuitry import InputError
from circuitry.training.devices import available_device


def gpus(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_devices_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    assert available_device(None) == available_device("cpu", processes=4) == "cpu"
    gpus(monkeypatch, 2)
    assert available_device(None, processes=2) == "cuda"
    assert available_device("cuda:1") == "cuda:1"


@pytest.mark.parametrize(
    ("wanted", "processes", "there", "message"),
    [
        ("cuda", 1, 0, "The device 'cuda' for 1 process was asked for, but PyTorch sees 0 GPUs on this machine: take"),
        ("cuda:2", 1, 2, "'cuda:2' for 1 process was asked for, but PyTorch sees 2 GPUs"),
        ("cuda", 3, 2, "'cuda' for 3 processes was asked for, but PyTorch sees 2 GPUs"),
        ("cuda:1", 2, 2, "cuda with a GPU each, but 2 processes on 'cuda:1' were"),
        ("mps", 2, 0, "cuda with a GPU each, but 2 processes on 'mps' were"),
        ("mps", 1, 0, "The device 'mps' was asked for, but PyTorch sees none on this machine: take the device cpu"),
        ("gpu", 1, 2, "A device is cpu, cuda, cuda:<number> or mps, but 'gpu' was given"),
        ("tpu", 1, 2, "but 'tpu' was given"),
        ("cuda:x", 1, 2, "but 'cuda:x' was given"),
        ("cpu:0", 1, 2, "but 'cpu:0' was given"),
        ("cpu", 0, 2, "The processes that work together must be at least 1, but 0 was given"),
    ],
)
def test_devices_that_are_not(
    wanted: str, processes: int, there: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, there)
    with pytest.raises(InputError, match=message):
        available_device(wanted, processes)
