"""Driving open_clip's trainer: checks at the door, resuming, progress and failure, with a script in its place."""

import importlib.util
import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from circuitry.runs import InputError
from circuitry.training import ClipTraining, TrainingWork, clip_training, train_clip
from circuitry.training import open_clip_process as process
from circuitry.training.run_folder import alone
from tests.support.clip_training import CONFIG, WORK, written


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace open_clip's trainer by a script that notes its arguments here and pretends to train."""
    script, calls, state = tmp_path / "trainer.py", tmp_path / "calls.jsonl", tmp_path / "state"
    for name, value in (("finite", 1.0), ("diverged", float("inf"))):
        torch.save({"state_dict": {"weight": torch.tensor([1, value]), "count": torch.tensor(3)}}, f"{state}-{name}.pt")
    script.write_text(
        f"""
import json, pathlib, shutil, sys, time
with open({str(calls)!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
options = dict(argument[2:].split("=", 1) for argument in sys.argv[1:] if "=" in argument)
if options["seed"] == "13":
    print("loss went through the roof", file=sys.stderr)
    sys.exit(3)
if options["seed"] == "14":
    print("12:00 | INFO | Train Epoch: 1 [4/9 (50%)] Data (t): 0.1 LR: 0.1 Loss: nan (nan)", flush=True)
    time.sleep(60)
checkpoints = pathlib.Path(options["logs"], options["name"], "checkpoints")
checkpoints.mkdir(exist_ok=True)
for epoch in range(int(options["epochs"])):
    print(f"12:00 | INFO | Train Epoch: {{epoch}} [4/9 (50%)] Data (t): 0.1 LR: 0.1 Contrastive_loss: 2.5 (2.5) "
          "Loss: 2.5000 (2.7)", flush=True)
    print(f"12:00 | INFO | Train Epoch: {{epoch}} [8/9 (100%)] Data (t): 0.1 Loss: 1.2500 (2.7)", flush=True)
(checkpoints / "epoch_latest.pt").touch()
finite = "diverged" if options["seed"] == "15" else "finite"
shutil.copy(f"{state}-{{finite}}.pt", checkpoints / f"epoch_{{options['epochs']}}.pt")
"""
    )
    monkeypatch.setattr(process, "_TRAINER", script)
    monkeypatch.setattr(clip_training, "_check_trainer", lambda: None)
    return calls


def arguments(calls: Path) -> list[list[str]]:
    return [json.loads(line) for line in calls.read_text().splitlines()]


def test_arguments_of_the_trainer(train: Path, settings: ClipTraining, calls: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "a"
    checkpoint = train_clip(train, out, replace(settings, crop_scale=0.6, extra=("--siglip",)), WORK)
    assert checkpoint == out / "checkpoints" / "epoch_2.pt"
    (given,) = arguments(calls)
    expected = {
        "--save-most-recent",
        "--resume=latest",
        "--csv-separator=\t",
        "--dataset-type=csv",
        f"--train-data={train}",
        f"--logs={tmp_path / 'runs'}",
        "--name=a",
        "--epochs=2",
        "--batch-size=4",
        "--accum-freq=1",
        "--lr=0.001",
        "--warmup=1",
        "--wd=0.2",
        "--seed=0",
        "--workers=0",
        "--device=cpu",
        "--precision=fp32",
        "--log-every-n-steps=1",
    }
    assert expected <= set(given)
    assert given[-5:] == ["--model", str(out / "rn-smallest.json"), "--aug-cfg", "scale=(0.6,1.0)", "--siglip"]
    assert json.loads((out / "rn-smallest.json").read_text()) == CONFIG
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["epoch_2.pt"]


def test_finished_runs_are_returned_and_unfinished_ones_resumed(
    train: Path, settings: ClipTraining, calls: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    first = train_clip(train, out, settings, WORK)
    assert train_clip(train, out, settings, TrainingWork("cpu", workers=1)) == first
    assert len(arguments(calls)) == 1
    first.unlink()
    assert train_clip(train, out, settings, WORK) == first
    assert len(arguments(calls)) == 2
    # Killed while the last checkpoint was being written: the file is there, the run is not finished.
    shutil.rmtree(out / "checksums")
    train_clip(train, out, settings, WORK)
    assert len(arguments(calls)) == 3
    first.write_bytes(first.read_bytes()[:-1])  # damaged on disk
    train_clip(train, out, settings, WORK)
    assert len(arguments(calls)) == 4


def test_other_settings_in_the_same_folder_are_refused(
    train: Path, settings: ClipTraining, calls: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train_clip(train, out, settings, WORK)
    with pytest.raises(InputError, match=r"made with another configuration \(lr: 0\.001 -> 0\.01\): choose another"):
        train_clip(train, out, replace(settings, lr=0.01), WORK)
    with pytest.raises(InputError, match=r"\(extra: '--siglip' is new; seed: 0 -> 1\)"):
        train_clip(train, out, replace(settings, seed=1, extra=("--siglip",)), WORK)
    train.write_text(train.read_text().replace("picture", "photo"))
    with pytest.raises(InputError, match=r"\(table: \(sha256: '[0-9a-f]{64}' -> '[0-9a-f]{64}'\)\)"):
        train_clip(train, out, settings, WORK)
    assert len(arguments(calls)) == 1


def test_a_copied_run_with_its_images_goes_on(train: Path, settings: ClipTraining, calls: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for i in range(9):
            shutil.copy(tmp_path / f"{i}.png", tmp_path / folder)
        (tmp_path / folder / "train.tsv").write_text(train.read_text().replace(f"{tmp_path}/", f"{tmp_path / folder}/"))
    train_clip(tmp_path / "a" / "train.tsv", tmp_path / "a" / "run", settings, WORK)
    shutil.copytree(tmp_path / "a" / "run", tmp_path / "b" / "run")
    train_clip(tmp_path / "b" / "train.tsv", tmp_path / "b" / "run", settings, WORK)
    assert len(arguments(calls)) == 1
    train.write_text((tmp_path / "a" / "train.tsv").read_text())
    with pytest.raises(
        InputError, match=r"\(table: \(first image: '0\.png' -> 'a/0\.png'; sha256: "
    ):  # why they differ
        train_clip(train, tmp_path / "b" / "run", settings, WORK)


def test_what_diverges_is_an_error_and_never_finished(
    train: Path, settings: ClipTraining, calls: Path, tmp_path: Path
) -> None:
    started = time.perf_counter()
    with pytest.raises(InputError, match=r"diverged in epoch 2, the loss is nan: .* a lr lower than 0\.001, or"):
        train_clip(train, tmp_path / "loss", replace(settings, seed=14), WORK)
    assert time.perf_counter() - started < 30  # the trainer was ended
    latest = tmp_path / "weights" / "checkpoints" / "epoch_latest.pt"
    for _ in range(2):
        with pytest.raises(InputError, match=r"diverged in epoch 2, the weights weight hold NaN .* than 0\.001"):
            train_clip(train, tmp_path / "weights", replace(settings, seed=15), WORK)
        latest.unlink()
    torch.save({"state_dict": {"logit_scale": torch.tensor(torch.nan)}}, latest)
    with pytest.raises(InputError, match=r"diverged, the weights logit_scale hold"):
        train_clip(train, tmp_path / "weights", replace(settings, seed=15), WORK)
    assert len(arguments(calls)) == 3


def test_progress_bar(
    train: Path, settings: ClipTraining, calls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_clip(train, tmp_path / "run", settings, replace(WORK, progress=True))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "16/16" in shown.err
    assert "epoch 2/2, loss 1.2500" in shown.err
    assert "Train Epoch: 1 [8/9" in (tmp_path / "run" / "console.log").read_text()


def test_failure_shows_the_end_of_what_the_trainer_printed(
    train: Path, settings: ClipTraining, calls: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    expected = rf"failed with exit status 3; .* {re.escape(str(out / 'console.log'))}.*\nloss went through the roof"
    with pytest.raises(RuntimeError, match=expected):
        train_clip(train, out, replace(settings, seed=13), WORK)
    with pytest.raises(RuntimeError, match=expected):
        train_clip(train, out, replace(settings, seed=13), WORK)


def test_missing_dependencies_of_the_trainer(
    train: Path, settings: ClipTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "webdataset" else object())
    with pytest.raises(ImportError, match=r"needs webdataset: pip install 'open_clip_torch\[training\]'"):
        train_clip(train, tmp_path / "run", settings, WORK)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{image}\ta\n", r"must have the header filepath<TAB>title .*; its first line is '.*0\.png<TAB>a'"),
        ("", r"Cannot read .*train\.tsv \(No columns.*\); expected the header filepath<TAB>title and a line for each"),
        ("path\ttitle\nx\ty\n", r"must have the header filepath<TAB>title .*; its first line is 'path<TAB>title'"),
        ("filepath\ttitle\n", "has 0 images, fewer than one batch of 4; lower batch_size or add images"),
        ("filepath\ttitle\n/x/1.png\ta\n/x/2.png\tb\n", "names 2 files that do not exist, such as /x/1.png, /x/2.png"),
        ("filepath\ttitle\n{image}\t\n", r"has 1 images without a title, such as .*0\.png"),
        ("filepath\ttitle\n{image}\ta\n", "has 1 images, fewer than one batch of 4"),
    ],
)
def test_unusable_tables(content: str, message: str, train: Path, settings: ClipTraining, tmp_path: Path) -> None:
    train.write_text(content.replace("{image}", str(tmp_path / "0.png")))
    with pytest.raises(InputError, match=message):
        train_clip(train, tmp_path / "run", settings, WORK)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "The epochs of a training must be at least 1, but 0 was given"),
        ({"batch_size": 1}, "The batch_size of a training must be at least 2 images, .* but 1 was given"),
        ({"lr": 0.0}, "The lr of a training must be positive and finite, but 0.0 was given"),
        ({"lr": float("nan")}, "The lr .* but nan was given"),
        ({"lr": float("inf")}, "The lr .* but inf was given"),
        ({"weight_decay": -1.0}, "The weight_decay .* at least 0 and finite, but -1.0 was given"),
        ({"crop_scale": 0.0}, "The crop_scale .* a share of an image's area, above 0 and up to 1, but 0.0 was given"),
        ({"keep_checkpoints": -1}, "The keep_checkpoints .* a number of epochs, or 0 for none, but -1 was given"),
        ({"seed": -1}, "The seed .* but -1 was given"),
        ({"processes": 0}, "The processes .* at least 1, but 0 was given"),
        ({"processes": 3}, "The batch_size .* a multiple of their number times accumulation, 3, but 4 was given"),
        ({"accumulation": 0}, "The accumulation .* at least 1, but 0 was given"),
        ({"processes": 2, "accumulation": 4}, "The batch_size .* times accumulation, 8, but 4 was given"),
        ({"threads": 0}, "The threads .* at least 1, but 0 was given"),
        ({"precision": "fp9"}, "The precision .* one of fp32, amp, .*, but 'fp9' was given"),
        ({"warmup": -1}, "The warmup .* but -1 was given"),
    ],
)
def test_unusable_settings(change: dict[str, Any], message: str, settings: ClipTraining) -> None:
    with pytest.raises(InputError, match=message):
        replace(settings, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warmup": 4}, "The warmup must be shorter than the run of 4 steps, but 4 was given"),
        ({"model": "rn-tinny"}, "There is no model 'rn-tinny'"),
        ({"extra": ("--lr=3",)}, "--lr=3 is set by the other settings of the training and cannot be in extra"),
        ({"extra": ("--name", "b")}, "--name is set by the other settings"),
    ],
)
def test_settings_that_do_not_fit_the_data(
    change: dict[str, Any], message: str, train: Path, settings: ClipTraining, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        train_clip(train, tmp_path / "run", replace(settings, **change), WORK)


def test_images_are_counted_as_the_trainer_counts_them(settings: ClipTraining) -> None:
    # open_clip pads 11 images to two shares of 6, of which each process takes whole batches of 3.
    six = replace(settings, batch_size=6, warmup=0)
    assert clip_training._steps(11, replace(six, processes=2)) == 2
    assert clip_training._steps(11, six) == 1
    assert clip_training._steps(10, replace(six, processes=2)) == 1
    # In parts of one image, of which three are a step: four images of a process are four parts, one of them left over.
    assert clip_training._steps(8, replace(six, processes=2, accumulation=3)) == 1


def test_several_processes_are_started_by_torchrun() -> None:
    command = process._start(4, 1)
    assert command[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    assert command[-2:] == ["--local-loss", "--gather-with-grad"]
    assert len(process._start(1, 1)) == 2
    assert process._start(8, 2)[3:5] == ["--nnodes=2", "--nproc-per-node=4"]


def test_missing_files_are_left_out_when_asked(
    train: Path, settings: ClipTraining, calls: Path, tmp_path: Path
) -> None:
    (tmp_path / "3.png").unlink()
    with pytest.raises(InputError, match=r"names 1 files that do not exist, such as .*/3\.png"):
        train_clip(train, tmp_path / "run", settings, WORK)
    train_clip(train, tmp_path / "run", replace(settings, skip_missing=True), WORK)
    table = tmp_path / "run" / "without_missing.tsv"
    assert f"--train-data={table}" in arguments(calls)[0]
    lines = train.read_text().splitlines()
    assert table.read_text().splitlines() == [line for line in lines if "3.png" not in line]
    Image.new("RGB", (32, 32)).save(tmp_path / "3.png")
    with pytest.raises(InputError, match="skipped: 1 -> 0"):
        train_clip(train, tmp_path / "run", replace(settings, skip_missing=True), WORK)


def test_a_folder_with_the_checkpoint_of_another_model(
    train: Path, settings: ClipTraining, calls: Path, tmp_path: Path
) -> None:
    latest = tmp_path / "run" / "checkpoints" / "epoch_latest.pt"
    latest.parent.mkdir(parents=True)
    torch.save({"epoch": 1, "state_dict": {"logit_scale": torch.ones(2)}}, latest)
    with pytest.raises(InputError, match=r"epoch_latest\.pt is not a checkpoint of rn-smallest: .* in the file\.$"):
        train_clip(train, tmp_path / "run", settings, WORK)
    assert not calls.exists()


def test_two_trainings_never_share_a_folder(train: Path, settings: ClipTraining, calls: Path, tmp_path: Path) -> None:
    with (
        alone(tmp_path / "run"),
        pytest.raises(InputError, match=r"Another process trains in .*run: wait for it, or choose another folder\."),
    ):
        train_clip(train, tmp_path / "run", settings, WORK)
    train_clip(train, tmp_path / "run", settings, WORK)
    assert len(arguments(calls)) == 1


def test_a_configuration_that_is_no_model(train: Path, tmp_path: Path) -> None:
    config = CONFIG | {"vision_cfg": {"image_size": 32, "patch_size": 16, "width": 16, "layers": 1}}
    wrong = written(config, tmp_path / "headless.json")
    with pytest.raises(
        InputError, match=r"open_clip cannot build headless \(.*num_heads.*\): correct its model config"
    ):
        train_clip(train, tmp_path / "run", wrong, WORK)


def test_missing_table(settings: ClipTraining, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Expected a training table, but .*none\.tsv does not exist; write"):
        train_clip(tmp_path / "none.tsv", tmp_path / "run", settings, WORK)
