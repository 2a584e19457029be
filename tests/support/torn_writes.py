"""A disk that fills up in the middle of a file."""

import errno
from pathlib import Path

import pytest


def tear_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `Path.write_bytes` leave the first bytes of a file and raise."""

    def torn(path: Path, content: bytes) -> int:
        with open(path, "wb") as file:
            file.write(content[:4])
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(Path, "write_bytes", torn)
