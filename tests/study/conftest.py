"""The quickstart's small run, which programs of the study are tried on, and a trainer that trains nothing."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from circuitry.models.shipped_weights import shipped_file
from circuitry.training import ClipTraining, TrainingWork, clip_preset
from experiments.study import real_command, real_models
from tests.commands.conftest import quickstart as quickstart


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[pd.DataFrame, ClipTraining]]:
    """What the trainer was asked for. It leaves the shipped weights as its checkpoints of epochs 2 and 3."""
    asked: list[tuple[pd.DataFrame, ClipTraining]] = []

    def train(
        table: Path, out: Path, settings: ClipTraining, work: TrainingWork
    ) -> Path:
        asked.append((pd.read_csv(table, sep="\t"), settings))
        folder = out / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        for epoch in (2, settings.epochs):
            path = folder / f"epoch_{epoch}.safetensors"
            path.unlink(missing_ok=True)
            path.symlink_to(shipped_file("rn-tiny"))
        return path

    monkeypatch.setattr(real_models, "train_clip", train)
    monkeypatch.setattr(
        real_command, "clip_preset", lambda name: replace(clip_preset(name), epochs=3)
    )
    return asked
