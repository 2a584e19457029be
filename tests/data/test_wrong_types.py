"""Wrong types at the doors of the data room are refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circuitry.data import DomainFolder, image_listing
from circuitry.data.decoding import numbered_batches
from circuitry.runs import InputError

# As users call them, without a type checker.
folder: Any = DomainFolder
listing: Any = image_listing
batches: Any = numbered_batches


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda root: folder(root, missing_files="ignore"), "'unchecked' as missing_files.*'ignore'"),
        (lambda root: folder(root, classes=[0]), "classes.* 0 "),
        (lambda root: folder(root, domains=3), r"domains.* 3 .*\[3\]"),
        (lambda root: folder(root).label(0), "class_name.* 0 "),
        (lambda root: folder(root).select(0, "real"), "class_name.* 0 "),
        (lambda root: listing(["1.png"]), r"ImageRecord as records\[0\].*'1.png'"),
        (lambda root: next(batches(folder(root).records, None, 1)), r"ImageRecord .*\.path"),
        (lambda root: batches("1.png", None, 1), r"'1.png' .*\[path\]"),
    ],
)
def test_wrong_types_are_refused(use: Callable[[Any], object], words: str, tmp_path: Path, unchecked: None) -> None:
    for domain in ("real", "sketch"):
        (tmp_path / domain / "cat").mkdir(parents=True)
        (tmp_path / domain / "cat/1.png").touch()
    with pytest.raises(InputError, match=words):
        use(str(tmp_path))
