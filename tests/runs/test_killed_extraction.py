"""An extraction that is killed within a write ends, when it is called again, with the bytes of an undisturbed one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

from circuitry import DomainFolder, extract, load_clip
from circuitry.runs import provenance
from tests.support.noise_images import write_noise
from tests.support.tiny_clip import NAME, Tiny
from tests.support.work import QUIET

KILLED = f"""
import os, signal
from circuitry import DomainFolder, Work, extract, load_clip

# Not in the command line, which graphs record.
killed_at = int(os.environ["KILLED_AT"])
replace = os.replace
written = []

def replaced(source, target):
    written.append(target)
    if len(written) == killed_at:
        # What was not synced may be lost with the process.
        os.truncate(source, os.stat(source).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

clip = load_clip("{NAME}.json", "tiny.safetensors")
os.replace = replaced
extract(clip, DomainFolder("images"), "killed", rule="left-1", n_images=2, folds=2, work=Work(progress=False))
"""


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_an_extraction_that_is_killed_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_noise(tmp_path / "images", ("real", "sketch"), ("axe",), 2)
    save_file(Tiny.write(tmp_path).state, tmp_path / "tiny.safetensors")
    monkeypatch.chdir(tmp_path)
    # The command line of the process that is killed.
    monkeypatch.setattr(sys, "argv", ["-c"])
    # The process that is killed reads the commit of today; this one may remember an earlier one.
    monkeypatch.setattr(provenance, "_commit", provenance._commit.__wrapped__)
    clip = load_clip(f"{NAME}.json", "tiny.safetensors")
    written = list[str]()
    replace = os.replace

    def noted(source: str, target: str) -> None:
        written.append(target)
        replace(source, target)

    def extracted(out: str) -> dict[str, bytes]:
        images = DomainFolder("images")
        extract(clip, images, out, rule="left-1", n_images=2, folds=2, work=QUIET)
        return contents(Path(out))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", noted)
        whole = extracted("whole")
    half = len(written) // 2
    killed = subprocess.run(
        [sys.executable, "-c", KILLED],
        env=os.environ | {"KILLED_AT": str(half)},
        check=False,
    )
    assert killed.returncode == -9
    assert contents(Path("killed")) != whole
    assert extracted("killed") == whole
