"""Which images find and which test is one value: no image does both, whichever questions are asked of one folder."""

import shutil
from pathlib import Path

import pytest

from circuitry import CausalChecks, Clip, DomainFolder, extract, left_rule
from circuitry.data import ImageRecord, Split
from circuitry.interventions import CheckSettings, OwnPartSettings
from circuitry.questions import (
    Extraction,
    ExtractionSettings,
    OneClass,
    OneClassSettings,
    OwnParts,
)
from experiments.drawn import DrawingSettings, write_toy
from tests.support.work import QUIET

CLASSES, STYLES = ("car", "fish", "key", "star"), ("real", "sketch")
N = 3


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> DomainFolder:
    drawing = DrawingSettings(0, 5, classes=CLASSES, styles=STYLES, size=16)
    root = write_toy(tmp_path_factory.mktemp("split"), drawing, progress=False)
    return DomainFolder(root, split="test")


def test_no_image_both_finds_and_tests(
    clip: Clip, images: DomainFolder, tmp_path: Path
) -> None:
    finds, tests = set[ImageRecord](), set[ImageRecord]()
    settings = ExtractionSettings(n_images=N)
    extraction = Extraction(clip, images, tmp_path / "circuits", settings)
    parts = OwnParts(clip, images, tmp_path / "own", OwnPartSettings(n_images=N))
    # Circuits of two classes alone: the images of the others find own parts, and test these circuits.
    graphs = extract(
        clip,
        images,
        tmp_path / "found",
        CLASSES[:2],
        n_images=N,
        rule=left_rule(1),
        folds=2,
        sites=clip.encoder.sites[-2:],
        work=QUIET,
    )
    checks = CausalChecks(clip, images, graphs, CheckSettings(n_images=N))
    for key in extraction.keys:
        asked = OneClassSettings(n_images=N)
        one = OneClass(clip, images, tmp_path / "one", key, asked)
        assert one.found_on == parts.found_on[key] == extraction.selection[key]
        assert one.others() == extraction.others[key] == parts.others(key)[:12]
        # Circuits of other classes are found on images that the folder is claimed for, too.
        for foreign in one.foreign:
            assert foreign[0] != key[0]
            assert {*extraction.selection[foreign]} <= {*one.looked_at[foreign]}
        assert len(one.foreign) == 2
        finds |= {*one.found_on, *one.others(), *parts.others(key)}
        tests |= {*one.unseen, *one.others(unseen=True), *parts.unseen[key]}
        tests |= {*checks.chosen.others(key)}
        if key in graphs:
            assert checks.chosen.found_on(key) == one.found_on
            assert checks.chosen.own(key) == one.unseen
            tests |= {*checks.chosen.own(key)}
    assert finds & tests == set()
    assert finds | tests == {*images.records}


def test_a_folder_that_has_grown_keeps_what_was_seen(
    clip: Clip, images: DomainFolder, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    key = ("car", "real")
    ranked = DomainFolder(images.root, split=None).select(*key)
    # The first image of the ranks is not there yet: by the rule it finds, as soon as it is.
    for record in ranked[1:]:
        path = data / record.relative
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(record.path, path)
    graphs = extract(
        clip,
        DomainFolder(data),
        tmp_path / "found",
        n_images=N,
        rule=left_rule(1),
        folds=2,
        method="gradient",
        sites=clip.encoder.sites[-2:],
        work=QUIET,
    )
    shutil.copy(ranked[0].path, data / ranked[0].relative)
    chosen = CausalChecks(clip, DomainFolder(data), graphs).chosen
    names = [record.relative for record in ranked]
    assert names[1:3] == list(graphs[key].provenance["images"])
    assert names[1:3] == [record.relative for record in chosen.found_on(key)]
    assert names[3:] == [record.relative for record in chosen.own(key)]


def test_half_of_the_images_find_and_others_come_in_turn(images: DomainFolder) -> None:
    key = ("fish", "real")
    ranked = images.select(*key, seed=4)
    for n_images, n_found in ((1, 1), (3, 3), (50, 3)):
        split = Split(images, n_images, 4)
        assert split.found_on(key) == ranked[:n_found]
        assert split.unseen(key) == ranked[n_found:]
        assert split.unseen(key, 1) == ranked[n_found : n_found + 1]
    assert len(Split(images, 50, leave_unseen=False).found_on(key)) == 5
    split = Split(images, 2)
    for unseen in (False, True):
        side = split.unseen if unseen else split.found_on
        others = split.others(key, 4, unseen=unseen)
        names = ("key", "star", "car", "key")
        assert [record.class_name for record in others] == list(names)
        assert others[3] == side(("key", "real"))[1]
    assert len(split.others(key, None)) == 2 * 3
