"""Linear probes: what can be read off a representation by a linear classifier (Alain & Bengio 2017, arXiv 1610.01644).

1. Features are standardised with the mean and deviation of the training images alone.
2. A ridge classifier (least squares on targets of -1 and 1, one per class, classes weighted alike) is fitted in closed
   form, so that it is deterministic, and fast also where features outnumber images; its penalty is the one of
   `PENALTIES` with the smallest leave-one-out error on the training images.
3. Its balanced accuracy, the mean over classes of the share of a class's images that are recognised, is taken on other
   images: in stratified folds, or on a group of images (a domain) that was left out of training.

Guessing reaches one over the number of classes, however many images each has: `chance_accuracy`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import RidgeClassifierCV
from sklearn.metrics import recall_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from circuitry.errors import InputError

PENALTIES = tuple(10.0**k for k in range(-1, 6))
"""Candidates for the ridge penalty, for standardised features and sums (not means) over images."""


def probe_accuracy(
    features: Float[np.ndarray, "images features"],
    labels: Sequence[str],
    *,
    folds: int = 5,
    seed: int = 0,
    penalties: Sequence[float] = PENALTIES,
) -> Float[np.ndarray, " folds"]:
    """Return the balanced accuracy of a linear classifier in every fold of a stratified cross-validation, in 0..1.

    Args:
        features: One row per image.
        labels: What is to be read off, one per image.
        folds: Parts of the images; each is tested on once, with the others for training.
        seed: Seed of the parts.
        penalties: Candidates for the ridge penalty; one value is taken as it is.

    Raises:
        InputError: for fewer than two folds or classes, a class with fewer images than folds, features that are not
            finite, or another number of labels than of images.

    Example:
        >>> accuracy = probe_accuracy(embeddings, [record.domain for record in records])
        >>> accuracy.mean(), chance_accuracy([record.domain for record in records])
    """
    x, y = _checked(features, labels)
    if folds < 2:
        raise InputError(f"Cross-validation needs at least two folds, but {folds} was given.")
    names, counts = np.unique(y, return_counts=True)
    if counts.min() < folds:
        raise InputError(
            f"Every class needs an image in each of the {folds} folds, but {str(names[counts.argmin()])!r} has "
            f"{counts.min()}: give more images, leave the class out, or take fewer folds."
        )
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y)
    return np.array([_balanced_accuracy(x[a], y[a], x[b], y[b], penalties) for a, b in parts])


def probe_left_out(
    features: Float[np.ndarray, "images features"],
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    penalties: Sequence[float] = PENALTIES,
) -> dict[str, float]:
    """Return, by group, the balanced accuracy on its images of a classifier that is fitted on all other groups.

    A group's accuracy is over those of its classes that another group has, too; a group without any is left out.

    Args:
        features: One row per image.
        labels: What is to be read off, one per image.
        groups: What is left out of training in turn, one per image: the domain.
        penalties: Candidates for the ridge penalty.

    Raises:
        InputError: for fewer than two classes or groups, a group whose others have fewer than two classes, features
            that are not finite, or another number of labels or groups than of images.

    Example:
        >>> probe_left_out(embeddings, classes, domains)
        {'quickdraw': 0.31, 'real': 0.78}
    """
    x, y = _checked(features, labels)
    if len(groups) != len(y):
        raise InputError(f"Probes need one group per image, but {len(groups)} groups for {len(y)} images were given.")
    by_image = np.asarray(groups)
    names = np.unique(by_image)
    if len(names) < 2:
        raise InputError(f"Leaving a group out needs at least two groups, but {len(names)} was given.")
    found = {}
    for name in names:
        train = by_image != name
        known = np.unique(y[train])
        if len(known) < 2:
            raise InputError(f"A probe needs at least two classes outside {str(name)!r}, but there is {len(known)}.")
        test = ~train & np.isin(y, known)
        if test.any():
            found[str(name)] = _balanced_accuracy(x[train], y[train], x[test], y[test], penalties)
    return found


def chance_accuracy(labels: Sequence[str]) -> float:
    """Return the balanced accuracy of guessing: one over the number of different labels."""
    return 1 / len(set(labels))


def _checked(features: np.ndarray, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    if len(labels) != len(features):
        raise InputError(
            f"Probes need one label per image, but {len(labels)} labels for {len(features)} images were given."
        )
    if len(set(labels)) < 2:
        raise InputError(f"A probe needs at least two classes, but {len(set(labels))} was given.")
    if not features.shape[1] or not np.isfinite(features).all():
        raise InputError(
            f"Probes need features that are finite, but those given {list(features.shape)} "
            + ("hold NaN or infinite values." if features.shape[1] else "are none.")
        )
    return features.astype(np.float64), np.asarray(labels)


def _balanced_accuracy(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, penalties: Sequence[float]
) -> float:
    probe = make_pipeline(StandardScaler(), RidgeClassifierCV(penalties, class_weight="balanced"))
    guesses = probe.fit(x, y).predict(x_test)
    return float(recall_score(y_test, guesses, labels=np.unique(y_test), average="macro"))
