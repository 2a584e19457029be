"""Processes of this machine, ranks from torchrun's variables, and arrays of jobs that fail in words."""

import importlib.util
import os
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from circuitry import InputError
from circuitry.runs import Rank, Work, WorkSettings, run_array, short_waits, this_rank
from circuitry.runs.processes import process_pool, usable_cores
from circuitry.runs.workers import Requeued, job_options


def test_ranks_come_from_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert this_rank() == Rank(0, 1)
    assert this_rank().device("cuda") == "cuda"
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert this_rank() == (5, 16)
    for wanted, taken in {"cuda": "cuda:1", "cpu": "cpu", "mps": "mps", "cuda:3": "cuda:3"}.items():
        assert this_rank().device(wanted) == taken


def test_threads_wait_briefly_unless_the_user_chose() -> None:
    assert short_waits({"HOME": "x"}) == {"GOMP_SPINCOUNT": "2000", "OMP_WAIT_POLICY": "passive"}
    assert short_waits({"OMP_WAIT_POLICY": "active"}) == short_waits({"GOMP_SPINCOUNT": "0"}) == {}


def write_threads(folder: Path, workers: int, worker: int) -> None:
    (folder / f"{worker} of {workers}").write_text(f"{os.getpid()} {torch.get_num_threads()}")


def test_processes_are_prepared_and_one_worker_is_this_process(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    for workers in (1, 2):
        with process_pool(workers, partial(torch.set_num_threads, 1)) as pool:
            list(pool.map(partial(write_threads, tmp_path, workers), range(workers)))
    first, *others = [(tmp_path / name).read_text().split() for name in ("0 of 1", "0 of 2", "1 of 2")]
    assert first == [str(os.getpid()), "2"]
    assert [threads for _, threads in others] == ["1", "1"]
    assert first[0] not in {pid for pid, _ in others}  # on a busy machine one of the two processes may take both shares


def test_cores_are_those_that_openmp_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert usable_cores() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "0")
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def fail_second(worker: int, workers: int) -> None:
    if worker == 1:
        raise InputError(f"worker {worker} of {workers} has no images")


def test_a_pool_that_is_interrupted_leaves_no_thread() -> None:
    """One that closes its pipe while Python ends prints a traceback."""
    before = threading.enumerate()
    with pytest.raises(KeyboardInterrupt), process_pool(2) as pool:  # noqa: PT012
        pool.submit(time.sleep, 60)
        raise KeyboardInterrupt
    assert threading.enumerate() == before


def test_a_failed_job_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"worker 1 of 2 has no images.*\.err"):
        run_array(fail_second, 2, tmp_path, cluster="local", options={"timeout_min": 1})


def test_arrays_need_submitit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"submitit.*clip-circuitry\[cluster\]"):
        run_array(fail_second, 1, tmp_path)


def test_options_of_jobs_are_numbers_and_texts() -> None:
    assert job_options(["a=1", "slurm_partition=gpu=x"]) == {"a": 1, "slurm_partition": "gpu=x"}
    with pytest.raises(InputError, match=r"name=value.*'gpu'"):
        job_options(["gpu"])


def test_a_job_whose_time_ends_is_put_back_into_the_queue() -> None:
    left = Requeued(fail_second).checkpoint(1, 2)
    with pytest.raises(InputError, match="worker 1 of 2 has no images"):
        left.function(*left.args, **left.kwargs)  # type: ignore[attr-defined]  # submitit ships no types


def test_settings_share_work_out_among_the_ranks_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Work] = []
    settings = WorkSettings(memory_gib=2.0, progress=False)
    assert settings.share_out(done.append, Path("logs"))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not settings.share_out(done.append, Path("logs"))
    assert done == [Work(memory_gib=2.0, progress=False), Work(Rank(1, 2), memory_gib=2.0, progress=False)]


def test_only_the_first_worker_shows_bars() -> None:
    assert [Work(Rank(worker, 2)).bar("nodes") for worker in (0, 1)] == ["nodes", None]
    assert Work(progress=False).bar("nodes") is None


def test_workers_take_their_own_share_first_and_all_in_the_end() -> None:
    assert Rank(0, 2).order(list("abcde")) == ["a", "c", "e", "b", "d"]
    assert Rank(1, 2).order(list("abcde")) == ["b", "d", "a", "c", "e"]
    assert Rank(2, 3).order(list("abcde")) == ["c", "a", "d", "b", "e"]
