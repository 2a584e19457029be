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
    ("wanted", "processes", "there", "words"),
    [
        ("cuda", 1, 0, "'cuda'.* 0 GPUs"),
        ("cuda:2", 1, 2, "'cuda:2'.* 2 GPUs"),
        ("cuda", 3, 2, "'cuda'.* 3 .* 2 GPUs"),
        ("cuda:1", 2, 2, " 2 .*'cuda:1'"),
        *((wanted, 1, 2, repr(wanted)) for wanted in ("mps", "gpu", "cuda:x", "cpu:0")),
    ],
)
def test_devices_that_are_not(
    wanted: str, processes: int, there: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, there)
    with pytest.raises(InputError, match=words):
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
    with pytest.raises(InputError, match="PET_MASTER_ADDR, PET_MASTER_PORT"):
        node_rank(2)
    monkeypatch.setenv("PET_MASTER_ADDR", "here")
    monkeypatch.setenv("PET_MASTER_PORT", "1")
    assert node_rank(2) == 1
    monkeypatch.setenv("PET_NODE_RANK", "2")
    with pytest.raises(InputError, match=r"PET_NODE_RANK.*'2'"):
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
