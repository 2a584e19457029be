"""Predictions of images and their accuracies by hand and by scikit-learn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    top_k_accuracy_score,
)
from torch import Tensor, nn

from circuitry.data import DomainFolder
from circuitry.encoder import Encoder, Stage
from circuitry.models import Clip
from circuitry.models.prompts import Template
from circuitry.runs import InputError, Work
from circuitry.runs.arrays import write_arrays
from circuitry.training import accuracy, evaluation, tidy_accuracy, zero_shot_accuracy
from circuitry.training.accuracy import (
    AMONG_GROUP,
    CENTRED,
    F1,
    FALLS_ON_HELD_OUT,
    FALSE_ALARMS,
    HARMONIC_MEAN,
    class_column,
    read_predictions,
    write_predictions,
)
from circuitry.training.evaluation import (
    outcomes,
    predictions,
    text_head,
    zero_shot_predictions,
)
from tests.support.work import QUIET

AXE, BED, CAT, DOG = range(4)


def test_outcomes_on_paper() -> None:
    """Cat and dog are held out. Axe scores high whatever the image shows; centring takes that away."""
    scores = torch.tensor(
        [
            [9.0, 1, 8, 2],  # a cat: second among all, first among the held-out classes
            [7.0, 0, 2, 4],  # a dog: second among all, first among the held-out classes
            [8.0, 8, 3, 1],  # a bed, as high as axe, so there is no answer
            [6.0, 5, 3, 1],  # an axe
        ]
    )
    top, ranks = outcomes(
        scores,
        torch.tensor([CAT, DOG, BED, AXE]),
        torch.tensor([False, False, True, True]),
    )
    rank, alone, centred = ranks.T.tolist()
    assert rank == [2, 2, 2, 1]
    assert alone == [1, 1, 2, 1]
    # Means are 7.5, 3.5, 4, 2; what is left: (1.5 -2.5 4 0), (-0.5 -3.5 -2 2), (0.5 4.5 -1 -1), (-1.5 1.5 -1 -1).
    assert centred == [1, 1, 1, 4]
    assert top.tolist() == [[0, 2, 3, 1], [0, 3, 2, 1], [-1, 1, 2, 3], [0, 1, 2, 3]]


def preprocess(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


class MeanColour(nn.Module):
    """A tower whose embedding is the mean colour of an image; it notes how many images it was given at a time."""

    def __init__(self, dtype: torch.dtype, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((3,), scale, dtype=dtype))
        self.passes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.passes.append(len(images))
        return images.mean(dim=(2, 3)) * self.scale


def mean_colour(dtype: torch.dtype = torch.double, scale: float = 1.0) -> Encoder:
    tower = MeanColour(dtype, scale)
    return Encoder(tower, [Stage("mean", tower, 1)], (2, 2))


@pytest.fixture
def images(tmp_path: Path) -> DomainFolder:
    colours = {"ink/blue": [(0, 0, 255), (9, 0, 100)], "photo/green": [(0, 255, 0)]}
    colours["ink/red"] = [(255, 0, 0), (0, 200, 0), (90, 80, 70)]
    for folder, values in colours.items():
        (tmp_path / folder).mkdir(parents=True)
        for i, colour in enumerate(values):
            Image.new("RGB", (2, 2), colour).save(tmp_path / folder / f"{i}.png")
    return DomainFolder(tmp_path)


WEIGHTS = torch.tensor([[0, 0, 1], [0, 1, 0], [1, 0, 0]]).double()  # blue, green, red
HEADS = {"words": text_head(WEIGHTS)}


@pytest.mark.parametrize("batch_size", [4, 100])
def test_predictions_by_hand(
    images: DomainFolder, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_BATCH_SIZE", batch_size)
    found = predictions(mean_colour(), HEADS, preprocess, images, work=QUIET)
    columns = ["relative", "domain", "class", "classifier", "top_1", "rank"]
    assert found.columns.tolist() == [
        *columns[:-1],
        "top_2",
        "top_3",
        "rank",
        "rank_alone",
        "rank_centred",
    ]
    assert list(found[columns].itertuples(index=False, name=None)) == [
        (
            "ink/blue/0.png",
            "ink",
            "blue",
            "words",
            "blue",
            1,
        ),  # equal scores of green and red
        ("ink/blue/1.png", "ink", "blue", "words", "blue", 1),
        ("ink/red/0.png", "ink", "red", "words", "red", 1),
        (
            "ink/red/1.png",
            "ink",
            "red",
            "words",
            "green",
            3,
        ),  # red ties with blue, which comes first
        ("ink/red/2.png", "ink", "red", "words", "red", 1),
        ("photo/green/0.png", "photo", "green", "words", "green", 1),
    ]


class ClipOfWeights(Clip):
    """A model whose texts are given; in prompts of the style ink green and red are exchanged."""

    weights: Tensor

    def text_weights(
        self,
        class_names: Sequence[str],
        templates: Sequence[Template] | None = None,
        **more: Any,
    ) -> Tensor:
        assert list(class_names) == ["blue", "green", "red"]
        assert templates is not None
        return (
            self.weights[[0, 2, 1]] if "an ink of a {}." in templates else self.weights
        )


def clip_of(encoder: Encoder, weights: Tensor = WEIGHTS) -> Clip:
    clip = ClipOfWeights(
        "given", nn.Identity(), encoder, preprocess, lambda texts: torch.empty(0)
    )
    object.__setattr__(clip, "weights", weights)  # it is frozen
    return clip


def test_accuracy_from_images_to_table(images: DomainFolder) -> None:
    table = zero_shot_accuracy(
        clip_of(mean_colour()), images, held_out=["red"], work=QUIET
    )
    chosen = table[table["measure"].isin(["balanced top-1", "balanced top-1 alone"])]
    values = chosen.set_index(["classifier", "domain", "group", "measure"])["value"]
    assert values["all templates", "ink", "red", "balanced top-1"] == pytest.approx(
        2 / 3
    )
    assert values["all templates", "ink", "held-out", "balanced top-1 alone"] == 1
    assert values["all templates", "photo", "seen", "balanced top-1"] == 1
    assert values["own style", "ink", "seen", "balanced top-1"] == 1  # blue
    assert values["own style", "ink", "red", "balanced top-1"] == pytest.approx(
        1 / 3
    )  # the green image of it
    assert values["own style", "photo", "seen", "balanced top-1"] == 1
    right = accuracy.class_accuracy(
        zero_shot_predictions(clip_of(mean_colour()), images, work=QUIET)
    )
    (red,) = right[(right["class"] == "red") & (right["domain"] == "ink")].to_dict(
        "records"
    )
    assert (red["right"], red["n_images"]) == (pytest.approx(2 / 3), 3)


def test_several_heads_share_one_pass_and_may_depend_on_the_domain(
    images: DomainFolder,
) -> None:
    encoder: Any = mean_colour()
    heads = HEADS | {"own": {"ink": text_head(WEIGHTS), "photo": text_head(-WEIGHTS)}}
    found = predictions(encoder, heads, preprocess, images, work=QUIET)
    assert encoder.tower.passes == [6]
    assert found["classifier"].tolist() == ["words"] * 6 + ["own"] * 6
    assert found["rank"].tolist()[6:] == [1, 1, 1, 3, 1, 3]
    assert (
        found["rank_centred"].tolist()[5] == 3
    )  # the only photograph is its domain's mean: nothing is left


def test_unreadable_images_do_not_shift_the_others(images: DomainFolder) -> None:
    (images.root / "ink/red/0.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"red/0\.png"):
        found = predictions(mean_colour(), HEADS, preprocess, images, work=QUIET)
    assert found["relative"].tolist()[2] == "ink/red/1.png"
    assert found["top_1"].tolist() == ["blue", "blue", "green", "red", "green"]
    with pytest.raises(InputError, match=r"red/0\.png"):
        predictions(
            mean_colour(),
            HEADS,
            preprocess,
            images,
            work=Work(strict=True, progress=False),
        )


def test_where_classes_share_the_highest_score_there_is_no_answer(
    images: DomainFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = {"one for all": lambda embeddings: embeddings.new_ones(len(embeddings), 3)}
    found = predictions(
        mean_colour(), heads, preprocess, images, held_out=("red",), work=QUIET
    )
    assert found["rank"].tolist() == [3] * 6
    assert set(found["rank_alone"]) == {
        1,
        2,
    }  # red alone, and blue and green beside each other
    assert found["top_1"].isna().all()
    table = tidy_accuracy(found, held_out=("red",)).set_index(
        ["domain", "group", "measure"]
    )["value"]
    for measure in ("top-1", "balanced top-1", "predicted held-out", "macro F1"):
        assert table["ink", "all", measure] == 0.0, measure
    assert table["ink", "red", "false alarms"] == 0.0
    of_ink = found[found["domain"] == "ink"]
    listing = [record.relative for record in images.records]
    write_predictions(tmp_path / "x.safetensors", of_ink, listing)
    monkeypatch.setattr(
        accuracy, "read_listing", lambda path: dict.fromkeys(listing, "")
    )
    read = read_predictions(tmp_path / "x.safetensors")
    assert read["top_1"].isna().all()
    assert read["top_2"].tolist() == of_ink["top_2"].tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
def test_encoders_in_half_precision(images: DomainFolder, dtype: torch.dtype) -> None:
    expected = zero_shot_accuracy(clip_of(mean_colour()), images, work=QUIET)
    for weights in (WEIGHTS.to(dtype), WEIGHTS.float()):
        found = zero_shot_accuracy(
            clip_of(mean_colour(dtype), weights), images, work=QUIET
        )
        pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize(
    ("weights", "scale", "held_out", "words"),
    [
        (WEIGHTS[:2], 1, (), "'words'.* 3 "),
        (WEIGHTS[:, :2], 1, (), r" 2 .*\[6, 3\]"),
        (WEIGHTS, torch.nan, (), "'mean'"),
        (WEIGHTS, 1, ("read",), "'read'.*red"),
    ],
)
def test_unusable_weights_and_embeddings(
    images: DomainFolder,
    weights: Tensor,
    scale: float,
    held_out: tuple[str, ...],
    words: str,
) -> None:
    with pytest.raises(InputError, match=words):
        predictions(
            mean_colour(scale=scale),
            {"words": text_head(weights)},
            preprocess,
            images,
            held_out,
            work=QUIET,
        )


CLASSES = ("axe", "bed", "cat", "dog")
HELD_OUT = ("cat", "dog")


def answers(
    *rows: tuple[str, str, str, int, int, int],
    domain: str = "ink",
    classifier: str = "a",
) -> pd.DataFrame:
    """Classified images: name, true class, predicted class, rank among all, alone, and centred."""
    relative, truth, predicted, *ranks = zip(*rows, strict=True)
    labels, top = (
        np.array([CLASSES.index(name) for name in names])
        for names in (truth, predicted)
    )
    table = pd.DataFrame(
        {"relative": relative, "domain": domain, "classifier": classifier}
    )
    table = table.assign(
        **{"class": class_column(labels, CLASSES)}, top_1=class_column(top, CLASSES)
    )
    return table.assign(
        **dict(zip(("rank", "rank_alone", "rank_centred"), ranks, strict=True))
    )


INK = answers(
    ("0", "axe", "axe", 1, 1, 1),
    ("1", "axe", "axe", 1, 1, 2),
    ("2", "axe", "cat", 3, 2, 1),
    ("3", "bed", "bed", 1, 1, 1),
    ("4", "cat", "cat", 1, 1, 1),
    ("5", "cat", "axe", 2, 1, 1),
    ("6", "dog", "cat", 2, 2, 2),
    ("7", "dog", "bed", 2, 1, 1),
)


def values(table: pd.DataFrame, column: str = "value") -> dict[tuple[str, str], float]:
    return dict(
        zip(
            zip(table["group"], table["measure"], strict=True),
            table[column],
            strict=True,
        )
    )


def test_accuracies_on_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "TOP", (1, 2))
    table = tidy_accuracy(INK, HELD_OUT)
    found = values(table)
    assert found["all", "top-1"] == 4 / 8
    assert found["all", "balanced top-1"] == pytest.approx((2 / 3 + 1 + 1 / 2 + 0) / 4)
    assert (found["held-out", "top-1"], found["held-out", "balanced top-1"]) == (
        1 / 4,
        1 / 4,
    )
    assert (found["seen", "top-1"], found["seen", "balanced top-1"]) == pytest.approx(
        (3 / 4, 5 / 6)
    )
    assert (
        found["held-out", "top-2"],
        found["seen", "top-2"],
        found["dog", "top-2"],
    ) == (1, 3 / 4, 1)
    # Told apart: cat and dog from each other, 3 of 4; centred, 3 of 4; a cat or dog is predicted for 2 of 4.
    assert found["held-out", AMONG_GROUP] == 3 / 4
    assert (found["cat", AMONG_GROUP], found["dog", AMONG_GROUP]) == (1, 1 / 2)
    assert found["seen", AMONG_GROUP] == pytest.approx((2 / 3 + 1) / 2)
    assert found["held-out", CENTRED] == 3 / 4
    assert (found["held-out", FALLS_ON_HELD_OUT], found["seen", FALLS_ON_HELD_OUT]) == (
        2 / 4,
        1 / 4,
    )
    assert (found["cat", FALSE_ALARMS], found["dog", FALSE_ALARMS]) == (2 / 6, 0)
    assert found["all", HARMONIC_MEAN] == pytest.approx(
        2 * (1 / 4) * (5 / 6) / (1 / 4 + 5 / 6)
    )
    assert ("all", AMONG_GROUP) not in found  # it has no group of its own
    sizes = table[table["measure"] == "top-1"].set_index("group")
    assert sizes["n_images"].to_dict() == {
        "all": 8,
        "seen": 4,
        "held-out": 4,
        "cat": 2,
        "dog": 2,
    }
    assert sizes["n_classes"].to_dict() == {
        "all": 4,
        "seen": 2,
        "held-out": 2,
        "cat": 1,
        "dog": 1,
    }


def test_what_guessing_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "TOP", (1, 2, 9))
    chance = values(tidy_accuracy(INK, ("dog",)), "chance")
    assert (
        chance["seen", "top-1"],
        chance["dog", "balanced top-2"],
        chance["all", "top-9"],
    ) == (1 / 4, 2 / 4, 1)
    assert (
        chance["dog", AMONG_GROUP],
        chance["held-out", AMONG_GROUP],
        chance["seen", AMONG_GROUP],
    ) == (1, 1, 1 / 3)
    assert (
        chance["dog", FALLS_ON_HELD_OUT],
        chance["seen", CENTRED],
        chance["all", HARMONIC_MEAN],
    ) == (0.25,) * 3
    assert np.isnan(chance["all", F1])


def test_without_seen_classes_there_is_no_harmonic_mean() -> None:
    assert ("all", HARMONIC_MEAN) not in values(tidy_accuracy(INK, CLASSES))


def test_macro_f1_is_over_the_classes_and_images_of_the_part() -> None:
    found = values(tidy_accuracy(INK, HELD_OUT))
    # Held-out images: cat is right once, predicted twice, there twice; dog is never predicted.
    assert found["held-out", F1] == pytest.approx((2 * 1 / (2 + 2) + 0) / 2)
    assert found["seen", F1] == pytest.approx((2 * 2 / (2 + 3) + 2 * 1 / (1 + 1)) / 2)


def test_accuracies_by_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "TOP", (1, 2, 3))
    random = np.random.default_rng(0)
    scores, labels = random.normal(size=(200, 4)), random.integers(4, size=200)
    order = np.argsort(-scores, axis=1)
    ranks = 1 + np.argmax(order == labels[:, None], axis=1)
    known = enumerate(zip(labels, order, ranks, strict=True))
    rows = [(str(i), CLASSES[t], CLASSES[o[0]], r, 1, 1) for i, (t, o, r) in known]
    found = values(tidy_accuracy(answers(*rows), HELD_OUT))
    for k in (2, 3):
        expected = top_k_accuracy_score(labels, scores, k=k, labels=range(4))
        assert found["all", f"top-{k}"] == pytest.approx(expected)
    assert found["all", "top-1"] == accuracy_score(labels, order[:, 0])
    assert found["all", "balanced top-1"] == pytest.approx(
        balanced_accuracy_score(labels, order[:, 0])
    )
    assert found["all", F1] == pytest.approx(
        f1_score(labels, order[:, 0], average="macro")
    )
    held = labels >= 2
    expected = f1_score(labels[held], order[held, 0], average="macro", labels=[2, 3])
    assert found["held-out", F1] == pytest.approx(expected)


def test_classifiers_and_domains_are_apart_and_the_order_of_rows_does_not_matter() -> (
    None
):
    other = answers(
        ("8", "cat", "cat", 1, 1, 1),
        ("9", "axe", "cat", 4, 2, 1),
        domain="photo",
        classifier="b",
    )
    table = tidy_accuracy(pd.concat([INK, other], ignore_index=True), HELD_OUT)
    assert set(zip(table["classifier"], table["domain"], strict=True)) == {
        ("a", "ink"),
        ("b", "photo"),
    }
    pd.testing.assert_frame_equal(
        table[table["domain"] == "ink"].reset_index(drop=True),
        tidy_accuracy(INK, HELD_OUT),
        check_dtype=False,
    )
    key = ["classifier", "domain", "group", "measure"]
    shuffled = tidy_accuracy(
        pd.concat([INK, other]).sample(frac=1, random_state=0), HELD_OUT
    )
    first, second = (
        one.sort_values(key, ignore_index=True) for one in (shuffled, table)
    )
    pd.testing.assert_frame_equal(first, second)


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'dot'.*dog"):
        tidy_accuracy(INK, ["dot"])
    write_arrays(tmp_path / "x.safetensors", "circuitry predictions 0", {}, {})
    with pytest.raises(InputError, match="circuitry predictions 0"):
        read_predictions(tmp_path / "x.safetensors")
