"""What several tests of scripts begin with: a finished quickstart, and a comparison of its circuits."""

import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from circuitry import DomainFolder, load_clip
from circuitry.analysis import quickstart_steps
from circuitry.circuits import midpoint_rule
from circuitry.questions import ExtractionSettings
from circuitry.runs import file_lock
from circuitry.training import ClipTraining, train_clip
from experiments.drawn import DrawingSettings, tiny_clips, write_toy
from experiments.drawn.tiny_clips import TinyClip
from tests.support.clip_training import WORK
from tests.support.scripts import CLASSES, STYLES, command_module

GIVEN_RULE = midpoint_rule(2)
"""An extraction that is given no rule chooses one, which takes many runs."""


def short_training(table: Path, out: Path, settings: ClipTraining) -> Path:
    return train_clip(table, out, replace(settings, batch_size=16, warmup=0), WORK)


def run_quickstart(
    out: Path,
    classes: tuple[str, ...],
    styles: tuple[str, ...],
    images: Path,
    *,
    checkpoint: Path | None = None,
    **config: object,
) -> None:
    """Run the quickstart on some classes and styles of a folder of drawn images, with other weights where given."""
    with pytest.MonkeyPatch.context() as patch:
        module = command_module("quickstart")
        patch.setattr(quickstart_steps, "drawn_images", partial(DomainFolder, images))
        patch.setattr(quickstart_steps, "DRAWN_IMAGES", images)
        patch.setattr(
            quickstart_steps, "load_clip", partial(load_clip, checkpoint=checkpoint)
        )
        patch.setattr(
            quickstart_steps,
            "ExtractionSettings",
            partial(ExtractionSettings, rule=GIVEN_RULE),
        )
        # After three steps of training a model knows nothing.
        patch.setattr(quickstart_steps, "KNOWN", 0.0)
        few = {
            "n_unseen": 1,
            "n_others": 2,
            "processes": 1,
            "classes": classes,
            "domains": styles,
        }
        module.main(
            module.Config(out=out / "run", results=out / "results", **few, **config)
        )


def train_few_steps(out: Path) -> Path:
    """Draw few images into ``toy`` and train a model on them for three steps, both in ``out``; return its weights."""
    config = TinyClip(
        out,
        held_out=("key",),
        drawing=DrawingSettings(5, 4, classes=CLASSES, styles=STYLES),
        epochs=1,
    )
    images = write_toy(out / "toy", config.drawing, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_clips, "train_clip", short_training)
        return tiny_clips.train(config, images)


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished quickstart of a model that was trained for three steps; each worker of pytest has its copy."""
    temporary = tmp_path_factory.getbasetemp()
    made = (
        (temporary.parent if "PYTEST_XDIST_WORKER" in os.environ else temporary)
        / "made-once"
        / "quickstart"
    )
    made.parent.mkdir(exist_ok=True)
    with file_lock(made.parent, "quickstart"):
        if not made.exists():
            begun = made.with_name("begun")
            weights = train_few_steps(begun / "run")
            images = begun / "run" / "toy"
            run_quickstart(
                begun, CLASSES, STYLES, images, checkpoint=weights, n_images=2
            )
            begun.rename(made)
    return Path(
        shutil.copytree(made, tmp_path_factory.mktemp("quickstart"), dirs_exist_ok=True)
    )


@pytest.fixture(scope="session")
def subject_of_the_quickstart(quickstart: Path) -> dict[str, object]:
    run = quickstart / "run"
    checkpoint = run / "rn-tiny.safetensors"
    few = {
        "classes": ("fish", "star"),
        "domains": ("clipart", "real"),
        "n_images": 1,
        "n_others": 1,
    }
    return {
        "checkpoint": checkpoint,
        "data": run / "toy",
        "circuits": run / "circuits",
        **few,
    }


@pytest.fixture(scope="session")
def model_of_the_quickstart(quickstart: Path) -> dict[str, object]:
    run = quickstart / "run"
    return {"checkpoint": run / "rn-tiny.safetensors", "data": run / "toy"}
