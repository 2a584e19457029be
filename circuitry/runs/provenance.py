"""The provenance of results: the command, versions, the commit, and digests of configurations and weights."""

import hashlib
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
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
    """Return the versions of Python and of the packages that can change a result, and the commit of this code.

    Example:
        >>> list(circuitry.runs.versions())[:3]
        ['python', 'clip-circuitry', 'torch']
    """
    numbers = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            numbers[package] = version(package)
        except PackageNotFoundError:
            numbers[package] = "not installed"
    return numbers | {"commit": _commit()}


CODE = (":(top)circuitry", ":(top,glob)experiments/*.py", ":(top)pyproject.toml")
"""Files that can change a result, as paths for git."""

WHERE = ("out", "results")
"""Options of scripts that say where results are written. They do not change the results."""


def command() -> str:
    """Return the command line of this process, without the options that say where results are written (`WHERE`)."""
    script, *arguments = sys.argv
    kept: list[str] = []
    skipped = False
    for argument in arguments:
        # The values that follow a skipped option are skipped, too.
        if argument.startswith("--"):
            skipped = argument.partition("=")[0].removeprefix("--") in WHERE
        if not skipped:
            kept.append(argument)
    return " ".join(["/".join(Path(script).parts[-2:]), *map(shlex.quote, kept)])


def digest(value: Any) -> str:
    """Return a short digest of a value that JSON can hold. The order of keys does not change it.

    Example:
        >>> circuitry.runs.digest({"a": 1, "b": 2}) == circuitry.runs.digest({"b": 2, "a": 1})
        True
    """
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
    """Return in words where two configurations differ.

    Each entry that differs is written as ``key: their value -> our value``. The text is empty if the configurations
    agree.
    """
    differences = []
    for key in sorted(ours.keys() | theirs.keys()):
        mine = ours.get(key)
        other = theirs.get(key)
        if mine != other:
            differences.append(f"{key}: {_changed(mine, other)}")
    return "; ".join(differences)


def _changed(mine: Any, other: Any) -> str:
    if isinstance(mine, dict) and isinstance(other, dict):
        return f"({difference(mine, other)})"
    if isinstance(mine, list) and isinstance(other, list):
        clauses = [*_only_in(mine, other, "new"), *_only_in(other, mine, "gone")]
        return ", ".join(clauses) or "another order"
    return f"{other!r} -> {mine!r}"


def _only_in(items: Sequence[Any], others: Sequence[Any], word: str) -> list[str]:
    """Return a clause that names the items that ``others`` does not contain, such as "'cat' is new".

    The clause is the only element of the returned list. The list is empty if ``others`` contains all items.

    Args:
        items: The items.
        others: The items of the other list.
        word: The last word of the clause: "new" or "gone".
    """
    alone = [repr(item) for item in items if item not in others]
    if not alone:
        return []
    return [f"{name_some(alone, 3)} {'is' if len(alone) == 1 else 'are'} {word}"]


@cache
def _commit() -> str:
    """Return the commit of the git checkout that contains this package.

    If no checkout contains the package, the checkout that contains the running script is used. If there is no such
    checkout either, the result is ``unknown``. The result ends in ``-dirty`` if files that can change a result (`CODE`)
    were changed since the commit.
    """
    # An installed package is in no checkout, but the script that uses it may be.
    for file in (Path(__file__).resolve(), Path(sys.argv[0]).resolve()):
        here = file.parent
        if here.is_dir() and _git(here, "ls-files", "--error-unmatch", "--", str(file)):
            commit = _git(here, "rev-parse", "--short=12", "HEAD")
            status = ("status", "--porcelain", "--untracked-files=no", "--", *CODE)
            return f"{commit}-dirty" if _git(here, *status) else commit
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
