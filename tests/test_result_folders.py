"""Every committed folder of results says which command made it, at which commit; every table is quoted or drawn."""

import importlib
import io
import json
import re
import shlex
from contextlib import redirect_stderr
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from circuitry import InputError
from circuitry.commands.dispatch import COMMANDS, module_of
from circuitry.runs.command_line import read_line
from experiments.pages.rendering import QUESTIONS, numbers
from experiments.pages.tables import table
from experiments.study import figures_command  # noqa: F401  registers them
from experiments.study.figure_registry import FIGURES
from tests.support.committed_tables import DOCS, RESULTS, ROOT
from tests.support.scripts import program_module, script

MINIATURE = {
    f"study/{name}"
    for name in (
        "circuits",
        "generalization",
        "representations",
        "separation",
        "sharing",
    )
}
"""Tables of the study's miniature, without a command: `docs/study.md` says what they are for."""

GONE = {"quickstart": "--robustness 4"}
"""Options that made a folder and that its command no longer has."""

FOLDERS = sorted(
    {path.parent.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("*.csv")}
)


def module_and_words(first: str, *arguments: str) -> tuple[ModuleType, str, list[str]]:
    """Return the module of a command, program or script, how a page calls it, and its options."""
    if first == "circuitry":
        name, *options = arguments
        assert name in COMMANDS
        return importlib.import_module(module_of(name)), f"circuitry {name}", options
    if first == "experiments.study":
        name, *options = arguments
        return program_module(name), f"python -m experiments.study {name}", options
    return script(Path(first).stem), f"python {first}", list(arguments)


@pytest.mark.parametrize("folder", [name for name in FOLDERS if name not in MINIATURE])
def test_a_folder_of_results_says_which_command_made_it(folder: str) -> None:
    made_by = json.loads(
        (RESULTS / folder / "provenance.json").read_text(encoding="utf-8")
    )
    assert re.fullmatch(r"[0-9a-f]{12}", made_by["commit"]), (
        "results come from a clean commit"
    )
    assert "/work" not in made_by["command"], "paths in a command are relative"
    line = (
        made_by["command"]
        .removeprefix("python -m ")
        .replace(GONE.get(folder, "\0"), "")
    )
    module, words, options = module_and_words(*shlex.split(line))
    try:
        with redirect_stderr(io.StringIO()) as said:
            read_line(module.Config, options)
    except (InputError, SystemExit) as error:
        pytest.fail(
            f"{made_by['command']}: {' '.join(said.getvalue().split()) or error}"
        )
    assert words in DOCS, "a page says how to measure it again"


def test_the_miniature_is_not_quoted() -> None:
    assert set(FOLDERS) >= MINIATURE
    assert "results/study" in (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    assert not [name for name in MINIATURE if f"results/{name}" in DOCS]


def test_every_table_is_quoted_or_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    read, read_csv = set(), pd.read_csv

    def recorded(path: Any, *args: Any, **options: Any) -> Any:
        read.add(Path(path).resolve())
        return read_csv(path, *args, **options)

    monkeypatch.setattr(pd, "read_csv", recorded)
    table.cache_clear()
    for page in QUESTIONS:
        importlib.reload(numbers(page))
    for draw, title, tables in FIGURES.values():
        if tables is not None:
            draw(tables, title)
    unread = {path for path in RESULTS.rglob("*.csv") if path not in read}
    unread -= {path for name in MINIATURE for path in (RESULTS / name).glob("*.csv")}
    assert sorted(path.relative_to(RESULTS).as_posix() for path in unread) == []
