"""The study's settings: one switch, and what is given by hand wins."""

import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest

from circuitry.runs import InputError, StudySettings, run_script
from circuitry.runs.given import Count, checked
from circuitry.runs.presets import with_defaults, with_study_defaults


@dataclass(frozen=True)
class Choice(StudySettings):
    """Which images."""

    STUDY: ClassVar = {"seed": 42}
    seed: int = 0
    """Seed of the choice."""


@dataclass(frozen=True, kw_only=True)
class Config(Choice):
    """Settings of a script."""

    STUDY: ClassVar = {"classes": ("axe", "lion")}
    model: str
    """Which model."""
    classes: tuple[str, ...] | None = None
    """Which classes."""
    n_images: int = 50
    """How many images."""


def read(*arguments: str) -> Config:
    seen: list[Config] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["script", *arguments])
        run_script(Config, seen.append, "What it is for.")
    return seen[0]


def test_presets_of_parents_and_children_add_up() -> None:
    assert Config.study(model="RN50") == Config(model="RN50", seed=42, classes=("axe", "lion"))
    assert Config.study(model="RN50", seed=3).seed == 3
    assert Config.study_table() == [("seed", 0, 42), ("classes", None, ("axe", "lion"))]
    assert StudySettings.study_values() == {}


def test_the_switch_changes_defaults_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    plain = read("--model", "RN50")
    assert (plain.seed, plain.classes, plain.by_study) == (0, None, False)
    assert not capsys.readouterr().out
    study = read("--study", "--model", "RN50", "--n-images", "7")
    assert (study.seed, study.classes, study.n_images, study.by_study) == (42, ("axe", "lion"), 7, True)
    assert isinstance(study, Config)
    assert capsys.readouterr().out == "the study's settings: seed 42, classes ('axe', 'lion')\n"
    assert read("--model", "RN50", "--seed", "1", "--study").seed == 1
    assert capsys.readouterr().out == "the study's settings: seed 1, classes ('axe', 'lion')\n"


def test_defaults_that_are_made_know_of_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Config] = []

    def made(kind: type[Config]) -> type[Config]:
        return with_defaults(kind, {"model": "RN50", "n_images": 3 if kind.by_study else 4})

    for arguments in ([], ["--study"]):
        monkeypatch.setattr(sys, "argv", ["script", *arguments])
        run_script(Config, seen.append, None, made)
    assert [(given.seed, given.n_images) for given in seen] == [(0, 4), (42, 3)]


def test_scripts_say_in_their_help_that_there_is_the_switch(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--study", "--help")
    shown = capsys.readouterr().out
    assert "--study: Take the study's settings as defaults" in shown
    assert "(default: 42)" in shown


@checked
@dataclass(frozen=True)
class Training(StudySettings):
    """Settings with a preset and a condition."""

    STUDY: ClassVar = {"seed": 42}
    seed: int = 0
    steps: Count = 5


def test_settings_of_the_study_are_checked_as_all_others() -> None:
    for kind in (Training, with_study_defaults(Training)):
        assert kind(steps=3).steps == 3
        with pytest.raises(InputError, match=r"steps.*-5"):
            kind(steps=-5)


@pytest.mark.parametrize("switch", [(), ("--study",)])
def test_command_lines_are_checked(
    switch: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @dataclass(frozen=True)
    class Script(Training):
        out: str = "x"

    monkeypatch.setattr(sys, "argv", ["script", *switch, "--steps", "-5"])
    with pytest.raises(SystemExit) as ended:
        run_script(Script, print, None)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "steps" in said
    assert "-5" in said
