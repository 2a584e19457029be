"""Base sets: ImageNet-Captions, tables, webdataset shards, and how command lines name them."""

import io
import json
import tarfile
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitry.runs import InputError
from circuitry.training.trainer_table import CaptionedImage
from experiments.study import base_sets
from experiments.study.base_sets import (
    BaseSet,
    Split,
    caption_table,
    imagenet_captions,
    named_base_sets,
    shard_captions,
)

# --- ImageNet-Captions -----------------------------------------------------------------------------------------------

ENTRIES = [
    {
        "filename": "n01_1.JPEG",
        "wnid": "n01",
        "title": " My \n fish ",
        "tags": ["tench", " big  one"],
        "description": "x",
    },
    {
        "filename": "n02_7.JPEG",
        "wnid": "n02",
        "title": "",
        "tags": [],
        "description": 'a "quoted", [bracketed] \\ text',
    },
    {"filename": "n02_9.JPEG", "wnid": "n02", "title": None, "tags": ["", None, "lake"]},
    {"filename": "n02_8.JPEG", "wnid": "n02", "title": "  ", "tags": [" "], "description": "\t"},
]


def test_captions_by_hand(tmp_path: Path) -> None:
    (tmp_path / "captions.json").write_text(json.dumps(ENTRIES))
    images = list(imagenet_captions(tmp_path / "captions.json", tmp_path / "train"))
    assert images[0] == CaptionedImage(
        str(tmp_path / "train/n01/n01_1.JPEG"),
        "n01/n01_1.JPEG",
        "imagenet-captions",
        "n01",
        "My fish; tench big one; x",
    )
    assert [image.caption for image in images[1:]] == ['a "quoted", [bracketed] \\ text', "lake", ""]
    assert [image.class_name for image in images] == ["n01", "n02", "n02", "n02"]


@settings(deadline=None)
@given(
    entries=st.lists(st.dictionaries(st.sampled_from(["title", "description"]), st.text(max_size=8)), max_size=6),
    chunk=st.integers(1, 40),
    indent=st.none() | st.just(2),
)
def test_lists_are_read_whatever_the_chunk(
    entries: Sequence[Mapping[str, str]], chunk: int, indent: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    written = [{"filename": str(i), "wnid": "n", **entry} for i, entry in enumerate(entries)]
    path = tmp_path_factory.mktemp("json") / "list.json"
    path.write_text(json.dumps(written, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_sets, "_CHUNK", chunk)
        assert list(base_sets._json_list(path)) == written


def test_the_list_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_sets, "_CHUNK", 10_000)
    path = tmp_path / "list.json"
    path.write_text(json.dumps([{"filename": f"{i}.JPEG", "wnid": "n01", "title": "fish" * 20} for i in range(5_000)]))
    tracemalloc.start()
    assert sum(1 for _ in imagenet_captions(path, tmp_path)) == 5_000
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 500_000
    assert used < 200_000


# --- tables ----------------------------------------------------------------------------------------------------------


def test_paths_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "cc.tsv"
    table.write_text(f"filepath\ttitle\n00/1.jpg\ta cat\n{tmp_path}/00/2.jpg\ta dog\n/else/3.jpg\tan axe\n")
    images = list(caption_table(table, "cc3m"))
    assert [image.path for image in images] == [f"{tmp_path}/00/1.jpg", f"{tmp_path}/00/2.jpg", "/else/3.jpg"]
    assert [image.relative for image in images] == ["00/1.jpg", "00/2.jpg", "/else/3.jpg"]
    assert {(image.domain, image.class_name) for image in images} == {("cc3m", "")}
    elsewhere = next(caption_table(table, "cc3m", root="/images"))
    assert (elsewhere.path, elsewhere.relative) == ("/images/00/1.jpg", "00/1.jpg")


# --- shards ----------------------------------------------------------------------------------------------------------


def write_shard(path: Path, members: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_members_of_shards(tmp_path: Path) -> None:
    about = json.dumps({"caption": "from json", "url": "x"}).encode()
    write_shard(
        tmp_path / "00.tar",
        {"1.json": about, "1.jpg": b"x", "1.txt": b"from txt\n", "2.JPG": b"x", "2.json": about, "3.txt": b"no image"},
    )
    write_shard(
        tmp_path / "01.tar", {"a/1.b.txt": b"?", "a/1.png": b"x", "a/1.txt": b"one", "b/1.png": b"x", "b/1.json": b"[]"}
    )
    images = list(shard_captions([tmp_path / "00.tar", tmp_path / "01.tar"], "cc3m"))
    assert [(image.relative, image.caption.strip()) for image in images] == [
        ("00.tar/1.jpg", "from txt"),
        ("00.tar/2.JPG", "from json"),
        ("01.tar/a/1.png", "one"),
        ("01.tar/b/1.png", ""),
    ]
    assert images[0].path == str(tmp_path / "00.tar/1.jpg")


def test_webdataset_finds_the_same_samples(tmp_path: Path) -> None:
    import webdataset

    members = {f"{i:03d}.{kind}": f"{kind} {i}".encode() for i in range(5) for kind in ("jpg", "txt", "json")}
    write_shard(tmp_path / "00.tar", {n: b"{}" if n.endswith("json") else content for n, content in members.items()})
    with open(tmp_path / "00.tar", "rb") as stream:
        files = webdataset.tariterators.tar_file_iterator(stream)
        samples = list(webdataset.tariterators.group_by_keys({**file, "__url__": ""} for file in files))
    ours = list(shard_captions([tmp_path / "00.tar"], "cc3m"))
    assert [(f"00.tar/{sample['__key__']}.jpg", sample["txt"].decode()) for sample in samples] == [
        (image.relative, image.caption) for image in ours
    ]


# --- named on a command line -----------------------------------------------------------------------------------------


def test_base_sets_by_name(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("1.jpg")
    bases = named_base_sets(
        ["cc3m=a=b.tsv", "cc12m=shards"], ["cc3m=/images"], ["cc3m=0.5", f"cc12m={tmp_path / 'val.txt'}"]
    )
    assert bases == {
        "cc3m": BaseSet("cc3m", Path("a=b.tsv"), Path("/images"), 0.5),
        "cc12m": BaseSet("cc12m", Path("shards"), None, Split(None, frozenset(["1.jpg"]))),
    }
    for paths, validation in ((["cc3m"], []), (["cc12m=x"], ["cc3m=0.5"])):
        with pytest.raises(InputError, match="'cc3m'"):
            named_base_sets(paths, [], validation)
