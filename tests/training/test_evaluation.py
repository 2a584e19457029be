"""Zero-shot predictions and the accuracies made of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from circuitry.data.domains import DomainFolder
from circuitry.models.encoder import Encoder
from circuitry.models.stages import Stage
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work
from circuitry.training.evaluation import accuracy_table, predictions, text_head, tidy_accuracy, zero_shot_accuracy

QUIET = Work(progress=False)


def table(*rows: tuple[str, str, str]) -> pd.DataFrame:
    domain, truth, predicted = zip(*rows, strict=True)
    return pd.DataFrame({"domain": domain, "class": truth, "predicted": predicted})


def rows(accuracies: pd.DataFrame) -> list[tuple[object, ...]]:
    assert accuracies.columns.tolist() == [
        "domain",
        "part",
        "accuracy",
        "balanced_accuracy",
        "n_images",
        "n_classes",
    ]
    return list(accuracies.itertuples(index=False, name=None))


def test_accuracies_by_hand() -> None:
    answers = table(
        ("ink", "axe", "axe"),
        ("ink", "axe", "axe"),
        ("ink", "axe", "bed"),
        ("ink", "bed", "axe"),
        ("ink", "cat", "cat"),
        ("ink", "cat", "axe"),
        ("photo", "axe", "axe"),
        ("photo", "cat", "bed"),
    )
    # ink: axe 2 of 3, bed 0 of 1, so 2 of 4 by sample and (2/3 + 0) / 2 by class.
    assert rows(accuracy_table(answers, held_out=["cat"])) == [
        ("ink", "seen", 0.5, pytest.approx(1 / 3), 4, 2),
        ("ink", "held-out", 0.5, 0.5, 2, 1),
        ("photo", "seen", 1.0, 1.0, 1, 1),
        ("photo", "held-out", 0.0, 0.0, 1, 1),
    ]
    assert rows(accuracy_table(answers)) == [
        ("ink", "seen", 0.5, pytest.approx((2 / 3 + 0 + 1 / 2) / 3), 6, 3),
        ("photo", "seen", 0.5, 0.5, 2, 2),
    ]


def test_row_order_does_not_matter() -> None:
    answers = table(("b", "x", "x"), ("a", "y", "x"), ("a", "x", "x"), ("b", "y", "y"), ("a", "y", "y"))
    shuffled = answers.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(accuracy_table(answers, ["y"]), accuracy_table(shuffled, ["y"]))


def test_held_out_classes_must_occur() -> None:
    answers = table(("ink", "axe", "axe"), ("ink", "lion", "axe"))
    with pytest.raises(InputError, match="no classified image of the held-out class 'dog' here; available: axe, lion"):
        accuracy_table(answers, held_out=["axe", "dog"])
    with pytest.raises(InputError, match="of the held-out class 'lino' here; perhaps you meant lion"):
        accuracy_table(answers, held_out=["lino"])


# --- from images -----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_predictions_by_hand(images: DomainFolder, batch_size: int) -> None:
    found = predictions(mean_colour(), HEADS, preprocess, images, batch_size=batch_size, work=QUIET)
    columns = ["relative", "domain", "class", "classifier", "predicted", "rank"]
    assert found.columns.tolist() == columns
    assert list(found.itertuples(index=False, name=None)) == [
        ("ink/blue/0.png", "ink", "blue", "words", "blue", 1),  # equal scores of green and red
        ("ink/blue/1.png", "ink", "blue", "words", "blue", 1),
        ("ink/red/0.png", "ink", "red", "words", "red", 1),
        ("ink/red/1.png", "ink", "red", "words", "green", 3),  # red ties with blue, which comes first
        ("ink/red/2.png", "ink", "red", "words", "red", 1),
        ("photo/green/0.png", "photo", "green", "words", "green", 1),
    ]


def test_several_heads_share_one_pass(images: DomainFolder) -> None:
    tower = MeanColour()
    heads = HEADS | {"opposite": lambda e: -(e @ WEIGHTS.T)}
    found = predictions(mean_colour(tower), heads, preprocess, images, work=QUIET)
    assert tower.passes == [6]
    assert found["classifier"].tolist() == ["words"] * 6 + ["opposite"] * 6
    assert found["rank"].tolist()[6:] == [3, 3, 3, 2, 3, 3]


def test_accuracy_from_images_to_table(images: DomainFolder) -> None:
    accuracies = zero_shot_accuracy(mean_colour(), preprocess, WEIGHTS, images, held_out=["red"], work=QUIET)
    assert rows(accuracies) == [
        ("ink", "seen", 1.0, 1.0, 2, 1),
        ("ink", "held-out", pytest.approx(2 / 3), pytest.approx(2 / 3), 3, 1),
        ("photo", "seen", 1.0, 1.0, 1, 1),
    ]


def test_a_selection_competes_with_all_classes(images: DomainFolder) -> None:
    selected = DomainFolder(images.root, domains=["ink"], classes=["red"])
    found = predictions(mean_colour(), HEADS, preprocess, selected, work=QUIET)
    assert found["predicted"].tolist() == ["red", "green", "red"]


def test_unreadable_images_do_not_shift_the_others(images: DomainFolder) -> None:
    (images.root / "ink/red/0.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"Skipped an image: .*red/0\.png: the file is empty"):
        found = predictions(mean_colour(), HEADS, preprocess, images, batch_size=2, work=QUIET)
    assert found["relative"].tolist()[2] == "ink/red/1.png"
    assert found["predicted"].tolist() == ["blue", "blue", "green", "red", "green"]
    with pytest.raises(InputError, match=r"red/0\.png: the file is empty"):
        predictions(mean_colour(), HEADS, preprocess, images, work=Work(strict=True, progress=False))


def test_no_gradients_are_kept(images: DomainFolder) -> None:
    seen: list[bool] = []

    def head(embeddings: Tensor) -> Tensor:
        scores = embeddings @ nn.Parameter(WEIGHTS).T
        seen.append(embeddings.requires_grad or scores.requires_grad)
        return scores

    predictions(mean_colour(), {"words": head}, preprocess, images, work=QUIET)
    assert seen == [False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
def test_encoders_in_half_precision(images: DomainFolder, dtype: torch.dtype) -> None:
    expected = zero_shot_accuracy(mean_colour(), preprocess, WEIGHTS, images, work=QUIET)
    for weights in (WEIGHTS.to(dtype), WEIGHTS.float()):
        found = zero_shot_accuracy(mean_colour(MeanColour(dtype)), preprocess, weights, images, work=QUIET)
        pd.testing.assert_frame_equal(found, expected)


def test_a_tower_in_train_mode_is_left_as_it_was(resnet: nn.Module, images: DomainFolder) -> None:
    resnet.train()
    encoder = Encoder.from_tower(resnet)
    before = {name: buffer.clone() for name, buffer in resnet.named_buffers()}
    width = encoder(torch.zeros(2, 3, *encoder.image_size)).shape[1]
    resnet.load_state_dict(before, strict=False)
    one, all_at_once = (
        predictions(
            encoder, {"words": text_head(torch.eye(3, width))}, large(encoder), images, work=QUIET, batch_size=size
        )
        for size in (1, 6)
    )
    pd.testing.assert_frame_equal(one, all_at_once)  # in evaluation mode, where batches do not matter
    assert resnet.training
    for name, buffer in resnet.named_buffers():
        assert torch.equal(buffer, before[name]), name


def large(encoder: Encoder) -> Callable[[Image.Image], Tensor]:
    return lambda image: preprocess(image.resize(encoder.image_size))


def test_unusable_weights_and_embeddings(images: DomainFolder) -> None:
    def classify(weights: Tensor, tower: MeanColour | None = None) -> None:
        predictions(mean_colour(tower), {"words": text_head(weights)}, preprocess, images, work=QUIET)

    with pytest.raises(
        InputError, match=r"head 'words' must give a score for each of the 3 classes of images\.all_classes"
    ):
        classify(WEIGHTS[:2])
    with pytest.raises(
        InputError, match=r"Text weights of width 2 score embeddings \[batch, 2\], but \[6, 3\] was given"
    ):
        classify(WEIGHTS[:, :2])
    with pytest.raises(InputError, match="Activations at site 'mean' are not finite"):
        classify(WEIGHTS, MeanColour(scale=torch.nan))


# --- everything that is reported -------------------------------------------------------------------------------------


def test_tidy_accuracies_by_hand() -> None:
    answers = pd.DataFrame(
        [
            ("a", "ink", "axe", 1),
            ("a", "ink", "axe", 2),
            ("a", "ink", "axe", 6),
            ("a", "ink", "cat", 1),
            ("b", "photo", "cat", 3),
        ],
        columns=["classifier", "domain", "class", "rank"],
    )
    table = tidy_accuracy(answers, held_out=["cat"], top=(1, 2))
    values = table.set_index(["classifier", "domain", "part", "measure"])["value"].to_dict()
    assert values == {
        ("a", "ink", "all", "top-1"): 0.5,
        ("a", "ink", "all", "balanced top-1"): pytest.approx((1 / 3 + 1) / 2),
        ("a", "ink", "all", "top-2"): 0.75,
        ("a", "ink", "all", "balanced top-2"): pytest.approx((2 / 3 + 1) / 2),
        **{("a", "ink", "seen", f"{b}top-{k}"): pytest.approx(k / 3) for k in (1, 2) for b in ("", "balanced ")},
        **{
            ("a", "ink", part, f"{b}top-{k}"): 1
            for part in ("held-out", "cat")
            for k in (1, 2)
            for b in ("", "balanced ")
        },
        **{
            ("b", "photo", part, f"{b}top-{k}"): 0
            for part in ("all", "held-out", "cat")
            for k in (1, 2)
            for b in ("", "balanced ")
        },
    }
    sizes = table[(table["measure"] == "top-1") & (table["classifier"] == "a")].set_index("part")
    assert sizes["n_images"].to_dict() == {"all": 4, "seen": 3, "held-out": 1, "cat": 1}
    assert sizes["n_classes"].to_dict() == {"all": 2, "seen": 1, "held-out": 1, "cat": 1}


def test_top_k_needs_positive_k() -> None:
    with pytest.raises(InputError, match=r"Top-k accuracy needs positive k, but \[0\] was given"):
        tidy_accuracy(pd.DataFrame({"class": ["axe"]}), top=(0,))
