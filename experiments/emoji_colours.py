"""Do circuits of emoji say more about styles than the colours of the pictures do?

Takes the pictures that circuits were compared on, the mean histogram of colours of each style, and what two histograms
have in common. Where these numbers order the pairs of styles as the circuits do, the order of the circuits is no
evidence of more than colours; where they do not, that is refuted.

    python experiments/emoji_colours.py --data EmojiDomains
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from circuitry.runs import run_script
from circuitry.data import load_image
from circuitry.reports.result_tables import KeepSettings

import numpy as np
import pandas as pd

LEVELS = (2, 3, 4, 8, 16)
"""Levels of each of red, green and blue in a histogram."""


@dataclass(frozen=True, kw_only=True)
class Config(KeepSettings):
    """Which pictures are looked at."""

    data: Path
    """Folder of the pictures."""
    compared: Path = Path("experiments/results/emoji/images.txt")
    """List of the pictures that circuits were compared on."""


def main(config: Config) -> None:
    """Compare the colours of every two styles and write the table."""
    histograms: dict[tuple[int, str], list[np.ndarray]] = defaultdict(list)
    for name in config.compared.read_text(encoding="utf-8").split():
        pixels = np.asarray(load_image(config.data / name), int).reshape(-1, 3)
        for levels in LEVELS:
            colours = (pixels * levels // 256) @ (1, levels, levels**2)
            histograms[levels, name.split("/")[0]].append(np.bincount(colours, minlength=levels**3) / len(colours))
    means = {key: np.mean(found, axis=0) for key, found in histograms.items()}
    rows = [
        (levels, a, b, np.minimum(means[levels, a], means[levels, b]).sum())
        for levels in LEVELS
        for a, b in combinations(sorted({domain for _, domain in means}), 2)
    ]
    table = pd.DataFrame(rows, columns=["levels", "domain_a", "domain_b", "overlap"])
    config.keep({"overlaps": table})


if __name__ == "__main__":
    run_script(Config, main, __doc__)
