"""Files are looked up folder by folder, in memory that does not grow with them."""

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
