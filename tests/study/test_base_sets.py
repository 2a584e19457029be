"""Base sets: ImageNet-Captions, tables, how command lines name them, and which images validate."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitry.runs import InputError
from circuitry.training import CaptionedImage
from experiments.study.base_sets import (
    BaseSet,
    caption_table,
    imagenet_captions,
    named_base_sets,
)

ENTRIES: list[dict[str, Any]] = [
    {
        "wnid": "n01",
        "title": " My \n fish ",
        "tags": ["tench", " big  one"],
        "description": "x",
    },
    {
        "wnid": "n02",
        "title": "",
        "tags": [],
        "description": 'a "quoted", [bracketed] \\ text',
    },
    {"wnid": "n02", "title": None, "tags": ["", None, "lake"]},
    {"wnid": "n02", "title": "  ", "tags": [" "], "description": "\t"},
]


def test_captions_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "captions.json"
    file.write_text(
        json.dumps(
            [{"filename": f"{i}.JPEG", **entry} for i, entry in enumerate(ENTRIES)]
        )
    )
    first, *others = imagenet_captions(file, tmp_path / "train")
    path = "n01/0.JPEG"
    caption = "My fish; tench big one; x"
    assert first == CaptionedImage(
        str(tmp_path / "train" / path), path, "imagenet-captions", "n01", caption
    )
    assert [image.caption for image in others] == [
        'a "quoted", [bracketed] \\ text',
        "lake",
        "",
    ]
    assert [image.class_name for image in others] == ["n02", "n02", "n02"]
    for text in ('[{"filename": "a"', '{"a": 1}', '[{"filename": "a"}]'):
        file.write_text(text)
        with pytest.raises(InputError, match=r"captions\.json"):
            list(imagenet_captions(file, tmp_path))


def test_paths_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "cc.tsv"
    table.write_text(
        f"filepath\ttitle\n00/1.jpg\ta cat\n{tmp_path}/00/2.jpg\ta dog\n/else/3.jpg\tan axe\n"
    )
    images = list(caption_table(table, "cc3m"))
    assert [image.path for image in images] == [
        f"{tmp_path}/00/1.jpg",
        f"{tmp_path}/00/2.jpg",
        "/else/3.jpg",
    ]
    assert [image.relative for image in images] == [
        "00/1.jpg",
        "00/2.jpg",
        "/else/3.jpg",
    ]
    assert {(image.domain, image.class_name) for image in images} == {("cc3m", "")}
    elsewhere = next(caption_table(table, "cc3m", root=Path("/images")))
    assert (elsewhere.path, elsewhere.relative) == ("/images/00/1.jpg", "00/1.jpg")


def test_base_sets_by_name(tmp_path: Path) -> None:
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ["0.jpg"], "val": ["1.jpg"]}))
    bases = named_base_sets(
        ["cc3m=a=b.tsv", "cc12m=c"], ["cc3m=/images"], ["cc3m=0.5", f"cc12m={split}"]
    )
    assert bases == {
        "cc3m": BaseSet("cc3m", Path("a=b.tsv"), Path("/images"), 0.5),
        "cc12m": BaseSet(
            "cc12m",
            Path("c"),
            None,
            {"train": frozenset(["0.jpg"]), "val": frozenset(["1.jpg"])},
        ),
    }
    for paths, validation in ((["cc3m"], []), (["cc12m=x"], ["cc3m=0.5"])):
        with pytest.raises(InputError, match="'cc3m'"):
            named_base_sets(paths, [], validation)
    for wrong in ("2.0", "val.txt"):
        with pytest.raises(InputError, match=wrong):
            named_base_sets(["cc3m=x"], [], [f"cc3m={wrong}"])


IMAGES = [
    CaptionedImage(f"/d/{i}.jpg", f"n{i % 3}/{i}.jpg", "base", f"n{i % 3}", "x")
    for i in range(2000)
]


class Given(BaseSet):
    """A base set of these images."""

    def all_images(self) -> Iterator[CaptionedImage]:
        return iter(IMAGES)


@settings(deadline=None, max_examples=20)
@given(share=st.floats(0, 1), more=st.floats(0, 1), seed=st.integers(0, 9))
def test_training_and_validation_are_disjoint_complete_and_nested(
    share: float, more: float, seed: int
) -> None:
    base = Given("base", Path(), None, share)
    train, val = (
        list(base.images_for("train", seed)),
        list(base.images_for("val", seed)),
    )
    assert len(train) + len(val) == len(IMAGES)
    assert not set(train) & set(val)
    assert abs(len(val) - share * len(IMAGES)) < 120  # five standard deviations
    assert set(val) <= set(
        Given("base", Path(), None, max(share, more)).images_for("val", seed)
    )


def test_the_purpose_depends_on_the_image_alone() -> None:
    val = [
        image.relative for image in Given("base", Path(), None, 0.002).images_for("val")
    ]
    assert val == ["n1/661.jpg", "n1/787.jpg", "n2/1766.jpg"]  # must never change
    whole = Given("base", Path())
    assert (list(whole.images_for("train")), list(whole.images_for("val"))) == (
        IMAGES,
        [],
    )


def test_a_published_split_names_both_purposes() -> None:
    split = {
        "train": frozenset(["0.jpg", "n2/2.jpg", "7.jpg"]),
        "val": frozenset(["1.jpg"]),
    }
    base = Given("base", Path(), None, split)
    assert [image.relative for image in base.images_for("train")] == [
        "n0/0.jpg",
        "n2/2.jpg",
        "n1/7.jpg",
    ]
    assert [image.relative for image in base.images_for("val")] == ["n1/1.jpg"]
    other = Given(
        "base",
        Path(),
        None,
        {"train": frozenset(["0.jpg"]), "val": frozenset(["a", "b"])},
    )
    with pytest.raises(InputError, match="lacks 2 of the 3"):
        list(other.images_for("train"))
