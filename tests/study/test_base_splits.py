"""Which images of a base set validate: shares drawn by name, and published splits."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitry.runs import InputError
from circuitry.training.trainer_table import CaptionedImage
from experiments.study.base_sets import Split, read_split, validation_part

IMAGES = [CaptionedImage(f"/d/{i}.jpg", f"n{i % 3}/{i}.jpg", "base", f"n{i % 3}", "x") for i in range(2000)]


@settings(deadline=None, max_examples=20)
@given(share=st.floats(0, 1), more=st.floats(0, 1), seed=st.integers(0, 9))
def test_parts_are_disjoint_complete_and_nested(share: float, more: float, seed: int) -> None:
    train, val = (list(validation_part(IMAGES, part, share, seed)) for part in ("train", "val"))
    assert len(train) + len(val) == len(IMAGES)
    assert not set(train) & set(val)
    assert abs(len(val) - share * len(IMAGES)) < 120  # five standard deviations
    assert set(val) <= set(validation_part(IMAGES[::-1], "val", max(share, more), seed))


def test_a_part_depends_on_the_image_alone() -> None:
    val = [image.relative for image in validation_part(IMAGES, "val", 0.002)]
    assert val == ["n1/661.jpg", "n1/787.jpg", "n2/1766.jpg"]  # must never change
    assert val[:2] == [image.relative for image in validation_part(IMAGES[600:900], "val", 0.002)]


def test_validation_images_by_name() -> None:
    names = Split(None, frozenset(["n1/1.jpg", "5.jpg", "n0/2.jpg"]))
    with pytest.warns(UserWarning, match="1 of the 3"):
        val = list(validation_part(IMAGES, "val", names))
    assert [image.relative for image in val] == ["n1/1.jpg", "n2/5.jpg"]
    assert len(list(validation_part(IMAGES, "train", Split(None, frozenset(["n1/1.jpg"]))))) == 1999
    with pytest.raises(InputError, match=r"2\.0"):
        validation_part(IMAGES, "val", 2.0)


def test_a_published_split_names_both_parts(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": ["0.jpg", "n2/2.jpg", "7.jpg"], "val": ["1.jpg"]}))
    split = read_split(path)
    parts = {part: [image.relative for image in validation_part(IMAGES, part, split)] for part in ("train", "val")}
    assert parts == {"train": ["n0/0.jpg", "n2/2.jpg", "n1/7.jpg"], "val": ["n1/1.jpg"]}  # the others are in neither
    (tmp_path / "val.txt").write_text("n1/1.jpg\n\n 5.jpg \n")
    assert read_split(tmp_path / "val.txt") == Split(None, frozenset(["n1/1.jpg", "5.jpg"]))
