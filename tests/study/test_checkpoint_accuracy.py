"""Runs of a study are evaluated once per checkpoint, and read from disk."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from circuitry import Encoder, load_clip
from circuitry.data import DomainFolder, ImageRecord
from circuitry.encoder import Stage
from circuitry.runs import InputError, versions
from circuitry.training import (
    clip_preset,
    tidy_accuracy,
    with_captions,
    write_captioned_table,
)
from circuitry.training.accuracy import read_predictions
from circuitry.training.run_folder import record_run
from experiments.drawn import DrawingSettings, write_toy
from experiments.study import checkpoint_accuracy as study
from experiments.study.checkpoint_accuracy import (
    EvaluationSet,
    extract_accuracies,
    imagenet_validation,
)
from experiments.study.mixture_files import write_mixture
from experiments.study.selection import MixtureSettings
from experiments.study.study_run import StudyRun, find_runs, run_of
from experiments.study.supervised import SupervisedTraining
from experiments.study.supervised_model import (
    LabelTable,
    SupervisedModel,
    build_classifier,
    write_classifier,
)
from tests.support.tiny_clip import Tiny, saved
from tests.support.work import QUIET

TEMPLATES = {"one": ["a {}."], "own style": "own-style"}


@pytest.fixture(scope="module")
def tests(tmp_path_factory: pytest.TempPathFactory) -> EvaluationSet:
    drawn = DrawingSettings(0, 2, classes=("car", "key"), styles=("quickdraw", "real"))
    root = write_toy(tmp_path_factory.mktemp("toy"), drawn, workers=1, progress=False)
    return EvaluationSet(DomainFolder(root), ("car", "key"), templates=TEMPLATES)


@pytest.fixture
def run(tiny: Tiny, tmp_path: Path) -> StudyRun:
    """A run with two checkpoints, the first before training, the second with another projection of the image."""
    folder = tmp_path / "runs" / "cg-high-seed0"
    (folder / "checkpoints").mkdir(parents=True)
    other = {
        key: torch.randn_like(value) if key == "text_projection" else value
        for key, value in tiny.state.items()
    }
    for epoch, state in ((0, tiny.state), (2, other)):
        saved({"state_dict": state}, folder / "checkpoints" / f"epoch_{epoch}.pt")
    return StudyRun(folder, str(tiny.config), "cg-high", "quickdraw", ("key",), seed=3)


def test_every_checkpoint_is_evaluated_once(
    run: StudyRun, tests: EvaluationSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = extract_accuracies([run], tests, work=QUIET)
    about: dict[str, Any] = {
        "trained": "CLIP",
        "base": "none",
        "precision": "fp32",
        "run": "cg-high-seed0",
        "seed": 3,
    }
    about |= {"held_out_classes": "key", "setting": "cg-high"}
    assert all(set(table[column]) == {value} for column, value in about.items())
    assert set(table["epoch"]) == {0, 2}  # the untrained model, too
    assert set(table["classifier"]) == {"one", "own style"}
    assert set(table["group"]) == {"all", "seen", "held-out", "key"}
    clip = load_clip(run.model, checkpoint=run.folder / "checkpoints" / "epoch_2.pt")
    records = tests.images.select("key", "quickdraw", None)
    images = torch.stack(
        [clip.preprocess(Image.open(record.path).convert("RGB")) for record in records]
    )

    def answers(templates: list[str]) -> list[str]:
        logits = clip.encoder(images) @ clip.text_weights(["car", "key"], templates).T
        return [("car", "key")[i] for i in logits.argmax(dim=1)]

    shown = "epoch == 2 and classifier == 'one' and domain == 'quickdraw' and measure == 'top-1' and group == 'key'"
    right = np.mean([answer == "key" for answer in answers(["a {}."])])
    assert table.query(shown)["value"].tolist() == pytest.approx([right])
    files = sorted((run.folder / "evaluation").glob("*/epoch_2-*.safetensors"))
    assert [file.stem for file in files] == ["epoch_2-quickdraw", "epoch_2-real"]
    stored = pd.concat([read_predictions(file) for file in files], ignore_index=True)
    own = stored[stored["classifier"] == "own style"].set_index("relative")["top_1"]
    styled = answers(["a quickdraw of a {}.", "a quickdraw of the {}."])
    assert own[[record.relative for record in records]].tolist() == styled
    again, key = (
        tidy_accuracy(stored, ["key"]),
        ["classifier", "domain", "group", "measure"],
    )
    found = table.loc[table["epoch"] == 2, again.columns].sort_values(
        key, ignore_index=True
    )
    pd.testing.assert_frame_equal(
        found, again.sort_values(key, ignore_index=True), check_dtype=False
    )

    def refuse(*args: object, **settings: object) -> None:
        raise AssertionError("it was loaded again")

    monkeypatch.setattr(study, "load_clip", refuse)
    pd.testing.assert_frame_equal(extract_accuracies([run], tests, work=QUIET), table)
    other = replace(tests, templates={"two": ["the {}."]})
    with pytest.raises(
        AssertionError, match="again"
    ):  # other templates are another question
        extract_accuracies([run], other, work=QUIET)


def test_held_out_classes_are_found_in_any_spelling(
    run: StudyRun, tests: EvaluationSet
) -> None:
    both = [
        replace(run, held_out=(name,)) for name in ("Key", "car")
    ]  # of a run that held nothing out
    table = extract_accuracies(both, tests, epochs=[0], work=QUIET)
    assert table.groupby("held_out_classes").size().nunique() == 1
    assert (set(table["held_out_classes"]), set(table["run"])) == (
        {"key", "car"},
        {run.folder.name},
    )
    none_here = replace(tests, style="sketch")
    apart = extract_accuracies(
        [replace(run, held_out=("kay",))], none_here, epochs=[0], work=QUIET
    )
    assert set(apart["group"]) == {"all"}
    asked = [
        path.read_text() for path in (run.folder / "evaluation").glob("*/manifest.json")
    ]
    assert (
        sum("a sketch of a {}." in text for text in asked) == 1
    )  # the one style of all prompts
    with pytest.raises(InputError, match="twice"):
        extract_accuracies([run, run], tests, work=QUIET)


def test_the_supervised_head_picks_the_outputs_of_the_classes() -> None:
    head = nn.Linear(2, 3)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [2, 2]]))
        head.bias.copy_(torch.tensor([10.0, 20, 30]))
    labels = LabelTable(
        ("n1", "ice cream", "axe"), {"n1": 0, "ice cream": 1, "axe": 2, "hatchet": 2}
    )
    encoder = Encoder(nn.Linear(1, 1), [Stage("same", nn.Identity(), 1)], (1, 1))
    model = SupervisedModel(encoder, head, labels, lambda image: torch.empty(0))
    found = model.head_for(["hatchet", "ice_cream"])(torch.tensor([[3.0, -1.0]]))
    assert found.tolist() == [[36.0, 20.0]]  # the ReLU comes before the head
    with pytest.raises(InputError, match="'dog'"):
        model.head_for(["dog"])


def test_imagenet_is_called_by_its_class_names(tmp_path: Path) -> None:
    for i in range(1000):
        (tmp_path / "val" / f"n{i:08d}").mkdir(parents=True)
        (tmp_path / "val" / f"n{i:08d}" / "a.png").touch()
    tests = imagenet_validation(tmp_path / "val")
    assert (tests.images.domains, tests.style, len(tests.names)) == (
        ("val",),
        "real",
        1000,
    )
    assert tests.names[0] == open_clip.IMAGENET_CLASSNAMES[0] == "tench"
    assert (
        tests.names[27],
        imagenet_validation(tmp_path / "val", "study").names[27],
    ) == ("newt", "eft")


CLIP = replace(clip_preset("rn-tiny"), seed=4, precision="amp", threads=2)
IMAGES = [
    ImageRecord(Path(f"/x/real/key/{i}.png"), f"real/key/{i}.png", "real", "key")
    for i in range(2)
]


def recorded(
    folder: Path, settings: MixtureSettings, training: Any, **told: str
) -> StudyRun | None:
    table = folder / "x.tsv"
    write_mixture(
        IMAGES,
        lambda record: "a cat",
        table,
        settings,
        about=told,
        missing_files="unchecked",
    )
    record_run(folder / "run", table, training)
    return run_of(folder / "run")


def test_a_run_is_read_from_its_mixture(tmp_path: Path) -> None:
    half = MixtureSettings("class-interpolation", "quickdraw", ("key",), fraction=0.5)
    found = recorded(
        tmp_path,
        half,
        CLIP,
        captions="aligned (stream)",
        sketches="imagenet-sketch-0.5",
    )
    about: dict[str, Any] = {
        "sketches": "imagenet-sketch-0.5",
        "captions": "aligned (stream)",
        "precision": "amp",
    }
    told = ("rn-tiny", "class-interpolation-0.5", "quickdraw", ("key",), 4)
    assert found == StudyRun(
        tmp_path / "run", *told, **about, threads=2, commit=versions()["commit"]
    )
    assert find_runs(tmp_path) == [found]


def test_supervised_models_and_photographs_alone(tmp_path: Path) -> None:
    found = recorded(
        tmp_path,
        MixtureSettings("natural-only", "quickdraw", ("key",)),
        SupervisedTraining(model="RN50"),
        base="cc12m",
    )
    assert found is not None
    assert (found.setting, found.test_domain, found.held_out, found.base) == (
        "natural-only",
        None,
        ("key",),
        "cc12m",
    )
    assert (found.supervised, found.model, found.sketches, found.captions) == (
        True,
        "RN50",
        "none",
        "standard",
    )


def test_runs_on_other_tables_are_no_models_of_the_study(tmp_path: Path) -> None:
    images = with_captions(IMAGES, lambda record: "a cat")
    record_run(
        tmp_path / "run",
        write_captioned_table(images, tmp_path / "x.tsv", missing_files="unchecked"),
        CLIP,
    )
    record_run(tmp_path / "by_hand", tmp_path / "other.tsv", CLIP)
    assert run_of(tmp_path / "run") is run_of(tmp_path / "by_hand") is None
    with pytest.raises(InputError, match=r"run\.json"):
        find_runs(tmp_path)


def test_a_supervised_run_is_evaluated_by_its_own_head(
    tests: EvaluationSet, tiny: Tiny, tmp_path: Path
) -> None:
    name, labels = (
        tiny.load().name,
        LabelTable(("x", "car", "key"), {"car": 1, "key": 2}),
    )
    path = tmp_path / "run" / "checkpoints" / "epoch_1.safetensors"
    write_classifier(path, build_classifier(name, 3, 1.0)[0], name, labels)
    run = StudyRun(tmp_path / "run", name, "cg-low", "quickdraw", supervised=True)
    table = extract_accuracies([run], tests, work=QUIET)
    assert set(table["classifier"]) == set(table["trained"]) == {"supervised"}
