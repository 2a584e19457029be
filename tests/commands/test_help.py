"""Every script and command says what it is for."""

import importlib
import logging
import runpy
import sys

import pytest

from circuitry.commands import COMMANDS, run_command
from circuitry.commands.command_list import module_of
from tests.support.scripts import EXPERIMENTS

SCRIPTS = {path.stem: path for path in EXPERIMENTS.glob("*.py") if "run_script(" in path.read_text()}


@pytest.mark.parametrize("name", [*sorted(SCRIPTS), *COMMANDS])
def test_help_says_what_a_script_is_for(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"] if name in SCRIPTS else ["circuitry", name, "--help"])
    with pytest.raises(SystemExit) as ended:
        run_command() if name in COMMANDS else runpy.run_path(str(SCRIPTS[name]), run_name="__main__")
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    text = SCRIPTS[name].read_text() if name in SCRIPTS else str(importlib.import_module(module_of(name)).__doc__)
    assert text.partition("\n")[0].lstrip('"')[:40] in shown
