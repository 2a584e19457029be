"""ImageNet-Sketch in a finished mixture, and sketches of fewer classes."""

import json
import os
import random
from pathlib import Path

import pytest

from circuitry.data import ImageRecord, imagenet_partners
from circuitry.runs import InputError
from experiments.study.selection import (
    CLASS_SHARES,
    LEFT_OUT,
    STUDY_IMAGENET_NAMES,
    imagenet_sketch,
    replace_at_random,
    sketch_class_mixtures,
)
from tests.conftest import shared
from tests.study.test_selection import records

TRAIN = records({(domain, f"class {i:02d}"): 3 for domain in ("real", "sketch") for i in range(40)})
OTHERS = records({("sketch", f"n{i:02d}"): 2 for i in range(60)})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand class folders; five of them hold images."""
    folder = tmp_path_factory.mktemp("sketch")
    for i in range(1000):
        (folder / f"n{i:08d}").mkdir()
    for i in (0, 25, 105, 403, 404):
        for file in ("sketch_2.JPEG", "sketch_1.JPEG", "notes.txt"):
            (folder / f"n{i:08d}" / file).touch()
    return folder


def test_only_classes_without_a_partner_come_in(root: Path) -> None:
    sketches = imagenet_sketch(root)
    partnered = {i for own in imagenet_partners().values() for i in own}
    assert 403 in partnered  # aircraft carrier
    kept = [i for i in (0, 25, 105, 403, 404) if i not in partnered]
    assert [record.relative for record in sketches.records] == [
        f"n{i:08d}/sketch_{k}.JPEG" for i in kept for k in (1, 2)
    ]
    assert [record.relative for record in sketches.images] == [
        f"n{i:08d}/sketch_{k}.JPEG" for i in (0, 25, 105, 403, 404) for k in (1, 2)
    ]
    assert sketches.records[0] == ImageRecord(
        root.resolve() / "n00000025/sketch_1.JPEG", "n00000025/sketch_1.JPEG", "sketch", "n00000025"
    )
    assert (len(sketches.kept), len(sketches.names)) == (514, 1000)
    assert "n00000150" not in sketches.kept  # sea lion
    assert (sketches.names["n00000025"], sketches.names["n00000744"]) == ("fire salamander", "projectile")


def test_classes_and_names_are_the_lent_ones() -> None:
    lent = json.loads(shared("facts/study_texts.json").read_text())
    assert {str(i) for i in LEFT_OUT} == lent["imagenet_sketch_left_out_beyond_partners"].keys()
    names = lent["imagenet_names_that_differ_from_open_clip_3"]
    assert {str(i): name for i, name in STUDY_IMAGENET_NAMES.items()} == {i: study for i, (study, _) in names.items()}


def test_names_that_are_not_utf8_are_left_out(root: Path) -> None:
    complete = imagenet_sketch(root)
    strange = root / "n00000025" / os.fsdecode(b"caf\xe9.JPEG")
    strange.touch()
    with pytest.warns(UserWarning, match="UTF-8"):
        assert imagenet_sketch(root) == complete
    strange.unlink()


# --- replacement -----------------------------------------------------------------------------------------------------


def test_as_many_of_all_images_go() -> None:
    mixed = replace_at_random(TRAIN, OTHERS)
    gone = {TRAIN[i].relative for i in random.Random(42).sample(range(len(TRAIN)), len(OTHERS))}
    assert mixed == [*(record for record in TRAIN if record.relative not in gone), *OTHERS]
    assert {record.domain for record in TRAIN if record.relative in gone} == {"real", "sketch"}
    with pytest.raises(InputError, match=r"241 .* 240"):
        replace_at_random(TRAIN, records({("sketch", "n01"): 241}))


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
    made = sketch_class_mixtures(TRAIN, OTHERS)
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
    made = sketch_class_mixtures(train, others)
    numbers = [len({r.class_name for r in found if r.domain == "sketch"}) - 1 for found in made.values()]
    assert numbers == [165, 82, 99, 33, 16, 3, 1]
