"""The command lists its names, knows near ones, and hands over."""

import gc
import signal
import subprocess
import sys

import pytest

from circuitry.commands import COMMANDS, run_command
from circuitry.commands.dispatch import GARBAGE


@pytest.mark.parametrize("given", [[], ["--help"], ["-h"]])
def test_the_list_has_every_command(
    given: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["circuitry", *given])
    run_command()
    shown = capsys.readouterr().out
    for name, (group, line) in COMMANDS.items():
        assert group in shown
        assert f"  {name} " in shown
        assert line in shown


def test_a_command_runs_while_garbage_is_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["circuitry", "info"])
    run_command()
    assert gc.get_threshold() == GARBAGE < (10_000,)


def test_a_reader_that_has_had_enough_sees_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "circuitry", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()  # as `circuitry --help | head` does
    assert process.communicate()[1] == ""
    assert process.returncode == 128 + signal.SIGPIPE
