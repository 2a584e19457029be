"""Do two domains show a class by the same features of a sparse autoencoder? Does not import torch.

Every image names its 20 strongest positive features. A class in a domain is represented by the histogram of these
names over its images, which ranks the features by count. The similarity of two domains is the share of features that
the first k of both rankings have in common, averaged over k = 5, 10, 15 and 20. It is compared with the share of two
random rankings (`chance_share`): a class whose similarity is near that level has no common features.

Ties: if equally many images name two features, the feature with the larger summed activation comes first. If these sums
are equal, too, the feature with the smaller index comes first. A feature that no image names is never among the first
k. So with fewer than k named features, even two equal histograms share less than everything. The study takes the first
k by ``torch.topk`` of the counts (``ranking="study"``): the algorithm of ``topk`` orders ties, and features that no
image names fill the places that are left. The two rankings give different similarities if a cell has few images.
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
"""Values of k: two rankings are compared by their first k features."""
NO_FEATURE = -1
"""Fills the places of an image, or of the first k features of a ranking, that no feature takes."""

WEAK_COSINE = 0.2
"""A name is weak below this cosine. CLIP embeds images far from texts: even good names have cosines of .2 to .5."""
WEAK_LEAD = 0.02
"""A name is weak if its cosine exceeds the cosine of the next word by less."""

Ranking = Literal["activation", "study"]
"""Rule that orders features which equally many images name; see the module's description."""


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """The strongest features of many images, sorted by domain and class."""

    images: pd.DataFrame
    """One row per image: relative (path below the root of the data), domain, class."""
    strongest: np.ndarray
    """Integers [images, 20]: each image's strongest positive features in order; -1 if fewer are positive."""
    activation: np.ndarray
    """[images, 20]: the activations of the features in ``strongest``; 0 in places without a feature."""
    n_features: Count
    """Number of features of the autoencoder."""

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains with images, sorted."""
        return tuple(sorted(set(self.images["domain"])))

    @property
    def occurring(self) -> int:
        """How many different features are among the strongest of at least one image."""
        return len(np.unique(self.strongest[self.strongest >= 0]))

    def cells(self) -> dict[tuple[str, str], np.ndarray]:
        """Return the rows of every (class, domain) that has images, in their order, sorted by class and domain."""
        return rows_of_cells(self.images)

    @classmethod
    def join(
        cls, pieces: Annotated[Sequence["ImageFeatures"], SOME]
    ) -> "ImageFeatures":
        """Join features of one autoencoder: return the images of all pieces, one piece after the other."""
        return cls(
            pd.concat([piece.images for piece in pieces], ignore_index=True),
            np.concatenate([piece.strongest for piece in pieces]),
            np.concatenate([piece.activation for piece in pieces]),
            pieces[0].n_features,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything into one safetensors file, which is never left half written."""
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
        """Read a file of `save`; raise `InputError` if it is missing, damaged or of another version."""
        header, arrays = read_arrays(path, FEATURES_FORMAT, "file of image features")
        with naming_damage(path):
            return cls(
                pd.DataFrame(header["images"]),
                arrays["strongest"],
                arrays["activation"],
                header["n_features"],
            )

    def counts(self, rows: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " features"]:
        """Return how many of the images in these rows name each feature."""
        named = self.strongest[rows]
        # An image names a feature at most once, so occurrences are images; -1 marks places without a feature.
        return np.bincount(named[named >= 0], minlength=self.n_features)

    def tops(
        self, rows: Int[np.ndarray, " rows"], ranking: Ranking = "activation"
    ) -> Int[np.ndarray, "sizes strongest"]:
        """Return for every k of `TOPS` the first k features of these images, filled up with -1."""
        tops = np.full((len(TOPS), STRONGEST), NO_FEATURE)
        if ranking == "study":
            # Imported here, so that stored features can be compared by the other ranking without torch.
            import torch

            counts = torch.from_numpy(self.counts(rows))
            for top, k in zip(tops, TOPS, strict=True):
                size = min(k, self.n_features)
                # A call for each k, as in the study: the first 5 of `topk(20)` can order ties otherwise than `topk(5)`.
                top[:size] = counts.topk(size).indices.numpy()
        else:
            ranked = self.ranked(rows)
            for top, k in zip(tops, TOPS, strict=True):
                first = ranked[:k]
                top[: len(first)] = first
        return tops

    def ranked(self, rows: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " top"]:
        """Return the features that the most of these images name, at most 20; ties as in the module's description."""
        strongest = self.strongest[rows]
        is_named = strongest >= 0
        counts = self.counts(rows)
        # [features]: the summed activations order features that equally many images name.
        totals = np.bincount(
            strongest[is_named],
            self.activation[rows][is_named],
            minlength=self.n_features,
        )
        # The last key sorts first. The sort is stable, so of equal features the smaller index comes first.
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
        ranking: Rule for features that equally many images name, and for places that no named feature takes; see the
            module's description.

    Returns:
        A comparison without sites: the values of all images, the values of folds (for ceilings), and `chance_share` as
        the chance level.

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
    """Return for each pair the mean over k of |first k of a & first k of b| / k; see `ImageFeatures.tops`."""
    # [pairs, sizes]: how many features both sides have in common.
    shared = np.zeros(a.shape[:2])
    # Place by place: to compare all 20 x 20 places of all pairs at once would take 20 times the memory.
    for place in range(a.shape[2]):
        member = a[:, :, place, None]
        shared += ((member == b) & (member != NO_FEATURE)).any(-1)
    return np.asarray((shared / TOPS).mean(1))


def chance_share(n_features: int) -> float:
    """Return the expected value of `feature_share` for two independent random rankings of ``n_features`` features.

    Two random subsets of size k have k^2 / n_features common members on average (hypergeometric distribution). So with
    at least 20 features the expected share is the mean of k / n_features over k.
    """
    if n_features < 1:
        raise InputError(
            f"A ranking needs at least one feature, but there are {n_features}: give images with features."
        )
    k = np.array(TOPS)
    # A ranking with fewer than k features has all of them in its first k, but shares are still divided by k.
    return float(np.mean(np.minimum(k, n_features) ** 2 / (n_features * k)))
