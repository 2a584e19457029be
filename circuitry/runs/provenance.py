"""What made a number: versions, commit, digests of configurations, weights and files."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("circuitry", "torch", "open_clip_torch", "timm", "transformer-lens", "numpy", "scikit-learn", "umap-learn")


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
    """Return in words where two configurations differ, theirs -> ours; empty when they agree."""

    def lines() -> Iterable[str]:
        for key in sorted(ours.keys() | theirs.keys()):
            if ours.get(key) != theirs.get(key):
                yield f"{key}: {theirs.get(key)!r} -> {ours.get(key)!r}"

    return "; ".join(lines())


def _commit() -> str:
    """Return the commit of the checkout this package runs from, or ``unknown`` (an installed wheel)."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
