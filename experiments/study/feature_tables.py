"""How far domains agree on each feature of an autoencoder, and in which images it is most active. No torch."""

from circuitry.runs import InputError
from circuitry.representations import ImageFeatures

import numpy as np
import pandas as pd


def feature_frequency(features: ImageFeatures) -> pd.DataFrame:
    """Return the share of each domain's images that name a feature: one row per feature, one column per domain."""
    columns = {}
    for domain, rows in features.images.groupby("domain").indices.items():
        named = features.strongest[rows]
        columns[domain] = np.bincount(named[named >= 0], minlength=features.n_features) / len(rows)
    return pd.DataFrame(columns).rename_axis(index="feature", columns="domain")


def feature_summary(features: ImageFeatures) -> pd.DataFrame:
    """Return how far domains agree on each feature that is in some top 20, a row each.

    Returns:
        Columns feature, n_images (that name it), n_tops (classes in domains with it in their top 20), n_classes (of
        these), shared: the probability that another domain's top 20 of the same class holds it, given that one does.
        Features of classes with images in a single domain are left out.
    """
    by_class: dict[str, list[np.ndarray]] = {}
    for (name, _), rows in features.cells().items():
        by_class.setdefault(name, []).append(np.bincount(features.ranked(rows), minlength=features.n_features))
    several = [members for members in by_class.values() if len(members) > 1]
    if not several:
        raise InputError("Features are shared between domains, but no class has images in two of them.")
    counts = np.array([np.sum(members, axis=0) for members in several])
    others = np.array([[len(members) - 1] for members in several])
    tops = counts.sum(0)
    table = pd.DataFrame(
        {
            "feature": np.arange(features.n_features),
            "n_images": np.bincount(features.strongest[features.strongest >= 0], minlength=features.n_features),
            "n_tops": tops,
            "n_classes": (counts > 0).sum(0),
            "shared": (counts * (counts - 1) / others).sum(0) / np.maximum(tops, 1),
        }
    )
    return table.query("n_tops > 0").reset_index(drop=True)


def most_shared(summary: pd.DataFrame, n: int, *, min_tops: int = 2) -> list[int]:
    """Return the features that domains agree on most; ties go to the fewest classes, then tops.

    So features of every class come last: they do not describe a class.
    """
    enough = summary[summary["n_tops"] >= min_tops]
    order = enough.sort_values(["shared", "n_classes", "n_tops", "feature"], ascending=[False, True, False, True])
    return [int(feature) for feature in order["feature"][:n]]


def least_shared(summary: pd.DataFrame, n: int, *, min_tops: int = 2) -> list[int]:
    """Return the features that domains agree on least; ties go to the most tops."""
    enough = summary[summary["n_tops"] >= min_tops]
    order = enough.sort_values(["shared", "n_tops", "feature"], ascending=[True, False, True])
    return [int(feature) for feature in order["feature"][:n]]


def images_of_feature(features: ImageFeatures, feature: int, domain: str, n: int) -> list[str]:
    """Return the images of a domain, as paths below the data's root, in which a feature is most active.

    Only images with the feature among their 20 strongest count.
    """
    rows, columns = np.nonzero(features.strongest == feature)
    inside = (features.images["domain"] == domain).to_numpy()[rows]
    rows, columns = rows[inside], columns[inside]
    order = np.argsort(-features.activation[rows, columns], kind="stable")[:n]
    return [str(path) for path in features.images["relative"].iloc[rows[order]]]
