"""Embeddings of images or texts of one model, each with its domain and class. No torch."""

from dataclasses import dataclass, replace
from pathlib import Path

from circuitry.runs import Count, InputError, Seed
from circuitry.data import ImageRecord
from circuitry.data.folds import stem_without_domain
from experiments.representations.cells import rows_of_cells

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

_LABELS = ("domain", "class_name")


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors of length 1 in one embedding space, each with its source, domain and class.

    Example:
        >>> images = embed_images(clip, DomainFolder("DomainNet"))
        >>> images.vectors[images.domain == "quickdraw"].mean(0)
    """

    vectors: Float[np.ndarray, "n d"]
    """Rows of length 1."""
    source: np.ndarray
    """Strings [n]: the image's path below its root, or the text."""
    domain: np.ndarray
    """Strings [n]: the domain; empty for a text."""
    class_name: np.ndarray
    """Strings [n]."""

    def __post_init__(self) -> None:
        n = len(self.vectors)
        labels = {name: len(getattr(self, name)) for name in ("source", *_LABELS)}
        if n == 0 or set(labels.values()) != {n}:
            raise InputError(
                f"Embeddings need at least one vector and a source, domain and class for each, but {n} vectors and "
                f"{', '.join(f'{count} of {name}' for name, count in labels.items())} were given."
            )
        lengths = np.linalg.norm(self.vectors, axis=1)
        if not np.isfinite(lengths).all() or np.abs(lengths - 1).max() > 1e-3:
            raise InputError(
                "Embeddings need finite vectors of length 1, but the lengths lie between "
                f"{lengths.min():.3g} and {lengths.max():.3g}: divide each by its length."
            )

    def __len__(self) -> int:
        return len(self.vectors)

    def take(
        self, which: Int[np.ndarray, " rows"] | Bool[np.ndarray, " rows"]
    ) -> "Embeddings":
        """Return the rows of an index or a mask."""
        chosen = {
            name: getattr(self, name)[which] for name in ("vectors", "source", *_LABELS)
        }
        return replace(self, **chosen)

    def sample(self, n: Count, seed: Seed = 0) -> "Embeddings":
        """Return ``n`` random ones, evenly over classes and domains: one of each, then another of each, and so on."""
        shuffled = self.table().sample(frac=1, random_state=seed)
        turn = (
            shuffled.groupby(["domain", "class"]).cumcount().sort_values(kind="stable")
        )
        return self.take(np.sort(turn.index[:n].to_numpy()))

    def table(self) -> pd.DataFrame:
        """Return the labels: columns relative, domain, class."""
        return pd.DataFrame(
            {"relative": self.source, "domain": self.domain, "class": self.class_name}
        )

    def items(self) -> list[str]:
        """Return class and item of each image: images of one item belong together, in all domains."""
        rows = self.table().itertuples(index=False)
        records = [
            ImageRecord(Path(path), path, domain, name) for path, domain, name in rows
        ]
        return [
            f"{record.class_name}/{stem_without_domain(record)}" for record in records
        ]

    def groups(self) -> dict[tuple[str, str], np.ndarray]:
        """Return the row numbers of every (class, domain), in sorted order."""
        return rows_of_cells(self.table())
