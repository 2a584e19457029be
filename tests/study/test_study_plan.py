"""The plan of the study: its commands are ones that the programs take, in an order that can be done."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circuitry.commands import dispatch, run_command
from circuitry.runs import run_script
from experiments.study import __main__ as programs
from tests.support.scripts import program_module

STUDY = program_module("plan")
BASES = ("imagenet-captions", "cc3m", "cc12m")
WHOLE = STUDY.Config(
    data=Path("DomainNet"),
    out=Path("out"),
    base=tuple(f"{name}={name}.tsv" for name in BASES),
    base_images=("imagenet-captions=ImageNet/train",),
    base_validation=("cc3m=0.1",),
    imagenet_sketch=Path("Sketch"),
)


def blocks(config: Any) -> dict[str, list[list[str]]]:
    """Return the words of all commands by the title of their block."""
    return {
        title: [[str(word) for word in line] for line in lines]
        for title, lines in STUDY.Plan(config).blocks()
    }


@pytest.mark.parametrize(
    "config", [WHOLE, STUDY.Config(data=Path("DomainNet"), keep_checkpoints=8)]
)
def test_commands_of_the_plan_are_taken(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []

    def only_read(kind: type, main: Callable[[Any], None], *more: Any) -> None:
        run_script(kind, read.append, *more)

    monkeypatch.setattr(dispatch, "run_script", only_read)
    monkeypatch.setattr(programs, "run_script", only_read)
    # One line of each command; the others differ in names of models.
    kinds = {}
    for lines in blocks(config).values():
        for line in lines:
            kinds[
                line[line.index("experiments.study") + 1 if line[0] == "python" else 1]
            ] = line
    for line in kinds.values():
        package = line[0] == "circuitry"
        monkeypatch.setattr(sys, "argv", line if package else line[2:])
        run_command() if package else programs.main()
        assert str(read[-1].out) in line
    assert len(read) == len(kinds) >= 9


def test_the_plan_has_all_of_the_study() -> None:
    planned = blocks(WHOLE)
    assert {title: len(lines) for title, lines in planned.items()} == {
        "mixtures": 1 + 7 + 7,
        "trainings": 533,
        # Accuracies, autoencoders of CG high and leave-out of sketch and clipart, separation, CKA, circuits twice.
        "measured": 1 + 4 + 4,
        "features": 4,
        "features over settings": 1,
        "figures": 6,
    }
    drawn = [line[4 : line.index("--tables")] for line in planned["figures"]]
    assert {name for names in drawn for name in names} <= program_module(
        "figures"
    ).FIGURES.keys()


def test_commands_read_what_earlier_ones_write() -> None:
    planned = blocks(WHOLE)
    tables = {line[line.index("--table") + 1] for line in planned["trainings"]}
    folders = {line[line.index("--out") + 1] for line in planned["mixtures"]}
    assert {str(Path(table).parent) for table in tables} == folders
    runs = {line[line.index("--out") + 1] for line in planned["trainings"]}
    for line in planned["measured"] + planned["features"]:
        # Commands take the processor where no device is named.
        assert line[line.index("--device") + 1] == "cuda"
        if "--checkpoint" in line:
            checkpoint = Path(line[line.index("--checkpoint") + 1])
            assert str(checkpoint.parents[2]) in runs
    (separation,) = (line for line in planned["measured"] if "separation" in line)
    # Three seeds with standard and with aligned captions.
    assert sum("captions=" in word for word in separation) == 6
    (cc3m, *_) = (line for line in planned["mixtures"] if "out/mixtures/cc3m" in line)
    assert "cc3m=0.1" in cc3m
    assert "imagenet-captions=ImageNet/train" not in cc3m


def test_lines_are_printed_for_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    STUDY.main(STUDY.Config(data=Path("Domain Net"), seeds=(0,)))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "# mixtures: 1"
    assert "Domain Net" in shlex.split(printed[1])
