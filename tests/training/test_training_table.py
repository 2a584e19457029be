"""Tables of training images: checked in chunks, with the answers of a whole reading."""

from pathlib import Path

import pandas as pd
import pytest

from circuitry import InputError
from circuitry.training import training_table as module
from circuitry.training.training_table import check_training_table

COLUMNS = ("filepath", "title")


@pytest.fixture
def images(tmp_path: Path) -> Path:
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
def test_chunks_change_nothing(images: Path, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    with pytest.raises(InputError, match=r" 2 .*/2\.png, .*/6\.png"):
        check_training_table(images, COLUMNS, 2)
    with pytest.raises(InputError, match=r" 1 .*title.*/3\.png"):
        check_training_table(images, COLUMNS, 2, skip_missing=True)
    checked = check_training_table(images, ("filepath",), 2, skip_missing=True)
    assert checked.present.tolist() == [True, True, False, True, True, True, False]
    assert (checked.n_images, checked.n_missing) == (5, 2)
    copy = checked.without_missing(tmp_path / "copy.tsv")
    whole = pd.read_csv(images, sep="\t")
    pd.testing.assert_frame_equal(pd.read_csv(copy, sep="\t"), whole[checked.present].reset_index(drop=True))


def test_a_table_without_missing_files_is_used_itself(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(f"filepath\n{path}\n{path}\n")
    checked = check_training_table(path, ("filepath",), 2, skip_missing=True)
    assert checked.without_missing(tmp_path / "copy.tsv") == path
    assert not (tmp_path / "copy.tsv").exists()


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
def test_tables_that_cannot_be_trained_on(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(content.replace("{path}", str(path)))
    for table, expected in ((path, words), (tmp_path / "none.tsv", "none.tsv")):
        with pytest.raises(InputError, match=expected):
            check_training_table(table, COLUMNS, 2)
