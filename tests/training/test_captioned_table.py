"""Tables of captioned images on disk: captions, the JSON beside a table, and what is refused."""

from pathlib import Path

import pytest

from circuitry.data import DomainFolder
from circuitry.data.captions import SHARED_STYLE_WORDS
from circuitry.runs import InputError
from circuitry.training import (
    CaptionedImage,
    generated_captions,
    read_captions,
    read_description,
    with_captions,
    write_captioned_table,
)


@pytest.fixture
def images(tmp_path: Path) -> DomainFolder:
    """Two classes in two domains."""
    for domain in ("real", "sketch"):
        for name in ("axe", "bed"):
            (tmp_path / "data" / domain / name).mkdir(parents=True)
            for i in range(4):
                (tmp_path / "data" / domain / name / f"{i}.png").touch()
    return DomainFolder(tmp_path / "data")


def test_the_json_counts_what_is_in_the_table(images: DomainFolder, tmp_path: Path) -> None:
    captions = {record.relative: f"caption of {record.relative}" for record in images.records}
    table = write_captioned_table(with_captions(images.records, captions), tmp_path / "t.tsv", about={"seed": 3})
    described = read_description(table)
    assert (described["images"], described["seed"]) == (16, 3)
    assert described["counts"] == {domain: {"axe": 4, "bed": 4} for domain in ("real", "sketch")}
    assert described["left_out"] == {"missing_files": 0, "no_caption": 0}
    assert {"python", "clip-circuitry", "commit"} <= described["versions"].keys()
    (first, *_) = with_captions(images.records, captions)
    assert first == CaptionedImage(
        str(images.records[0].path), "real/axe/0.png", "real", "axe", "caption of real/axe/0.png"
    )


def test_captions_are_read_from_the_root(tmp_path: Path) -> None:
    (tmp_path / "captions.tsv").write_text('filepath\ttitle\nreal/axe/0.png\tNA\nreal/axe/1.png\t"a ""b"" c"\n')
    assert read_captions(tmp_path) == {"real/axe/0.png": "NA", "real/axe/1.png": 'a "b" c'}
    with pytest.raises(InputError, match="none/captions"):
        read_captions(tmp_path / "none")


def test_captions_of_an_image_do_not_depend_on_the_others(images: DomainFolder) -> None:
    records = images.records
    plain, aligned = generated_captions(seed=4), generated_captions(seed=4, aligned=True)
    assert [plain(record) for record in records[::-2]] == [plain(record) for record in records][::-2]
    assert all(any(word in aligned(record) for word in SHARED_STYLE_WORDS) for record in records)
    assert not all(any(word in plain(record) for word in SHARED_STYLE_WORDS) for record in records)


def test_what_is_no_table_is_refused(images: DomainFolder, tmp_path: Path) -> None:
    for given, words in ((with_captions(images.records, {}), "16 of 16"), (with_captions([], {}), "t.tsv")):
        with pytest.raises(InputError, match=words):
            write_captioned_table(given, tmp_path / "t.tsv")
    for content in (None, "{", '{"format": "else"}'):
        if content is not None:
            (tmp_path / "t.json").write_text(content)
        with pytest.raises(InputError, match=r"t\.json"):
            read_description(tmp_path / "t.tsv")
