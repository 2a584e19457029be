"""A file is there whole or not at all."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import Timeout

from circuitry.runs import InputError, file_lock, whole_file
from circuitry.runs.files import LOCKS, TORN, remove_locks, remove_torn


def test_success_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "table.csv"
    for text in ("old", "new"):
        with whole_file(path) as temporary:
            assert temporary.parent == path.parent  # else the rename would not be atomic
            assert temporary.suffix == ".csv"
            temporary.write_text(text)
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["table.csv"]


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


def test_the_file_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    with whole_file(tmp_path / "x") as temporary:
        temporary.write_text("half")
        assert not (tmp_path / "x").exists()


def test_a_reader_keeps_the_old_file_that_it_has_open(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    with open(tmp_path / "x") as reader:
        with whole_file(tmp_path / "x") as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"
    assert (tmp_path / "x").read_text() == "new"


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
    """The folder may vanish within ``mkdir``, after "it exists" and before "it is a folder"."""
    refused = iter([FileExistsError, FileNotFoundError])
    make = Path.mkdir

    def mkdir(self: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        if (error := next(refused, None)) is not None:
            raise error(str(self))
        make(self, mode, parents, exist_ok)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with file_lock(tmp_path, "job"), pytest.raises(Timeout), file_lock(tmp_path, "job", wait=False):
        pass
    assert next(refused, None) is None


def test_a_file_in_the_place_of_the_locks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / LOCKS).write_text("")
    with pytest.raises(FileExistsError), file_lock(tmp_path, "job"):
        pass


def test_torn_files_are_removed_while_another_worker_removes_the_locks(tmp_path: Path) -> None:
    def make_and_remove_locks() -> None:
        for _ in range(1000):
            with file_lock(tmp_path, "job"):
                pass
            remove_locks(tmp_path)

    torn = tmp_path / "deep" / f"{TORN}x"
    torn.parent.mkdir()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(make_and_remove_locks)
        while not other.done():
            torn.touch()
            remove_torn(tmp_path)
            assert not torn.exists()
    other.result()
