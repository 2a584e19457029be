"""Devices that are there."""

import os

import pytest
import torch

from circuitry import InputError
from circuitry.training.devices import available_device, join_nodes, node_rank, pinned_threads


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


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()

    def interrupted() -> None:
        with pinned_threads(before + 1):
            assert torch.get_num_threads() == before + 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.get_num_threads() == before


def test_which_of_several_machines_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PET_NODE_RANK", "1")
    assert node_rank(1) == 0
    with pytest.raises(InputError, match=r"on 2 machines .* this one lacks PET_MASTER_ADDR, PET_MASTER_PORT: set"):
        node_rank(2)
    monkeypatch.setenv("PET_MASTER_ADDR", "here")
    monkeypatch.setenv("PET_MASTER_PORT", "1")
    assert node_rank(2) == 1
    monkeypatch.setenv("PET_NODE_RANK", "2")
    with pytest.raises(InputError, match="PET_NODE_RANK is a number from 0 to 1, but '2' was given"):
        node_rank(2)


def test_tasks_of_a_job_find_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    for name in ("PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    for name, value in {"JOB_ID": "123456", "PROCID": "1", "NTASKS": "2", "JOB_NODELIST": "gpu[07-08]"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    join_nodes()
    assert node_rank(2) == 1
    assert os.environ["PET_MASTER_ADDR"] == "gpu07"
    assert os.environ["PET_MASTER_PORT"] == str(20_000 + 123456 % 40_000)
