"""The question of a style: which images have which role, what is refused, and the directions of styles."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from circuitry import Circuit, Clip, DomainFolder, InputError, load_clip
from circuitry.encoder.tensor_batches import pixel_digests
from circuitry.models import read_images
from circuitry.questions import StylePart, style_means, style_texts
from experiments.drawn import DrawingSettings, write_toy
from tests.support.scripts import CLASSES

STYLES = ("clipart", "real", "sketch")
N_IMAGES = 6
FEW = {"n_find": 2, "n_spare": 1, "n_mean": 2}


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load_clip("rn-tiny")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    few = DrawingSettings(0, N_IMAGES, classes=CLASSES, styles=STYLES)
    folder = tmp_path_factory.mktemp("style") / "toy"
    return write_toy(folder, few, workers=1, progress=False)


def question(clip: Clip, toy: Path, style: str = "sketch", **given: Any) -> StylePart:
    return StylePart(clip, DomainFolder(toy), style, **FEW | given)


@pytest.fixture(scope="module")
def asked(clip: Clip, toy: Path) -> StylePart:
    return question(clip, toy, held_out=("fish",))


@pytest.fixture(scope="module")
def found(asked: StylePart) -> Circuit:
    return asked.find(share=0.02)


def pixels(images: object) -> list[str]:
    assert isinstance(images, Tensor)
    return list(pixel_digests(images))


def test_every_image_has_one_role(asked: StylePart, found: Circuit) -> None:
    tested = asked.tested(found)
    spared = [pixels(task.images) for task in asked.spared]
    roles = [
        pixels(asked.task.images),
        pixels(asked.task.others),
        [digest for each in spared for digest in each],
        pixels(read_images(asked.clip, tested)[1]),
    ]
    # In two styles and of three classes in the third there are eleven cells, and a held-out cell.
    assert [len(roles[0]), len(roles[1]), len(roles[3])] == [3 * 2, 11 * 2, 11 + 6]
    assert set(map(len, spared)) == {1}
    assert 1 < len(spared) <= 11
    together = [digest for role in roles for digest in role]
    assert len(set(together)) == len(together)


def test_held_out_images_in_the_style_are_tested_and_not_used(
    asked: StylePart, found: Circuit
) -> None:
    held_out = asked.images.select("fish", "sketch")
    assert len(held_out) == N_IMAGES
    assert set(held_out) <= set(asked.tested(found))
    digests = set(pixels(read_images(asked.clip, held_out)[1]))
    used = [pixels(task.images) for task in (asked.task, *asked.spared)]
    used += [pixels(asked.task.others), found.source.provenance["pixels"]]
    for role in used:
        assert role
        assert not digests & set(role)
    # The class is seen in other styles.
    in_real = {record.class_name for record in asked.records(0, 2, ["real"])}
    assert in_real == set(CLASSES)


def test_a_part_is_found_by_the_directions_of_seen_classes(
    asked: StylePart, found: Circuit
) -> None:
    seen = [name for name in CLASSES if name != "fish"]
    expected = style_texts(asked.clip, STYLES, seen)
    torch.testing.assert_close(asked.directions, expected)
    n_units = sum(map(len, found.source.node_scores.values()))
    assert found.count == pytest.approx(0.02 * n_units, abs=1)
    # Of the six images those that the model calls by their style.
    assert 3 < found.source.n_images <= 6


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown style": ({"style": "ink"}, ["'ink'", "clipart, real, sketch"]),
    "all held out": (
        {"held_out": CLASSES},
        ["All classes", *CLASSES, "held out of sketch"],
    ),
    "directions": (
        {"style_weights": torch.eye(64)[:2]},
        ["3 styles", "2 were given", "style_texts", "style_means"],
    ),
}


@pytest.mark.parametrize(("given", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_question_of_a_style_is_refused(
    clip: Clip, toy: Path, given: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(InputError) as told:
        question(clip, toy, **given)
    for word in words:
        assert word in str(told.value)


def test_one_style_alone_is_told_from_nothing(clip: Clip, toy: Path) -> None:
    alone = DomainFolder(toy, domains=("sketch",))
    with pytest.raises(InputError, match="'sketch' was asked of images in sketch: "):
        StylePart(clip, alone, "sketch")


def test_a_style_that_the_model_does_not_tell_has_no_part(
    clip: Clip, toy: Path
) -> None:
    away = -style_texts(clip, STYLES, CLASSES)
    with pytest.raises(InputError, match="0 of 8 images of sketch by their") as told:
        question(clip, toy, style_weights=away).find(share=0.02)
    assert "--told folders" in str(told.value)


def test_a_model_that_recognises_no_class_has_nothing_to_spare(
    clip: Clip, toy: Path
) -> None:
    away = -clip.text_weights(CLASSES, progress=False)
    with pytest.raises(InputError, match="recognises no class in any style"):
        question(clip, toy, class_weights=away).find(share=0.02)


@pytest.mark.parametrize("place", [0, 2, 3], ids=["finds", "spares", "in the means"])
def test_a_test_image_with_the_pixels_of_a_used_image_is_refused(
    clip: Clip, toy: Path, tmp_path: Path, place: int
) -> None:
    copy = shutil.copytree(toy, tmp_path / "toy")
    records = DomainFolder(copy).select("star", "sketch")
    shutil.copyfile(records[place].path, records[-1].path)
    of_copy = question(clip, copy)
    part = of_copy.find(share=0.02)
    with pytest.raises(InputError, match="the same pixels") as told:
        of_copy.tested(part)
    assert str(records[-1].path) in str(told.value)


def test_images_that_are_all_used_leave_no_test(
    clip: Clip, toy: Path, found: Circuit
) -> None:
    with pytest.raises(InputError, match="the first 6 images of each class"):
        question(clip, toy, n_spare=2).tested(found)


def test_folders_of_few_images_tell_no_styles(clip: Clip, toy: Path) -> None:
    with pytest.raises(InputError, match="clipart, real, sketch has no more images"):
        StylePart.of_folder(clip, DomainFolder(toy), "sketch", told="folders")


def test_means_of_styles_by_plain_arithmetic() -> None:
    rows = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    places = [2, 0, 2, 1, 2, 0, 2]
    means = np.stack(
        [rows[[1, 5]].mean(0), rows[3], rows[[0, 2, 4, 6]].mean(0)], dtype=float
    )
    # Every style counts once, however many images it has.
    apart = means - means.sum(0) / 3
    expected = apart / np.sqrt((apart**2).sum(1, keepdims=True))
    given = style_means(torch.from_numpy(rows), places)
    np.testing.assert_allclose(given.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_texts_of_styles_by_plain_arithmetic(clip: Clip) -> None:
    texts = {
        "real": ["a photo of a cup.", "a photo of a ice cream."],
        "sketch": ["a sketch of a cup.", "a sketch of a ice cream."],
    }
    model: Any = clip.model
    rows = list[Tensor]()
    with torch.no_grad():
        for of_style in texts.values():
            encoded = model.encode_text(clip.tokenizer(of_style))
            rows.append(normalize(encoded, dim=1).sum(0))
    expected = torch.stack(rows)
    expected = expected / expected.norm(dim=1, keepdim=True)
    given = style_texts(clip, list(texts), ["cup", "ice_cream"])
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-6)
