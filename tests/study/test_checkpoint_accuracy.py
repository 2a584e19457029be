"""Runs of a study are evaluated once per checkpoint; the toy's models are trained on what they should be."""

import csv
from dataclasses import asdict, replace
from functools import partial
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
from circuitry.data import DomainFolder
from circuitry.data.drawn import DrawingSettings, write_toy
from circuitry.encoder import Stage
from circuitry.runs import InputError, Work
from circuitry.training import ClipTraining, TrainingWork, read_predictions, record_run, tidy_accuracy
from experiments.study import checkpoint_accuracy as study
from experiments.study import study_run
from experiments.study.checkpoint_accuracy import EvaluationSet, extract_accuracies, imagenet_validation
from experiments.study.selection import Setting
from experiments.study.study_run import (
    STANDARD,
    TOY_TRAINING,
    StudyRun,
    ToySettings,
    find_runs,
    held_out_folds,
    toy_images,
    toy_run,
)
from experiments.study.supervised_model import LabelTable, SupervisedModel, TowerClassifier, write_classifier
from tests.support.tiny_clip import Tiny, saved

QUIET = Work(progress=False)
TEMPLATES = {"one": ["a {}."], "own style": "own-style"}


@pytest.fixture(autouse=True)
def few_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "template_sets", lambda: TEMPLATES)


@pytest.fixture(scope="module")
def tests(tmp_path_factory: pytest.TempPathFactory) -> EvaluationSet:
    drawn = DrawingSettings(0, 2, classes=("car", "key"), styles=("quickdraw", "real"))
    root = write_toy(tmp_path_factory.mktemp("toy"), drawn, workers=1, progress=False)
    return EvaluationSet.of(DomainFolder(root))


@pytest.fixture
def run(tiny: Tiny, tmp_path: Path) -> StudyRun:
    """A run with two checkpoints, the first before training, the second with another projection of the image."""
    folder = tmp_path / "runs" / "cg-high-seed0"
    (folder / "checkpoints").mkdir(parents=True)
    other = {key: torch.randn_like(value) if key == "text_projection" else value for key, value in tiny.state.items()}
    for epoch, state in ((0, tiny.state), (2, other)):
        saved({"state_dict": state}, folder / "checkpoints" / f"epoch_{epoch}.pt")
    return StudyRun(folder, str(tiny.config), "cg-high", "quickdraw", ("key",), seed=3)


def test_every_checkpoint_is_evaluated_once(
    run: StudyRun, tests: EvaluationSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = extract_accuracies([run], tests, work=QUIET)
    assert set(table["epoch"]) == {0, 2}  # the untrained model, too
    assert set(table["run"]) == {"cg-high-seed0"}
    assert set(table["seed"]) == {3}
    assert set(table["classifier"]) == {"one", "own style"}
    about = {"trained": "CLIP", "base": "none", "precision": "fp32", "held_out_classes": "key", "setting": "cg-high"}
    assert all(set(table[column]) == {value} for column, value in about.items())
    assert set(table["part"]) == {"all", "seen", "held-out", "key"}
    clip = load_clip(run.model, checkpoint=run.folder / "checkpoints" / "epoch_2.pt")
    weights = clip.text_weights(["car", "key"], TEMPLATES["one"])
    right = []
    for record in tests.images.select("key", "quickdraw", None):
        image = clip.preprocess(Image.open(record.path).convert("RGB"))[None]
        right.append(int((clip.encoder(image) @ weights.T).argmax()) == 1)
    chosen = table.query("epoch == 2 and classifier == 'one' and domain == 'quickdraw' and measure == 'top-1'")
    assert chosen.set_index("part")["value"]["key"] == pytest.approx(np.mean(right))
    weights = clip.text_weights(["car", "key"], ["a quickdraw of a {}.", "a quickdraw of the {}."])
    image = clip.preprocess(Image.open(record.path).convert("RGB"))[None]
    ((path,),) = (list((run.folder / "evaluation").glob("*/epoch_2-quickdraw.safetensors")),)
    stored = read_predictions(path).query("classifier == 'own style'").set_index("relative")
    nearest = ["car", "key"][int((clip.encoder(image) @ weights.T).argmax())]
    assert stored["top_1"][record.relative] == nearest

    def refuse(*args: object, **settings: object) -> None:
        raise AssertionError("it was loaded again")

    monkeypatch.setattr(study, "load_clip", refuse)
    pd.testing.assert_frame_equal(extract_accuracies([run], tests, work=QUIET), table)
    monkeypatch.setattr(study, "template_sets", lambda: {"two": ["the {}."]})
    with pytest.raises(AssertionError, match="again"):  # other templates are another question
        extract_accuracies([run], tests, work=QUIET)


def test_accuracies_follow_from_the_stored_predictions(run: StudyRun, tests: EvaluationSet) -> None:
    table = extract_accuracies([run], tests, epochs=[2], work=QUIET)
    files = sorted((run.folder / "evaluation").glob("*/epoch_2-*.safetensors"))
    assert [file.stem for file in files] == ["epoch_2-quickdraw", "epoch_2-real"]
    again = tidy_accuracy(pd.concat([read_predictions(file) for file in files], ignore_index=True), ["key"])
    key = ["classifier", "domain", "part", "measure"]
    found = table[again.columns].sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(found, again.sort_values(key, ignore_index=True), check_dtype=False)


def test_held_out_classes_are_found_in_any_spelling(run: StudyRun, tests: EvaluationSet) -> None:
    spelt = extract_accuracies([replace(run, held_out=("Key",))], tests, epochs=[0], work=QUIET)
    assert set(spelt["held_out_classes"]) == {"key"}
    both = [replace(run, held_out=(name,)) for name in ("key", "car")]  # of a run that held nothing out
    table = extract_accuracies(both, tests, epochs=[0], work=QUIET)
    assert table.groupby("held_out_classes").size().nunique() == 1
    assert (set(table["held_out_classes"]), set(table["run"])) == ({"key", "car"}, {run.folder.name})
    none_here = EvaluationSet(tests.images, tests.names, {"real": "sketch"}, holds_out=False)
    apart = extract_accuracies([replace(run, held_out=("kay",))], none_here, epochs=[0], work=QUIET)
    assert set(apart["part"]) == {"all"}
    assert none_here.all_styles == {"quickdraw": "quickdraw", "real": "sketch"}


def test_a_supervised_run_is_evaluated_by_its_own_head(tests: EvaluationSet, tiny: Tiny, tmp_path: Path) -> None:
    name = tiny.load().name
    tower: Any = open_clip.create_model(name).visual
    labels = LabelTable(("x", "car", "key"), {"car": 1, "key": 2})
    path = tmp_path / "run" / "checkpoints" / "epoch_1.safetensors"
    write_classifier(path, TowerClassifier(tower, nn.Linear(16, 3)), name, labels, 1)
    run = StudyRun(tmp_path / "run", name, "cg-low", "quickdraw", supervised=True)
    table = extract_accuracies([run], tests, work=QUIET)
    assert set(table["classifier"]) == set(table["trained"]) == {"supervised"}
    assert table["value"].between(0, 1).all()


def test_the_supervised_head_picks_the_outputs_of_the_classes() -> None:
    head = nn.Linear(2, 3)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [2, 2]]))
        head.bias.copy_(torch.tensor([10.0, 20, 30]))
    labels = LabelTable(("n1", "ice cream", "axe"), {"n1": 0, "ice cream": 1, "axe": 2, "hatchet": 2})
    encoder = Encoder(nn.Linear(1, 1), [Stage("same", nn.Identity(), 1)], (1, 1))
    model = SupervisedModel("none", encoder, head, labels, lambda image: torch.empty(0))
    found = model.head_for(["hatchet", "ice_cream"])(torch.tensor([[3.0, -1.0]]))
    assert found.tolist() == [[36.0, 20.0]]  # the ReLU comes before the head
    with pytest.raises(InputError, match="'dog'"):
        model.head_for(["dog"])


def test_imagenet_is_called_by_its_class_names(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(folder(tmp_path / "few" / "val" / "n01440764") / "a.png")
    with pytest.raises(InputError, match="1000"):
        imagenet_validation(tmp_path / "few" / "val")
    for i in range(1000):
        (folder(tmp_path / "all" / "val" / f"n{i:08d}") / "a.png").write_bytes(b"")
    tests = imagenet_validation(tmp_path / "all" / "val")
    assert tests.images.domains == ("val",)
    assert tests.names[0] == open_clip.IMAGENET_CLASSNAMES[0] == "tench"
    assert (tests.names[27], imagenet_validation(tmp_path / "all" / "val", "study").names[27]) == ("newt", "eft")
    assert (tests.all_styles, tests.holds_out) == ({"val": "real"}, False)
    assert len(tests.names) == 1000
    (folder(tmp_path / "all" / "other" / "x") / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="found 1001"):
        imagenet_validation(tmp_path / "all" / "val")


def folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


# --- the toy ---------------------------------------------------------------------------------------------------------


SMALL = ToySettings(
    n_train=2,
    n_test=1,
    classes=("car", "fish", "key"),
    styles=("clipart", "quickdraw", "real"),
    held_out=("key",),
    training=replace(TOY_TRAINING, epochs=1),
)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the trainer was asked for; it leaves an empty archive as its checkpoint."""
    asked: list[dict[str, Any]] = []

    def train(table: Path, out: Path, settings: ClipTraining, work: TrainingWork) -> Path:
        with open(table, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        asked.append({"rows": rows, **asdict(settings)})
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
        record_run(out, table, settings)
        return saved({}, out / "checkpoints" / "epoch_1.pt")

    monkeypatch.setattr(study_run, "train_clip", train)
    monkeypatch.setattr(study_run, "write_toy", partial(write_toy, workers=1, progress=False))
    return asked


def test_the_toy_is_trained_on_its_mixture(tmp_path: Path, trained: list[dict[str, Any]]) -> None:
    run = toy_run(tmp_path, "cg-low", "quickdraw", 5, SMALL)
    (asked,) = trained
    shown = {tuple(Path(row["filepath"]).parts[-3:-1]) for row in asked["rows"]}
    assert shown == {("real", c) for c in ("car", "fish", "key")} | {("quickdraw", c) for c in ("car", "fish")}
    assert len(asked["rows"]) == 2 * 5
    assert (asked["seed"], asked["epochs"], asked["model"]) == (5, 1, "rn-tiny")
    assert find_runs(tmp_path) == [run]
    assert (run.setting, run.test_domain, run.held_out) == ("cg-low", "quickdraw", ("key",))
    assert toy_images(tmp_path, SMALL).domains == ("clipart", "quickdraw", "real")


def test_photographs_alone_are_one_model_for_all_test_domains(tmp_path: Path, trained: list[dict[str, Any]]) -> None:
    runs = {toy_run(tmp_path, "natural-only", domain, settings=SMALL) for domain in ("quickdraw", "clipart")}
    assert len(runs) == 1
    assert runs.pop().test_domain is None


def test_every_class_is_held_out_once() -> None:
    folds = held_out_folds(STANDARD.classes, 4)
    assert [len(fold) for fold in folds] == [4] * 4
    assert sorted(name for fold in folds for name in fold) == sorted(STANDARD.classes)
    assert STANDARD.held_out == folds[1]
    for n_folds in (1, 3):
        with pytest.raises(InputError, match=f"16.* {n_folds} "):
            held_out_folds(STANDARD.classes, n_folds)


@pytest.mark.parametrize(("setting", "models"), [("cg-high", 3), ("leave-out", 1), ("upper-high", 1)])
def test_folds_share_models_that_hold_nothing_out(
    setting: Setting, models: int, tmp_path: Path, trained: list[dict[str, Any]]
) -> None:
    runs = [toy_run(tmp_path, setting, "quickdraw", 0, replace(SMALL, held_out=(name,))) for name in SMALL.classes]
    assert len({run.folder for run in runs}) == models
    assert [run.held_out for run in runs] == [("car",), ("fish",), ("key",)]
    assert len({str(asked["rows"]) for asked in trained}) == models  # where they are shared, the mixture is the same
