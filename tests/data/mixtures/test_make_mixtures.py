"""The script that makes mixtures: every setting, base sets, ImageNet-Sketch, validation tables, and what it refuses."""

import csv
import io
import json
import tarfile
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from circuitry.data.mixtures.files import read_description
from circuitry.runs.errors import InputError
from tests.data.mixtures.test_files import DOMAINS, naive_lists, naive_mixture
from tests.data.mixtures.test_files import root as root
from tests.test_scripts import script

TESTED = [domain for domain in DOMAINS if domain != "real"]


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The script, drawing no pictures."""
    loaded = script("make_mixtures")
    vars(loaded)["write_figure"] = lambda figure, stem: [Path(f"{stem}.html")] if figure.data else []
    return loaded


def table_of(out: Path, name: str) -> Path:
    """The only table of that name."""
    (path,) = out.glob(f"{name}-????????.tsv")
    return path


def images_in(path: Path) -> list[str]:
    """Paths of a table, from the third last folder on."""
    with open(path, encoding="utf-8", newline="") as file:
        return ["/".join(row["filepath"].split("/")[-3:]) for row in csv.DictReader(file, delimiter="\t")]


def test_the_whole_set_of_one_test_domain(module: ModuleType, root: Path, tmp_path: Path) -> None:
    test = "painting"
    module.main(
        module.Config(root, tmp_path, test_domain=test, all=True, captions="generated", validation_split="test")
    )
    order = ["quickdraw", "sketch", "infograph", "clipart"]
    expected: dict[str, tuple[str, dict[str, object]]] = {
        "natural-only": ("natural-only", {}),
        **{f"{setting}-{test}": (setting, {}) for setting in module.BASIC},
        **{f"class-interpolation-{p}-{test}": ("class-interpolation", {"p": p}) for p in ("0.25", "0.5", "0.75")},
        **{
            f"domain-interpolation-{'+'.join(order[:n])}-{test}": ("domain-interpolation", {"others": order[:n]})
            for n in (1, 2, 3)
        },
    }
    summary = pd.read_csv(tmp_path / "mixtures.csv")
    assert [name.rpartition("-")[0] for name in summary["mixture"].unique()] == list(expected)
    for name, (setting, more) in expected.items():
        assert images_in(table_of(tmp_path, name)) == naive_mixture_of_three(root, setting, test, more)
    for setting in ("cg-high", "aligned"):
        held = (f"{test}/aircraft_carrier", f"{test}/axe", f"{test}/bed")
        validation = images_in(table_of(tmp_path, f"{setting}-{test}-validation"))
        assert validation == [path for path in naive_lists(root, "test") if not path.startswith(held)]


def test_the_whole_set(module: ModuleType, root: Path) -> None:
    jobs = module.whole_set(module.Config(root, all=True, captions="generated"), DOMAINS, ("axe",))
    assert len({job.name for job in jobs}) == len(jobs) == 1 + 5 * (6 + 3 + 3)
    assert {job.settings.test_domain for job in jobs} == set(TESTED)


def test_mixtures_that_cannot_be_made_are_named(
    module: ModuleType, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = sum(path.startswith(("real/", "sketch/")) for path in naive_lists(root))
    module.main(module.Config(root, tmp_path, test_domain="sketch", all=True, size=both + 1))
    assert f"left out upper-low-sketch: Cannot subsample to {both + 1} images, there are only {both}" in (
        capsys.readouterr().out
    )
    assert not list(tmp_path.glob("upper-low*"))
    assert read_description(table_of(tmp_path, "upper-high-sketch"))["images"] == both + 1


def naive_mixture_of_three(root: Path, setting: str, test: str, more: dict[str, object]) -> list[str]:
    """By default three of the study's classes are held out: aircraft carrier, axe and bed."""
    return naive_mixture(root, setting, test, held_out=("aircraft_carrier", "axe", "bed"), **more)  # type: ignore[arg-type]


def test_aligned_captions_hold_the_same_images(module: ModuleType, root: Path, tmp_path: Path) -> None:
    for setting in ("cg-high", "aligned"):
        module.main(module.Config(root, tmp_path, setting, "sketch", captions="generated"))
    plain, aligned = (pd.read_csv(table_of(tmp_path, f"{s}-sketch"), sep="\t") for s in ("cg-high", "aligned"))
    assert plain["filepath"].tolist() == aligned["filepath"].tolist()
    assert aligned["title"].str.contains("image|picture").all()
    assert not plain["title"].str.contains("image|picture").all()


# --- base sets -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet-Captions of 40 images, every tenth without its file, in a folder with the JSON."""
    folder = tmp_path_factory.mktemp("imagenet")
    entries = []
    for i in range(40):
        entries.append({"filename": f"n{i % 4}_{i}.JPEG", "wnid": f"n{i % 4}", "title": f"photo {i}", "tags": ["tag"]})
        if i % 10:
            (folder / f"n{i % 4}").mkdir(exist_ok=True)
            (folder / f"n{i % 4}" / f"n{i % 4}_{i}.JPEG").touch()
    (folder / "captions.json").write_text(json.dumps(entries))
    return folder


def test_imagenet_captions_come_first(module: ModuleType, root: Path, imagenet: Path, tmp_path: Path) -> None:
    base = {"base": "imagenet-captions", "base_path": imagenet / "captions.json", "base_images": imagenet}
    with pytest.raises(
        InputError, match=r"cg-low-sketch\.tsv include 4 files that do not exist, such as .*n0/n0_0\.JPEG"
    ):
        module.main(module.Config(root, tmp_path, "cg-low", "sketch", **base))
    assert not list(tmp_path.iterdir())
    config = module.Config(
        root,
        tmp_path,
        "cg-low",
        "sketch",
        held_out=("axe",),
        **base,
        missing_files="skip",
        base_validation=0.25,
        seed=1,
    )
    module.main(config)
    train = table_of(tmp_path, "imagenet-captions-cg-low-sketch")
    validation = table_of(tmp_path, "imagenet-captions-cg-low-sketch-validation")
    both = [read_description(path) for path in (train, validation)]
    parts = [described["base"]["imagenet-captions"] for described in both]
    assert sum(parts) == 36
    assert 0 < parts[1] < 20
    assert sum(described["left_out"]["missing_files"] for described in both) == 4
    lines = train.read_text().splitlines()
    assert lines[1].endswith("; tag")
    assert len(lines) == 1 + both[0]["images"]
    chosen = naive_mixture(root, "cg-low", "sketch", held_out=("axe",))
    assert images_in(train)[parts[0] :] == chosen
    summary = pd.read_csv(tmp_path / "mixtures.csv")
    assert summary.query("part == 'base'")["images"].tolist() == [parts[0]]


def test_validation_images_of_the_base_from_a_list(module: ModuleType, root: Path, tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("photos/1.jpg\n")
    base = {"base": "cc3m", "base_path": root / "photos.tsv", "base_validation": tmp_path / "val.txt"}
    module.main(module.Config(root, tmp_path, "natural-only", "sketch", **base))
    assert images_in(table_of(tmp_path, "cc3m-natural-only-validation")) == ["DomainNet/photos/1.jpg"]
    assert images_in(table_of(tmp_path, "cc3m-natural-only"))[:2] == [
        "DomainNet/photos/0.jpg",
        "DomainNet/photos/2.jpg",
    ]


def test_shards_are_listed(module: ModuleType, root: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name in ("1.jpg", "1.txt"):
            info = tarfile.TarInfo(name)
            info.size = 7
            tar.addfile(info, io.BytesIO(b"a photo"))
    for path in (tmp_path, tmp_path / "0.tar"):
        module.main(module.Config(root, tmp_path / "out", "natural-only", "sketch", base="cc12m", base_path=path))
        lines = table_of(tmp_path / "out", "cc12m-natural-only").read_text().splitlines()
        assert lines[1] == f"{tmp_path}/0.tar/1.jpg\ta photo"


# --- ImageNet-Sketch -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sketch_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet-Sketch with five images of the class 25, which has no partner, and one of 403, which has."""
    folder = tmp_path_factory.mktemp("imagenet-sketch")
    for i in range(1000):
        (folder / f"n{i:08d}").mkdir()
    for name in (*(f"n00000025/sketch_{i}.JPEG" for i in range(5)), "n00000403/sketch_0.JPEG"):
        (folder / name).touch()
    return folder


def test_sketches_replace_and_extend(module: ModuleType, root: Path, sketch_root: Path, tmp_path: Path) -> None:
    sketches = {"imagenet_sketch": sketch_root, "captions": "generated", "held_out": ("axe",)}
    plain = naive_mixture(root, "cg-low", "sketch", held_out=("axe",))
    for kind, lost in (("replace", 5), ("extend", 0)):
        module.main(module.Config(root, tmp_path, "cg-low", "sketch", sketches=kind, **sketches))
        path = table_of(tmp_path, f"cg-low-sketch-imagenet-sketch-{kind}")
        images = images_in(path)
        assert [name.split("/", 1)[1] for name in images[-5:]] == [f"n00000025/sketch_{i}.JPEG" for i in range(5)]
        assert set(images[:-5]) <= set(plain)
        assert len(plain) - len(images[:-5]) == lost
        assert "fire salamander" in path.read_text().splitlines()[-1]
        assert read_description(path)["counts"]["sketch"]["n00000025"] == 5
    high = {"setting": "cg-high", "test_domain": "sketch", **sketches}
    module.main(module.Config(root, tmp_path, sketch_classes=0.3, sketches="extend", **high))
    path = table_of(tmp_path, "cg-high-sketch-imagenet-sketch-extend-sketch-classes-0.3")
    kept = read_description(path)["counts"]["sketch"].keys() - {"n00000025"}
    assert len(kept) == 1  # of three
    assert read_description(path)["images"] == len(plain)  # N is that of DomainNet alone
    module.main(module.Config(root, tmp_path, sketch_classes="zebra", setting="cg-low", test_domain="sketch"))
    assert read_description(table_of(tmp_path, "cg-low-sketch-sketch-classes-zebra"))["counts"]["sketch"].keys() == {
        "zebra"
    }
    with pytest.raises(InputError, match="The mixture leave-out-sketch has no domain 'sketch' that could be changed"):
        module.main(module.Config(root, tmp_path, "leave-out", "sketch", **sketches))


def test_the_whole_set_with_sketches(module: ModuleType, root: Path, sketch_root: Path, tmp_path: Path) -> None:
    config = module.Config(root, tmp_path, all=True, test_domain="sketch", imagenet_sketch=sketch_root)
    names = [job.name for job in module.whole_set(config, DOMAINS, ("axe",))]
    assert names[:4] == ["natural-only", "cg-low-sketch", "cg-high-sketch", "leave-out-sketch"]
    assert "aligned-sketch" not in names  # captions are those of the file
    assert names[-8:] == [
        "cg-high-sketch-imagenet-sketch-replace",
        "cg-high-sketch-imagenet-sketch-extend",
        *(f"cg-high-sketch-imagenet-sketch-extend-sketch-classes-{s}" for s in (0.5, 0.3, 0.25, 0.1, 0.05, 0.01)),
    ]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_what_the_command_line_lacks(module: ModuleType, root: Path, tmp_path: Path) -> None:
    refused: dict[str, dict[str, object]] = {
        r"Name the test domain \(--test-domain sketch\), or make all mixtures \(--all\)": {},
        "Aligned captions are generated ones; pass --captions generated": {
            "setting": "aligned",
            "test_domain": "sketch",
        },
        "--base cc3m needs --base-path": {"test_domain": "sketch", "base": "cc3m"},
        "needs --base-images, the folder": {
            "test_domain": "sketch",
            "base": "imagenet-captions",
            "base_path": root / "x.json",
        },
        "There is no domain 'ink' here; available: clipart": {"test_domain": "ink"},
        "None of the mixtures can be made of these images": {"all": True, "natural_domain": "ink"},
        r"There is no held-out class 'dog' here; available: aircraft_carrier": {
            "test_domain": "sketch",
            "held_out": ("dog",),
        },
        "There is no held-out class 'aircraft' here; perhaps you meant aircraft_carrier": {
            "all": True,
            "held_out": ("aircraft",),
        },
        r"Cannot subsample to 9000 images, there are only \d+": {"test_domain": "sketch", "size": 9000},
    }
    for expected, settings in refused.items():
        with pytest.raises(InputError, match=expected):
            module.main(module.Config(root, tmp_path, **settings))
    assert not list(tmp_path.iterdir())
