"""Folders of jobs: claimed, shared out, resumed, checked, repaired; files that are there whole or not at all."""

import errno
import fcntl
import logging
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from circuitry import InputError
from circuitry.runs import Job, JobFolder, run_script, versions, whole_file
from circuitry.runs.errors import sentence_of
from circuitry.runs.files import LOCK, file_lock, remove_leftovers
from circuitry.runs.manifest import read_listing
from tests.support.extraction import contents

JOBS: list[Job] = [
    ("cat", "photo"),
    ("cat", "sketch"),
    ("dog", "photo"),
    ("dog-photo",),
]
FORMAT = "circuitry test 1"
IMAGES = {"photo/cat/1.png": "10 abc", "photo/cat/2.png": "11 def"}


class Work:
    def __init__(
        self, path: Path, config: dict[str, object] | None = None, **settings: object
    ) -> None:
        self.folder = JobFolder(path, FORMAT, config or {"seed": 0}, JOBS, **settings)  # type: ignore[arg-type]
        self.done: list[Job] = []

    def __call__(self, job: Job, inputs: object) -> list[Path]:
        self.done.append(job)
        paths = [self.folder.path / f"{'.'.join(job)}.{part}.txt" for part in "ab"]
        for path in paths:
            with whole_file(path) as temporary:
                temporary.write_text(f"{job} {inputs}")
        return paths

    def run(self, **settings: object) -> dict[Job, float]:
        return self.folder.run(self, **settings)  # type: ignore[arg-type]


def test_jobs_are_done_once_in_order_and_leave_no_litter(tmp_path: Path) -> None:
    first = Work(tmp_path)
    assert set(first.run(prepare=lambda job: job[0])) == set(JOBS)
    assert first.done == JOBS
    assert (tmp_path / "cat.photo.a.txt").read_text() == "('cat', 'photo') cat"
    assert first.folder.files(JOBS[0]) == [
        tmp_path / "cat.photo.a.txt",
        tmp_path / "cat.photo.b.txt",
    ]
    assert not list(tmp_path.rglob(".*"))
    second = Work(tmp_path)
    assert second.run() == {}
    assert second.done == []


def test_a_file_that_is_gone_is_named_with_what_makes_it_again(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.run()
    (gone := tmp_path / "cat.photo.b.txt").unlink()
    with pytest.raises(InputError, match=f"{gone} is missing.*again"):
        work.folder.files(JOBS[0])


@pytest.mark.parametrize(
    "damage", ["flip", "remove", "no record", "a record of another job"]
)
def test_what_is_damaged_is_made_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    Work(tmp_path).run()
    before = contents(tmp_path)
    path = tmp_path / "dog.photo.b.txt"
    record = next(
        r for r in (tmp_path / "checksums").iterdir() if "dog.photo.b" in r.read_text()
    )
    if damage == "flip":
        found = bytearray(path.read_bytes())
        found[3] ^= 1
        path.write_bytes(bytes(found))
    elif damage == "remove":
        path.unlink()
    elif damage == "a record of another job":
        record.write_text(record.read_text().replace("dog", "cat"))
    else:
        record.unlink()
    again = Work(tmp_path)
    with caplog.at_level(logging.WARNING):
        again.run()
    assert again.done == [("dog", "photo")]
    assert contents(tmp_path) == before
    assert ("dog in photo is made again" in caplog.text) == (damage != "no record")


def test_files_and_record_of_another_folder_are_made_again(tmp_path: Path) -> None:
    Work(tmp_path / "ours").run()
    before = contents(tmp_path / "ours")
    Work(tmp_path / "theirs", {"seed": 1}).run(prepare=lambda job: "other")
    for name in contents(tmp_path / "theirs").keys() - {"manifest.json"}:
        shutil.copy(tmp_path / "theirs" / name, tmp_path / "ours" / name)
    again = Work(tmp_path / "ours")
    again.run()
    assert again.done == JOBS
    assert contents(tmp_path / "ours") == before


def test_listings_are_mended_and_read_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    Work(tmp_path, listings={"images": IMAGES})
    before = path.read_bytes()
    for damaged in (
        b"",
        before[:20],
        before.replace(b"abc", b"abd"),
        b"[]",
        b"[" * 100_000,
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"images\.json"):
            read_listing(path)
        with pytest.raises(InputError, match=r"images\.json"):
            Work(tmp_path, listings={"images": {}})
        Work(tmp_path, listings={"images": IMAGES})
        assert path.read_bytes() == before
    assert read_listing(path) == IMAGES


def test_another_configuration_is_refused_with_names_and_values(tmp_path: Path) -> None:
    Work(
        tmp_path,
        {"seed": 0, "rule": "left-10", "classes": ["cat"]},
        listings={"images": IMAGES},
    )
    changed = {"photo/cat/1.png": "10 abd", "photo/cat/3.png": "11 def"}
    with pytest.raises(InputError) as error:
        Work(
            tmp_path,
            {"seed": 1, "rule": "left-10", "classes": ["cat", "dog"]},
            listings={"images": changed},
        )
    named = (
        str(tmp_path),
        "'dog' is new",
        "seed: 0 -> 1",
        "photo/cat/3.png",
        "photo/cat/2.png",
        "photo/cat/1.png",
    )
    assert all(name in str(error.value) for name in named)
    assert "left-10" not in str(error.value)


def test_a_job_without_inputs_leaves_nothing_and_is_asked_again(tmp_path: Path) -> None:
    for _ in range(2):
        work = Work(tmp_path)
        work.run(prepare=lambda job: None if job == ("dog", "photo") else 1)
        assert not work.folder.is_done(("dog", "photo"))
    assert work.done == []  # the other ones were done the first time


def test_an_error_keeps_what_is_done(tmp_path: Path) -> None:
    work = Work(tmp_path)

    def fail(job: Job, inputs: object) -> list[Path]:
        if job == JOBS[2]:
            raise RuntimeError("stop")
        return work(job, inputs)

    with pytest.raises(RuntimeError, match="stop"):
        work.folder.run(fail)
    assert work.folder.unfinished() == JOBS[2:]
    assert list(Work(tmp_path).run(prepare=lambda job: ())) == JOBS[2:]


def test_another_version_says_that_it_goes_on_with_jobs_that_are_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(Work(tmp_path).run(only=JOBS[:2])) == 2
    monkeypatch.setattr(
        "circuitry.runs.jobs.versions", lambda: {**versions(), "torch": "0.1"}
    )
    assert [len(Work(tmp_path).run()) for _ in range(2)] == [2, 0]
    (said,) = caplog.messages
    assert all(
        word in said for word in (str(tmp_path), "torch", versions()["torch"], "'0.1'")
    )


def test_a_finished_folder_is_opened_on_a_read_only_disk(tmp_path: Path) -> None:
    Work(tmp_path).run()
    before = contents(tmp_path)
    tmp_path.chmod(0o555)
    try:
        again = Work(tmp_path)
        assert again.run() == {}
    finally:
        tmp_path.chmod(0o755)
    assert contents(tmp_path) == before


SCRIPT = """
import sys, time
from pathlib import Path
from circuitry.runs.files import whole_file
from circuitry.runs.jobs import JobFolder
from circuitry.runs.workers import Rank
folder = JobFolder(Path(sys.argv[1]), "circuitry test 1", {"seed": 0}, [(f"job{i}",) for i in range(24)])
def do(job, inputs):
    path = folder.path / f"{job[0]}.txt"
    with whole_file(path) as temporary:
        temporary.write_text(job[0] * 1000)
        time.sleep(0.02)
    return [path]
folder.run(do, rank=Rank(int(sys.argv[2]), int(sys.argv[3])))
"""


def started(path: Path, worker: int, workers: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path), str(worker), str(workers)]
    )


def test_processes_and_kills_leave_the_folder_of_one_undisturbed_process(
    tmp_path: Path,
) -> None:
    assert started(tmp_path / "one", 0, 1).wait() == 0
    for i in range(10):
        victim = started(tmp_path / "many", 0, 1)
        deadline = time.monotonic() + 20
        while (
            len(list((tmp_path / "many").glob("*.txt"))) < 2 * i + 1
            and time.monotonic() < deadline
        ):
            time.sleep(0.005)
        victim.kill()
        victim.wait()
    workers = [started(tmp_path / "many", i, 2) for i in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert not list((tmp_path / "many").rglob(".*"))


def test_a_worker_waits_for_the_one_that_is_about_to_make_a_damaged_file_again(
    tmp_path: Path,
) -> None:
    Work(tmp_path).run()
    (tmp_path / "cat.photo.a.txt").unlink()
    work, record = (
        Work(tmp_path),
        JobFolder(tmp_path, FORMAT, {"seed": 0}, JOBS)._record(JOBS[0]),
    )
    with ThreadPoolExecutor(1) as other, file_lock(tmp_path, JobFolder._name(JOBS[0])):
        waiting = other.submit(
            work.run
        )  # the record of the damaged file is still there
        time.sleep(0.2)
        assert not waiting.done()
        record.unlink()
    waiting.result()
    assert work.done == [JOBS[0]]
    assert work.folder.unfinished() == []


def test_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), whole_file(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError("stop")
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
def test_a_file_system_without_locks_takes_files_and_no_shared_work(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)
    with whole_file(tmp_path / "x") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "x").read_text() == "new"
    with (
        pytest.raises(InputError, match=f"{tmp_path} .*locks"),
        file_lock(tmp_path, "job"),
    ):
        pass
    number = errno.EIO
    with pytest.raises(OSError, match="no locks"), whole_file(tmp_path / "x"):
        pass


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    def write(i: int) -> None:
        with whole_file(tmp_path / "x") as temporary:
            assert temporary.read_text() == ""
            temporary.write_text(str(i))
            remove_leftovers(
                tmp_path
            )  # as another process does that has nothing left to do
            assert temporary.read_text() == str(i)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(200)))
    assert int((tmp_path / "x").read_text()) < 200
    assert os.listdir(tmp_path) == ["x"]


def test_permissions_are_those_of_an_ordinary_file_or_of_the_one_that_is_replaced(
    tmp_path: Path,
) -> None:
    mask = os.umask(0o027)
    try:
        for before in (None, 0o600, 0o440, 0o666):
            if before is not None:
                (tmp_path / "x").chmod(before)
            with whole_file(tmp_path / "x") as temporary:
                temporary.write_text("")
                assert stat.S_IMODE(temporary.stat().st_mode) == (
                    0o640 if before is None else 0o600
                )
            assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == (before or 0o640)
        assert os.umask(0o027) == 0o027  # and the mask of the process is left alone
    finally:
        os.umask(mask)


def test_a_planted_link_is_neither_followed_nor_the_result(tmp_path: Path) -> None:
    victim, target = tmp_path / "victim", tmp_path / "x"
    victim.write_text("mine")
    for name in (
        "x",
        ".torn-x-8cdc1683",
        ".torn-x-8cdc1683-0",
    ):  # as the temporary file is called, and was
        (tmp_path / name).symlink_to(victim)
    with whole_file(target) as temporary:
        temporary.write_text("new")
    assert (victim.read_text(), target.read_text()) == ("mine", "new")
    assert not target.is_symlink()
    (tmp_path / f"{LOCK}job").symlink_to(victim)
    with pytest.raises(OSError, match=LOCK) as error, file_lock(tmp_path, "job"):
        pass
    assert "link" in str(sentence_of(error.value))
    assert victim.read_text() == "mine"


def test_a_file_that_cannot_be_written_is_told_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "x", tmp_path / "pipe"):
        with (
            pytest.raises(InputError, match=f"^{path} .*a file is needed"),
            whole_file(path),
        ):
            pass
    with (
        pytest.raises(InputError, match=f"{tmp_path}/y"),
        whole_file(tmp_path / "y\ud800"),
    ):
        pass
    assert "ulimit" in str(
        sentence_of(OSError(errno.EFBIG, "File too large"))
    )  # which names no file


def test_a_lock_is_had_though_another_removes_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, vanished = os.open, iter([1, 2, 3])

    def open_and_lose(path: Any, *given: Any) -> int:
        file = begin(path, *given)
        if next(vanished, None) is not None:
            Path(path).unlink()
        return file

    monkeypatch.setattr(os, "open", open_and_lose)
    with file_lock(tmp_path, "job"):
        remove_leftovers(tmp_path)
        assert [*vanished] == []
        with pytest.raises(BlockingIOError), file_lock(tmp_path, "job", wait=False):
            pass
    with pytest.raises(FileNotFoundError, match="mine"), file_lock(tmp_path, "job"):
        raise FileNotFoundError("mine")
    assert os.listdir(tmp_path) == []


@dataclass(frozen=True)
class Nothing:
    pass


def lock(out: Path) -> None:
    with file_lock(out, "job"):
        pass


def write(out: Path) -> None:
    with whole_file(out / "x"):
        pass


@pytest.mark.parametrize("place", ["/proc", "/proc/x", "nowhere/x", "loop"])
@pytest.mark.parametrize("make", [lock, write])
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
        run_script(Nothing, lambda _: make(tmp_path / place), None)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert Path(place).parts[0] in said
