"""Predictions of images by hand, and what is kept of their scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from circuitry.data import DomainFolder
from circuitry.encoder import Encoder, Stage
from circuitry.models import Clip
from circuitry.models.prompts import Template
from circuitry.runs import InputError, Work
from circuitry.training import evaluation, predictions, zero_shot_accuracy
from circuitry.training.evaluation import outcomes, text_head
from tests.support.work import QUIET

AXE, BED, CAT, DOG = range(4)


def test_outcomes_on_paper() -> None:
    """Cat and dog are held out. Axe scores high whatever the image shows; centring takes that away."""
    scores = torch.tensor(
        [
            [9.0, 1, 8, 2],  # a cat: second among all, first among the held-out classes
            [7.0, 0, 2, 4],  # a dog: second among all, first among the held-out classes
            [8.0, 8, 3, 1],  # a bed, as high as axe, which comes first
            [6.0, 5, 3, 1],  # an axe
        ]
    )
    found = outcomes(scores, torch.tensor([CAT, DOG, BED, AXE]), torch.tensor([False, False, True, True]))
    assert found.rank.tolist() == [2, 2, 2, 1]
    assert found.alone.tolist() == [1, 1, 2, 1]
    # Means are 7.5, 3.5, 4, 2; what is left: (1.5 -2.5 4 0), (-0.5 -3.5 -2 2), (0.5 4.5 -1 -1), (-1.5 1.5 -1 -1).
    assert found.centred.tolist() == [1, 1, 1, 4]
    assert found.top.tolist() == [[0, 2, 3, 1], [0, 3, 2, 1], [0, 1, 2, 3], [0, 1, 2, 3]]


def write_colours(root: Path, colours: dict[str, Sequence[tuple[int, int, int]]]) -> DomainFolder:
    for folder, values in colours.items():
        (root / folder).mkdir(parents=True)
        for i, colour in enumerate(values):
            Image.new("RGB", (2, 2), colour).save(root / folder / f"{i}.png")
    return DomainFolder(root)


def preprocess(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


class MeanColour(nn.Module):
    """A tower whose embedding is the mean colour of an image; it notes how many images it was given at a time."""

    def __init__(self, dtype: torch.dtype = torch.double, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((3,), scale, dtype=dtype))
        self.passes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.passes.append(len(images))
        return images.mean(dim=(2, 3)) * self.scale


def mean_colour(tower: MeanColour | None = None) -> Encoder:
    tower = tower or MeanColour()
    return Encoder(tower, [Stage("mean", tower, 1)], (2, 2))


@pytest.fixture
def images(tmp_path: Path) -> DomainFolder:
    """Three classes, and images whose mean colour is the embedding."""
    return write_colours(
        tmp_path,
        {
            "ink/blue": [(0, 0, 255), (9, 0, 100)],
            "ink/red": [(255, 0, 0), (0, 200, 0), (90, 80, 70)],
            "photo/green": [(0, 255, 0)],
        },
    )


WEIGHTS = torch.tensor([[0, 0, 1], [0, 1, 0], [1, 0, 0]]).double()  # blue, green, red
HEADS = {"words": text_head(WEIGHTS)}


@pytest.mark.parametrize("batch_size", [4, 100])
def test_predictions_by_hand(images: DomainFolder, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_BATCH_SIZE", batch_size)
    found = predictions(mean_colour(), HEADS, preprocess, images, work=QUIET)
    columns = ["relative", "domain", "class", "classifier", "top_1", "rank"]
    assert found.columns.tolist() == [*columns[:-1], "top_2", "top_3", "rank", "rank_alone", "rank_centred"]
    assert list(found[columns].itertuples(index=False, name=None)) == [
        ("ink/blue/0.png", "ink", "blue", "words", "blue", 1),  # equal scores of green and red
        ("ink/blue/1.png", "ink", "blue", "words", "blue", 1),
        ("ink/red/0.png", "ink", "red", "words", "red", 1),
        ("ink/red/1.png", "ink", "red", "words", "green", 3),  # red ties with blue, which comes first
        ("ink/red/2.png", "ink", "red", "words", "red", 1),
        ("photo/green/0.png", "photo", "green", "words", "green", 1),
    ]


class ClipOfWeights(Clip):
    """A model whose texts are given; in prompts of the style ink green and red are exchanged."""

    weights: Tensor

    def text_weights(
        self, class_names: Sequence[str], templates: Sequence[Template] | None = None, **more: Any
    ) -> Tensor:
        assert list(class_names) == ["blue", "green", "red"]
        assert templates is not None
        return self.weights[[0, 2, 1]] if "an ink of a {}." in templates else self.weights


def clip_of(encoder: Encoder, weights: Tensor = WEIGHTS) -> Clip:
    clip = ClipOfWeights("given", nn.Identity(), encoder, preprocess, lambda texts: torch.empty(0))
    object.__setattr__(clip, "weights", weights)  # it is frozen
    return clip


def test_accuracy_from_images_to_table(images: DomainFolder) -> None:
    table = zero_shot_accuracy(clip_of(mean_colour()), images, held_out=["red"], work=QUIET)
    chosen = table[table["measure"].isin(["balanced top-1", "balanced top-1 alone"])]
    values = chosen.set_index(["classifier", "domain", "part", "measure"])["value"]
    assert values["all templates", "ink", "red", "balanced top-1"] == pytest.approx(2 / 3)
    assert values["all templates", "ink", "held-out", "balanced top-1 alone"] == 1
    assert values["all templates", "photo", "seen", "balanced top-1"] == 1
    assert values["own style", "ink", "seen", "balanced top-1"] == 1  # blue
    assert values["own style", "ink", "red", "balanced top-1"] == pytest.approx(1 / 3)  # the green image of it
    assert values["own style", "photo", "seen", "balanced top-1"] == 1


def test_several_heads_share_one_pass_and_may_depend_on_the_domain(images: DomainFolder) -> None:
    tower = MeanColour()
    heads = HEADS | {"own": {"ink": text_head(WEIGHTS), "photo": text_head(-WEIGHTS)}}
    found = predictions(mean_colour(tower), heads, preprocess, images, work=QUIET)
    assert tower.passes == [6]
    assert found["classifier"].tolist() == ["words"] * 6 + ["own"] * 6
    assert found["rank"].tolist()[6:] == [1, 1, 1, 3, 1, 3]
    assert found["rank_centred"].tolist()[5] == 2  # the only photograph is its domain's mean: nothing is left


def test_a_selection_competes_with_all_classes(images: DomainFolder) -> None:
    selected = DomainFolder(images.root, domains=["ink"], classes=["red"])
    found = predictions(mean_colour(), HEADS, preprocess, selected, work=QUIET)
    assert found["top_1"].tolist() == ["red", "green", "red"]


def test_unreadable_images_do_not_shift_the_others(images: DomainFolder) -> None:
    (images.root / "ink/red/0.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"red/0\.png"):
        found = predictions(mean_colour(), HEADS, preprocess, images, work=QUIET)
    assert found["relative"].tolist()[2] == "ink/red/1.png"
    assert found["top_1"].tolist() == ["blue", "blue", "green", "red", "green"]
    with pytest.raises(InputError, match=r"red/0\.png"):
        predictions(mean_colour(), HEADS, preprocess, images, work=Work(strict=True, progress=False))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
def test_encoders_in_half_precision(images: DomainFolder, dtype: torch.dtype) -> None:
    expected = zero_shot_accuracy(clip_of(mean_colour()), images, work=QUIET)
    for weights in (WEIGHTS.to(dtype), WEIGHTS.float()):
        found = zero_shot_accuracy(clip_of(mean_colour(MeanColour(dtype)), weights), images, work=QUIET)
        pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize(
    ("weights", "tower", "held_out", "words"),
    [
        (WEIGHTS[:2], MeanColour(), (), "'words'.* 3 "),
        (WEIGHTS[:, :2], MeanColour(), (), r" 2 .*\[6, 3\]"),
        (WEIGHTS, MeanColour(scale=torch.nan), (), "'mean'"),
        (WEIGHTS, MeanColour(), ("read",), "'read'.*red"),
    ],
)
def test_unusable_weights_and_embeddings(
    images: DomainFolder, weights: Tensor, tower: MeanColour, held_out: tuple[str, ...], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        predictions(mean_colour(tower), {"words": text_head(weights)}, preprocess, images, held_out, work=QUIET)
