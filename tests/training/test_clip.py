"""Driving open_clip's trainer: checks at the door, resuming, progress, failure, and one real run."""

import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import torch
from PIL import Image

from circuitry.models.clip import load_clip
from circuitry.runs.errors import InputError
from circuitry.training import clip
from circuitry.training.clip import train_clip
from circuitry.training.run_folder import alone, checkpoints

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
SETTINGS: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 4,
    "lr": 1e-3,
    "warmup": 1,
    "workers": 0,
    "device": "cpu",
    "progress": False,
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "rn-smallest.json"
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture
def train(tmp_path: Path) -> Path:
    """A training table of nine images: two batches of four, one image left over."""
    lines = ["filepath\ttitle"]
    for i in range(9):
        Image.new("RGB", (32, 32), (25 * i, 0, 255 - 25 * i)).save(tmp_path / f"{i}.png")
        lines.append(f"{tmp_path / f'{i}.png'}\ta picture of number {i}")
    table = tmp_path / "train.tsv"
    table.write_text("\n".join(lines) + "\n")
    return table


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace open_clip's trainer by a script that notes its arguments here and pretends to train."""
    script, calls = tmp_path / "trainer.py", tmp_path / "calls.jsonl"
    script.write_text(
        f"""
import json, pathlib, sys
with open({str(calls)!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
options = dict(argument[2:].split("=", 1) for argument in sys.argv[1:] if "=" in argument)
if options["seed"] == "13":
    print("loss went through the roof", file=sys.stderr)
    sys.exit(3)
checkpoints = pathlib.Path(options["logs"], options["name"], "checkpoints")
checkpoints.mkdir(exist_ok=True)
for epoch in range(int(options["epochs"])):
    print(f"12:00 | INFO | Train Epoch: {{epoch}} [4/9 (50%)] Data (t): 0.1 LR: 0.1 Contrastive_loss: 2.5 (2.5) "
          "Loss: 2.5000 (2.7)", flush=True)
    print(f"12:00 | INFO | Train Epoch: {{epoch}} [8/9 (100%)] Data (t): 0.1 Loss: 1.2500 (2.7)", flush=True)
(checkpoints / "epoch_latest.pt").touch()
(checkpoints / f"epoch_{{options['epochs']}}.pt").touch()
"""
    )
    monkeypatch.setattr(clip, "_TRAINER", script)
    monkeypatch.setattr(clip, "_check_trainer", lambda: None)
    return calls


def arguments(calls: Path) -> list[list[str]]:
    return [json.loads(line) for line in calls.read_text().splitlines()]


def test_arguments_of_the_trainer(train: Path, model: Path, calls: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "a"
    checkpoint = train_clip(train, out, model=model, **SETTINGS, extra=["--aug-cfg", "scale=(0.6,1.0)"])
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
    assert given[-4:] == ["--model", str(out / "rn-smallest.json"), "--aug-cfg", "scale=(0.6,1.0)"]
    assert json.loads((out / "rn-smallest.json").read_text()) == CONFIG
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["epoch_2.pt"]


def test_finished_runs_are_returned_and_unfinished_ones_resumed(
    train: Path, model: Path, calls: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    first = train_clip(train, out, model=model, **SETTINGS)
    assert train_clip(train, out, model=model, **{**SETTINGS, "workers": 1, "progress": True}) == first
    assert len(arguments(calls)) == 1
    first.unlink()
    assert train_clip(train, out, model=model, **SETTINGS) == first
    assert len(arguments(calls)) == 2
    # Killed while the last checkpoint was being written: the file is there, the run is not finished.
    state = json.loads((out / "settings.json").read_text())
    (out / "settings.json").write_text(json.dumps({**state, "finished": False}))
    train_clip(train, out, model=model, **SETTINGS)
    assert len(arguments(calls)) == 3


def test_other_settings_in_the_same_folder_are_refused(train: Path, model: Path, calls: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_clip(train, out, model=model, **SETTINGS)
    with pytest.raises(
        InputError, match=r"run holds a run with other settings: lr was 0\.001, now 0\.01; choose another"
    ):
        train_clip(train, out, model=model, **{**SETTINGS, "lr": 0.01})
    with pytest.raises(InputError, match=r'extra was \[\], now \["--siglip"\]; seed was 0, now 1;'):
        train_clip(train, out, model=model, **{**SETTINGS, "seed": 1}, extra=["--siglip"])
    train.write_text(train.read_text().replace("picture", "photo"))
    with pytest.raises(InputError, match=r'other settings: train-data was "[0-9a-f]{64}", now "[0-9a-f]{64}";'):
        train_clip(train, out, model=model, **SETTINGS)
    assert len(arguments(calls)) == 1


def test_progress_bar(
    train: Path, model: Path, calls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_clip(train, tmp_path / "run", model=model, **{**SETTINGS, "progress": True})
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "16/16" in shown.err
    assert "epoch 2/2, loss 1.2500" in shown.err
    assert "Train Epoch: 1 [8/9" in (tmp_path / "run" / "console.log").read_text()


def test_failure_shows_the_end_of_what_the_trainer_printed(
    train: Path, model: Path, calls: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    expected = rf"failed with exit status 3; .* {re.escape(str(out / 'console.log'))}.*\nloss went through the roof"
    with pytest.raises(RuntimeError, match=expected):
        train_clip(train, out, model=model, **{**SETTINGS, "seed": 13})
    assert json.loads((out / "settings.json").read_text())["finished"] is False


def test_missing_dependencies_of_the_trainer(
    train: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "webdataset" else object())
    with pytest.raises(ImportError, match=r"needs webdataset: pip install 'open_clip_torch\[training\]'"):
        train_clip(train, tmp_path / "run", model=model, **SETTINGS)


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
def test_unusable_tables(content: str, message: str, train: Path, model: Path, tmp_path: Path) -> None:
    train.write_text(content.replace("{image}", str(tmp_path / "0.png")))
    with pytest.raises(InputError, match=message):
        train_clip(train, tmp_path / "run", model=model, **SETTINGS)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "at least 1 epoch, 2 images per batch .* given epochs=0, batch_size=4"),
        ({"batch_size": 1}, "given epochs=2, batch_size=1"),
        ({"lr": 0.0}, "a positive lr .* given .*lr=0.0"),
        ({"lr": float("nan")}, "a positive lr .* given .*lr=nan"),
        ({"keep_checkpoints": -1}, "0 or more epochs between checkpoints; given .*keep_checkpoints=-1"),
        ({"processes": 0}, "at least one process to train with, given processes=0"),
        ({"processes": 3}, "a multiple of their number; given batch_size=4 and processes=3"),
        ({"warmup": 4}, "warmup must be shorter than the run of 4 steps and not negative; given 4"),
        ({"warmup": -1}, "given -1"),
        ({"model": "rn-tinny"}, "There is no model 'rn-tinny'"),
        ({"extra": ["--lr=3"]}, "--lr=3 is set by train_clip and cannot be in extra"),
        ({"extra": ["--name", "b"]}, "--name is set by train_clip"),
    ],
)
def test_unusable_settings(change: dict[str, Any], message: str, train: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        train_clip(train, tmp_path / "run", **{"model": model, **SETTINGS, **change})


def test_images_are_counted_as_the_trainer_counts_them() -> None:
    # open_clip pads 11 images to two shares of 6, of which each process takes whole batches of 3.
    assert clip._steps(11, batch_size=6, processes=2) == 2
    assert clip._steps(11, batch_size=6, processes=1) == 1
    assert clip._steps(10, batch_size=6, processes=2) == 1


def test_several_processes_are_started_by_torchrun() -> None:
    command = clip._start(4)
    assert command[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    assert command[-2:] == ["--local-loss", "--gather-with-grad"]
    assert len(clip._start(1)) == 2


def test_missing_files_are_left_out_when_asked(train: Path, model: Path, calls: Path, tmp_path: Path) -> None:
    (tmp_path / "3.png").unlink()
    with pytest.raises(InputError, match=r"names 1 files that do not exist, such as .*/3\.png"):
        train_clip(train, tmp_path / "run", model=model, **SETTINGS)
    train_clip(train, tmp_path / "run", model=model, **SETTINGS, skip_missing=True)
    table = tmp_path / "run" / "without_missing.tsv"
    assert f"--train-data={table}" in arguments(calls)[0]
    lines = train.read_text().splitlines()
    assert table.read_text().splitlines() == [line for line in lines if "3.png" not in line]
    Image.new("RGB", (32, 32)).save(tmp_path / "3.png")
    with pytest.raises(InputError, match="skipped was 1, now 0"):
        train_clip(train, tmp_path / "run", model=model, **SETTINGS, skip_missing=True)


def test_a_folder_with_the_checkpoint_of_another_model(train: Path, model: Path, calls: Path, tmp_path: Path) -> None:
    latest = tmp_path / "run" / "checkpoints" / "epoch_latest.pt"
    latest.parent.mkdir(parents=True)
    torch.save({"epoch": 1, "state_dict": {"logit_scale": torch.ones(2)}}, latest)
    with pytest.raises(InputError, match=r"epoch_latest\.pt is not a checkpoint of rn-smallest: .* in the file\.$"):
        train_clip(train, tmp_path / "run", model=model, **SETTINGS)
    assert not calls.exists()


def test_two_trainings_never_share_a_folder(train: Path, model: Path, calls: Path, tmp_path: Path) -> None:
    with (
        alone(tmp_path / "run"),
        pytest.raises(InputError, match=r"another process trains in .*run: wait for it, or choose another folder"),
    ):
        train_clip(train, tmp_path / "run", model=model, **SETTINGS)
    train_clip(train, tmp_path / "run", model=model, **SETTINGS)
    assert len(arguments(calls)) == 1


def test_a_configuration_that_is_no_model(train: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "headless.json"
    wrong.write_text(
        json.dumps(CONFIG | {"vision_cfg": {"image_size": 32, "patch_size": 16, "width": 16, "layers": 1}})
    )
    with pytest.raises(
        InputError, match=r"open_clip cannot build headless \(.*num_heads.*\): correct its model config"
    ):
        train_clip(train, tmp_path / "run", model=wrong, **SETTINGS)


def test_missing_table(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Expected a training table, but .*none\.tsv does not exist; write"):
        train_clip(tmp_path / "none.tsv", tmp_path / "run", model=model, **SETTINGS)


# --- the real trainer ------------------------------------------------------------------------------------------------

WITHOUT_BATCH_NORM = CONFIG | {
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 16, "head_width": 8, "layers": 1}
}


def needs_trainer() -> None:
    for name in ("webdataset", "braceexpand"):
        pytest.importorskip(name, reason="open_clip's trainer needs open_clip_torch[training]")


def test_a_killed_run_goes_on_and_ends_with_the_same_number_of_steps(train: Path, model: Path, tmp_path: Path) -> None:
    needs_trainer()
    out = tmp_path / "run"
    settings = {**SETTINGS, "epochs": 12, "keep_checkpoints": 5}
    code = f"from circuitry.training.clip import *; train_clip({str(train)!r}, {str(out)!r}, "
    code += f"model={str(model)!r}, **{settings!r})"
    with subprocess.Popen([sys.executable, "-c", code]) as run:
        while not (out / "checkpoints" / "epoch_latest.pt").is_file():
            assert run.poll() is None
            time.sleep(0.01)
        started = psutil.Process(run.pid).children(recursive=True)
        assert len(started) == 1
        run.kill()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert alive == []  # the trainer ends with the process that started it, though nobody could tell it to
    assert not (out / "checkpoints" / "epoch_12.pt").exists()

    checkpoint = train_clip(train, out, model=model, **settings)
    assert "resuming checkpoint" in (out / "console.log").read_text()
    content = torch.load(checkpoint, weights_only=True)
    assert content["epoch"] == 12
    steps = {int(entry["step"]) for entry in content["optimizer"]["state"].values()}
    assert steps == {12 * 2}
    assert load_clip(model, checkpoint=checkpoint).encoder(torch.zeros(2, 3, 32, 32)).shape == (2, 16)
    assert checkpoints(out) == [(n, out / "checkpoints" / f"epoch_{n}.pt") for n in (5, 10, 12)]


def test_two_processes_take_the_steps_of_one(train: Path, tmp_path: Path) -> None:
    needs_trainer()
    model = tmp_path / "vit-smallest.json"
    model.write_text(json.dumps(WITHOUT_BATCH_NORM))
    lines = train.read_text().splitlines(keepends=True)
    train.write_text("".join(lines[:9]))  # eight images of one colour each, which no crop changes: one batch
    settings = {**SETTINGS, "batch_size": 8, "warmup": 0}
    states = []
    for processes in (1, 2):
        checkpoint = train_clip(train, tmp_path / f"{processes}", model=model, **settings, processes=processes)
        loaded = load_clip(model, checkpoint=checkpoint)
        assert loaded.encoder(torch.zeros(2, 3, 32, 32)).shape == (2, 16)
        states.append(loaded.model.state_dict())
    assert "[8/8 (100%)]" in (tmp_path / "2" / "console.log").read_text()
    for name, one in states[0].items():
        two = states[1][name]
        if name.endswith(
            "in_proj_bias"
        ):  # keys' biases change no softmax: a gradient of rounding errors, in Adam's hands
            one, two = (torch.cat([bias[:16], bias[32:]]) for bias in (one, two))
        torch.testing.assert_close(two, one, rtol=0, atol=1e-6, msg=name)
