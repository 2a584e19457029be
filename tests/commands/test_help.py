"""Every script and command says what it is for."""

import logging
import runpy
import sys

import pytest

from circuitry.commands import COMMANDS, run_command
from circuitry.commands.help_pages import help_page
from circuitry.commands.write_help import made_page
from tests.support.scripts import EXPERIMENTS, command_module

WITHOUT_SEED = (
    "info",
    "evaluate",
    "benchmark_threads",
    "circuits_over_models",
    "emoji_colours",
    "explore",
    "features-over-settings",
)
"""Scripts in which nothing is random, or only the weights of a model that is timed."""

SCRIPTS = {path.stem: path for path in EXPERIMENTS.glob("*.py") if "run_script(" in path.read_text()}


@pytest.mark.parametrize("name", [*sorted(SCRIPTS), *COMMANDS])
def test_help_says_what_a_script_is_for(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"] if name in SCRIPTS else ["circuitry", name, "--help"])
    if name in COMMANDS:
        run_command()
    else:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPTS[name]), run_name="__main__")
        assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    text = SCRIPTS[name].read_text() if name in SCRIPTS else str(command_module(name).__doc__)
    assert text.partition("\n")[0].lstrip('"')[:40] in shown
    assert ("--seed" in shown) == (name not in WITHOUT_SEED)
    if name in COMMANDS:
        assert help_page(name) == made_page(name), "python -m circuitry.commands.write_help"
