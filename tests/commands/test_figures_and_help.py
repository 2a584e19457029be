"""Every figure is drawn, and every script says what it is for."""

import importlib
import json
import logging
import runpy
import sys
from pathlib import Path

import plotly.graph_objects as go
import pytest

from circuitry import InputError
from circuitry.commands import COMMANDS, run_command
from circuitry.commands.command_list import module_of
from tests.support.scripts import EXPERIMENTS, FIGURES, command_module

WITHOUT_SEED = (
    "info",
    "evaluate",
    "benchmark_threads",
    "circuits_over_models",
    "emoji_colours",
    "explore",
    "features-over-settings",
    "figures",
)
"""Scripts in which nothing is random, or only the weights of a model that is timed."""

figures = command_module("figures")
COMMITTED = {name for name, one in figures.FIGURES.items() if one.results is not None}
OF_THE_STUDY = {
    "sharing_by_setting": "study/sharing",
    "units_apart": "study/circuits",
    "cka_by_group": "representations",
}
"""Figures whose tables are not those of untrained models' generalization."""
OF_MADE_UP_TABLES = {"base_sets", "imagenet_sketch", "imagenet_sketch_classes", "similarity_by_group"}
"""Figures of which the tables of untrained models have no rows; tests of the room study draw them."""


def test_every_picture_is_drawn_from_committed_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = {path.stem for path in FIGURES.glob("*.png")}
    assert {name for name in pictures if not name.startswith(("explorer_", "tour_"))} == COMMITTED  # screenshots
    headings = dict[str, str]()

    def write(drawn: go.Figure, path: Path) -> tuple[Path]:
        headings[path.name] = json.loads(drawn.to_json())["layout"]["title"]["text"]
        return (path,)

    monkeypatch.setattr(figures, "write_figure", write)
    titled = {name: one._replace(title=f"Title of {name}") for name, one in figures.FIGURES.items()}
    monkeypatch.setattr(figures, "FIGURES", titled)
    figures.main(figures.Config(out=tmp_path))
    assert headings == {name: titled[name].title for name in COMMITTED}


@pytest.mark.parametrize("name", sorted(figures.FIGURES.keys() - COMMITTED - OF_MADE_UP_TABLES))
def test_figures_of_the_study_are_drawn(name: str) -> None:
    tables = EXPERIMENTS / "results" / OF_THE_STUDY.get(name, "study/generalization")
    draw, title, _ = figures.FIGURES[name]
    drawn = draw(tables, title)
    assert len(drawn.data) > 0
    assert drawn.layout.title.text.startswith(title)
    with pytest.raises(InputError, match=f"{name}.*--tables"):
        figures.main(figures.Config(names=(name,)))


SCRIPTS = {path.stem: path for path in EXPERIMENTS.glob("*.py")}


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
    assert ("--seed" in shown) == (name not in WITHOUT_SEED)
