"""What made a number: versions, commit, digests of configurations, weights and files."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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
    """Return in words where two configurations differ, theirs -> ours; empty when they agree.

    Example:
        >>> difference({"seed": 1, "classes": ["cat", "dog"]}, {"seed": 0, "classes": ["cat"]})
        "classes: 'dog' is new; seed: 0 -> 1"
    """
    pairs = {key: (ours.get(key), theirs.get(key)) for key in sorted(ours.keys() | theirs.keys())}
    return "; ".join(f"{key}: {_changed(mine, other)}" for key, (mine, other) in pairs.items() if mine != other)


def _changed(mine: Any, other: Any) -> str:
    if isinstance(mine, dict) and isinstance(other, dict):
        return f"({difference(mine, other)})"
    if isinstance(mine, list) and isinstance(other, list):
        new, gone = ([repr(x) for x in a if x not in b] for a, b in ((mine, other), (other, mine)))
        parts = [f"{_some(items)} {word}" for items, word in ((new, "new"), (gone, "gone")) if items]
        return ", ".join(parts) or "another order"
    return f"{other!r} -> {mine!r}"


def _some(items: Sequence[str]) -> str:
    shown = ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")
    return f"{shown} {'is' if len(items) == 1 else 'are'}"


def _commit() -> str:
    """Return the commit of the checkout this package runs from, or ``unknown`` (an installed wheel)."""
    here = Path(__file__).resolve().parent
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
