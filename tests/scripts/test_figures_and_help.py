"""Every figure is drawn from committed tables, and every script says what it is for."""

import logging
import runpy
import sys
from pathlib import Path

import pytest

from tests.support.scripts import EXPERIMENTS, FIGURES

WITHOUT_TABLES = {"base_sets", "imagenet_sketch"}
"""Figures of runs that none of the committed tables has; tests/study/test_selections.py has their rows."""
WITHOUT_SEED = ("sharing_over_settings",)
"""Scripts in which nothing is random, or only the weights of a model that is timed."""
DRAWN = sorted(path for path in FIGURES.glob("*.py") if path.stem not in WITHOUT_TABLES)


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: path.stem)
def test_every_figure_is_drawn_from_committed_tables(path: Path) -> None:
    figure = runpy.run_path(str(path))["figure"]()
    assert len(figure.data) > 0
    assert path.with_suffix(".png").is_file()


@pytest.mark.parametrize("name", sorted(path.stem for path in EXPERIMENTS.glob("*.py")))
def test_help_says_what_a_script_is_for(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXPERIMENTS / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    first_line = (EXPERIMENTS / f"{name}.py").read_text().partition("\n")[0].lstrip('"')
    assert first_line[:40] in shown
    assert ("--seed" in shown) == (name not in WITHOUT_SEED)
