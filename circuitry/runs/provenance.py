"""Provenance of a number: command, versions, commit, digests of configurations, weights and files."""

import hashlib
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from circuitry.runs.errors import name_some

PACKAGES = (
    "clip-circuitry",
    "torch",
    "open_clip_torch",
    "timm",
    "transformer-lens",
    "numpy",
    "scikit-learn",
    "umap-learn",
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a number, and this code's commit."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found | {"commit": _commit()}


CODE = (":(top)circuitry", ":(top,glob)experiments/*.py", ":(top)pyproject.toml")
"""Files that can change a number, as paths for git."""

WHERE = ("out", "results")
"""Options of scripts that say where results go: they change no number."""


def command() -> str:
    """Return this command line without the folder of its results."""
    script, *arguments = sys.argv
    kept: list[str] = []
    skipped = False
    for argument in arguments:
        name = (
            argument.partition("=")[0].removeprefix("--")
            if argument.startswith("--")
            else None
        )
        if name is not None:
            skipped = name in WHERE
        if not skipped:
            kept.append(argument)
    return " ".join(["/".join(Path(script).parts[-2:]), *map(shlex.quote, kept)])


def digest(value: Any) -> str:
    """Return a short digest of anything that JSON can hold, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def weights_digest(state: Mapping[str, Any]) -> str:
    """Return a short digest of a state dict: names, shapes and bytes of all tensors."""
    import torch  # here, so that stored circuits can be studied without it

    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()[:16]


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Return in words where two configurations differ, theirs -> ours; empty when they agree."""
    pairs = {
        key: (ours.get(key), theirs.get(key))
        for key in sorted(ours.keys() | theirs.keys())
    }
    return "; ".join(
        f"{key}: {_changed(mine, other)}"
        for key, (mine, other) in pairs.items()
        if mine != other
    )


def _changed(mine: Any, other: Any) -> str:
    if isinstance(mine, dict) and isinstance(other, dict):
        return f"({difference(mine, other)})"
    if isinstance(mine, list) and isinstance(other, list):
        new, gone = (
            [repr(x) for x in a if x not in b]
            for a, b in ((mine, other), (other, mine))
        )
        parts = [
            f"{name_some(items, 3)} {'is' if len(items) == 1 else 'are'} {word}"
            for items, word in ((new, "new"), (gone, "gone"))
            if items
        ]
        return ", ".join(parts) or "another order"
    return f"{other!r} -> {mine!r}"


@cache
def _commit() -> str:
    """Return the commit of the checkout that this package, or else the running script, lies in, or ``unknown``.

    ``-dirty`` where code was changed since; results and texts that lie beside it make no difference.
    """
    for file in (
        __file__,
        sys.argv[0],
    ):  # an installed package lies in no checkout of its own, its scripts do
        here = Path(file).resolve().parent
        if here.is_dir() and _git(
            here, "ls-files", "--error-unmatch", "--", str(Path(file).resolve())
        ):
            commit = _git(here, "rev-parse", "--short=12", "HEAD")
            changed = _git(
                here, "status", "--porcelain", "--untracked-files=no", "--", *CODE
            )
            return f"{commit}-dirty" if changed else commit
    return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
