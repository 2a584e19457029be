"""The same command gives the same weights on machines with other numbers of cores; see test_clip.py for CLIP."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from circuitry.training import SaeTraining, SupervisedTraining, TrainingWork, train_sae, train_supervised
from tests.support.clip_training import CONFIG

WORK = TrainingWork("cpu", workers=0, progress=False)


def train_both(data: Path, out: Path, threads: int = 1) -> list[bytes]:
    """Train a classifier and a sparse autoencoder, and return their weights."""
    supervised = SupervisedTraining(model=str(data / "rn-smallest.json"), epochs=1, batch_size=8, threads=threads)
    checkpoint = train_supervised(data / "train.tsv", out, replace(supervised, milestones=()), work=WORK)
    samples = torch.randn(3000, 48, generator=torch.Generator().manual_seed(0))
    sae = train_sae(samples, SaeTraining(steps=20, batch_size=1024, threads=threads), progress=False)
    return [checkpoint.read_bytes(), sae.w_enc.numpy().tobytes() + sae.w_dec.numpy().tobytes()]


def test_threads_of_the_machine_change_no_weight(tmp_path: Path) -> None:
    (tmp_path / "rn-smallest.json").write_text(json.dumps(CONFIG))
    rng = np.random.default_rng(0)
    files = [tmp_path / "data" / name / f"{i}.png" for name in ("cat", "dog") for i in range(4)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file)
    (tmp_path / "train.tsv").write_text("filepath\n" + "".join(f"{file}\n" for file in files))
    assert torch.get_num_threads() == 1
    one = train_both(tmp_path, tmp_path / "one")
    torch.set_num_threads(2)  # as on a machine of two cores
    assert train_both(tmp_path, tmp_path / "two") == one
    assert json.loads((tmp_path / "two" / "manifest.json").read_text())["config"]["threads"] == 1
    other = train_both(tmp_path, tmp_path / "other", threads=2)  # so that the test can fail
    assert other != one
