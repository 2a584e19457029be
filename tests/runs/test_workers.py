"""Processes of this machine, ranks, arrays of jobs; versions, commits and digests behind a number."""

import importlib.util
import os
import subprocess
import threading
import time
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch

from circuitry import InputError
from circuitry.runs import Rank, Work, WorkSettings, provenance, versions
from circuitry.runs.processes import process_pool, usable_cores
from circuitry.runs.provenance import command, digest, weights_digest
from circuitry.runs.workers import Requeued, job_options, run_array, this_rank


def test_ranks_come_from_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert this_rank() == Rank(0, 1)
    assert this_rank().device("cuda") == "cuda"
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert this_rank() == (5, 16)
    for wanted, taken in {
        "cuda": "cuda:1",
        "cpu": "cpu",
        "mps": "mps",
        "cuda:3": "cuda:3",
    }.items():
        assert this_rank().device(wanted) == taken


def write_threads(folder: Path, workers: int, worker: int) -> None:
    (folder / f"{worker} of {workers}").write_text(
        f"{os.getpid()} {torch.get_num_threads()}"
    )


def test_processes_are_prepared_and_one_worker_is_this_process(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    for workers in (1, 2):
        with process_pool(workers, partial(torch.set_num_threads, 1)) as pool:
            list(pool.map(partial(write_threads, tmp_path, workers), range(workers)))
    first, *others = [
        (tmp_path / name).read_text().split() for name in ("0 of 1", "0 of 2", "1 of 2")
    ]
    assert first == [str(os.getpid()), "2"]
    assert [threads for _, threads in others] == ["1", "1"]
    assert first[0] not in {
        pid for pid, _ in others
    }  # on a busy machine one of the two processes may take both shares


def test_cores_are_those_that_openmp_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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


def fail_but_for_the_last(folder: Path, worker: int, workers: int) -> None:
    if worker < workers - 1:
        raise InputError(f"worker {worker} of {workers} has no images")
    (folder / "done").touch()


def test_failed_jobs_are_named_with_their_last_words_when_all_have_ended(
    tmp_path: Path,
) -> None:
    words = r"2 of 3 jobs failed.*worker 0 of 3 .*\.err.*worker 1 of 3 .*\.err"
    with pytest.raises(InputError, match=words):
        run_array(
            partial(fail_but_for_the_last, tmp_path),
            3,
            tmp_path / "logs",
            cluster="local",
            at_once=2,
            options={"timeout_min": 1},
        )
    assert (tmp_path / "done").exists()


def test_arrays_need_submitit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"submitit.*pip install submitit.*\.\[cluster\].*checkout"
    ):
        run_array(fail_second, 1, tmp_path)


def test_options_of_jobs_are_numbers_and_texts() -> None:
    assert job_options(["a=1", "slurm_partition=gpu=x"]) == {
        "a": 1,
        "slurm_partition": "gpu=x",
    }
    with pytest.raises(InputError, match=r"name=value.*'gpu'"):
        job_options(["gpu"])


def test_a_job_whose_time_ends_is_put_back_into_the_queue() -> None:
    left = Requeued(fail_second).checkpoint(1, 2)
    with pytest.raises(InputError, match="worker 1 of 2 has no images"):
        left.function(*left.args, **left.kwargs)  # type: ignore[attr-defined]  # submitit ships no types


def test_settings_share_work_out_among_the_ranks_of_torchrun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[Work] = []
    settings = WorkSettings(memory_gib=2.0, progress=False)
    assert settings.share_out(done.append, Path("logs"))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not settings.share_out(done.append, Path("logs"))
    assert done == [
        Work(memory_gib=2.0, progress=False),
        Work(Rank(1, 2), memory_gib=2.0, progress=False),
    ]


def test_only_the_first_worker_shows_bars() -> None:
    assert [Work(Rank(worker, 2)).bar("nodes") for worker in (0, 1)] == ["nodes", None]
    assert Work(progress=False).bar("nodes") is None


def test_workers_take_their_own_share_first_and_all_in_the_end() -> None:
    assert Rank(0, 2).order(list("abcde")) == ["a", "c", "e", "b", "d"]
    assert Rank(1, 2).order(list("abcde")) == ["b", "d", "a", "c", "e"]
    assert Rank(2, 3).order(list("abcde")) == ["c", "a", "d", "b", "e"]


def test_a_digest_depends_on_everything_but_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest(
        {"b": {"d": 3, "c": 2}, "a": 1}
    )
    assert len(digest({})) == 16
    values = [
        {"a": 1},
        {"a": "1"},
        {"a": 2},
        {"b": 1},
        {"a": 1, "b": 1},
        [1, 2],
        [2, 1],
        [12],
        ["a"],
        None,
    ]
    assert len({digest(value) for value in values}) == len(values)
    assert digest({"a": (1, 2), "b": Path("x")}) == digest({"a": [1, 2], "b": "x"})


def state() -> dict[str, torch.Tensor]:
    return {
        "a": torch.arange(6.0).reshape(2, 3),
        "b": torch.tensor(3),
        "c": torch.zeros(0),
    }


def test_weights_have_one_digest_in_any_order_and_layout() -> None:
    other = dict(reversed(state().items()))
    other["a"] = (
        other["a"].T.contiguous().T.requires_grad_()
    )  # other strides, same values
    assert weights_digest(other) == weights_digest(state())


@pytest.mark.parametrize(
    "changed",
    [
        {"a": torch.arange(6.0).reshape(3, 2)},
        {"a": torch.arange(6.0).reshape(2, 3).view(torch.int32)},  # the same bytes
        {"d": torch.zeros(0)},
        {"b": torch.tensor(-3)},
        {"a": torch.arange(6.0).reshape(2, 3).bfloat16()},  # which numpy lacks
        {
            "a": torch.nextafter(torch.arange(6.0), torch.tensor(9.0)).reshape(2, 3)
        },  # one bit of each
    ],
)
def test_names_shapes_and_types_change_the_digest_of_weights(
    changed: dict[str, torch.Tensor],
) -> None:
    assert weights_digest(state() | changed) != weights_digest(state())


def test_versions_name_what_can_change_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = versions()
    assert (
        torch.__version__.partition("+")[0] == found["torch"].partition("+")[0]
    )  # its build may stand behind
    assert found["numpy"] == np.__version__
    assert {
        "python",
        "clip-circuitry",
        "open_clip_torch",
        "timm",
        "transformer-lens",
        "commit",
    } <= found.keys()

    def absent(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(provenance, "version", absent)
    assert versions()["timm"] == "not installed"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--out", "a", "--seed", "3"], "experiments/x.py --seed 3"),
        (
            ["--out=a", "--classes", "the axe", "lion", "--results", "r"],
            "experiments/x.py --classes 'the axe' lion",
        ),
        ([], "experiments/x.py"),
    ],
)
def test_a_command_is_named_without_its_output(
    given: list[str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for script in ("/somewhere/experiments/x.py", "circuitry x"):
        monkeypatch.setattr("sys.argv", [script, *given])
        assert command() == named.replace(
            "experiments/x.py", script.removeprefix("/somewhere/")
        )


def checkout(folder: Path, *files: str) -> list[Path]:
    """Commit files with something in them."""

    def git(*arguments: str) -> None:
        named = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(
            ["git", "-C", folder, *named, *arguments], check=True, capture_output=True
        )

    paths = [folder / name for name in files]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    return paths


def test_a_commit_is_clean_unless_code_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = checkout(
        tmp_path,
        "circuitry/a.py",
        "experiments/x.py",
        "experiments/results/t.csv",
        "README.md",
    )
    monkeypatch.setattr(provenance, "__file__", str(files[0]))
    monkeypatch.setattr(provenance, "_commit", provenance._commit.__wrapped__)
    clean = versions()["commit"]
    assert len(clean) == 12
    for changed, dirty in zip(files, (True, True, False, False), strict=True):
        changed.write_text("2")
        assert versions()["commit"] == clean + "-dirty" * dirty
        changed.write_text("1")


def test_of_an_installed_package_the_commit_is_the_script_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (script,) = checkout(tmp_path, "experiments/x.py")
    installed = (
        tmp_path / "venv" / "circuitry" / "provenance.py"
    )  # in the checkout's folder, and not of it
    installed.parent.mkdir(parents=True)
    installed.touch()
    monkeypatch.setattr(provenance, "__file__", str(installed))
    monkeypatch.setattr(provenance, "_commit", provenance._commit.__wrapped__)
    monkeypatch.setattr("sys.argv", ["-c"])
    assert versions()["commit"] == "unknown"
    monkeypatch.setattr("sys.argv", [str(script)])
    assert len(versions()["commit"]) == 12
