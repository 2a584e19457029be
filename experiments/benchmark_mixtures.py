"""How long does it take to merge a mixture of DomainNet with twelve million captioned photos, and in how much memory?

Writes synthetic lists of DomainNet's size (600,000 images in 345 classes and six domains) and a base table of CC12M's,
without any image file; then chooses the mixture cg-high, merges it with the base and writes the trainer's table.
Refuted if that takes two minutes, or a gibibyte of memory. On a machine shared with others, the
processor's seconds are those that count.

    python experiments/benchmark_mixtures.py      # 2.5 GiB on disk
"""

import time
from dataclasses import dataclass
from pathlib import Path

from circuitry.runs import run_script, whole_file
from circuitry import DomainFolder
from circuitry.data import imagenet_partners
from circuitry.data.imagenet_classes import STUDY_HELD_OUT
from circuitry.reports.result_tables import KeepSettings
from circuitry.runs.workers import peak_memory_gib
from circuitry.training.image_captions import generated_captions
from experiments.study.base_sets import caption_table
from experiments.study.mixture_files import write_mixture
from experiments.study.selection import DOMAINNET_ROUND, MixtureSettings, mixture

import pandas as pd

WORDS = (
    *(
        "a",
        "the",
        "of",
        "in",
        "on",
        "with",
        "by",
        "black",
        "white",
        "old",
        "new",
        "dog",
        "house",
        "street",
        "view",
    ),
    *("photo", "sea", "mountain", "portrait", "girl"),
)


@dataclass(frozen=True)
class Config(KeepSettings):
    """Settings of the benchmark."""

    out: Path = Path("runs/benchmark-mixtures")
    """Folder of the lists and of the mixture; a second run reuses the lists."""
    images: int = 600_000
    """Images of the synthetic DomainNet."""
    base_images: int = 12_000_000
    """Lines of the base table."""


def main(config: Config) -> None:
    """Write the lists where they are not, make the mixture, print seconds and memory."""
    root = config.out / f"domainnet-{config.images}"
    base = config.out / f"base-{config.base_images}.tsv"
    if not base.is_file():
        write_lists(root, config.images)
        write_base(base, config.base_images)
    started, worked = time.perf_counter(), time.process_time()
    train = DomainFolder(root, split="train", missing_files="unchecked").records
    settings = MixtureSettings("cg-high", "sketch", STUDY_HELD_OUT)
    chosen = mixture(train, settings)
    listed = time.perf_counter()
    merged = config.out / "mixture.tsv", settings
    lines = caption_table(base, "base")
    table = write_mixture(
        chosen, generated_captions(), *merged, base=lines, missing_files="unchecked"
    )
    done, worked = time.perf_counter(), time.process_time() - worked
    counts = {
        "images listed": len(train),
        "chosen": len(chosen),
        "base lines": config.base_images,
    }
    times = {
        "seconds of listing": listed - started,
        "seconds of merging": done - listed,
        "CPU seconds": worked,
    }
    sizes = {"GiB written": table.stat().st_size / 2**30, "peak GiB": peak_memory_gib()}
    config.keep({"mixture": pd.DataFrame([counts | times | sizes])})


def write_lists(root: Path, images: int) -> None:
    """Write DomainNet's lists, with class sizes between half and one and a half times the mean."""
    names = [name.replace(" ", "_") for name in imagenet_partners()]
    mean = images / (len(DOMAINNET_ROUND) * len(names))
    for domain in DOMAINNET_ROUND:
        (root / domain).mkdir(
            parents=True, exist_ok=True
        )  # by its folder a list is known to be of a domain
        with open(root / f"{domain}_train.txt", "w", encoding="utf-8") as file:
            for label, name in enumerate(names):
                n = round(mean * (0.5 + label / (len(names) - 1)))
                file.writelines(
                    f"{domain}/{name}/{domain}_{label:03d}_{i:06d}.jpg {label}\n"
                    for i in range(n)
                )


def write_base(table: Path, images: int) -> None:
    """Write a table like CC12M's, ten thousand images a folder, captions of about a hundred characters."""
    with whole_file(table) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write("filepath\ttitle\n")
        for i in range(images):
            caption = " ".join(
                WORDS[(i * step + step) % len(WORDS)] for step in range(1, 21)
            )
            file.write(f"{i // 10_000:05d}/{i:09d}.jpg\t{caption}\n")


if __name__ == "__main__":
    run_script(Config, main, __doc__)
