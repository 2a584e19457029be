"""A linear probe of a folder, for a tower of timm that has neither texts nor a classifier, by `circuitry find`."""

import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.linear_model import RidgeClassifierCV
from sklearn.preprocessing import StandardScaler
from timm.data import create_transform, resolve_model_data_config
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer

from circuitry import DomainFolder, InputError, load_classifier, load_clip
from circuitry.commands import run_command
from circuitry.data import in_halves
from circuitry.data.folds import item_of
from circuitry.models import Classifier, ModelOptions, probe_accuracy
from circuitry.models.ridge import PENALTIES
from tests.support.assert_same import assert_same
from tests.support.scripts import command_module

CLASSES = ("blue", "green", "red")
STYLES = ("photo", "sketch")
NAME = "tiny_without_classifier"


@register_model  # type: ignore[untyped-decorator]
def tiny_without_classifier(**_: Any) -> VisionTransformer:
    net = VisionTransformer(32, 8, num_classes=0, embed_dim=16, depth=2, num_heads=2)
    net.pretrained_cfg = {
        "input_size": (3, 32, 32),
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
    }
    return net


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save(timm.create_model(NAME).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for style in STYLES:
        for channel, name in enumerate(reversed(CLASSES)):
            (folder := root / style / name).mkdir(parents=True)
            for number in range(8):
                pixels = random.integers(0, 255, (32, 32, 3), np.uint8)
                # Some pictures are so faint that a probe takes them for another class.
                pixels[..., channel] |= 16 if style == "sketch" else 128
                Image.fromarray(pixels).save(folder / f"{style}_{number}.png")
    return root


@pytest.fixture
def options(weights: Path, pictures: Path) -> ModelOptions:
    return ModelOptions(
        model=f"timm:{NAME}", checkpoint=weights, data=pictures, probe=str(pictures)
    )


def embedded(weights: Path, paths: list[Path]) -> np.ndarray:
    """Embeddings by timm alone."""
    net: Any = timm.create_model(NAME).eval()
    net.load_state_dict(torch.load(weights))
    prepare: Any = create_transform(**resolve_model_data_config(net))
    with torch.no_grad():
        batch = torch.stack([prepare(Image.open(path)) for path in paths])
        embeddings: np.ndarray = net(batch).double().numpy()
    return embeddings


def test_halves_share_no_item_and_are_half_of_each_cell(pictures: Path) -> None:
    first, second = in_halves(DomainFolder(pictures).records)
    items = [{(r.class_name, item_of(r)) for r in half} for half in (first, second)]
    assert len(items[0]) == len(items[1]) == 12
    assert not items[0] & items[1]
    for half in (first, second):
        cells = [(record.class_name, record.domain) for record in half]
        assert {cells.count(cell) for cell in cells} == {4}


def test_one_command_fits_a_probe_and_tells_its_accuracy_by_style(
    weights: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    few = ["--method", "gradient", "--n-images", "2", "--n-others", "3"]
    model = ["--model", f"timm:{NAME}", "--checkpoint", str(weights)]
    images = ["--data", str(pictures), "--probe", str(pictures)]
    asked = ["--class", "red", "--domain", "photo", "--out", str(tmp_path)]
    monkeypatch.setattr(
        sys,
        "argv",
        ["circuitry", "find", *model, *images, *asked, *few, "--size", "0.4"],
    )
    with caplog.at_level(logging.WARNING):
        run_command()
    fitted, tested = in_halves(DomainFolder(pictures).records)
    x = embedded(weights, [record.path for record in fitted])
    scaler = StandardScaler().fit(x)
    ridge = RidgeClassifierCV(PENALTIES, class_weight="balanced")
    ridge.fit(scaler.transform(x), [record.class_name for record in fitted])
    of_tested = embedded(weights, [record.path for record in tested])
    names = [record.class_name for record in tested]
    own = ridge.predict(scaler.transform(of_tested)) == names
    rows = ridge.coef_ / scaler.scale_
    cosines = of_tested @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T
    by_rows = ridge.classes_[cosines.argmax(1)] == names
    assert 0 < own.mean() < 1
    assert (own != by_rows).any()
    said = caplog.text
    assert f"fitted to 24 images of {pictures}" in said
    assert "the other 24 images" in said
    for style in STYLES:
        here = np.array([record.domain == style for record in tested])
        line = f"{style}: {own[here].mean():.0%} of 12, by its rows {by_rows[here].mean():.0%}"
        assert line in said
    seen = {*(tmp_path / "tables" / "images.txt").read_text().splitlines()}
    assert len(seen) >= 4
    assert seen <= {record.relative for record in tested}


def test_images_that_fit_the_probe_are_not_analysed(
    options: ModelOptions, pictures: Path, tmp_path: Path
) -> None:
    fitted, tested = in_halves(DomainFolder(pictures).records)
    assert options.fitted_on == {record.path for record in fitted}
    assert {*options.images().records} == {*tested}
    # A folder of one style keeps its own style, and shares its images with the folder of all styles.
    one_style = replace(options, probe=str(pictures / "photo"))
    counts = one_style.images().counts()
    assert (counts.loc["photo"] == 4).all()
    assert (counts.loc["sketch"] == 8).all()
    config = command_module("find").Config(
        model=options.model,
        checkpoint=options.checkpoint,
        data=pictures / "photo" / "red",
        class_name="red",
        classes=CLASSES,
        probe=str(pictures),
        out=tmp_path,
    )
    run = command_module("find").question_of(config)
    assert len(run.images) == 4
    assert not {record.path for record in run.images.records} & options.fitted_on


def test_an_accuracy_is_of_the_images_that_are_given(
    options: ModelOptions, pictures: Path
) -> None:
    probe = options.clip()
    assert isinstance(probe, Classifier)
    _, tested = in_halves(DomainFolder(pictures).records)
    table = probe_accuracy(probe, [r for r in tested if r.domain == "photo"][:5])
    assert table.index.tolist() == ["photo"]
    assert table["images"].tolist() == [5]


def test_a_network_without_a_classifier_gives_its_features(
    weights: Path, pictures: Path
) -> None:
    name = f"timm:{NAME}"
    clip = load_clip(name, weights)
    paths = sorted(pictures.rglob("*.png"))[:3]
    batch = torch.stack([clip.preprocess(Image.open(path)) for path in paths])
    with torch.no_grad():
        assert_same(clip.encoder(batch), embedded(weights, paths), at_least=0.1)
    with pytest.raises(InputError, match="--probe FOLDER"):
        clip.text_weights(["red"])
    with pytest.raises(InputError, match=r"load_clip.*linear_probe"):
        load_classifier(name, weights)


def test_a_folder_that_fits_no_probe_is_refused(
    options: ModelOptions, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"no folder train, and .* has no lists"):
        replace(options, probe="train").clip()
    with pytest.raises(InputError, match=f"{tmp_path}.*there are none.*--probe"):
        replace(options, probe=str(tmp_path)).clip()
    shutil.copytree(pictures / "photo", tmp_path / "photo")
    for number in range(3, 8):
        (tmp_path / "photo" / "red" / f"photo_{number}.png").unlink()
    with pytest.raises(InputError, match=r"at least 2 in each.* has 2 and 1 of red"):
        replace(options, probe=str(tmp_path)).clip()


def test_texts_besides_a_probe_are_refused(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(pictures), "--class", "red", "--texts", "a {}."]
    line = ["--model", "rn-tiny", *words, "--probe", str(pictures)]
    monkeypatch.setattr(sys, "argv", ["circuitry", "find", *line])
    with pytest.raises(SystemExit):
        run_command()
    assert "--probe and --texts, but both were given" in capsys.readouterr().err
