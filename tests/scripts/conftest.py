"""What several tests of scripts begin with: a finished quickstart, and a comparison of its circuits."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from circuitry.data.toy.write import DrawingSettings, write_toy
from circuitry.training.clip import train_clip
from circuitry.training.settings import ClipTraining
from tests.support.scripts import CLASSES, IN_PLACE, STYLES, script


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished quickstart on four classes in three styles, with a model trained for three steps."""
    out = tmp_path_factory.mktemp("quickstart")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("circuitry.models.clip.user_cache_path", lambda name: out / "cache")
        module = script("quickstart")
        patch.setattr(module, "DrawingSettings", partial(DrawingSettings, classes=CLASSES, styles=STYLES))
        patch.setattr(module, "write_toy", partial(write_toy, workers=1, progress=False))

        def short_training(table: Path, out: Path, settings: ClipTraining) -> Path:
            return train_clip(table, out, replace(settings, batch_size=16, warmup=0), IN_PLACE)

        patch.setattr(module, "train_clip", short_training)
        module.main(
            module.Config(
                out=out / "run",
                results=out / "results",
                held_out=("key",),
                n_train=5,
                n_test=4,
                n_circuit=2,
                n_causal=1,
                n_causal_others=2,
                epochs=1,
            )
        )
        yield out


@pytest.fixture(scope="session")
def subject_of_the_quickstart(quickstart: Path) -> dict[str, object]:
    run = quickstart / "run"
    checkpoint = run / "clip" / "checkpoints" / "epoch_1.pt"
    few = {"classes": ("fish", "star"), "domains": ("clipart", "real"), "n_images": 1, "n_others": 1}
    return {"checkpoint": checkpoint, "data": run / "toy", "circuits": run / "circuits", **few}


@pytest.fixture(scope="session")
def model_of_the_quickstart(quickstart: Path) -> dict[str, object]:
    run = quickstart / "run"
    return {"checkpoint": run / "clip" / "checkpoints" / "epoch_1.pt", "data": run / "toy"}
