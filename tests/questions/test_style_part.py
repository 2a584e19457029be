"""The question of a style: which images have which role, what is refused, and the directions of styles."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from circuitry import Circuit, Clip, DomainFolder, InputError, load_clip
from circuitry.encoder.metrics import answer_metric
from circuitry.encoder.tensor_batches import pixel_digests
from circuitry.models import read_images
from circuitry.questions import (
    StylePart,
    labels_by_texts,
    style_means,
    style_texts,
)
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
    with pytest.raises(InputError, match="no class that is to be spared"):
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


@pytest.fixture(scope="module")
def marked(
    toy: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[DomainFolder, dict[str, str]]:
    """Return pictures of which half have a red square in a corner, and a listing of these."""
    copy = shutil.copytree(toy, tmp_path_factory.mktemp("marked") / "toy")
    images = DomainFolder(copy)
    labels = dict[str, str]()
    for place, record in enumerate(images.records):
        labels[record.relative] = "marked" if place % 2 else "plain"
        if place % 2:
            picture = Image.open(record.path).convert("RGB")
            side = picture.width // 3
            picture.paste((255, 0, 0), (0, 0, side, side))
            picture.save(record.path)
    return images, labels


def test_a_label_takes_the_place_of_the_domain(
    marked: tuple[DomainFolder, dict[str, str]],
) -> None:
    images, labels = marked
    # A label may be empty, too.
    some = labels | {images.records[1].relative: ""}
    del some[images.records[0].relative]
    labelled = images.labelled(some)
    assert set(labelled.domains) == {"marked", "plain"}
    assert len(labelled) == len(images) - 2
    for record in labelled.records:
        assert record.domain == labels[record.relative]
    cells = [labelled.select(c, d) for c in CLASSES for d in labelled.domains]
    together = [record for cell in cells for record in cell]
    assert sorted(r.relative for r in together) == sorted(filter(some.get, some))
    assert images.domains == STYLES
    with pytest.raises(InputError, match="None of the 72 images"):
        images.labelled({"no/such/file.png": "marked"})


def test_the_part_of_a_mark_takes_the_mark_and_spares_what_is_named(
    clip: Clip, marked: tuple[DomainFolder, dict[str, str]]
) -> None:
    images, labels = marked
    labelled = images.labelled(labels)
    spare = CLASSES[:2]
    # There are only nine pictures of a class with a mark and nine without.
    few = StylePart(
        clip, labelled, "marked", n_find=3, n_spare=2, n_mean=2, spare=spare
    )
    records = few.records(5, 2)
    places = [labelled.domains.index(record.domain) for record in records]
    _, pictures = read_images(clip, records)
    z = normalize(clip.encoder(pictures), dim=1)
    rows = [z[[i for i, p in enumerate(places) if p == k]].mean(0) for k in range(2)]
    # With two groups this is the direction between them.
    between = normalize(rows[0] - rows[1], dim=0)
    weights = torch.stack([between, -between])
    few = replace(few, style_weights=weights)
    torch.testing.assert_close(style_means(z, places), weights)
    part = few.find(share=0.05)
    recognised = {answer_metric(task.metric, "A test").label for task in few.spared}
    assert recognised <= {CLASSES.index(name) for name in spare}
    assert len(part.source.settings["spared"]) == len(few.spared)
    removed = clip.without(part, few.task.baseline)
    tested = few.tested(part)
    _, unseen = read_images(clip, [r for r in tested if r.domain == "marked"])
    row = weights[labelled.domains.index("marked")]
    before = (normalize(clip.encoder(unseen), dim=1) @ row).mean()
    after = (normalize(removed.encoder(unseen), dim=1) @ row).mean()
    random = clip.without(part.random(0), few.task.baseline)
    by_chance = (normalize(random.encoder(unseen), dim=1) @ row).mean()
    assert after < by_chance
    assert after < before - 0.05


def test_texts_tell_labels_the_one_of_the_part_first(
    clip: Clip, marked: tuple[DomainFolder, dict[str, str]]
) -> None:
    images, labels = marked
    labelled = images.labelled(labels)
    texts = ["a car", "a clock"]
    model: Any = clip.model
    with torch.no_grad():
        rows = normalize(model.encode_text(clip.tokenizer(texts)), dim=1)
    for style, first in (("marked", 0), ("plain", 1)):
        asked = StylePart.of_folder(clip, labelled, style, (), texts, "pooled")
        given = asked.directions[labelled.domains.index("marked")]
        torch.testing.assert_close(given, rows[first], rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="'a car' was given: give 2 texts"):
        StylePart.of_folder(clip, labelled, "marked", (), ["a car"], "pooled")


def test_a_class_that_is_not_there_is_not_spared(clip: Clip, toy: Path) -> None:
    with pytest.raises(InputError, match="'dog'"):
        question(clip, toy, spare=("dog",))


def test_a_text_is_a_label_where_the_model_gives_it(clip: Clip, toy: Path) -> None:
    images = DomainFolder(toy)
    texts = ["a photo of a car", "a sketch of a clock"]
    labels = labels_by_texts(clip, images, texts)
    model: Any = clip.model
    expected = dict[str, str]()
    with torch.no_grad():
        rows = normalize(model.encode_text(clip.tokenizer(texts)), dim=1)
        for record in images.records:
            picture = Image.open(record.path).convert("RGB")
            z = model.encode_image(clip.preprocess(picture)[None])
            expected[record.relative] = texts[int((z @ rows.T).argmax())]
    assert labels == expected
    assert set(labels.values()) == set(texts)
