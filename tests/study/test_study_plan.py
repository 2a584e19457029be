"""The plan of the study: its commands are ones that the scripts take."""

import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import open_clip
import pandas as pd
import pytest
import torch

from circuitry import Encoder, InputError, class_logit
from circuitry.circuits import AttributionSettings, count_operations
from circuitry.circuits.circuit_settings import STUDY_RULE
from circuitry.commands import dispatch, run_command
from circuitry.models.open_clip_models import register_model
from circuitry.runs import run_script
from experiments.study import __main__ as programs
from experiments.study.plan import Step
from tests.support.scripts import program_module
from tests.support.work import AS_STUDIED


@pytest.fixture(scope="module")
def study() -> ModuleType:
    return program_module("plan")


@pytest.fixture(scope="module")
def miniature(study: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    config = study.Config(
        out=tmp_path_factory.mktemp("study"), miniature=True, n_train=1
    )
    study.drawn(config)  # so that each test finds the images, whichever comes first
    return config


def test_commands_of_the_plan_are_taken(
    study: ModuleType, miniature: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []
    steps: list[Step] = study.steps(study.drawn(miniature))

    def only_read(kind: type, main: Callable[[Any], None], *more: Any) -> None:
        run_script(kind, read.append, *more)

    monkeypatch.setattr(dispatch, "run_script", only_read)
    monkeypatch.setattr(programs, "run_script", only_read)
    kinds = {step.command[3]: step for step in steps if step.kind != "figures"}
    drawn = [step for step in steps if step.kind == "figures"]
    assert {step.command[4] for step in drawn} <= program_module(
        "figures"
    ).FIGURES.keys()
    assert len(drawn) == 19  # all except those of ImageNet-Sketch
    for step in [*kinds.values(), drawn[0]]:
        monkeypatch.setattr(sys, "argv", list(step.command[2:]))
        run_command() if step.command[2] == "circuitry" else programs.main()
        assert str(read[-1].out) in " ".join(step.command)
    assert len(read) == len(kinds) + 1


def test_steps_do_what_they_say(
    study: ModuleType,
    miniature: Any,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = replace(miniature, do=True, only=("mixtures-photos-cg-low-sketch",))
    study.main(one)
    table = pd.read_csv(
        one.out / "mixtures" / "photos" / "photos-cg-low-sketch.tsv", sep="\t"
    )
    assert (
        len(table) == 16 + 16 + 12
    )  # base set, photographs, sketches without the four classes
    study.main(replace(one, plan=True))
    printed = capsys.readouterr().out
    assert "all of 1 steps are done" in printed
    with pytest.raises(InputError, match="configuration"):
        study.main(replace(one, seeds=(1,)))
    with pytest.raises(InputError, match="GiB"):
        study.main(replace(one, only=(), disk=0.0))
    study.main(replace(one, only=(), disk=0.0, plan=True, do=False))
    assert "add --do" in capsys.readouterr().out
    assert "GiB" in caplog.text


def test_operations_of_circuits_are_linear_in_the_points(
    study: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Encoder.from_tower(
        open_clip.create_model(register_model("rn-tiny"))
        .visual.eval()
        .requires_grad_(False)
    )
    metric = class_logit(torch.eye(2, 64), 0)
    ten = count_operations(
        encoder, metric, AttributionSettings(rule=STUDY_RULE, **AS_STUDIED)
    )
    assert study.circuit_operations("rn-tiny") == ten.nodes + 2 * ten.edges
    assert "text weights" not in caplog.text
