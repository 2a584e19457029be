"""Do images of a class in two domains have the same features of a sparse autoencoder? No torch.

Feature sharing of two rankings of features is the mean over k in {5, 10, 15, 20} of the common share of their first k
features; a class in a domain has the ranking of its histogram (`ImageFeatures`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from circuitry.comparison.comparison import Comparison
from circuitry.comparison.table import CHANCE
from circuitry.data.parts import DEFAULT_PARTS
from circuitry.representations.cells import compare_by_parts
from circuitry.representations.features import NO_FEATURE, TOPS, ImageFeatures, Ranking
from circuitry.runs.errors import InputError
from circuitry.runs.given import Count, Seed


def compare_features(
    features: ImageFeatures,
    groups: Mapping[str, Sequence[str]] | None = None,
    *,
    ranking: Ranking = "activation",
    n_parts: Count = DEFAULT_PARTS,
    seed: Seed = 0,
) -> Comparison:
    """Compare the features of each class between all pairs of domains.

    Args:
        features: From `image_features`.
        groups: Further groups of classes; see `class_groups`.
        ranking: Order of features that equally many images name, and whether unnamed features fill the tops.
        n_parts: Parts of the images of a class in a domain.
        seed: Seed of the bootstraps.

    Returns:
        Values of all images, without sites; parts, for ceilings; chance: `chance_share`.

    Raises:
        InputError: when no class has images in two domains, or for an unknown ranking.

    Example:
        >>> comparison = compare_features(image_features(clip, sae, images))
        >>> comparison.matrix()
    """
    return compare_by_parts(
        "feature_sharing",
        features.images,
        n_parts,
        lambda rows: features.tops(rows, ranking),
        feature_share,
        groups=groups,
        about={"n_features": features.n_features, "ranking": ranking},
        chance=pd.DataFrame([(None, chance_share(features.occurring))], columns=list(CHANCE)),
        chance_of="random features",
        seed=seed,
    )


def feature_share(
    a: Int[np.ndarray, "pairs sizes strongest"], b: Int[np.ndarray, "pairs sizes strongest"]
) -> Float[np.ndarray, " pairs"]:
    """Return the mean over sizes k of |top k of a & top k of b| / k, for pairs of tops from `ImageFeatures.tops`."""
    shared = np.zeros(a.shape[:2])
    for place in range(a.shape[2]):  # one member at a time: all pairs of members of all pairs need much memory
        member = a[:, :, place, None]
        shared += ((member == b) & (member != NO_FEATURE)).any(-1)
    return np.asarray((shared / TOPS).mean(1))


def chance_share(n_features: int) -> float:
    """Return the expected share of two independent random rankings of ``n_features``.

    Two random subsets of size k have k^2 / n_features common members on average (hypergeometric), so with at
    least 20 features it is the mean of k / n_features.

    Raises:
        InputError: for no features.
    """
    if n_features < 1:
        raise InputError(
            f"A ranking needs at least one feature, but there are {n_features}: give images with features."
        )
    return float(np.mean([min(k, n_features) ** 2 / (n_features * k) for k in TOPS]))
