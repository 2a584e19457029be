"""ImageNet-Sketch in a finished mixture, sketches of fewer classes, and names and prompts of the study."""

import json
import random
from itertools import product
from pathlib import Path

import open_clip
import pytest

from circuitry.data import ImageRecord, imagenet_partners
from circuitry.models import default_templates
from circuitry.runs import InputError
from experiments.study.selection import (
    CLASS_SHARES,
    LEFT_OUT,
    imagenet_names,
    imagenet_sketch,
    sketch_mixtures,
    style_word_templates,
)
from tests.conftest import shared
from tests.study.test_selection import records

TRAIN = records({(domain, f"class {i:02d}"): 3 for domain in ("real", "sketch") for i in range(40)})
OTHERS = records({("sketch", f"n{i:02d}"): 2 for i in range(60)})


def test_only_classes_without_a_partner_come_in(tmp_path: Path) -> None:
    for i in range(1000):
        (tmp_path / f"n{i:08d}").mkdir()
    for i, file in product((0, 25, 105, 403, 404), ("sketch_2.JPEG", "sketch_1.JPEG", "notes.txt")):
        (tmp_path / f"n{i:08d}" / file).touch()
    sketches = imagenet_sketch(tmp_path)
    assert [record.relative for record in sketches.images] == [
        f"n{i:08d}/sketch_{k}.JPEG" for i, k in product((0, 25, 105, 403, 404), (1, 2))
    ]
    partnered = {i for own in imagenet_partners().values() for i in own}
    assert 403 in partnered  # aircraft carrier
    kept = [record for record in sketches.images if int(record.class_name[1:]) not in partnered]
    assert sketches.records == kept
    name = "n00000025"
    assert kept[0] == ImageRecord(tmp_path / name / "sketch_1.JPEG", f"{name}/sketch_1.JPEG", "sketch", name)
    assert (len(sketches.kept), len(sketches.names)) == (514, 1000)
    assert "n00000150" not in sketches.kept  # sea lion
    assert (sketches.names[name], sketches.names["n00000744"]) == ("fire salamander", "projectile")


def test_classes_and_names_are_the_lent_ones() -> None:
    lent = json.loads(shared("facts/study_texts.json").read_text())
    assert {str(i) for i in LEFT_OUT} == lent["imagenet_sketch_left_out_beyond_partners"].keys()
    ours, study = imagenet_names(), imagenet_names("study")
    assert list(ours) == list(open_clip.IMAGENET_CLASSNAMES)
    differing = {str(i): list(names) for i, names in enumerate(zip(study, ours, strict=True)) if len(set(names)) > 1}
    assert differing == lent["imagenet_names_that_differ_from_open_clip_3"]


def test_style_templates_are_the_ten_of_the_study() -> None:
    assert len(default_templates()) == 86
    words = (("clipart", "a"), ("infograph", "an"), ("painting", "a"), ("quickdraw", "a"), ("sketch", "a"))
    expected = {f"{article} {word} of {of} {{}}." for word, article in words for of in ("a", "the")}
    assert set(style_word_templates()) == expected


# --- replacement -----------------------------------------------------------------------------------------------------


def test_as_many_of_all_images_go() -> None:
    mixed = sketch_mixtures(TRAIN, OTHERS)["imagenet-sketch"]
    gone = {TRAIN[i].relative for i in random.Random(42).sample(range(len(TRAIN)), len(OTHERS))}
    assert mixed == [*(record for record in TRAIN if record.relative not in gone), *OTHERS]
    assert {record.domain for record in TRAIN if record.relative in gone} == {"real", "sketch"}
    without = records({("real", "axe"): 240})
    assert list(sketch_mixtures(without, OTHERS)) == ["imagenet-sketch"]
    with pytest.raises(InputError, match=r"241 .* 240"):
        sketch_mixtures(without, records({("sketch", "n01"): 241}))


def test_nested_classes_and_one_stream_by_hand() -> None:
    """The draws written out: half, quarter of it, the rest of 30 % from the half, then ever fewer of the quarter."""
    rng = random.Random(42)
    names = [f"class {i:02d}" for i in range(40)]
    half = rng.sample(names, 20)
    quarter = rng.sample(half, 10)
    third = quarter + rng.sample([name for name in names if name in half and name not in quarter], 2)
    tenth = rng.sample(quarter, 4)
    twentieth = rng.sample(tenth, 2)
    hundredth = rng.sample(twentieth, 1)
    one = rng.sample(hundredth, 1)
    real = [record for record in TRAIN if record.domain == "real"]
    made = sketch_mixtures(TRAIN, OTHERS)
    del made["imagenet-sketch"]
    kept = (half, quarter, third, tenth, twentieth, hundredth, one)
    assert list(made) == list(CLASS_SHARES)
    for classes, (variant, found) in zip(kept, made.items(), strict=True):
        sketches = [r for name in classes for r in TRAIN if r.domain == "sketch" and r.class_name == name]
        gone = set(rng.sample(range(len(real)), len(OTHERS) + len(sketches) - 120))
        assert found == [*(r for i, r in enumerate(real) if i not in gone), *sketches, *OTHERS], variant
        assert len(found) == len(TRAIN)


def test_numbers_of_classes_at_the_studys_size() -> None:
    train = records({("sketch", f"{i:03d}"): 1 for i in range(330)} | {("real", "axe"): 600})
    others = records({("sketch", "n01"): 400})
    made = sketch_mixtures(train, others)
    numbers = [len({r.class_name for r in found if r.domain == "sketch"}) - 1 for found in made.values()]
    assert numbers[1:] == [165, 82, 99, 33, 16, 3, 1]
