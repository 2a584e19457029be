"""Scripts and commands as modules, and a browser that looks at what they draw."""

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from circuitry.commands.dispatch import COMMANDS, module_of
from circuitry.runs.command_line import read_line
from tests.support.browser import find_browser, load

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
FIGURES = EXPERIMENTS.parent / "figures"
needs_browser = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium or Chrome on this machine"
)
CLASSES = ("car", "fish", "key", "star")
STYLES = ("clipart", "quickdraw", "real")
"""Of the toy that the quickstart of the tests draws."""


def script(name: str) -> ModuleType:
    return importlib.import_module(f"experiments.{name}")


def command_module(name: str) -> ModuleType:
    """Return the module of a command."""
    return importlib.import_module(module_of(name))


def study_config(name: str, *words: str, **given: object) -> Any:
    """Return the settings of a command with ``--study``, changed by what is given."""
    module = command_module(name) if name in COMMANDS else program_module(name)
    config, _ = read_line(module.Config, ["--study", *words])
    return replace(config, **given)


def program_module(name: str) -> ModuleType:
    """Return the module of a program of the study."""
    return importlib.import_module(
        f"experiments.study.{name.replace('-', '_')}_command"
    )


def figure_of(name: str, tables: Path) -> Any:
    """Draw a figure of the registry from these tables."""
    draw, title, _ = program_module("figures").FIGURES[name]
    return draw(tables, title)


def assert_drawn(report: Path, figures: int | None = None) -> None:
    """Check that a browser draws every figure, and so many where it does not hang on what a model has learned."""
    page = load(report)
    assert page.console_errors == ()
    assert page.requests == ()
    assert len(page.marks) == (
        page.dom.count('class="plotly-graph-div') if figures is None else figures
    )
    assert page.marks
    assert all(page.marks.values()), page.marks
