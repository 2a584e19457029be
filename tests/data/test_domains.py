"""Images sorted by domain and class, from lists, folders and tables; the study's choice of them."""

import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitry.data import DomainFolder, ShuffledImages, fold_numbers
from circuitry.data.image_lists import listed_splits


def touch(root: Path, *relatives: str) -> None:
    for relative in relatives:
        (root / relative).parent.mkdir(parents=True, exist_ok=True)
        (root / relative).touch()


def relatives(images: DomainFolder) -> list[str]:
    return [record.relative for record in images.records]


def write_lists(root: Path, split: str, lists: Mapping[str, Sequence[str]]) -> None:
    for domain, lines in lists.items():
        (root / f"{domain}_{split}.txt").write_text(
            "".join(f"{line}\n" for line in lines)
        )


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A tiny DomainNet: labels do not follow the alphabet, "t-shirt" lacks test images, "zebra" those of painting."""
    test = {
        "real": [
            "real/cello/c 1.png 0",
            "real/cell phone/p.png 1",
            "real/zebra/z.png 3",
        ],
        "painting": ["painting/cello/c.png 0"],
    }
    train = {
        "real": ["real/t-shirt/t.png 2", "real/cello/c2.png 0"],
        "painting": ["painting/cello/c3.png 0"],
    }
    for split, lists in {"test": test, "train": train}.items():
        write_lists(tmp_path, split, lists)
        touch(
            tmp_path,
            *(line.rpartition(" ")[0] for lines in lists.values() for line in lines),
        )
    (tmp_path / "notes_old.txt").write_text("not a list\n")
    return tmp_path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    touch(
        tmp_path,
        "sketch/owl/2.PNG",
        "sketch/owl/1.jpg",
        "sketch/owl/readme.txt",
        "sketch/owl/.3.png",
    )
    touch(
        tmp_path,
        "photo/owl/1.webp",
        "photo/ant hill/1.png",
        "docs/figures/a.pdf",
        ".cache/x/1.png",
        "photo/top.png",
    )
    return tmp_path


def test_lists_give_classes_in_label_order(listed: Path) -> None:
    images = DomainFolder(listed)
    assert images.domains == ("painting", "real")
    # "t-shirt" has no test image; without it, the label of "zebra" would be 2 here and 3 in training.
    assert (
        images.classes
        == images.all_classes
        == ("cello", "cell phone", "t-shirt", "zebra")
    )
    assert relatives(images) == [
        "painting/cello/c.png",
        "real/cello/c 1.png",
        "real/cell phone/p.png",
        "real/zebra/z.png",
    ]
    assert images.records[1].path == listed / "real/cello/c 1.png"
    assert images.records[2].class_name == "cell phone"


def test_splits_are_separate_and_none_reads_the_folders(listed: Path) -> None:
    found = relatives(DomainFolder(listed, "train"))
    assert sorted(found) == [
        "painting/cello/c3.png",
        "real/cello/c2.png",
        "real/t-shirt/t.png",
    ]
    everything = DomainFolder(listed, split=None)
    assert len(everything) == 7
    assert everything.classes == tuple(sorted(everything.classes))


def test_selection_keeps_labels(listed: Path) -> None:
    images = DomainFolder(listed, domains=["real"], classes=["zebra", "cello"])
    assert images.domains == ("real",)
    assert images.classes == ("cello", "zebra")
    assert [record.class_name for record in images.records] == ["cello", "zebra"]
    assert images.label("zebra") == 3
    assert images.all_classes[images.label("cell phone")] == "cell phone"
    write_lists(listed, "test", {"clipart": ["clipart/cello/absent.png 0"]})
    assert (
        DomainFolder(listed, domains=["real"]).all_classes[0] == "cello"
    )  # only selected domains must be complete


def test_folders_without_lists(folders: Path) -> None:
    images = DomainFolder(folders)
    assert images.domains == ("photo", "sketch")
    assert images.classes == ("ant hill", "owl")
    assert relatives(images) == [
        "photo/ant hill/1.png",
        "photo/owl/1.webp",
        "sketch/owl/1.jpg",
        "sketch/owl/2.PNG",
    ]
    counts = images.counts()
    assert counts.loc["sketch"].to_dict() == {"ant hill": 0, "owl": 2}
    assert counts.loc["photo"].to_dict() == {"ant hill": 1, "owl": 1}
    assert (counts.index.name, counts.columns.name) == ("domain", "class")
    assert DomainFolder(folders, classes=["owl"]).counts().columns.tolist() == ["owl"]
    assert "4 images, 2 domains, 2 classes" in repr(images)
    assert "1 image, 1 domain, 1 class)" in repr(
        DomainFolder(folders, domains=["photo"], classes=["owl"])
    )


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> DomainFolder:
    root = tmp_path_factory.mktemp("many")
    touch(
        root,
        *(
            f"{d}/{c}/{i}.png"
            for d in ("a", "b")
            for c in ("x", "y")
            for i in range(30)
        ),
    )
    return DomainFolder(root)


@settings(deadline=None, max_examples=50)
@given(n=st.integers(1, 40), more=st.integers(0, 10), seed=st.integers(0, 10**9))
def test_select_draws_without_replacement_and_nested(
    many: DomainFolder, n: int, more: int, seed: int
) -> None:
    drawn = many.select("x", "a", n, seed)
    assert len(set(drawn)) == len(drawn) == min(n, 30)
    assert all((record.domain, record.class_name) == ("a", "x") for record in drawn)
    assert many.select("x", "a", n + more, seed)[:n] == drawn


def test_select_is_fixed_for_all_time(many: DomainFolder) -> None:
    # Stored results name images by (seed, n); these literals must never change.
    names = [record.relative for record in many.select("x", "a", 4, seed=0)]
    assert names == ["a/x/26.png", "a/x/19.png", "a/x/3.png", "a/x/25.png"]
    assert [record.relative for record in many.select("x", "a", 4, seed=1)] != names


def test_select_depends_on_nothing_but_the_images_of_that_class_and_domain(
    many: DomainFolder,
) -> None:
    alone = DomainFolder(many.root, domains=["b"], classes=["y"])
    assert alone.select("y", "b", 5, seed=3) == many.select("y", "b", 5, seed=3)
    numbers = [
        [Path(r.relative).name for r in many.select(c, d, 5)]
        for c in "xy"
        for d in "ab"
    ]
    assert len({tuple(chosen) for chosen in numbers}) == 4


def test_names_that_are_not_utf8_are_left_out_by_name(
    folders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folders / "photo/owl" / os.fsdecode(b"caf\xe9.png")).touch()
    touch(
        folders,
        *(
            os.fsdecode(name)
            for name in (b"photo/h\xf6hle/1.png", b"br\xfbl\xe9/owl/1.png")
        ),
    )
    images = DomainFolder(folders)
    assert "br\\udcfb" in caplog.text
    assert len(images) == 4
    assert (
        len(
            [
                record
                for domain in images.domains
                for record in images.select("owl", domain, 5)
            ]
        )
        == 3
    )


def test_names_have_underscores_and_lists_alone_are_enough_where_nobody_looks_for_files(
    tmp_path: Path,
) -> None:
    write_lists(
        tmp_path,
        "test_small",
        {"oil": ["oil/owl/1.png 0"], "oil_dark": ["oil_dark/owl/1.png 0"]},
    )
    (tmp_path / "pencil_art_test.txt").write_text("pencil_art/axe/1.png 0\n")
    (tmp_path / "read_me.txt").write_text("no list\n")
    assert relatives(DomainFolder(tmp_path, missing_files="unchecked")) == [
        "pencil_art/axe/1.png"
    ]
    assert listed_splits(tmp_path) == ("test", "test_small")
    assert DomainFolder(tmp_path, "test_small", missing_files="unchecked").domains == (
        "oil",
        "oil_dark",
    )


def test_a_folder_of_classes_is_one_domain(tmp_path: Path) -> None:
    touch(tmp_path, "photo/owl/1.webp", "photo/ant hill/1.png", "photo/notes.txt")
    images = DomainFolder(tmp_path / "photo")
    assert (images.domains, images.classes) == (("photo",), ("ant hill", "owl"))
    assert images.records == DomainFolder(tmp_path).records
    assert (
        images.select("owl", "photo")[0].path == tmp_path / "photo" / "owl" / "1.webp"
    )


def test_each_domain_may_have_a_folder(folders: Path, tmp_path: Path) -> None:
    touch(tmp_path, "mine/owl/9.png")
    images = DomainFolder({"drawn": tmp_path / "mine", "photo": folders / "photo"})
    assert relatives(images) == [
        "drawn/owl/9.png",
        "photo/ant hill/1.png",
        "photo/owl/1.webp",
    ]
    assert [record.path.is_file() for record in images.records] == [True] * 3


@pytest.mark.parametrize("form", ["frame", "csv", "tsv"])
def test_a_table_names_images_and_items(form: str, folders: Path) -> None:
    rows = [
        ("photo/owl/1.webp", "owl", "photo", "hedwig"),
        ("sketch/owl/1.jpg", "owl", "drawn", "hedwig"),
        (str(folders / "sketch/owl/2.PNG"), "owl", "photo", "other"),
    ]
    table = pd.DataFrame(rows, columns=["path", "class", "domain", "item"])
    file = folders / f"images.{form}"
    table.to_csv(file, sep="," if form == "csv" else "\t", index=False)
    in_memory = table.assign(path=[str(folders / path) for path in table["path"]])
    images = DomainFolder(in_memory if form == "frame" else file)
    assert (images.domains, images.classes) == (("photo", "drawn"), ("owl",))
    assert [record.path for record in images.records] == [
        folders / rows[i][0] for i in (0, 2, 1)
    ]
    if form != "frame":
        assert relatives(images)[0] == "photo/owl/1.webp"
        assert relatives(images)[2] == "drawn/owl/sketch_owl_1.jpg"
    records = {
        ("owl", domain): images.select("owl", domain) for domain in images.domains
    }
    folds = fold_numbers(records)
    fold_of = {
        record.relative: fold
        for key, some in records.items()
        for record, fold in zip(some, folds[key], strict=True)
    }
    first, other, drawn = relatives(images)
    assert fold_of[first] == fold_of[drawn] != fold_of[other]


def test_torchvisions_image_folder_is_one_domain(folders: Path) -> None:
    listed = SimpleNamespace(
        root=str(folders / "photo"),
        classes=["owl", "ant hill"],
        samples=[
            (str(folders / "photo/owl/1.webp"), 0),
            (str(folders / "photo/ant hill/1.png"), 1),
        ],
    )
    images = DomainFolder(listed)
    assert images.all_classes == ("owl", "ant hill")
    assert relatives(images) == ["photo/owl/1.webp", "photo/ant hill/1.png"]
    assert all(record.path.is_file() for record in images.records)


CLASSES = ("aircraft_carrier", "axe", "bear", "bed", "cat")
ORDER = ("real", "quickdraw", "sketch", "clipart", "infograph", "painting")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of six domains, whose classes come in another order in each; painting lacks one of them."""
    folder, rng = tmp_path_factory.mktemp("lists"), random.Random(7)
    for domain in ORDER:
        names = [name for name in CLASSES if (domain, name) != ("painting", "cat")]
        rng.shuffle(names)
        lines = [
            f"{domain}/{name}/{i}.png {CLASSES.index(name)}"
            for name in names
            for i in range(rng.randint(5, 9))
        ]
        (folder / f"{domain}_test.txt").write_text("\n".join(lines) + "\n")
        for line in lines:
            file = folder / line.partition(" ")[0]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    return folder


def chosen_by_the_study(
    root: Path, seed: int, n: int
) -> dict[tuple[str, int], list[str]]:
    random.seed(seed)
    found = {}
    for domain in ORDER:
        lines = (root / f"{domain}_test.txt").read_text().splitlines()
        of_label: dict[int, list[int]] = {}
        for index, line in enumerate(lines):
            of_label.setdefault(int(line.split(" ")[1]), []).append(index)
        out = [0, 1, 3]  # aircraft carrier, axe, bed
        for label in out + [label for label in of_label if label not in out]:
            random.shuffle(of_label[label])
            found[domain, label] = [
                lines[index].split(" ")[0] for index in of_label[label][:n]
            ]
    return found


@pytest.mark.parametrize(("seed", "n"), [(42, 4), (42, 50), (1, 3)])
def test_images_are_those_that_the_study_draws(root: Path, seed: int, n: int) -> None:
    images = ShuffledImages(root, first=("aircraft carrier", "axe", "bed"))
    for (domain, label), names in chosen_by_the_study(root, seed, n).items():
        assert [
            record.relative for record in images.select(CLASSES[label], domain, n, seed)
        ] == names
    assert images.select("cat", "painting", n, seed) == ()


def test_the_choice_does_not_depend_on_what_is_selected(root: Path) -> None:
    held_out = ("aircraft carrier", "axe", "bed")
    some = ShuffledImages(root, first=held_out, domains=("sketch",), classes=("cat",))
    assert some.select("cat", "sketch", 3, 42) == ShuffledImages(
        root, first=held_out
    ).select("cat", "sketch", 3, 42)
    assert len(some) == len(some.select("cat", "sketch"))
    by_name = DomainFolder(root).select("cat", "sketch", None, 42)
    assert set(some.select("cat", "sketch", None, 42)) == set(by_name)
    assert some.select("cat", "sketch", None, 42) != by_name
