"""Commands that read circuits take model and images from the run that the circuits are of, and say what they read."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tyro

from circuitry.analysis import QUICKSTART, QuickstartSettings
from circuitry.analysis.run_layout import curve_folders, drawn_circuits, run_of
from circuitry.commands import run_command
from circuitry.commands.named_run import check_the_quickstart
from circuitry.data import DRAWN_IMAGES
from circuitry.runs.settings_file import settings_text
from tests.support.scripts import command_module

SETTINGS = """
model = "vit-tiny"
checkpoint = "epoch 3.pt"
data = "my pictures"
split = "train"
classes = ["cat", "dog"]
units = "components"
device = "cuda"
sae = []
n-images = 3
strict = true

[rule]
name = "midpoint-2"
"""
Said = Callable[[str], tuple[list[str], str]]


@pytest.fixture
def said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Said:
    """What a line is handed over as, and the first line that it shows; in a folder with runs."""
    monkeypatch.chdir(tmp_path)
    handed: list[list[str]] = []

    def main(name: str, config: object) -> None:
        check_the_quickstart(name, config)
        handed.append(sys.argv[1:])

    monkeypatch.setattr("circuitry.commands.dispatch.begin", main)

    def run(line: str) -> tuple[list[str], str]:
        handed.clear()
        monkeypatch.setattr(sys, "argv", ["circuitry", *line.split()])
        try:
            run_command()
        except SystemExit:
            assert not handed
        return [
            word for words in handed for word in words
        ], capsys.readouterr().err.partition("\n")[0]

    return run


def write(name: str, text: str = "{}") -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    "line",
    [
        "check --circuits runs/mine/circuits",
        "check --circuits=runs/mine/circuits-margin",
        "cards --circuits runs/mine/circuits",
        "explore --with-model --circuits runs/mine/circuits",
        "explore --with-model --circuits runs/mine/own-parts/circuits",
        "explore --with-model --run runs/mine",
    ],
)
def test_model_and_images_are_those_of_the_run(line: str, said: Said) -> None:
    write("runs/mine/settings.toml", SETTINGS)
    for name in ("circuits", "circuits-margin", "own-parts/circuits"):
        write(f"runs/mine/{name}/manifest.json")
    words, _ = said(line)
    name = line.split()[0]
    config = tyro.cli(command_module(name).Config, args=words)
    assert (config.model, config.checkpoint, config.data) == (
        "vit-tiny",
        Path("epoch 3.pt"),
        Path("my pictures"),
    )
    assert (config.split, config.classes, config.units) == (
        "train",
        ("cat", "dog"),
        "components",
    )
    assert (config.device, config.strict if name == "check" else False) == (
        "cpu",
        False,
    )
    if name == "explore":
        assert config.run == Path("runs/mine")
    else:
        assert config.folder.parent == Path("runs/mine")
        assert config.circuits.parent == Path("runs/mine")


def test_own_parts_are_shown_first_and_lie_in_a_run_or_are_one(said: Said) -> None:
    run = Path("runs/mine")
    write("runs/mine/circuits/manifest.json")
    assert drawn_circuits(run) == run / "circuits"
    write("runs/mine/own-parts/circuits/manifest.json")
    assert drawn_circuits(run) == run / "own-parts" / "circuits"
    write("runs/own-parts/settings.toml")
    assert [
        run_of(Path("runs", name, "circuits"))
        for name in ("mine/own-parts", "own-parts")
    ] == [
        run,
        Path("runs/own-parts"),
    ]


def test_what_a_line_says_holds(said: Said) -> None:
    write("runs/mine/settings.toml", SETTINGS)
    write("runs/mine/circuits/manifest.json")
    words, _ = said("check --circuits runs/mine/circuits --classes cow --split None")
    config = tyro.cli(command_module("check").Config, args=words)
    assert (config.model, config.classes, config.split) == ("vit-tiny", ("cow",), None)
    own = "--circuits runs/mine/circuits --model RN50 --checkpoint e.pt --data x"
    assert said(f"check {own}")[0] == own.split()


@pytest.mark.parametrize(
    "settings",
    [
        settings_text(QuickstartSettings(model="vit-tiny"), "circuitry quickstart"),
        'model = "vit-tiny"\nunits = "None"',
        'model = "vit-tiny"\nunits = "components"',
    ],
)
def test_the_run_of_a_quickstart_is_known_too(settings: str, said: Said) -> None:
    write("q/settings.toml", settings)
    write("q/circuits/manifest.json")
    config = tyro.cli(
        command_module("cards").Config, args=said("cards --circuits q/circuits")[0]
    )
    assert (config.model, config.data) == ("vit-tiny", DRAWN_IMAGES)
    assert config.units != "channels"


@pytest.mark.parametrize("line", ["check", "cards --n-images 4", "explore"])
def test_what_reads_the_quickstart_says_so_first(line: str, said: Said) -> None:
    option = (
        "--circuits" if line.split()[0] in ("check", "cards", "explore") else "--data"
    )
    words, first = said(line)
    assert not words
    assert all(
        word in first for word in (str(QUICKSTART), "circuitry quickstart", option)
    )
    QUICKSTART.mkdir(parents=True)
    words, first = said(line)
    assert words == line.split()[1:]
    assert f"reads {QUICKSTART}" in first


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (
            "cards --circuits runs/cup",
            ["runs/cup is no folder of circuits", "runs/cup/circuits is"],
        ),
        (
            "check --circuits runs/python",
            ["runs", "settings.toml", "--model", "--data"],
        ),
    ],
)
def test_what_cannot_be_read_is_said_at_once(
    line: str, named: list[str], said: Said
) -> None:
    for name in (
        "cup/circuits/graphs/cup/photo.all",
        "cup/circuits/manifest.json",
        "python/manifest.json",
    ):
        write(f"runs/{name}")
    words, first = said(line)
    assert not words
    assert all(word in first for word in named)


def test_the_page_alone_needs_no_model(said: Said) -> None:
    write("runs/python/manifest.json")
    assert said("explore --circuits runs/python")[0] == [
        "--run",
        "runs",
        "--circuits",
        "runs/python",
    ]


def test_the_explorer_reads_the_curves_of_a_run_and_of_its_check(
    tmp_path: Path,
) -> None:
    check = command_module("check").Config(circuits=tmp_path / "circuits")
    assert curve_folders(tmp_path) == []
    there = [folder / "faithfulness" for folder in (tmp_path, check.folder)]
    for folder in there:
        folder.mkdir(parents=True)
    assert curve_folders(tmp_path) == there
