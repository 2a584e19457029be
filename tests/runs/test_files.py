"""A file is there whole or not at all."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock, Timeout

from circuitry.reports import Report, write_results
from circuitry.runs import InputError, JobFolder, claim, file_lock, run_script, whole_file
from circuitry.runs.files import LOCKS, remove_locks


@dataclass(frozen=True)
class Settings:
    """None."""


def test_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write_half() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    script = (
        "import os, signal, sys\n"
        "from circuitry.runs.files import whole_file\n"
        "with whole_file(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert killed.returncode < 0
    assert path.read_text() == "old"
    with whole_file(path) as temporary:
        assert temporary.read_text() == ""
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_takes_files(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)
    with whole_file(tmp_path / "x") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "x").read_text() == "new"
    number = errno.EIO
    with pytest.raises(OSError, match="no locks"), whole_file(tmp_path / "x"):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_shared_work_without_locks_is_refused(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(InputError, match=f"{tmp_path} .*locks"), file_lock(tmp_path, "job"):
        pass


def test_writers_of_one_file_take_turns(tmp_path: Path) -> None:
    def write(i: int) -> None:
        with whole_file(tmp_path / "x") as temporary:
            assert temporary.read_text() == ""
            temporary.write_text(str(i))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(200)))
    assert int((tmp_path / "x").read_text()) < 200
    assert os.listdir(tmp_path) == ["x"]


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        with whole_file(tmp_path / "x") as temporary:
            temporary.write_text("")
        assert os.umask(0o027) == 0o027  # and the mask of the process is left alone
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_a_lock_is_had_though_another_removes_the_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder may vanish within ``mkdir``, after "it exists" and before "it is a folder", and after it."""
    refused = iter([FileExistsError])
    make, acquire = Path.mkdir, FileLock.acquire

    def mkdir(self: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        if self.name == LOCKS and (error := next(refused, None)) is not None:
            raise error(str(self))
        make(self, mode, parents, exist_ok)

    def acquire_late(self: FileLock, *given: Any, **named: Any) -> Any:
        if next(vanished, None) is not None:
            remove_locks(tmp_path)
            raise FileNotFoundError
        return acquire(self, *given, **named)

    vanished = iter([1, 2, 3])
    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(FileLock, "acquire", acquire_late)
    with file_lock(tmp_path, "job"), pytest.raises(Timeout), file_lock(tmp_path, "job", wait=False):
        pass
    assert [*refused, *vanished] == []


def lock(out: Path) -> None:
    with file_lock(out, "job"):
        pass


def write(out: Path) -> None:
    with whole_file(out / "x"):
        pass


@pytest.mark.parametrize("place", ["/proc/x", "nowhere/x", "loop"])
@pytest.mark.parametrize(
    "make",
    [
        lock,
        write,
        lambda out: claim(out, "circuitry test 1", {}),
        lambda out: JobFolder(out, "circuitry test 1", {}, [("a",)]),
        lambda out: write_results(Report("A", "b"), {"a": pd.DataFrame({"a": [1]})}, out, None, {}),
    ],
    ids=["lock", "file", "claim", "jobs", "results"],
)
def test_a_place_where_nothing_can_be_made_is_told(
    make: Callable[[Path], object],
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In one sentence on the command line; the first of its kind turned for ever."""
    (tmp_path / "nowhere").symlink_to(tmp_path / "not" / "mounted")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.setattr(sys, "argv", ["circuitry"])
    with pytest.raises(SystemExit) as ended:
        run_script(Settings, lambda _: make(tmp_path / place), None)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert Path(place).parts[0] in said
