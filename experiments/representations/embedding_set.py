"""Embeddings of images or texts of one model, each with its domain and class. Does not import torch."""

from dataclasses import dataclass
from pathlib import Path

from circuitry.runs import Count, InputError, Seed
from circuitry.data import ImageRecord
from circuitry.data.folds import stem_without_domain
from experiments.representations.cells import rows_of_cells

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int


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
        counts = {
            "source": len(self.source),
            "domain": len(self.domain),
            "class_name": len(self.class_name),
        }
        if n == 0 or set(counts.values()) != {n}:
            given = ", ".join(f"{count} of {name}" for name, count in counts.items())
            raise InputError(
                f"Embeddings need at least one vector and a source, domain and class for each, but {n} vectors and "
                f"{given} were given."
            )
        lengths = np.linalg.norm(self.vectors, axis=1)
        # The tolerance allows for vectors that were stored in half precision.
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
        """Return the embeddings that an array of indices or a mask selects."""
        return Embeddings(
            self.vectors[which],
            self.source[which],
            self.domain[which],
            self.class_name[which],
        )

    def sample(self, n: Count, seed: Seed = 0) -> "Embeddings":
        """Return ``n`` random embeddings, spread evenly over the pairs of class and domain.

        Every pair gives a first embedding before any pair gives a second one, and so on.
        """
        shuffled = self.table().sample(frac=1, random_state=seed)
        turn = shuffled.groupby(["domain", "class"]).cumcount()
        # Stable, so that within a turn the random order decides which pairs come first.
        order = turn.sort_values(kind="stable").index
        return self.take(np.sort(order[:n].to_numpy()))

    def table(self) -> pd.DataFrame:
        """Return the labels: columns relative, domain, class."""
        return pd.DataFrame(
            {"relative": self.source, "domain": self.domain, "class": self.class_name}
        )

    def items(self) -> list[str]:
        """Return the class and item of each image as ``class/item``; images of one item may be in several domains."""
        items = []
        for path, domain, name in self.table().itertuples(index=False):
            record = ImageRecord(Path(path), path, domain, name)
            # Files of two classes may have equal names, so the name of the item begins with the class.
            items.append(f"{name}/{stem_without_domain(record)}")
        return items

    def groups(self) -> dict[tuple[str, str], np.ndarray]:
        """Return the row indices of every (class, domain), in sorted order."""
        return rows_of_cells(self.table())
