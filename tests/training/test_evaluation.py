"""Zero-shot predictions and the accuracies made of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from circuitry.data.domains import DomainFolder
from circuitry.runs.errors import InputError
from circuitry.training.evaluation import accuracy_table, predictions, text_head, tidy_accuracy, zero_shot_accuracy


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
    with pytest.raises(InputError, match="there are no images of the held-out class 'dog' among those classified"):
        accuracy_table(table(("ink", "axe", "axe")), held_out=["axe", "dog"])


# --- from images -----------------------------------------------------------------------------------------------------


def write_colours(root: Path, colours: dict[str, Sequence[tuple[int, int, int]]]) -> DomainFolder:
    for folder, values in colours.items():
        (root / folder).mkdir(parents=True)
        for i, colour in enumerate(values):
            Image.new("RGB", (2, 2), colour).save(root / folder / f"{i}.png")
    return DomainFolder(root)


def preprocess(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def mean_colour(images: Tensor) -> Tensor:
    return images.mean(dim=(2, 3)).double()


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
    found = predictions(mean_colour, HEADS, preprocess, images, batch_size=batch_size, progress=False)
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
    passes: list[int] = []

    def embed(batch: Tensor) -> Tensor:
        passes.append(len(batch))
        return mean_colour(batch)

    found = predictions(embed, HEADS | {"opposite": lambda e: -(e @ WEIGHTS.T)}, preprocess, images, progress=False)
    assert passes == [6]
    assert found["classifier"].tolist() == ["words"] * 6 + ["opposite"] * 6
    assert found["rank"].tolist()[6:] == [3, 3, 3, 2, 3, 3]


def test_accuracy_from_images_to_table(images: DomainFolder) -> None:
    accuracies = zero_shot_accuracy(mean_colour, preprocess, WEIGHTS, images, held_out=["red"], progress=False)
    assert rows(accuracies) == [
        ("ink", "seen", 1.0, 1.0, 2, 1),
        ("ink", "held-out", pytest.approx(2 / 3), pytest.approx(2 / 3), 3, 1),
        ("photo", "seen", 1.0, 1.0, 1, 1),
    ]


def test_a_selection_competes_with_all_classes(images: DomainFolder) -> None:
    selected = DomainFolder(images.root, domains=["ink"], classes=["red"])
    found = predictions(mean_colour, HEADS, preprocess, selected, progress=False)
    assert found["predicted"].tolist() == ["red", "green", "red"]


def test_unreadable_images_do_not_shift_the_others(images: DomainFolder) -> None:
    (images.root / "ink/red/0.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"skipped an image: .*red/0\.png: the file is empty"):
        found = predictions(mean_colour, HEADS, preprocess, images, batch_size=2, progress=False)
    assert found["relative"].tolist()[2] == "ink/red/1.png"
    assert found["predicted"].tolist() == ["blue", "blue", "green", "red", "green"]


def test_no_gradients_are_kept(images: DomainFolder) -> None:
    scale = torch.ones(3, dtype=torch.double, requires_grad=True)
    seen: list[bool] = []

    def embed(batch: Tensor) -> Tensor:
        embeddings = mean_colour(batch) * scale
        seen.append(embeddings.requires_grad)
        return embeddings

    predictions(embed, HEADS, preprocess, images, progress=False)
    assert seen == [False]


def test_unusable_weights_and_embeddings(images: DomainFolder) -> None:
    def classify(embed: Callable[[Tensor], Tensor], weights: Tensor) -> None:
        predictions(embed, {"words": text_head(weights)}, preprocess, images, progress=False)

    with pytest.raises(
        InputError, match=r"head 'words' a score for each of the 3 classes of images\.all_classes, given"
    ):
        classify(mean_colour, WEIGHTS[:2])
    with pytest.raises(InputError, match=r"expected embeddings \[batch, 2\], as wide as the .*; given \[6, 3\]"):
        classify(mean_colour, WEIGHTS[:, :2])
    with pytest.raises(InputError, match="the embeddings are not finite numbers"):
        classify(lambda x: mean_colour(x) * torch.nan, WEIGHTS)


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
    with pytest.raises(InputError, match=r"top-k accuracy needs positive k, given \[0\]"):
        tidy_accuracy(pd.DataFrame({"class": ["axe"]}), top=(0,))
