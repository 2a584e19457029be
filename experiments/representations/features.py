"""The strongest features of a sparse autoencoder in many images, and what two domains share of them. No torch.

Every image names its 20 strongest positive features; a class in a domain is the histogram of these names over its
images, its features ranked by count. Two domains share the mean over k in {5, 10, 15, 20} of the common share of the
first k features of both.

Ties in a histogram: of features named by equally many images, the one with the larger summed activation comes first,
then the one with the smaller number. A feature that no image names is in no top-k, so with fewer than k named features
even equal histograms share less than all. The study takes each top-k by ``torch.topk`` of the counts
(``ranking="study"``): its algorithm orders ties, and unnamed features fill the tops. The numbers differ for few images.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from circuitry.runs import (
    Count,
    InputError,
    Seed,
    naming_damage,
    read_arrays,
    write_arrays,
)
from circuitry.comparison.comparison import Comparison
from circuitry.comparison.table import CHANCE
from circuitry.data import DEFAULT_FOLDS
from circuitry.runs.arguments import SOME, checked
from experiments.representations.cells import compare_by_folds, rows_of_cells

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

FEATURES_FORMAT = "circuitry image features 1"
"""Name and version of the files, and of a folder of them."""

STRONGEST = 20
"""Features that an image names."""
TOPS = (5, 10, 15, 20)
"""Sizes of the tops of a histogram that are compared."""
NO_FEATURE = -1
"""Where an image or a top has no further feature."""

WEAK_COSINE = 0.2
"""A name is weak below this cosine. CLIP embeds images far from texts: even good names have cosines of .2 to .5."""
WEAK_LEAD = 0.02
"""A name is weak with a smaller lead over the next word."""

Ranking = Literal["activation", "study"]
"""Order of features that equally many images name; see the module's description."""


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """The strongest features of many images, sorted by domain and class."""

    images: pd.DataFrame
    """One row per image: relative (path below the root of the data), domain, class."""
    strongest: np.ndarray
    """[images, 20], integers: each image's strongest positive features in order; -1 where fewer are positive."""
    activation: np.ndarray
    """[images, 20]: their activations; 0 without a feature."""
    n_features: Count
    """Features of the autoencoder."""

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains with images, sorted."""
        return tuple(sorted(set(self.images["domain"])))

    @property
    def occurring(self) -> int:
        """How many different features are among the strongest of some image."""
        return len(np.unique(self.strongest[self.strongest >= 0]))

    def cells(self) -> dict[tuple[str, str], np.ndarray]:
        """Return the rows of every (class, domain) that has images, in their order, sorted by class and domain."""
        return rows_of_cells(self.images)

    @classmethod
    def join(
        cls, pieces: Annotated[Sequence["ImageFeatures"], SOME]
    ) -> "ImageFeatures":
        """Return the features of all images of several, one after the other."""
        images = pd.concat([piece.images for piece in pieces], ignore_index=True)
        strongest, activation = (
            np.concatenate([getattr(p, name) for p in pieces])
            for name in ("strongest", "activation")
        )
        return cls(images, strongest, activation, pieces[0].n_features)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to one safetensors file, whole or not at all."""
        header = {"images": self.images.to_dict("list"), "n_features": self.n_features}
        write_arrays(
            path,
            FEATURES_FORMAT,
            header,
            {"strongest": self.strongest, "activation": self.activation},
        )

    @classmethod
    @checked
    def load(cls, path: str | os.PathLike[str]) -> "ImageFeatures":
        """Read what `save` wrote; `InputError` for a missing or damaged file, or one of another version."""
        header, arrays = read_arrays(path, FEATURES_FORMAT, "file of image features")
        with naming_damage(path):
            return cls(
                pd.DataFrame(header["images"]),
                arrays["strongest"],
                arrays["activation"],
                header["n_features"],
            )

    def counts(self, rows: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " features"]:
        """Return how many of these images name each feature."""
        named = self.strongest[rows]
        return np.bincount(named[named >= 0], minlength=self.n_features)

    def tops(
        self, rows: Int[np.ndarray, " rows"], ranking: Ranking = "activation"
    ) -> Int[np.ndarray, "sizes strongest"]:
        """Return the features of the top of every size in `TOPS`, filled up with -1."""
        found = np.full((len(TOPS), STRONGEST), NO_FEATURE)
        if ranking == "study":
            import torch  # its own order of ties; here, so that stored features can be studied without it

            counts = torch.from_numpy(self.counts(rows))
            tops = [counts.topk(min(k, self.n_features)).indices.numpy() for k in TOPS]
        else:
            ranked = self.ranked(rows)
            tops = [ranked[:k] for k in TOPS]
        for i, top in enumerate(tops):
            found[i, : len(top)] = top
        return found

    def ranked(self, rows: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " top"]:
        """Return the features that most of these images name, at most 20; ties as in the module's description."""
        named = self.strongest[rows]
        counts = self.counts(rows)
        totals = np.bincount(
            named[named >= 0],
            self.activation[rows][named >= 0],
            minlength=self.n_features,
        )
        # Stable, so that smaller numbers come first.
        order = np.lexsort((-totals, -counts))[:STRONGEST]
        return order[counts[order] > 0]


def compare_features(
    features: ImageFeatures,
    groups: Mapping[str, Sequence[str]] | None = None,
    *,
    ranking: Ranking = "activation",
    n_folds: Count = DEFAULT_FOLDS,
    seed: Seed = 0,
) -> Comparison:
    """Compare the features of each class between all pairs of domains.

    Args:
        groups: Further groups of classes; see `class_groups`.
        ranking: Order of features that equally many images name, and whether unnamed features fill the tops.

    Returns:
        Values of all images, without sites; folds, for ceilings; chance: `chance_share`.

    Example:
        >>> comparison = compare_features(image_features(clip, sae, images))
        >>> comparison.matrix()
    """
    return compare_by_folds(
        "feature_sharing",
        features.images,
        n_folds,
        lambda rows: features.tops(rows, ranking),
        feature_share,
        groups=groups,
        about={"n_features": features.n_features, "ranking": ranking},
        chance=pd.DataFrame(
            [(None, chance_share(features.occurring))], columns=list(CHANCE)
        ),
        chance_of="random features",
        seed=seed,
    )


def feature_share(
    a: Int[np.ndarray, "pairs sizes strongest"],
    b: Int[np.ndarray, "pairs sizes strongest"],
) -> Float[np.ndarray, " pairs"]:
    """Return the mean over sizes k of |top k of a & top k of b| / k, for pairs of tops from `ImageFeatures.tops`."""
    shared = np.zeros(a.shape[:2])
    for place in range(
        a.shape[2]
    ):  # one member at a time: all pairs of members of all pairs need much memory
        member = a[:, :, place, None]
        shared += ((member == b) & (member != NO_FEATURE)).any(-1)
    return np.asarray((shared / TOPS).mean(1))


def chance_share(n_features: int) -> float:
    """Return the expected share of two independent random rankings of ``n_features``.

    Two random subsets of size k have k^2 / n_features common members on average (hypergeometric), so with at
    least 20 features it is the mean of k / n_features.
    """
    if n_features < 1:
        raise InputError(
            f"A ranking needs at least one feature, but there are {n_features}: give images with features."
        )
    return float(np.mean([min(k, n_features) ** 2 / (n_features * k) for k in TOPS]))
