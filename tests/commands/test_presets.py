"""Presets and settings of runs: each is read by its command, sets what it says, and makes the same settings again."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from circuitry.commands import COMMANDS
from circuitry.runs import preset
from circuitry.runs.command_line import read_line
from circuitry.runs.settings_file import PACKAGE, settings_text
from circuitry.training import clip_preset
from circuitry.training.training_settings import CLIP_PRESETS
from tests.support.scripts import FIGURES, command_module, program_module

NEEDED = {
    "compare": ["--model", "x", "--data", "x"],
    "own-parts": ["--model", "x", "--data", "x"],
    "find": ["--model", "x", "--data", "x", "--class", "x"],
    "edit": ["--model", "x", "--data", "x", "--without-style", "x"],
    "explain": ["x", "--model", "x"],
    "evaluate": ["--model", "x", "--data", "x"],
    "mixtures": ["--data", "x"],
    "generalization": ["--runs", "x", "--data", "x"],
    "claims": ["--runs", "x", "--data", "x"],
    "separation": ["--models", "a=x", "--data", "x"],
    "features-over-settings": ["--features", "x"],
    "train": ["--out", "x", "--data", "x"],
    "train-supervised": ["--out", "x", "--data", "x"],
    "study": ["--data", "x"],
}
PROGRAMS = PACKAGE.parent / "experiments" / "study"
FILES = sorted(
    path for folder in (PACKAGE, PROGRAMS) for path in folder.glob("presets/*/*.toml")
)


def read(name: str, *words: str) -> Any:
    module = command_module(name) if name in COMMANDS else program_module(name)
    return read_line(module.Config, [*NEEDED.get(name, []), *words])[0]


@pytest.mark.parametrize(
    "path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_a_preset_is_read_by_its_command_and_redone_from_the_settings_of_its_run(
    path: Path, tmp_path: Path
) -> None:
    for words in (
        ["--preset", path.parent.name],
        ["--preset", str(path)],
        [f"--config={path}"],
    ):
        first = read(path.stem, *words)
        (tmp_path / "settings.toml").write_text(settings_text(first, "circuitry"))
        again = read(path.stem, "--config", str(tmp_path / "settings.toml"))
        assert (
            asdict(again)
            == asdict(first)
            == asdict(read(path.stem, "--preset", path.parent.name))
        )


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_file_of_settings_gives_all_of_them_again(
    name: str, tmp_path: Path
) -> None:
    first = read(name)
    (tmp_path / "settings.toml").write_text(settings_text(first, "circuitry"))
    assert asdict(read(name, "--config", str(tmp_path / "settings.toml"))) == asdict(
        first
    )


def test_files_hold_in_the_order_they_are_given_in(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('seed = 7\nrule = "None"\n')
    mine = ["--config", str(tmp_path / "mine.toml")]
    first, last = read("compare", *mine, "--study"), read("compare", "--study", *mine)
    assert (first.seed, first.rule.name, last.seed, last.rule) == (
        42,
        "left-10",
        7,
        None,
    )
    assert read("compare", "--seed", "3", "--study", *mine).seed == 3
    assert preset("icml2025", "train-sae")["steps"] is None
    for name in CLIP_PRESETS:
        assert read("train", "--preset", name).training == clip_preset(name)
        assert read("train", "--study", "--preset", name).training == clip_preset(
            name, study=True
        )


def test_the_study_names_all_that_shapes_its_circuits() -> None:
    circuits = {
        "method": "site-path",
        "budget": "same-share",
        "size": 0.1,
        "rule": "left-10",
        "baseline": "zero",
    }
    images = {
        "choice": "shuffled",
        "n_images": 50,
        "seed": 42,
        "metric": "logit",
        "texts": "pooled",
    }
    studied = {**circuits, **images, "edges_per_node": 3, "any_sign": True}
    assert studied.items() <= preset("icml2025", "compare").items()
    found = read("compare", "--study")
    named = {
        name: getattr(found, name) for name in studied if name not in ("size", "rule")
    }
    assert named | {"size": found.size, "rule": found.rule.name} == studied


def test_the_page_says_what_the_study_sets() -> None:
    page = (FIGURES.parent / "docs" / "study.md").read_text(encoding="utf-8")
    for path in FILES:
        if path.parent.name == "icml2025":
            lines = [
                line.replace(" = ", " ")
                for line in path.read_text().splitlines()
                if " = " in line
            ]
            assert (
                f"| `{path.stem}` | {', '.join(f'`{one}`' for one in lines)} |" in page
            )
