"""Do circuits of emoji say more about styles than the colours of the pictures do?

Takes the pictures that circuits were compared on, the mean histogram of colours of each style, and what two histograms
have in common. Where these numbers order the pairs of styles as the circuits do, the order of the circuits is no
evidence of more than colours. That is refuted by a partial rank correlation, given colours, of the circuits with
something else that two styles have in common: one artist, who draws the same shapes.

    python experiments/emoji_colours.py --data EmojiDomains
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from circuitry.runs import run_script
from circuitry.comparison import domain_matrix, mantel, read_named_table
from circuitry.data import load_image
from circuitry.reports.result_tables import KeepSettings

import numpy as np
import pandas as pd

LEVELS = (2, 3, 4, 8, 16)
"""Levels of each of red, green and blue in a histogram."""

ARTISTS = {
    "fluent3d": "Microsoft",
    "fluentflat": "Microsoft",
    "silhouette": "Microsoft",
    "noto": "Google",
    "mono": "Google",
    "openmoji": "OpenMoji",
    "sketch": "OpenMoji",
}
"""Who drew the pictures of a style."""


@dataclass(frozen=True, kw_only=True)
class Config(KeepSettings):
    """Which pictures are looked at."""

    data: Path
    """Folder of the pictures."""
    compared: Path = Path("experiments/results/emoji/images.txt")
    """List of the pictures that circuits were compared on."""
    ratios: Path = Path("experiments/results/emoji/edge_jaccard_ratios.csv")
    """Ratios to the ceiling of every two styles."""


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
    config.keep({"overlaps": table, "correlations": correlations(table, read_named_table(config.ratios))})


def correlations(overlaps: pd.DataFrame, ratios: pd.DataFrame) -> pd.DataFrame:
    """Return rank correlations of circuits with colours and with one artist, each alone and given the other."""
    circuits = square(ratios, "value")
    artists = np.array([ARTISTS[domain] for domain in circuits.index])
    one_artist = pd.DataFrame((artists[:, None] == artists).astype(float), circuits.index, circuits.columns)
    rows = []
    for levels, some in overlaps.groupby("levels"):
        colours = square(some, "overlap")
        for what, x, given, other in (
            ("colours", colours, one_artist, "one artist"),
            ("one artist", one_artist, colours, "colours"),
        ):
            alone = mantel(circuits.to_numpy(), x.to_numpy())
            partial = mantel(circuits.to_numpy(), x.to_numpy(), given.to_numpy())
            rows.append((levels, what, *alone, other, *partial))
    return pd.DataFrame(rows, columns=["levels", "with", "rho", "p", "given", "partial", "partial_p"])


def square(pairs: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return a symmetric matrix of the styles from a table of their pairs."""
    return domain_matrix(pairs.rename(columns={value: "value"}).assign(site=None, **{"class": ""}))


if __name__ == "__main__":
    run_script(Config, main, __doc__)
