"""An extraction that is killed within a write ends, when it is called again, with the bytes of an undisturbed one."""

import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import save_file

from tests.support.noise_images import write_noise
from tests.support.tiny_clip import NAME, Tiny

EXTRACTION = f"""
import os, signal, sys
from circuitry import DomainFolder, Work, extract, load_clip

# Not in the command line, which graphs record.
out = os.environ["OUT"]
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
extract(clip, DomainFolder("images"), out, rule="left-1", n_images=2, folds=2, work=Work(progress=False))
print(len(written))
"""


def run(folder: Path, out: str, killed_at: int) -> "subprocess.CompletedProcess[str]":
    """Extract circuits in a process that is killed when it writes so many files, at 0 in none."""
    return subprocess.run(
        [sys.executable, "-c", EXTRACTION],
        env=os.environ | {"OUT": out, "KILLED_AT": str(killed_at)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_an_extraction_that_is_killed_goes_on(tmp_path: Path) -> None:
    write_noise(tmp_path / "images", ("real", "sketch"), ("axe",), 2)
    save_file(Tiny.write(tmp_path).state, tmp_path / "tiny.safetensors")
    undisturbed = run(tmp_path, "whole", 0)
    assert undisturbed.returncode == 0, undisturbed.stderr
    half = int(undisturbed.stdout.splitlines()[-1]) // 2
    assert run(tmp_path, "killed", half).returncode == -9
    assert contents(tmp_path / "killed") != contents(tmp_path / "whole")
    resumed = run(tmp_path, "killed", 0)
    assert resumed.returncode == 0, resumed.stderr
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
