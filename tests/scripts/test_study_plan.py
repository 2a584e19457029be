"""The plan of the study: its commands are ones that the scripts take, its page says what the code says."""

import importlib.util
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import open_clip
import pandas as pd
import pytest
import torch

import circuitry.runs.command_line
from circuitry import Encoder, InputError, class_logit
from circuitry.circuits import AttributionSettings, count_operations
from circuitry.circuits.settings import STUDY_RULE
from circuitry.models.architectures import register_model
from circuitry.runs import StudySettings
from circuitry.runs.presets import study_markdown
from circuitry.study.plan import Step

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
WITHOUT_COUNTERPART = {
    *("benchmark_attribution", "benchmark_mixtures", "benchmark_rules", "benchmark_similarity", "benchmark_training"),
    *("faithfulness", "quickstart", "simulate_trust", "benchmark_edges", "components", "transfer", "validate_measures"),
    *("scoreboard", "edge_scoreboard", "shared_circuitry", "shared_masks", "pooling_pairs"),
    *("benchmark_threads", "sharing_over_settings", "study"),  # whose defaults are the study's
}
"""Scripts that need no preset of the study's."""


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("experiments_study", EXPERIMENTS / "study.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def miniature(study: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    config = study.Config(out=tmp_path_factory.mktemp("study"), miniature=True, n_train=1)
    study.drawn(config)  # so that each test finds the images, whichever comes first
    return config


@pytest.fixture(scope="module")
def steps(study: ModuleType, miniature: Any) -> list[Step]:
    found: list[Step] = study.steps(study.drawn(miniature))
    return found


def test_the_page_says_what_the_study_sets(study: ModuleType) -> None:
    page = (EXPERIMENTS / "study.md").read_text(encoding="utf-8")
    committed = page.split(study.BEGIN + "\n")[1].split(study.END)[0]
    assert committed == study_markdown(study.study_settings()), "write it again: experiments/study.py --settings"
    assert "| `train_sae.py` | training: resample_every | 1000 | 0 |" in committed


def test_every_script_of_the_study_has_a_preset(study: ModuleType) -> None:
    scripts = {path.stem for path in EXPERIMENTS.glob("*.py")}
    with_preset = {name.strip("`").removesuffix(".py") for name in study.study_settings()} & scripts
    assert with_preset == scripts - WITHOUT_COUNTERPART


def test_every_class_of_settings_with_a_preset_is_on_the_page(study: ModuleType) -> None:
    def below(kind: type) -> set[type]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    own = {
        kind for kind in below(StudySettings)
        if kind.__module__.startswith("circuitry.") and vars(kind).get("STUDY") and not kind.__name__.startswith("_")
    } - {StudySettings}  # fmt: skip
    shown = set(study.study_settings().values())
    assert {kind.__name__ for kind in own - shown} == {"CircuitSettings"}  # it is in the script's


def test_scripts_take_the_commands_of_the_plan(steps: list[Step], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    run_script = circuitry.runs.command_line.run_script

    def only_read(kind: type, main: Callable[[Any], None], *more: Any) -> None:
        run_script(kind, read.append, *more)

    monkeypatch.setattr(circuitry.runs.command_line, "run_script", only_read)
    monkeypatch.setattr("circuitry.reports.figure_script.run_script", only_read)
    kinds = {(step.command[1], step.command[7:8]): step for step in steps if step.kind != "figures"}
    figures = [step for step in steps if step.kind == "figures"]
    assert len(figures) == 15  # all but that of ImageNet-Sketch
    for step in [*kinds.values(), *figures]:
        monkeypatch.setattr(sys, "argv", list(step.command[1:]))
        runpy.run_path(str(EXPERIMENTS.parent / step.command[1]), run_name="__main__")
        assert str(read[-1].out) in " ".join(step.command)
    assert len(read) == len(kinds) + len(figures)


def test_steps_do_what_they_say(study: ModuleType, miniature: Any, capsys: pytest.CaptureFixture[str]) -> None:
    one = replace(miniature, run=True, only=("mixtures-photos-cg-low-sketch",))
    study.main(one)
    table = pd.read_csv(one.out / "mixtures" / "photos" / "photos-cg-low-sketch.tsv", sep="\t")
    assert len(table) == 16 + 16 + 12  # base set, photographs, sketches without the four classes
    study.main(replace(one, plan=True))
    printed = capsys.readouterr().out
    assert "photos-cg-low-sketch: 0 operations" in printed
    assert "mixtures (1)" in printed
    assert "all of 1 steps are done" in printed
    with pytest.raises(InputError, match="was made with another configuration"):
        study.main(replace(one, seeds=(1,)))
    with pytest.raises(InputError, match=r"fills about .* GiB, but .* has 0: choose another disk"):
        study.main(replace(one, only=(), disk=0.0))
    with pytest.raises(InputError, match="The plan has no step 'figurs'; its kinds of steps are mixtures, trainings"):
        study.main(replace(one, only=("figurs",)))


def test_operations_of_circuits_are_linear_in_the_points(study: ModuleType) -> None:
    encoder = Encoder.from_tower(open_clip.create_model(register_model("rn-tiny")).visual.eval().requires_grad_(False))
    metric = class_logit(torch.ones(2, 64), 0)
    ten = count_operations(encoder, metric, AttributionSettings(rule=STUDY_RULE))
    assert study.circuit_operations("rn-tiny") == ten.nodes + 2 * ten.edges


def test_a_study_that_cannot_be(study: ModuleType, tmp_path: Path, miniature: Any) -> None:
    with pytest.raises(InputError, match="Give the folder of DomainNet"):
        study.main(study.Config(out=tmp_path))
    with pytest.raises(InputError, match="The miniature draws its own images: leave out --domainnet and --base"):
        study.main(study.Config(out=tmp_path, miniature=True, base=("cc12m=x",)))
    toy = miniature.out / "toy"
    with pytest.raises(InputError, match="base sets are imagenet-captions, cc3m, cc12m, but 'mine' was given"):
        study.main(study.Config(out=tmp_path, domainnet=toy, base=("mine=x.tsv",)))
    table = tmp_path / "cc12m.tsv"
    table.write_text("filepath\ttitle\nnowhere.jpg\ta cat\n")
    with pytest.raises(InputError, match="None of the first 1 images of cc12m exists"):
        study.main(study.Config(out=tmp_path, domainnet=toy, base=(f"cc12m={table}",)))
