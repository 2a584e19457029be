"""Do images of a class in two domains have the same features of a sparse autoencoder? No torch.

Feature sharing of two rankings of features is the mean over k in {5, 10, 15, 20} of the share of the first k that they
have in common; a class in a domain has the ranking of its histogram (`ImageFeatures`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, groupby

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from circuitry.comparison.compared_values import CHANCE, VALUES, class_groups
from circuitry.comparison.comparison import Comparison
from circuitry.data.file_check import check_word
from circuitry.data.parts import DEFAULT_PARTS, ItemKey
from circuitry.representations.features import NONE, TOPS, ImageFeatures, Ranking
from circuitry.representations.parts import OTHERS, compare_parts, cut_images, images_compared
from circuitry.runs.errors import InputError


def feature_share(a: Int[np.ndarray, " top_a"], b: Int[np.ndarray, " top_b"]) -> float:
    """Return the mean over k in {5, 10, 15, 20} of |first k of a & first k of b| / k, for two ranked lists."""
    return float(np.mean([len(np.intersect1d(a[:k], b[:k])) / k for k in TOPS]))


def top_shares(
    a: Int[np.ndarray, "pairs sizes strongest"], b: Int[np.ndarray, "pairs sizes strongest"]
) -> Float[np.ndarray, " pairs"]:
    """Return `feature_share` of many pairs of tops, as `ImageFeatures.tops` gives them."""
    shared = np.zeros(a.shape[:2])
    for place in range(a.shape[2]):  # a member at a time, since all pairs of members of all pairs are many
        member = a[:, :, place, None]
        shared += ((member == b) & (member != NONE)).any(-1)
    return np.asarray((shared / TOPS).mean(1))


def compare_features(
    features: ImageFeatures,
    groups: Mapping[str, Sequence[str]] | None = None,
    *,
    ranking: Ranking = "activation",
    n_parts: int = DEFAULT_PARTS,
    seed: int = 0,
) -> Comparison:
    """Compare the features of each class between all pairs of domains.

    Args:
        features: From `image_features`.
        groups: Further groups of classes; see `class_groups`.
        ranking: What comes first of features that equally many images name, and whether unnamed ones fill the tops.
        n_parts: Parts of the images of a class in a domain.
        seed: Seed of the bootstraps.

    Returns:
        Values without sites: `feature_share` of the whole histograms. Parts: `compare_feature_parts`. Chance:
        `chance_share`.

    Raises:
        InputError: when no class has images in two domains, or for an unknown ranking.

    Example:
        >>> comparison = compare_features(image_features(clip, sae, images))
        >>> comparison.matrix()
    """
    check_word("ranking", ranking, Ranking)
    tops = {key: features.tops(rows, ranking) for key, rows in features.cells().items()}
    pairs = list(_pairs(tops))
    shares = (
        top_shares(*(np.stack([tops[pair[0], pair[side]] for pair in pairs]) for side in (1, 2))).tolist()
        if pairs
        else []
    )
    values = [(*pair, None, share) for pair, share in zip(pairs, shares, strict=True)]
    parts = compare_feature_parts(features, ranking=ranking, n_parts=n_parts)
    chance = [(None, chance_share(features.occurring))]
    return Comparison(
        "feature_sharing",
        pd.DataFrame(values, columns=list(VALUES)),
        parts,
        pd.DataFrame(chance, columns=list(CHANCE)),
        groups=class_groups((name for name, _ in tops), groups),
        chance_of="random features",
        about={
            "n_images": len(features.images),
            "n_features": features.n_features,
            "ranking": ranking,
            "n_parts": n_parts,
            **images_compared(features.images, n_parts),
        },
        seed=seed,
    )


def compare_feature_parts(
    features: ImageFeatures,
    *,
    ranking: Ranking = "activation",
    n_parts: int = DEFAULT_PARTS,
    key: ItemKey | None = None,
    n_others: int = OTHERS,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the features of parts of the images of each class and domain; see `compare_parts`.

    Args:
        features, ranking: As in `compare_features`.
        n_parts, key: See `part_numbers`.
        n_others, seed: See `compare_parts`.
    """
    cells = cut_images(features.images, n_parts, key)
    tops = np.stack([features.tops(rows, ranking) for rows in cells.values()])
    return compare_parts(list(cells), lambda i, j: top_shares(tops[i], tops[j]), n_others=n_others, seed=seed)


def chance_share(n_features: int) -> float:
    """Return the expected share of two independent random rankings of ``n_features``.

    Two random subsets of size k have k^2 / n_features members in common on average (hypergeometric), so with at
    least 20 features it is the mean of k / n_features.

    Raises:
        InputError: for no features.
    """
    if n_features < 1:
        raise InputError(f"A ranking needs at least one feature, but there are {n_features}.")
    return float(np.mean([min(k, n_features) ** 2 / (n_features * k) for k in TOPS]))


def _pairs(cells: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yield every class with every two of its domains, in sorted order."""
    for name, of_class in groupby(sorted(cells), key=lambda cell: cell[0]):
        for (_, domain_a), (_, domain_b) in combinations(of_class, 2):
            yield name, domain_a, domain_b
