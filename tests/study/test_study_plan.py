"""The plan of the study: its commands are ones that the programs take, in an order that can be done; their costs."""

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from circuitry.commands import dispatch, run_command
from circuitry.encoder import OperationCounter
from circuitry.runs import InputError, run_script
from experiments.study import __main__ as programs
from experiments.study.study_claims import CLAIMS
from experiments.study.study_costs import ARCHITECTURES, Cost, Machine
from tests.support.committed_tables import ROOT
from tests.support.scripts import program_module

STUDY = program_module("plan")
ARRAY = program_module("array")
BASES = ("imagenet-captions", "cc3m", "cc12m")
N_TRAIN = {"real": 5, "quickdraw": 3, "sketch": 2}
"""Training images of each class by domain; ``axe`` is held out, ``clock`` is not. There is one test image each."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Lists in DomainNet's layout, and tables of base sets, without any image."""
    for domain, number in N_TRAIN.items():
        for split, n_images in (("train", number), ("test", 1)):
            lines = [
                f"{domain}/{name}/{i}.png {label}\n"
                for label, name in enumerate(("axe", "clock"))
                for i in range(n_images)
            ]
            (tmp_path / f"{domain}_{split}.txt").write_text("".join(lines))
    entries = [{"wnid": "n1", "filename": f"{i}.JPEG"} for i in range(7)]
    (tmp_path / "imagenet-captions.tsv").write_text(json.dumps(entries))
    for name in BASES[1:]:
        rows = "".join(f"{i}.jpg\ta photo\n" for i in range(10))
        (tmp_path / f"{name}.tsv").write_text("filepath\ttitle\n" + rows)
    return tmp_path


@pytest.fixture
def whole(data: Path) -> Any:
    return STUDY.Config(
        data=data,
        out=Path("out"),
        base=tuple(f"{name}={data / name}.tsv" for name in BASES),
        base_images=("imagenet-captions=ImageNet/train",),
        base_validation=("cc3m=0.1",),
        imagenet_sketch=Path("Sketch"),
    )


def blocks(config: Any) -> dict[str, list[list[list[str]]]]:
    """Return the words of the commands of all steps, by the title of their block."""
    return {
        block.title: [
            [[str(word) for word in command.words] for command in step.commands]
            for step in block.steps
        ]
        for block in STUDY.Plan(config).blocks()
    }


def called(words: list[str]) -> str:
    return words[words.index("-m") + 2]


@pytest.mark.parametrize("small", [False, True])
def test_commands_of_the_plan_are_taken(
    whole: Any, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(whole, memory_gib=4.0)
    if small:
        config = STUDY.Config(data=whole.data, keep_checkpoints=8)
    read: list[Any] = []

    def only_read(kind: type, main: Callable[[Any], None], *more: Any) -> None:
        run_script(kind, read.append, *more)

    monkeypatch.setattr(dispatch, "run_script", only_read)
    monkeypatch.setattr(programs, "run_script", only_read)
    # One line of each command and its first options; the others differ in names of models.
    kinds = {}
    for steps in blocks(config).values():
        for commands in steps:
            for words in commands:
                kinds[called(words), "--no-tables" in words] = words
    for words in kinds.values():
        monkeypatch.setattr(sys, "argv", words[words.index("-m") + 1 :])
        run_command() if "circuitry" in words else programs.main()
        if "--out" in words:
            assert str(read[-1].out) in words
    assert len(read) == len(kinds) >= 10


def test_the_plan_has_all_of_the_study(whole: Any) -> None:
    planned = blocks(whole)
    assert {title: len(steps) for title, steps in planned.items()} == {
        "mixtures": 1 + 7 + 7,
        "models-on-4-gpus": 533 - 14,
        "models-on-8-gpus": 14,
        # Autoencoders of CG high and leave-out of sketch and clipart, separation, CKA.
        "measures-on-1-gpu": 4 + 2,
        "measures-on-4-gpus": 2,
        "tables": 2,
    }
    drawn = {
        word
        for steps in planned.values()
        for commands in steps
        for words in commands
        if called(words) == "figures"
        for word in words
    }
    assert drawn & CLAIMS.keys() == CLAIMS.keys()
    assert CLAIMS.keys() <= program_module("figures").FIGURES.keys()


def test_commands_read_what_earlier_ones_write(whole: Any) -> None:
    planned = blocks(whole)
    models = planned["models-on-4-gpus"] + planned["models-on-8-gpus"]
    tables = {train[train.index("--table") + 1] for train, _ in models}
    folders = {words[words.index("--out") + 1] for (words,) in planned["mixtures"]}
    assert {str(Path(table).parent) for table in tables} == folders
    runs = set()
    for train, classify in models:
        # A model is classified as soon as it is trained, and by no other line.
        run = train[train.index("--out") + 1]
        assert classify[classify.index("--runs") + 1] == run
        assert train[train.index("--workers") + 1] == "8"
        runs.add(run)
    assert len(runs) == len(models)
    measures = planned["measures-on-1-gpu"] + planned["measures-on-4-gpus"]
    for commands in measures:
        for words in commands:
            if "--checkpoint" in words:
                # Commands take the processor where no device is named.
                assert words[words.index("--device") + 1] == "cuda"
                checkpoint = Path(words[words.index("--checkpoint") + 1])
                assert str(checkpoint.parents[2]) in runs
    (claims,) = (
        words
        for commands in measures
        for words in commands
        if called(words) == "claims"
    )
    judged = claims[claims.index("--runs") + 1 : claims.index("--data")]
    assert set(judged) <= runs
    # A fifth of the held-out classes beside all domains, and one further domain.
    of_classes = [run for run in judged if "class-interpolation" in run]
    assert len(of_classes) == 5 * 3
    assert all("-0.2-" in run and "-low-" not in run for run in of_classes)
    assert not [run for run in judged if "+" in run]
    (separation,) = (
        commands[0] for commands in measures if "separation" in commands[0]
    )
    # Three seeds with standard and with aligned captions.
    assert sum("captions=" in word for word in separation) == 6
    (cc3m, *_) = (
        words for (words,) in planned["mixtures"] if "out/mixtures/cc3m" in words
    )
    assert "cc3m=0.1" in cc3m
    assert "imagenet-captions=ImageNet/train" not in cc3m


def test_costs_are_those_of_a_count_by_hand(whole: Any) -> None:
    plan = STUDY.Plan(whole)
    by_name = {training.name: training for training in plan.trainings}
    counted = ARCHITECTURES["rn50"]
    # Base set, photographs of two classes, and the seen class of the test domain.
    sizes = {
        "rn50-imagenet-captions-natural-only-s0": 7 + 2 * 5,
        "rn50-imagenet-captions-cg-high-quickdraw-s0": 7 + 2 * 5 + 3,
        "rn50-cc12m-leave-out-sketch-s0": 10 + 2 * 5 + 2,
    }
    for name, size in sizes.items():
        cost = plan.costs.training(by_name[name])
        assert cost.images == 32 * size
        assert cost.half == cost.images * (counted.training + counted.forward)
        assert cost.gib * 2**30 == 33 * 12 * counted.weights
        evaluation = plan.costs.evaluation(by_name[name])
        assert evaluation.images == 33 * 2 * len(N_TRAIN)
        assert evaluation.single == evaluation.images * counted.forward
    supervised = by_name["supervised-rn50-imagenet-captions-natural-only-s0"]
    assert plan.costs.training(supervised).images == 90 * 17
    assert plan.costs.checkpoints(supervised) == 1 + 18
    few = STUDY.Plan(replace(whole, keep_checkpoints=8))
    assert few.costs.checkpoints(by_name[name]) == 1 + 4


def test_hours_are_held_by_computing_or_by_reading() -> None:
    machine = Machine(2, core_rate=100.0, half_tflops=10.0, single_tflops=1.0)
    cost = Cost(half=36e15, single=7.2e15, images=720_000)
    assert cost.computing(machine) == pytest.approx(1 + 2)
    assert cost.held(machine) == pytest.approx(3)
    slow = cost._replace(images=7_200_000)
    assert slow.held(machine) == pytest.approx(10)
    assert slow.held(replace(machine, workers=4)) == pytest.approx(5)


def test_operations_of_an_architecture_are_counted() -> None:
    model = open_clip.create_model("ViT-S-32")
    images = torch.zeros(2, 3, 224, 224)
    texts = torch.zeros(2, model.context_length, dtype=torch.long)
    # PyTorch has a formula for matrix products, but not for fused attention on every device.
    with sdpa_kernel(SDPBackend.MATH), OperationCounter() as counter:
        embedded = model.encode_image(images)
        forward = counter.total
        (embedded.sum() + model.encode_text(texts).sum()).backward()
    told = ARCHITECTURES["vit-s-32"]
    assert forward / 2 == pytest.approx(told.forward, rel=5e-3)
    assert counter.total / 2 == pytest.approx(told.training, rel=5e-3)
    assert sum(weight.numel() for weight in model.parameters()) == told.weights
    assert embedded.shape[1] == told.embedding


def test_lines_are_printed_for_a_shell_with_what_they_test(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spaced = data.rename(data.with_name("Domain Net"))
    STUDY.main(STUDY.Config(data=spaced, seeds=(0,)))
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0].startswith("## mixtures: a line 0 GPUs, 9 cores")
    assert str(spaced) in shlex.split(lines[2])
    for name in CLAIMS.keys() - {"base_sets", "sharing_by_setting"}:
        if "imagenet_sketch" not in name:
            for tested in CLAIMS[name]:
                assert f"#   {name}: {tested.claim} Refuted by: " in printed
    (spaced / "study.sh").write_text(printed)
    of_blocks = ARRAY.lines_of_blocks(spaced / "study.sh")
    assert sum(map(len, of_blocks.values())) == sum(
        map(len, blocks(STUDY.Config(data=spaced, seeds=(0,))).values())
    )


def test_the_page_says_what_each_figure_tests() -> None:
    page = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    for name, claims in CLAIMS.items():
        for tested in claims:
            assert f"| `{name}` | {tested.claim} | {tested.refuted_by} |" in page


def test_lines_of_a_block_are_an_array(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "study.sh"
    # A line fails where another one is at work.
    busy = f"mkdir {tmp_path}/busy && sleep 0.5 && rmdir {tmp_path}/busy"
    lines = [f"{busy} && touch {tmp_path}/{i}" for i in (1, 2)]
    block = "## first: 2\n# a comment\n" + "\n".join(lines) + "\n"
    block += f"## second: 2\nfalse\ntouch {tmp_path}/3\n## emptied: 1\n"
    plan.write_text(block)
    config = ARRAY.Config(
        plan, "first", at_once=1, cluster="local", logs=tmp_path / "logs"
    )
    ARRAY.main(config)
    assert [(tmp_path / str(i)).exists() for i in (1, 2)] == [True, True]
    assert "2 lines are done" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"1 of 2 jobs.*It ended with 1: false"):
        ARRAY.main(replace(config, block="second"))
    assert (tmp_path / "3").exists()
    for absent in ("third", "emptied"):
        with pytest.raises(InputError, match="first, second"):
            ARRAY.main(replace(config, block=absent))
    with pytest.raises(InputError, match="program plan"):
        ARRAY.main(replace(config, plan=tmp_path / "none.sh"))


def test_slurm_holds_jobs_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[Any] = []

    class NoJobs:
        """An executor that submits nothing."""

        def map_array(self, task: Any, *numbers: Any) -> list[Any]:
            submitted.append([*zip(*numbers, strict=True)])
            return []

    def only_note(*settings: Any) -> NoJobs:
        submitted.append(settings)
        return NoJobs()

    monkeypatch.setattr("circuitry.runs.workers.cluster_executor", only_note)
    (tmp_path / "study.sh").write_text("## a: 3\ntrue\ntrue\ntrue\n")
    options = ("gpus_per_node=4", "slurm_partition=gpu")
    config = ARRAY.Config(
        tmp_path / "study.sh", "a", at_once=2, job_options=options, logs=tmp_path
    )
    ARRAY.main(config)
    limits = {
        "slurm_array_parallelism": 2,
        "gpus_per_node": 4,
        "slurm_partition": "gpu",
    }
    numbers = [(0, 3), (1, 3), (2, 3)]
    assert submitted == [(tmp_path / "a", "slurm", limits), numbers]
