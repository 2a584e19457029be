"""The trainer's table: what pandas reads back, files and captions that are missing, streams in constant memory."""

import hashlib
import io
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pandas._libs.parsers import STR_NA_VALUES  # type: ignore[import-not-found]

from circuitry.data import DomainFolder
from circuitry.data.captions import SHARED_STYLE_WORDS
from circuitry.runs import InputError
from circuitry.training import read_captions, with_captions, write_captioned_table
from circuitry.training import trainer_table as module
from circuitry.training.image_captions import caption_rows, generated_captions, unquoted
from circuitry.training.trainer_table import (
    CaptionedImage,
    check_training_table,
    clean,
    is_text,
    quoted,
    read_description,
)
from tests.data.test_domains import touch


def image(name: str, caption: str = "a cat", folder: str = "/data") -> CaptionedImage:
    return CaptionedImage(f"{folder}/{name}", name, "real", "cat", caption)


def write_table(
    images: Iterable[CaptionedImage], path: Path, **how: Any
) -> dict[str, Any]:
    return read_description(write_captioned_table(images, path, **how))


def rows(path: Path, text: str) -> list[tuple[str, str]]:
    path.write_text(text, encoding="utf-8")
    return list(caption_rows(path))


@settings(deadline=None, max_examples=150)
@given(
    st.text(st.characters(codec=None), max_size=12)
    | st.from_regex(r"[-+.\d]{0,3}(\d|inf|e|nan|na|true)[-+.\de]{0,3}")
)
@example("Infinity")
@example('"quoted" and ""doubled""')
@example("\ud83d lone surrogate")
def test_pandas_reads_every_text_as_it_is_even_alone_in_its_column(
    caption: str,
) -> None:
    title = clean(caption)
    if not title or not is_text(title):
        return
    table = f"filepath\ttitle\n/a.png\t{quoted(title)}\n"
    assert pd.read_csv(io.BytesIO(table.encode()), sep="\t")["title"].astype(
        str
    ).tolist() == [title]


@pytest.mark.parametrize(
    "caption",
    [
        *sorted(STR_NA_VALUES - {""}),
        *(
            "True",
            "FALSE",
            "false",
            "1",
            "007",
            "-1.5e-3",
            ".5",
            "1.",
            "inf",
            "-Infinity",
            "+7",
        ),
    ],
)
def test_what_pandas_changes_or_may_is_no_text(caption: str) -> None:
    assert not is_text(caption)


@pytest.mark.parametrize(
    "caption",
    ["a cat", "7 cats", "#1", "# N/A", "n/a cat", "cat", "1st", "...", "-", "Infinite"],
)
def test_what_pandas_reads_is_text(caption: str) -> None:
    assert is_text(caption)


def test_the_table_by_hand(tmp_path: Path) -> None:
    images = [
        image("1.png", "two\taxes \n here\r\n"),
        image("2.png", 'a "sharp" axe'),
        image('3".png', "l'axe à\xa0côté\0"),
    ]
    path = tmp_path / "runs" / "train.tsv"
    table = write_table(images, path, missing_files="unchecked")
    assert path.read_text(encoding="utf-8") == (
        'filepath\ttitle\n/data/1.png\ttwo axes here\n/data/2.png\t"a ""sharp"" axe"\n"/data/3"".png"\tl\'axe à côté\n'
    )
    read = pd.read_csv(path, sep="\t")
    assert read["filepath"].tolist() == [each.path for each in images]
    assert list(caption_rows(path)) == list(read.itertuples(index=False, name=None))
    assert (table["images"], table["counts"]) == (3, {"real": {"cat": 3}})
    digested = '1.png\ttwo axes here\n2.png\ta "sharp" axe\n3".png\tl\'axe à côté\n'
    assert table["digest"] == hashlib.sha256(digested.encode()).hexdigest()[:16]


def test_pieces_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [image(f"{i}.png", f"cat {i}") for i in range(7)]
    whole = write_table(images, tmp_path / "a.tsv", missing_files="unchecked")
    for size in (1, 2, 7):
        monkeypatch.setattr(module, "BATCH", size)
        pieces = write_table(
            iter(images), tmp_path / "b.tsv", missing_files="unchecked"
        )
        assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()
        assert pieces == whole


def test_missing_files_are_counted_and_refused_or_skipped(tmp_path: Path) -> None:
    (tmp_path / "3.png").touch()
    images = [image(f"{i}.png", folder=str(tmp_path)) for i in range(9)]
    with pytest.raises(
        InputError, match=rf" 8 .*{tmp_path}/0\.png, .*5\.png"
    ) as refused:
        write_table(images, tmp_path / "t.tsv")
    assert "6.png" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3.png"]
    table = write_table(images, tmp_path / "t.tsv", missing_files="skip")
    assert (table["images"], table["left_out"]["missing_files"]) == (1, 8)
    assert (
        write_table(images, tmp_path / "t.tsv", missing_files="unchecked")["images"]
        == 9
    )


def test_missing_captions_are_counted_and_refused_or_skipped(tmp_path: Path) -> None:
    captions = ["a cat", "", " \n", "None", "7", "a dog"]
    images = [image(f"{i}.png", caption) for i, caption in enumerate(captions)]
    with pytest.raises(
        InputError,
        match=r"4 of 6 .*/1\.png, .*/2\.png, .*/3\.png \('None'\), .*/4\.png \('7'\)",
    ):
        write_table(images, tmp_path / "t.tsv", missing_files="unchecked")
    assert not any(tmp_path.iterdir())
    table = write_table(
        images, tmp_path / "t.tsv", missing_files="unchecked", no_caption="skip"
    )
    assert (table["images"], table["left_out"]["no_caption"]) == (2, 4)


def test_duplicates_are_refused_and_equal_hashes_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = [
        image('a".png'),
        image("b.png"),
        image("c.png"),
        image('a".png', "another caption"),
        image("c.png"),
    ]
    with pytest.raises(InputError, match=r'2 images.*"/data/a"".png", /data/c.png'):
        write_table(twice, tmp_path / "t.tsv", missing_files="unchecked")
    assert not any(tmp_path.iterdir())
    monkeypatch.setattr(module, "hash", len, raising=False)
    images = [image("a.png"), image("b.png")]
    assert (
        write_table(images, tmp_path / "t.tsv", missing_files="unchecked")["images"]
        == 2
    )
    with pytest.raises(InputError, match="1 images"):
        write_table([*images, images[0]], tmp_path / "t.tsv", missing_files="unchecked")


def test_nothing_and_paths_that_no_line_holds(tmp_path: Path) -> None:
    for images, words in (
        ([], r"t\.tsv"),
        ([image("a\tb.png")], r"a\\tb\.png"),
        ([image("a\udce9.png")], "UTF-8"),
    ):
        with pytest.raises(InputError, match=words):
            write_table(images, tmp_path / "t.tsv", missing_files="unchecked")
    odd = image("a\u2028b.png")  # not printable, but no line break for the table
    write_table([odd], tmp_path / "t.tsv", missing_files="unchecked")
    assert pd.read_csv(tmp_path / "t.tsv", sep="\t")["filepath"].tolist() == [odd.path]


def test_headers(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    expected = [("a.jpg", "a cat"), ("b.jpg", "a dog")]
    assert rows(path, "filepath\ttitle\na.jpg\ta cat\n\nb.jpg\ta dog") == expected
    assert (
        rows(
            path, "\ufefftitle\tid\tfilepath\r\na cat\t1\ta.jpg\r\na dog\t2\tb.jpg\r\n"
        )
        == expected
    )
    assert (
        rows(path, '"filepath"\t"title"\n"a.jpg"\t"a cat"\nb.jpg\ta dog\n') == expected
    )


def test_quotes_and_tabs_in_captions(tmp_path: Path) -> None:
    written = [
        'a.jpg\t"a ""b"" c"',
        'b.jpg\t"a" or "b"',
        'c.jpg\t5" wide',
        'd.jpg\t"open',
        "e.jpg\ta\tb",
        'f.jpg\t"a\tb"',
        "g.jpg\t",
    ]
    read = rows(tmp_path / "t.tsv", "\n".join(["filepath\ttitle", *written]))
    assert [caption for _, caption in read] == [
        'a "b" c',
        '"a" or "b"',
        '5" wide',
        '"open',
        "a\tb",
        "a\tb",
        "",
    ]


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_quoting_is_undone(field: str) -> None:
    assert unquoted(quoted(field)) == field


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a cat\thttp://x.org/a.jpg\nb.jpg\ta dog\n", r"t\.tsv.*filepath<TAB>title"),
        (b"a.jpg\ta cat\nb.jpg\ta dog\n", r"t\.tsv.*filepath<TAB>title"),
        (
            b"filepath\ttitle\na.jpg\ta cat\nb.jpg\n",
            r"t\.tsv, line 3.* 2 .* 1: 'b\.jpg'",
        ),
        (b"filepath\tid\ttitle\na.jpg\t1\ta\tcat\n", r"line 2.* 3 .* 4: 'a\.jpg"),
        (b"filepath\ttitle\na.jpg\tcaf\xe9\n", r"t\.tsv.*UTF-8"),
        (None, r"t\.tsv"),
    ],
)
def test_bad_tables(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "t.tsv").write_bytes(content)
    with pytest.raises(InputError, match=words):
        list(caption_rows(tmp_path / "t.tsv"))


@pytest.fixture
def images(tmp_path: Path) -> DomainFolder:
    folders = ("real/axe", "real/bed", "sketch/axe", "sketch/bed")
    touch(
        tmp_path / "data",
        *(f"{folder}/{i}.png" for folder in folders for i in range(4)),
    )
    return DomainFolder(tmp_path / "data")


def test_the_json_counts_what_is_in_the_table(
    images: DomainFolder, tmp_path: Path
) -> None:
    captions = {
        record.relative: f"caption of {record.relative}" for record in images.records
    }
    table = write_captioned_table(
        with_captions(images.records, captions), tmp_path / "t.tsv", about={"seed": 3}
    )
    described = read_description(table)
    assert (described["images"], described["seed"]) == (16, 3)
    assert described["counts"] == {
        domain: {"axe": 4, "bed": 4} for domain in ("real", "sketch")
    }
    assert described["left_out"] == {"missing_files": 0, "no_caption": 0}
    assert {"python", "clip-circuitry", "commit"} <= described["versions"].keys()
    (first, *_) = with_captions(images.records, captions)
    assert first == CaptionedImage(
        str(images.records[0].path),
        "real/axe/0.png",
        "real",
        "axe",
        "caption of real/axe/0.png",
    )


def test_captions_are_read_from_the_root(tmp_path: Path) -> None:
    (tmp_path / "captions.tsv").write_text(
        'filepath\ttitle\nreal/axe/0.png\tNA\nreal/axe/1.png\t"a ""b"" c"\n'
    )
    assert read_captions(tmp_path) == {
        "real/axe/0.png": "NA",
        "real/axe/1.png": 'a "b" c',
    }
    with pytest.raises(InputError, match="none/captions"):
        read_captions(tmp_path / "none")


def test_captions_of_an_image_do_not_depend_on_the_others(images: DomainFolder) -> None:
    records = images.records
    plain, aligned = (
        generated_captions(seed=4),
        generated_captions(seed=4, aligned=True),
    )
    assert [plain(record) for record in records[::-2]] == [
        plain(record) for record in records
    ][::-2]
    assert all(
        any(word in aligned(record) for word in SHARED_STYLE_WORDS)
        for record in records
    )
    assert not all(
        any(word in plain(record) for word in SHARED_STYLE_WORDS) for record in records
    )


def test_what_is_no_table_is_refused(images: DomainFolder, tmp_path: Path) -> None:
    for captioned, words in (
        (with_captions(images.records, {}), "16 of 16"),
        (with_captions([], {}), "t.tsv"),
    ):
        with pytest.raises(InputError, match=words):
            write_captioned_table(captioned, tmp_path / "t.tsv")
    for content in (None, "{", '{"format": "else"}'):
        if content is not None:
            (tmp_path / "t.json").write_text(content)
        with pytest.raises(InputError, match=r"t\.json"):
            read_description(tmp_path / "t.tsv")


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Seven lines, of which the files of the third and the last do not exist; one caption has quotes and a tab."""
    titles = ["a fish", 'a "fish"\tin ink', "7", "", "a star", "x", "y"]
    files = [tmp_path / f"{i}.png" for i in range(7)]
    for i in (0, 1, 3, 4, 5):
        files[i].touch()
    pd.DataFrame({"filepath": files, "more": range(7), "title": titles}).to_csv(
        tmp_path / "train.tsv", sep="\t", index=False
    )
    return tmp_path / "train.tsv"


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 100])
def test_chunks_change_nothing(
    listed: Path, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    with pytest.raises(InputError, match=r" 2 .*/2\.png, .*/6\.png"):
        check_training_table(listed, ("filepath", "title"), 2)
    (tmp_path / "2.png").touch()
    (tmp_path / "6.png").touch()
    with pytest.raises(InputError, match=r" 1 .*title.*/3\.png"):
        check_training_table(listed, ("filepath", "title"), 2)
    assert check_training_table(listed, ("filepath",), 2) == 7


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("filepath\ttitle\n", " 0 .* 2"),
        ("title\tfilepath", " 0 .* 2"),
        ("filepath\ttitle\n{path}\ta\n", " 1 .* 2"),
        ("", "filepath<TAB>title"),
        ("path\ttitle\nx\ty\n", "filepath<TAB>title.*path<TAB>title"),
        ("{path}\ta\n", "filepath<TAB>title.*<TAB>a"),
        ("filepath\ttitle\n{path}\ta\n{path}\ta\tb\tc\n", "line 3.*filepath<TAB>title"),
    ],
)
def test_tables_that_cannot_be_trained_on(
    tmp_path: Path, content: str, words: str
) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(content.replace("{path}", str(path)))
    for table, expected in ((path, words), (tmp_path / "none.tsv", "none.tsv")):
        with pytest.raises(InputError, match=expected):
            check_training_table(table, ("filepath", "title"), 2)


def peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    work()
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return used


def test_tables_pass_in_constant_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 100)

    def stream(n: int) -> Iterator[CaptionedImage]:
        return (image(f"{i}.png", "a cat on a mat") for i in range(n))

    def write(n: int) -> Callable[[], object]:
        return lambda: write_table(
            stream(n), tmp_path / f"{n}.tsv", missing_files="unchecked"
        )

    write(10)()
    few, many = peak(write(1_000)), peak(write(8_000))
    # 8 bytes an image, twice while the array grows and where neighbours are compared.
    assert many - few < 25 * 7_000
    assert peak(lambda: sum(1 for _ in caption_rows(tmp_path / "8000.tsv"))) < 200_000
