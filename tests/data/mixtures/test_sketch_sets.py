"""ImageNet-Sketch beside DomainNet's sketches, and sketches of fewer classes."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitry.data.domains import ImageRecord
from circuitry.data.mixtures.class_table import imagenet_partners
from circuitry.data.mixtures.sketch_sets import CLASS_FRACTIONS, imagenet_sketch, keep_classes, replace_at_random
from circuitry.runs.errors import InputError
from tests.data.mixtures.test_selection import records

TRAIN = records({(domain, f"class {i:02d}"): 3 for domain in ("real", "sketch") for i in range(40)})


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


def test_only_classes_without_a_partner(root: Path) -> None:
    sketches = imagenet_sketch(root)
    partnered = {i for own in imagenet_partners().values() for i in own}
    assert 403 in partnered  # aircraft carrier
    chosen = [i for i in (0, 25, 105, 403, 404) if i not in partnered]
    expected = [f"n{i:08d}/sketch_{k}.JPEG" for i in chosen for k in (1, 2)]
    assert [record.relative for record in sketches.records] == expected
    assert sketches.records[0] == ImageRecord(
        root.resolve() / "n00000025/sketch_1.JPEG", "n00000025/sketch_1.JPEG", "sketch", "n00000025"
    )
    assert len(sketches.names) == 550
    assert sketches.names["n00000025"] == "fire salamander"


def test_names_that_are_not_utf8_are_left_out(root: Path) -> None:
    complete = imagenet_sketch(root)
    strange = root / "n00000025" / os.fsdecode(b"caf\xe9.JPEG")
    strange.touch()
    with pytest.warns(UserWarning, match="Left out 1 files or folders whose names are not UTF-8"):
        assert imagenet_sketch(root) == complete
    strange.unlink()


def test_folders_that_are_not_imagenet_sketch(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Expected ImageNet-Sketch, <wnid>/<file>, but there is no folder .*none"):
        imagenet_sketch(tmp_path / "none")
    with pytest.raises(InputError, match=r"Expected the 1000 class folders of ImageNet, .* found 0"):
        imagenet_sketch(tmp_path)


def test_replacing_drops_as_many_at_random() -> None:
    others = records({("sketch", "n01"): 50})
    mixed = replace_at_random(TRAIN, others)
    assert len(mixed) == len(TRAIN)
    assert mixed[-50:] == others
    kept = mixed[:-50]
    assert kept == [record for record in TRAIN if record in set(kept)]  # in their order
    assert sum(record.domain == "real" for record in kept) == 120
    dropped = {record.relative for record in TRAIN} - {record.relative for record in kept}
    assert 20 < len({name.split("/")[1] for name in dropped}) <= 40  # spread over the classes
    assert sorted(dropped)[:3] == [
        "sketch/class 00/1.png",
        "sketch/class 01/0.png",
        "sketch/class 01/2.png",
    ]  # for ever
    assert replace_at_random(TRAIN[::-1], others)[-51] in kept
    assert replace_at_random(TRAIN, others, seed=1) != mixed
    with pytest.raises(
        InputError, match="121 images are to replace as many of domain 'sketch', but it has only 120; ext"
    ):
        replace_at_random(TRAIN, records({("sketch", "n01"): 121}))


@given(share=st.sampled_from(CLASS_FRACTIONS), larger=st.sampled_from((*CLASS_FRACTIONS, 1.0)))
def test_classes_are_nested(share: float, larger: float) -> None:
    kept, more = (
        {record.class_name for record in keep_classes(TRAIN, fraction) if record.domain == "sketch"}
        for fraction in sorted((share, larger))
    )
    assert kept <= more


def test_numbers_of_classes() -> None:
    numbers = [
        len({record.class_name for record in keep_classes(TRAIN, share) if record.domain == "sketch"})
        for share in CLASS_FRACTIONS
    ]
    assert numbers == [20, 12, 10, 4, 2, 1]
    hundred = records({("sketch", f"{i:03d}"): 1 for i in range(100)})
    assert len(keep_classes(hundred, 0.07)) == 7  # 0.07 * 100 is 7.000000000000001 in floating point


def test_one_class() -> None:
    kept = keep_classes(TRAIN, "Class_07")
    assert [record for record in kept if record.domain == "real"] == [r for r in TRAIN if r.domain == "real"]
    assert {record.class_name for record in kept if record.domain == "sketch"} == {"class 07"}
    with pytest.raises(InputError, match="There is no class 'dog' here; available: class 00"):
        keep_classes(TRAIN, "dog")
    with pytest.raises(InputError, match=r"The share of classes to keep must lie above 0 and up to 1, but 0\.0"):
        keep_classes(TRAIN, 0.0)
    with pytest.raises(InputError, match="There are no images of domain 'ink' whose classes could be reduced"):
        keep_classes(TRAIN, 0.5, domain="ink")
