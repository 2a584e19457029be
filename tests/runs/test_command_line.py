"""Scripts end with a sentence, not with a traceback."""

import errno
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from circuitry.reports.page import Written
from circuitry.runs import InputError, progress, run_script, short_waits
from circuitry.runs.errors import SENTENCES
from circuitry.runs.files import file_lock
from circuitry.training import TrainingWork


@dataclass(frozen=True)
class Config:
    """Settings of the script."""

    count: int = 1
    """How many."""


@pytest.fixture(autouse=True)
def _one_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """`run_script` gives the root logger a handler where it has none."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])


def run(main: object, *arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["script", *arguments])
        run_script(Config, main, "What it is for.")  # type: ignore[arg-type]


@dataclass(frozen=True)
class Wrapped(Config):
    """Settings with a help of two lines."""

    model: str = "a"
    """The model, with its
    weights."""


def test_a_help_is_wrapped_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["script", "--help"])
    with pytest.raises(SystemExit):
        run_script(Wrapped, lambda config: None, "What it is for.")
    told = capsys.readouterr().out
    assert "The model, with its weights." in told
    assert "How many." in told  # of the class that it inherits


def raising(error: BaseException) -> Callable[[Config], None]:
    def main(config: Config) -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("There are no images."), 2, "error: There are no images.\n"),
        (KeyboardInterrupt(), 130, "(?s).*this goes on: python script.*"),
        *(
            (OSError(number, "", "/data/x"), 2, "error: .*/data/x.*\n")
            for number in sorted(SENTENCES)
        ),
    ],
)
def test_errors_are_a_sentence(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(raising(error))
    assert ended.value.code == code
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(said, err)


ENDED = """
import os, signal, sys, time
from functools import partial
from pathlib import Path
from dataclasses import dataclass, replace
from circuitry.runs import run_script
from circuitry.runs.files import file_lock
from circuitry.runs.processes import process_pool

@dataclass
class Config:
    'Settings.'
    out: Path

def work(out, number):
    with file_lock(out, str(number)):
        (out / f"{number}.pid").write_text(str(os.getpid()))
        time.sleep(60)

def main(config):
    with process_pool(2, preload=["slow"]) as pool:
        for one in [pool.submit(work, config.out, number) for number in range(4)]:
            one.result()

if __name__ == "__main__":
    run_script(Config, main, None)
"""


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGKILL], ids=["asked to end", "killed"]
)
def test_children_end_with_a_script(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(ENDED)
    command = [sys.executable, str(tmp_path / "script.py"), "--out", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as script:
        pids = [wait_for(tmp_path / f"{i}.pid") for i in range(2)]
        script.send_signal(number)
        _, said = script.communicate(timeout=20)
    wait_until(lambda: not any(is_alive(int(pid)) for pid in pids))
    assert {path.stem for path in tmp_path.glob("*.pid")} == {
        "0",
        "1",
    }  # and no other task was begun
    for i in range(2):
        with file_lock(tmp_path, str(i), wait=False):
            pass
    if number == signal.SIGTERM:
        assert script.returncode == 128 + number
        assert said.startswith("interrupted; this goes on: python ")
        assert said.count("\n") == 1


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for(path: Path) -> str:
    wait_until(lambda: path.is_file() and path.read_text())
    return path.read_text()


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "a bad disk"),
        ValueError("a bug"),
        OSError(errno.EACCES, "a bug without a path"),
    ],
)
def test_any_other_error_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error), match="a b"):
        run(raising(error))


WAITS = """
import importlib.util, os, sys
from circuitry.runs import run_script
assert "torch" not in sys.modules
assert importlib.util.find_spec("wandb") is None
print(os.environ["GOMP_SPINCOUNT"], os.environ.get("OMP_WAIT_POLICY"))
"""


def test_a_command_sets_how_threads_wait_before_torch_is_loaded() -> None:
    plain = {
        name: value for name, value in os.environ.items() if name not in short_waits({})
    }
    for given, printed in (
        ({}, "2000 passive\n"),
        ({"GOMP_SPINCOUNT": "7"}, "7 None\n"),
    ):
        command = [sys.executable, "-c", WAITS]
        done = subprocess.run(
            command, env={**plain, **given}, capture_output=True, text=True, check=True
        )
        assert done.stdout == printed


def test_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    written = Written(tmp_path / "report.html", [], [], claims=("A third is shared.",))

    def main(config: Config) -> Written:
        print("work")
        return written

    run(main, "--open")
    assert capsys.readouterr().out.splitlines() == [
        "work",
        "A third is shared.",
        f"report: {written.report}",
    ]
    assert opened == [written.report.as_uri()]
    run(main, "--json", "--count", "2")
    printed = capsys.readouterr()
    assert json.loads(printed.out)["in_short"] == ["A third is shared."]
    assert printed.err == "work\n"


@dataclass(frozen=True)
class Training:
    steps: int = 3


@dataclass(frozen=True)
class Rich:
    """Settings of every kind."""

    out: Path
    seed: int = 0
    names: tuple[str, ...] = ()
    share: float | None = None
    table: Path | None = None
    fast: bool = True
    word: Annotated[str, tyro.conf.arg(name="class")] = "cat"
    training: Training = Training()
    flat: tyro.conf.OmitArgPrefixes[TrainingWork] = TrainingWork()


def test_settings_of_a_run_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Rich] = []
    given = [
        *(
            "--seed",
            "4",
            "--names",
            "a b",
            'say "c"',
            "--no-fast",
            "--class",
            "dog",
            "--training.steps",
            "9",
        )
    ]
    given += ["--table", "folder/of/tables.csv"]
    for arguments in (
        ["--out", f"{tmp_path}", *given, "--workers", "5"],
        ["--config", f"{tmp_path / 'settings.toml'}", "--out", f"{tmp_path / 'other'}"],
        [
            "--out",
            "x",
            "--seed",
            "5",
            f"--config={tmp_path / 'settings.toml'}",
            "--fast",
        ],
    ):
        monkeypatch.setattr(sys, "argv", ["script", *arguments])
        run_script(Rich, seen.append, None)
    first, again, changed = seen
    assert first.names == ("a b", 'say "c"')
    assert first.flat.workers == 5
    assert again == replace(first, out=tmp_path / "other")
    assert changed == replace(first, out=Path("x"), seed=5, fast=True)


def test_progress_in_a_file_is_a_plain_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0)
    file = io.StringIO()
    with progress.Bar(
        total=2, desc="circuits", unit="run", file=file, miniters=1
    ) as bar:
        bar.update()
        bar.update()
    lines = file.getvalue().splitlines()
    (halfway,) = (line for line in lines if "circuits: run 1 of 2" in line)
    assert "left" in halfway
    assert "\r" not in file.getvalue()
    monkeypatch.setenv(progress.QUIET, "1")
    assert progress.Bar(total=2, file=file).disable
