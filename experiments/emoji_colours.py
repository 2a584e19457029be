"""Do circuits of emoji say more about styles than the colours of the pictures do?

Takes the pictures that circuits were compared on, the mean histogram of colours of each style, and what two histograms
have in common. Where these numbers order the pairs of styles as the circuits do, the order of the circuits is no
evidence of more than colours. That is refuted by a partial rank correlation, given colours, of the circuits with
something else that two styles have in common: one artist, who draws the same shapes.

    python experiments/emoji_colours.py --data EmojiDomains
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
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
    **dict.fromkeys(("fluent3d", "fluentflat", "silhouette"), "Microsoft"),
    **dict.fromkeys(("noto", "mono"), "Google"),
    **dict.fromkeys(("openmoji", "sketch"), "OpenMoji"),
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
    pictures = defaultdict[str, list[Path]](list)
    for name in config.compared.read_text(encoding="utf-8").split():
        pictures[name.split("/")[0]].append(config.data / name)
    circuits, rows, found = square(read_named_table(config.ratios), "value"), [], []
    artists = np.array([ARTISTS[domain] for domain in circuits.index])
    one_artist = pd.DataFrame((artists[:, None] == artists).astype(float), circuits.index, circuits.columns)
    for levels in LEVELS:
        colours = colours_in_common(pictures, levels)
        rows += [(levels, a, b, colours.loc[a, b]) for a, b in combinations(colours.index, 2)]
        found.append(correlations(levels, circuits, {"colours": colours, "one artist": one_artist}))
    overlaps = pd.DataFrame(rows, columns=["levels", "domain_a", "domain_b", "overlap"])
    config.keep({"overlaps": overlaps, "correlations": pd.concat(found)})


def colours_in_common(pictures: Mapping[str, Sequence[Path]], levels: int) -> pd.DataFrame:
    """Return what the mean histograms of colours of every two sets of pictures have in common, by sorted names."""
    means, names = list[np.ndarray](), sorted(pictures)
    for name in names:
        pixels = (np.asarray(load_image(path), int).reshape(-1, 3) for path in pictures[name])
        colours = ((of_one * levels // 256) @ (1, levels, levels**2) for of_one in pixels)
        means.append(np.mean([np.bincount(some, minlength=levels**3) / len(some) for some in colours], axis=0))
    return pd.DataFrame([[np.minimum(a, b).sum() for b in means] for a in means], names, names)


def correlations(levels: int, x: pd.DataFrame, causes: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return rank correlations of a matrix with causes, each alone and given each other one."""
    rows = [
        (levels, what, *mantel(x.to_numpy(), y.to_numpy()), given, *mantel(x.to_numpy(), y.to_numpy(), z.to_numpy()))
        for (what, y), (given, z) in permutations(causes.items(), 2)
    ]
    return pd.DataFrame(rows, columns=["levels", "with", "rho", "p", "given", "partial", "partial_p"])


def square(pairs: pd.DataFrame, value: str = "overlap") -> pd.DataFrame:
    """Return a symmetric matrix of the styles from a table of their pairs."""
    return domain_matrix(pairs.rename(columns={value: "value"}).assign(site=None, **{"class": ""}))


if __name__ == "__main__":
    run_script(Config, main, __doc__)
