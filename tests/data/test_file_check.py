"""Files are looked up folder by folder, in memory that does not grow with them."""

import os
from pathlib import Path

import pytest

from circuitry.data import file_check
from circuitry.data.file_check import FileCheck


@pytest.mark.parametrize("held", [1, 3, 5, 1000])
def test_files_are_found_whatever_memory_holds(held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_check, "MOST_NAMES", held)
    there = {f"{folder}/{i}.png" for folder in "abc" for i in range(2)}
    for name in there:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    asked = [f"{folder}/{i}.png" for i in (0, 2, 1) for folder in ("a", "b", "none", "c", "a/0.png")] * 2
    check = FileCheck("skip", tmp_path)
    assert [name for name in asked if check.keeps(name)] == [name for name in asked if name in there]
    assert check.missing.count == len(asked) - 12
    assert sum(len(names or ()) for names in check._listings.values()) <= held


@pytest.mark.parametrize("held", [2, 1000])
def test_a_folder_is_listed_once(held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_check, "MOST_NAMES", held)
    listed: list[str] = []

    def files_in(folder: str, most: int) -> set[str] | None:
        listed.append(folder)
        return {"0.png", "1.png"} if most >= 2 else None

    monkeypatch.setattr(file_check, "_files_in", files_in)
    check = FileCheck("skip", tmp_path)
    found = [check.keeps(f"{folder}/{i}.png") for i in (0, 2, 1) for folder in "abc"]
    assert found == [held == 1000 or folder == "a" for folder in "abc"] + [False] * 3 + [
        held == 1000 or folder == "a" for folder in "abc"
    ]
    assert listed == [os.path.join(tmp_path, folder) for folder in "abc"]
