"""Driving open_clip's trainer: checks at the door, resuming, progress and failure, with a script in its place."""

import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from circuitry.models.open_clip_models import register_model
from circuitry.runs import InputError
from circuitry.training import ClipTraining, TrainingWork, clip_training, train_clip
from circuitry.training import open_clip_process as process
from tests.support.clip_training import CONFIG, WORK


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace open_clip's trainer by a script that notes its arguments here and pretends to train."""
    script, calls, state = (
        tmp_path / "trainer.py",
        tmp_path / "calls.jsonl",
        tmp_path / "state",
    )
    for name, value in (("finite", 1.0), ("diverged", float("inf"))):
        torch.save(
            {
                "state_dict": {
                    "weight": torch.tensor([1, value]),
                    "count": torch.tensor(3),
                }
            },
            f"{state}-{name}.pt",
        )
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
    return calls


def arguments(calls: Path) -> list[list[str]]:
    return [json.loads(line) for line in calls.read_text().splitlines()]


def test_arguments_of_the_trainer(
    train: Path, settings: ClipTraining, calls: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs" / "a"
    checkpoint = train_clip(train, out, replace(settings, crop_scale=0.6), WORK)
    assert checkpoint == out / "checkpoints" / "epoch_2.pt"
    (given,) = arguments(calls)
    words = "save-most-recent upright resume=latest dataset-type=csv name=a epochs=2 batch-size=4 accum-freq=1 lr=0.001"
    words += " warmup=1 wd=0.2 seed=0 workers=0 device=cpu precision=fp32 log-every-n-steps=1"
    paths = {
        f"--train-data={train}",
        f"--logs={tmp_path / 'runs'}",
        "--csv-separator=\t",
    }
    assert {f"--{word}" for word in words.split()} | paths <= set(given)
    assert given[-4:] == [
        "--model",
        str(out / "rn-smallest.json"),
        "--aug-cfg",
        "scale=(0.6,1.0)",
    ]
    assert json.loads((out / "rn-smallest.json").read_text()) == CONFIG
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["epoch_2.pt"]
    train_clip(
        train,
        tmp_path / "runs" / "stored",
        replace(settings, decoding="as-stored"),
        WORK,
    )
    assert "--upright" not in arguments(calls)[1]
    for word in (*given, *arguments(calls)[1]):
        assert not word.startswith(("--start", "--freeze-norms"))


def test_a_start_and_frozen_norms_reach_the_trainer(
    train: Path, settings: ClipTraining, calls: Path, tmp_path: Path
) -> None:
    model = open_clip.create_model(register_model(settings.model))
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    changed = replace(settings, start=tmp_path / "mine.pt", freeze_norms=True)
    train_clip(train, tmp_path / "run", changed, WORK)
    (given,) = arguments(calls)
    assert "--freeze-norms" in given
    assert f"--start={tmp_path / 'run' / 'start.pt'}" in given


def test_unfinished_runs_alone_are_resumed(
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


def test_what_diverges_is_an_error(
    train: Path, settings: ClipTraining, calls: Path, tmp_path: Path
) -> None:
    started = time.perf_counter()
    with pytest.raises(InputError, match=r"epoch 2.* nan.*lr.* 0\.001"):
        train_clip(train, tmp_path / "loss", replace(settings, seed=14), WORK)
    assert time.perf_counter() - started < 30  # the trainer was ended
    latest = tmp_path / "weights" / "checkpoints" / "epoch_latest.pt"
    with pytest.raises(InputError, match=r"epoch 2.* weight .*NaN.* 0\.001"):
        train_clip(train, tmp_path / "weights", replace(settings, seed=15), WORK)
    torch.save({"state_dict": {"logit_scale": torch.tensor(torch.nan)}}, latest)
    with pytest.raises(InputError, match="logit_scale"):
        train_clip(train, tmp_path / "weights", replace(settings, seed=15), WORK)
    assert len(arguments(calls)) == 2


def test_failure_shows_the_last_words(
    train: Path, settings: ClipTraining, calls: Path, tmp_path: Path
) -> None:
    log = re.escape(str(tmp_path / "run" / "console.log"))
    with pytest.raises(
        RuntimeError, match=rf" 3[;:] .*{log}.*\nloss went through the roof"
    ):
        train_clip(train, tmp_path / "run", replace(settings, seed=13), WORK)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"warmup": 4}, "warmup.* 4 "),
        ({"model": "rn-tinny"}, "'rn-tinny'"),
        ({"batch_size": 10}, r"train\.tsv.* 9 .* 10"),
    ],
)
def test_settings_that_do_not_fit_the_data(
    change: dict[str, Any],
    words: str,
    train: Path,
    settings: ClipTraining,
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match=words):
        train_clip(train, tmp_path / "run", replace(settings, **change), WORK)
    assert not (tmp_path / "run").exists()


def test_images_are_counted_as_the_trainer_counts_them(settings: ClipTraining) -> None:
    # open_clip pads 11 images to two shares of 6, of which each process takes whole batches of 3.
    six = replace(settings, batch_size=6, warmup=0)
    assert clip_training._steps(11, replace(six, processes=2)) == 2
    assert clip_training._steps(11, six) == 1
    assert clip_training._steps(10, replace(six, processes=2)) == 1
    # In parts of one image, of which three are a step: four images of a process are four parts, one of them left over.
    assert clip_training._steps(8, replace(six, processes=2, accumulation=3)) == 1


def test_checkpoints_of_another_model(
    train: Path, settings: ClipTraining, calls: Path, tmp_path: Path
) -> None:
    latest = tmp_path / "run" / "checkpoints" / "epoch_latest.pt"
    latest.parent.mkdir(parents=True)
    torch.save({"epoch": 1, "state_dict": {"logit_scale": torch.ones(2)}}, latest)
    with pytest.raises(InputError, match=r"epoch_latest\.pt.*rn-smallest"):
        train_clip(train, tmp_path / "run", settings, WORK)
    assert not calls.exists()
