"""Linear probes: can a linear classifier read the class, or the domain, from a representation? Does not import torch.

The method is the one of Alain & Bengio (2017, arXiv 1610.01644). The answer is no if the accuracy is near chance
(`chance_accuracy`).

1. Features are standardised with the mean and deviation of the training images alone.
2. A ridge classifier is fitted by least squares to targets of -1 and 1, with all classes weighted equally. It has a
   closed form, so it is deterministic, and fast even with more features than images. Its penalty is the candidate with
   the smallest leave-one-out error on the training images (`ridge_probe`).
3. The classifier is tested on other images: in stratified folds, or on a group of images (a domain) that was left out
   of training. Its balanced accuracy is the share of recognised images, averaged over classes. Images of one item (one
   concept, or one source picture in several domains) are never both in training and in the test.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

from circuitry.runs import InputError, Seed, at_least
from circuitry.comparison.statistics import mean_interval
from circuitry.models.ridge import ridge_probe
from circuitry.runs.arguments import checked

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats
from sklearn.model_selection import (
    GroupKFold,
    LeaveOneGroupOut,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_score,
)

TARGETS = ("class", "domain", "class across domains")
"""Labels that `probe_sites` predicts."""


@checked
def probe_accuracy(
    features: Float[np.ndarray, "images features"],
    labels: Sequence[str],
    items: Sequence[str] | None = None,
    *,
    folds: Annotated[int, at_least(2)] = 5,
    seed: Seed = 0,
) -> Float[np.ndarray, " folds"]:
    """Return the balanced accuracy of a linear classifier in every fold of a stratified cross-validation, in 0..1.

    Args:
        labels: The label of each image, which the classifier predicts.
        items: Item of each image; images of one item are in one fold. Default: each image is its own item.
        folds: Number of folds.
        seed: Seed of the random choice of folds.
    """
    x, y = _checked(features, label=labels, item=items)
    item = _items(items, len(y))
    counts = pd.Series(item).groupby(y).nunique()
    if counts.min() < folds:
        raise InputError(
            f"Every class needs an item in each of the {folds} folds, but {str(counts.idxmin())!r} has "
            f"{counts.min()}: give more images, leave the class out, or take fewer folds."
        )
    # If every image is its own item, the plain splitter balances the classes exactly; the grouped one is a heuristic.
    if len(set(item)) == len(item):
        splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y)
    else:
        grouped = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        splits = grouped.split(x, y, item)
    return _balanced_accuracies(x, y, list(splits))


def _items(items: Sequence[str] | None, n: int) -> np.ndarray:
    """Return the item of each of ``n`` images; by default each image is its own item."""
    return np.arange(n).astype(str) if items is None else np.asarray(items)


def probe_left_out(
    features: Float[np.ndarray, "images features"],
    labels: Sequence[str],
    groups: Sequence[str],
    items: Sequence[str] | None = None,
    *,
    folds: int = 5,
) -> dict[str, float]:
    """Return by group the balanced accuracy of a classifier that is trained on all other groups, on the group's images.

    A group is tested on the classes that other groups have, too. If other groups have none of its classes, it is left
    out of the result. If other groups share items with the group, its items are cut into folds. The images of a fold
    are then tested by a classifier that was trained without the items of this fold, and the accuracy is the mean over
    folds.

    Args:
        groups: Group of each image, such as its domain. Each group is left out of training in turn.
        items: Item of each image. Default: each image is its own item.
        folds: Number of folds of a group's items, if other groups share items with the group.
    """
    x, y = _checked(features, label=labels, item=items, group=groups)
    names: list[str] = np.unique(groups).tolist()
    if len(names) < 2:
        raise InputError(
            f"Leaving a group out needs at least two groups, but {len(names)} was given."
        )
    item = _items(items, len(y))
    accuracies = dict[str, float]()
    # scikit-learn leaves groups out in sorted order, the order of `names`.
    left_out = LeaveOneGroupOut().split(x, y, groups)
    for name, (train, test) in zip(names, left_out, strict=True):
        trained = np.unique(y[train])
        if len(trained) < 2:
            raise InputError(
                f"A probe needs at least two classes outside {name!r}, but there is {len(trained)}."
            )
        # A class without training images would count as never recognised, which says nothing of the representation.
        test = test[np.isin(y[test], trained)]
        if len(test):
            splits = _without_items(train, test, item, folds)
            accuracies[name] = float(_balanced_accuracies(x, y, splits).mean())
    if not accuracies:
        raise InputError(
            "A group is tested on classes that another one has, but no two groups have one in common."
        )
    return accuracies


def _without_items(
    train: np.ndarray, test: np.ndarray, items: np.ndarray, folds: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pairs of training and test images without a common item.

    If training and test images share no item, this is a single pair. Otherwise the test images are cut into folds, and
    the items of each fold are taken out of its training images.
    """
    if not np.isin(items[test], items[train]).any():
        return [(train, test)]
    n = min(folds, len(np.unique(items[test])))
    cuts = [test]
    # A single item cannot be cut.
    if n > 1:
        folds_of_test = GroupKFold(n).split(test, groups=items[test])
        cuts = [test[fold] for _, fold in folds_of_test]
    return [(train[~np.isin(items[train], items[fold])], fold) for fold in cuts]


class SiteProbes(NamedTuple):
    """Balanced accuracies of linear probes at every site, in 0..1."""

    sites: pd.DataFrame
    """Columns site, target (one of `TARGETS`), value, low, high, chance, n_images."""
    left_out: pd.DataFrame
    """Accuracy of the class in each domain, by a classifier trained on the other domains.

    Columns site, domain, value, chance, n_images."""


@checked
def probe_sites(
    features: Mapping[str, Float[np.ndarray, "_ _"]],
    classes: Sequence[str],
    domains: Sequence[str],
    items: Sequence[str] | None = None,
    *,
    folds: Annotated[int, at_least(2)] = 5,
    seed: Seed = 0,
) -> SiteProbes:
    """Predict class and domain from the features of every site.

    Intervals are of 95 %, by Student's t. For class and domain they are over folds. The variance of their mean is
    raised by 1 / (folds - 1), since folds share training images (Nadeau & Bengio 2003). For the class across domains
    the interval is over the domains that were left out.

    Args:
        features: By site, one row per image, e.g. unit means: each unit's activation averaged over positions.
        classes, domains: Class and domain of each image.
        items, folds, seed: See `probe_accuracy`.
    """
    sites = []
    left_out = []
    n_images = pd.Series(domains).value_counts()
    for site, x in features.items():
        # Not strict: the third target has labels of its own below.
        for target, labels in zip(TARGETS, (classes, domains), strict=False):
            accuracies = probe_accuracy(x, labels, items, folds=folds, seed=seed)
            interval = _over_folds(accuracies)
            sites.append((site, target, *interval, chance_accuracy(labels), len(x)))
        by_domain = probe_left_out(x, classes, domains, items, folds=folds)
        chance = chance_accuracy(classes)
        # Domains share no test images, but only their number is the sample: the question is about a further domain.
        interval = mean_interval(np.array(list(by_domain.values())))
        sites.append((site, TARGETS[2], *interval, chance, len(x)))
        for domain, value in by_domain.items():
            left_out.append((site, domain, value, chance, int(n_images[domain])))
    return SiteProbes(
        pd.DataFrame(
            sites,
            columns=["site", "target", "value", "low", "high", "chance", "n_images"],
        ),
        pd.DataFrame(
            left_out, columns=["site", "domain", "value", "chance", "n_images"]
        ),
    )


def _over_folds(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean over folds and the bounds of its 95 % interval, cut to 0..1."""
    folds = len(values)
    mean = float(values.mean())
    # The second term is n_test / n_train of a fold (Nadeau & Bengio 2003): classifiers of folds are not independent.
    error = float(values.std(ddof=1)) * np.sqrt(1 / folds + 1 / (folds - 1))
    reach = float(stats.t.ppf(0.975, folds - 1)) * error
    return mean, max(0.0, mean - reach), min(1.0, mean + reach)


def chance_accuracy(labels: Sequence[str]) -> float:
    """Return the balanced accuracy of guessing at random: one over the number of different labels."""
    return 1 / len(set(labels))


def _checked(
    features: np.ndarray, label: Sequence[str], **more: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return features in double precision and labels; `InputError` unless all arguments fit each other.

    Args:
        more: Further columns with a value per image, by the name that errors use.
    """
    n = len(features)
    for name, column in {"label": label, **more}.items():
        if column is not None and len(column) != n:
            raise InputError(
                f"Probes need one {name} per image, but {len(column)} {name}s for {n} images were given."
            )
    if len(set(label)) < 2:
        raise InputError(
            f"A probe needs at least two classes, but {len(set(label))} was given."
        )
    mistake = None
    if not features.shape[1]:
        mistake = "are empty"
    elif not np.isfinite(features).all():
        mistake = "hold NaN or infinite values"
    if mistake:
        raise InputError(
            f"Probes need features that are finite, but those given {list(features.shape)} {mistake}."
        )
    return features.astype(np.float64), np.asarray(label)


def _balanced_accuracies(
    x: np.ndarray, y: np.ndarray, splits: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Return, for each pair of training and test images, the balanced accuracy on the test images."""
    with warnings.catch_warnings():
        # A classifier may predict a class that the test images lack; the mean is over the classes that they have.
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        accuracies = cross_val_score(
            ridge_probe(),
            x,
            y,
            scoring="balanced_accuracy",
            cv=splits,
            # By default a classifier that fails to fit has the accuracy NaN.
            error_score="raise",
        )
    return np.asarray(accuracies)
