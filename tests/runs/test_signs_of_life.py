"""Steps that take minutes on a real network show a bar, unless progress is off."""

import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from circuitry import (
    Clip,
    DomainFolder,
    Encoder,
    Task,
    class_logit,
    load_clip,
    mean_baseline,
)
from circuitry.circuits import score_units
from circuitry.encoder import counted_sites
from circuitry.models import FolderBaseline
from circuitry.runs import Work, progress
from tests.support.noise_images import write_noise
from tests.support.towers import make_tower


@pytest.fixture
def shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], str]:
    """What bars wrote; they do at once, and not only after some seconds."""
    monkeypatch.setattr(progress, "SECONDS", 0)
    return lambda: capsys.readouterr().err


def task_of(on: bool) -> Task:
    encoder = Encoder.from_tower(make_tower("resnet"))
    images, others = torch.randn(2, 4, 3, 64, 64)
    metric = class_logit(F.normalize(torch.randn(3, 16), dim=-1), 1)
    work = Work(progress=on, memory_gib=1e-9)  # an image at a time
    return Task(
        encoder, images, metric, others=others, baseline="mean-position", work=work
    )


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("method", ["fisher", "iterative-fisher"])
def test_rankings_and_means_of_a_task(
    method: str, on: bool, shown: Callable[[], str]
) -> None:
    task = task_of(on)
    assert ("means: image" in shown()) == on
    score_units(task, method)
    n = 8 * (8 if method == "iterative-fisher" else 1)  # images, in as many rounds
    assert (f"of {n}, " in shown()) == on


@pytest.mark.parametrize("on", [True, False])
def test_means_and_roles_of_sites(on: bool, shown: Callable[[], str]) -> None:
    encoder = Encoder.from_tower(make_tower("resnet"))
    mean_baseline(encoder, [torch.randn(2, 3, 64, 64)] * 3, progress=on)
    assert ("means: image" in shown()) == on
    counted_sites(encoder, progress=on)
    assert ("which sites count: site" in shown()) == on


@pytest.mark.parametrize("on", [True, False])
def test_text_weights(
    on: bool,
    shown: Callable[[], str],
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("circuitry.models.clip.PROMPTS", 2)
    load_clip("rn-tiny").text_weights(
        ["cup", "clock"], ["a photo of a {}."] * 2, cache_dir=str(tmp_path), progress=on
    )
    assert ("text weights: text 2 of 4" in shown()) == on


@pytest.mark.parametrize("on", [True, False])
def test_means_of_a_folder(
    on: bool, shown: Callable[[], str], tmp_path: object, clip: Clip
) -> None:
    images = DomainFolder(write_noise(tmp_path, ["real"], ["axe", "cat"], 3))  # type: ignore[arg-type]
    FolderBaseline("mean-position", clip, images).of("axe", "real", 3, progress=on)
    told = shown()
    assert ("images of the baseline: image" in told) == on  # while they are read
    assert ("means: image" in told) == on  # while the tower runs


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now


def test_short_steps_in_a_row_are_not_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress.Bar, "_last_sign", 0.0)
    monkeypatch.setattr(progress.Bar, "_last_move", 0.0)

    def step(name: str) -> None:
        with progress.Bar(total=2, desc=name, unit="image") as bar:
            for _ in range(2):
                clock.now += 5
                bar.update()

    for name in ("first", "second", "third"):
        step(name)
    lines = [
        line.partition(",")[0]
        for line in capsys.readouterr().err.splitlines()
        if line.strip()
    ]
    assert lines == ["second: image 1 of 2", "third: image 2 of 2"]
    clock.now += 600  # a rest is no silence of work
    step("a moment later")
    assert "later" not in capsys.readouterr().err
