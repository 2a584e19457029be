"""Real runs of open_clip's trainer: killed, diverging, in several processes, the study's way."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pandas as pd
import psutil  # type: ignore[import-untyped]
import pytest
import torch
import torch.nn.functional as F

from circuitry.data import load_image
from circuitry.models import load_clip
from circuitry.runs import InputError, preset
from circuitry.training import ClipTraining, checkpoints, train_clip
from circuitry.training.run_folder import kept_checkpoints
from tests.support.clip_training import CONFIG, WORK, write_images, written

WITHOUT_BATCH_NORM = CONFIG | {
    "vision_cfg": {
        "image_size": 32,
        "patch_size": 16,
        "width": 16,
        "head_width": 8,
        "layers": 1,
    }
}


def weights(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ClipTraining, Path]:
    folder = tmp_path_factory.mktemp("one")
    settings = replace(
        written(WITHOUT_BATCH_NORM, folder / "vit-smallest.json"),
        epochs=1,
        batch_size=8,
        warmup=0,
    )
    table = write_images(folder, 8)  # of one colour each, which no crop changes
    return table, settings, train_clip(table, folder / "run", settings, WORK)


def test_a_killed_run_goes_on_for_the_same_number_of_steps(
    train: Path, settings: ClipTraining, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings = replace(
        settings, model=str(settings.model), epochs=6, keep_checkpoints=4
    )
    code = f"from circuitry.training import *\ntrain_clip({str(train)!r}, {str(out)!r}, {settings!r}, {WORK!r})"
    with subprocess.Popen([sys.executable, "-c", code]) as run:
        while not (out / "checkpoints" / "epoch_latest.pt").is_file():
            assert run.poll() is None
            time.sleep(0.01)
        started = psutil.Process(run.pid).children(recursive=True)
        assert len(started) == 1
        run.kill()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert (
        alive == []
    )  # the trainer ends with the process that started it, though nobody could tell it to
    assert not (out / "checkpoints" / "epoch_6.pt").exists()
    assert "Start epoch 0" in (out / "console.log").read_text()

    checkpoint = train_clip(train, out, settings, WORK)
    assert "resuming checkpoint" in (out / "console.log").read_text()
    content = torch.load(checkpoint, weights_only=True)
    assert content["epoch"] == 6
    assert "optimizer" not in content  # a finished training holds weights alone
    console = (out / "console.log").read_text()
    assert (
        console.count("Start epoch 5") == 1
    )  # the last of six, in steps of two batches
    assert "Start epoch 6" not in console
    assert load_clip(settings.model, checkpoint=checkpoint).encoder(
        torch.zeros(2, 3, 32, 32)
    ).shape == (2, 16)
    assert checkpoints(out) == [
        (n, out / "checkpoints" / f"epoch_{n}.pt") for n in (0, 4, 6)
    ]
    assert kept_checkpoints(out, [0])[0] == out / "checkpoints" / "epoch_0.pt"
    with pytest.raises(InputError, match=r"epoch '3'.* 0, 4, 6"):
        kept_checkpoints(out, [3])


def test_two_processes_take_the_steps_of_one(
    one: tuple[Path, ClipTraining, Path], tmp_path: Path
) -> None:
    train, settings, by_one = one
    found = train_clip(train, tmp_path / "two", replace(settings, processes=2), WORK)
    assert load_clip(settings.model, checkpoint=found).encoder(
        torch.zeros(2, 3, 32, 32)
    ).shape == (2, 16)
    assert "[8/8 (100%)]" in (tmp_path / "two" / "console.log").read_text()
    state = weights(found)
    for key, expected in weights(by_one).items():
        given = state[key]
        if key.endswith(
            "in_proj_bias"
        ):  # keys' biases change no softmax: their gradients are rounding errors
            expected, given = (
                torch.cat([bias[:16], bias[32:]]) for bias in (expected, given)
            )
        torch.testing.assert_close(given, expected, rtol=0, atol=1e-6, msg=key)


SHARED = ("precision", "grad_checkpointing", "keep_checkpoints", "decoding")


def test_the_studys_way_of_training(train: Path, tmp_path: Path) -> None:
    settings = written(WITHOUT_BATCH_NORM, tmp_path / "vit-smallest.json")
    shared = {
        name: value
        for name, value in preset("icml2025", "train").items()
        if name in SHARED
    }
    as_the_study = replace(settings, **shared, accumulation=2, warmup=0)
    validation = tmp_path / "validation.tsv"
    validation.write_text("".join(train.read_text().splitlines(keepends=True)[:6]))
    out = tmp_path / "run"
    train_clip(train, out, as_the_study, WORK, validation)
    given = (out / "params.txt").read_text().splitlines()
    assert {
        "accum_freq: 2",
        "batch_size: 2",
        "grad_checkpointing: True",
        "precision: amp",
    } <= set(given)
    kept = checkpoints(out)
    assert [epoch for epoch, _ in kept] == [0, 1, 2]
    held = pd.read_csv(out / "validation.csv")
    assert held["epoch"].tolist() == [1, 2]
    assert (held["num_samples"] == 5).all()
    # The loss by hand: five images and texts against each other, in one batch of two, one of two, one of one.
    loaded = load_clip(settings.model, checkpoint=kept[-1][1])
    lines = pd.read_csv(validation, sep="\t")
    images = torch.stack(
        [loaded.preprocess(load_image(file)) for file in lines["filepath"]]
    )
    texts = open_clip.get_tokenizer("vit-smallest")(lines["title"].tolist())
    losses = []
    for start in (0, 2, 4):
        part = slice(start, start + 2)
        with torch.no_grad():
            image, text, scale = loaded.model(images[part], texts[part])
            logits = scale * image @ text.T
        answers = torch.arange(len(logits))
        both = F.cross_entropy(logits, answers) + F.cross_entropy(logits.T, answers)
        losses.append(float(both) / 2 * len(logits))
    assert held["loss"].iloc[-1] == pytest.approx(
        sum(losses) / 5, rel=2e-2
    )  # measured in half precision
    with pytest.raises(InputError, match=r"validation: .* -> None"):
        train_clip(train, out, as_the_study, WORK)


def test_the_machines_threads_and_keeping_the_untrained_model_change_no_weight(
    one: tuple[Path, ClipTraining, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train, settings, by_one = one
    run = by_one.parents[1]
    assert [epoch for epoch, _ in checkpoints(run)] == [1]
    assert json.loads((run / "manifest.json").read_text())["config"]["threads"] == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    two = weights(
        train_clip(train, tmp_path / "two", replace(settings, keep_checkpoints=1), WORK)
    )
    assert all(
        torch.equal(tensor, two[name]) for name, tensor in weights(by_one).items()
    )
    torch.manual_seed(0)
    untrained = open_clip.create_model("vit-smallest").state_dict()
    kept = weights(tmp_path / "two" / "checkpoints" / "epoch_0.pt")
    assert kept.keys() == untrained.keys()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in untrained.items())
