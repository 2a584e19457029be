"""Linear probes: accuracy of a linear classifier on a representation (Alain & Bengio 2017, arXiv 1610.01644).

1. Features are standardised with the mean and deviation of the training images alone.
2. A ridge classifier (least squares on targets of -1 and 1, one per class, classes weighted equally) is fitted in
   closed form: deterministic, and fast even with more features than images. Its penalty is the one of `PENALTIES` with
   the smallest leave-one-out error on the training images.
3. Its balanced accuracy, the mean over classes of the share of recognised images, is measured on other images: in
   stratified folds, or on a group of images (a domain) that was left out of training. Images of one item (one concept,
   one source picture in several domains) are never on both sides.

No torch.
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
        items: Item of each image; images of one item are in one fold (default: each image is an item).
    """
    x, y = _checked(features, label=labels, item=items)
    of = np.arange(len(y)).astype(str) if items is None else np.asarray(items)
    names, counts = np.unique(
        np.unique(np.stack([y, of]), axis=1)[0], return_counts=True
    )
    if counts.min() < folds:
        raise InputError(
            f"Every class needs an item in each of the {folds} folds, but {str(names[counts.argmin()])!r} has "
            f"{counts.min()}: give more images, leave the class out, or take fewer folds."
        )
    if len(set(of)) == len(of):
        splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y)
    else:
        splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(
            x, y, of
        )
    return _balanced_accuracies(x, y, list(splits))


def probe_left_out(
    features: Float[np.ndarray, "images features"],
    labels: Sequence[str],
    groups: Sequence[str],
    items: Sequence[str] | None = None,
    *,
    folds: int = 5,
) -> dict[str, float]:
    """Return, by group, the balanced accuracy on its images of a classifier that is fitted on all other groups.

    A group's accuracy is over its classes that another group has; a group without any is left out. If an item is in
    several groups, a group's items are tested in folds, each by a classifier that was not trained on them in the other
    groups either; its accuracy is the mean over folds.

    Args:
        groups: Group of each image, left out of training in turn: the domain.
        folds: Folds of the items of a group, if other groups have them too.
    """
    x, y = _checked(features, label=labels, item=items, group=groups)
    names = [str(name) for name in np.unique(groups)]
    if len(names) < 2:
        raise InputError(
            f"Leaving a group out needs at least two groups, but {len(names)} was given."
        )
    of = np.arange(len(y)).astype(str) if items is None else np.asarray(items)
    splits: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for name, (train, test) in zip(
        names, LeaveOneGroupOut().split(x, y, groups), strict=True
    ):
        known = np.unique(y[train])
        if len(known) < 2:
            raise InputError(
                f"A probe needs at least two classes outside {name!r}, but there is {len(known)}."
            )
        test = test[np.isin(y[test], known)]
        if len(test):
            splits[name] = _without_items(train, test, of, folds)
    if not splits:
        raise InputError(
            "A group is tested on classes that another one has, but no two groups have one in common."
        )
    return {
        name: float(_balanced_accuracies(x, y, of_group).mean())
        for name, of_group in splits.items()
    }


def _without_items(
    train: np.ndarray, test: np.ndarray, items: np.ndarray, folds: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return training and test images without a common item: in folds of the test images if some are in both."""
    if not np.isin(items[test], items[train]).any():
        return [(train, test)]
    n = min(folds, len(np.unique(items[test])))
    cuts = (
        [test[part] for _, part in GroupKFold(n).split(test, groups=items[test])]
        if n > 1
        else [test]
    )
    return [(train[~np.isin(items[train], items[part])], part) for part in cuts]


class SiteProbes(NamedTuple):
    """Balanced accuracies of linear probes at every site, in 0..1."""

    sites: pd.DataFrame
    """Columns site, target (one of `TARGETS`), value, low, high, chance, n_images."""
    left_out: pd.DataFrame
    """The class by a classifier trained on the other domains: site, domain, value, chance, n_images."""


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

    Intervals are of 95 %: for class and domain over folds, with Student's t and the variance of the mean raised by
    1 / (folds - 1), since folds share images for training (Nadeau & Bengio 2003); for the class across domains with
    Student's t over the domains that were left out.

    Args:
        features: By site, one row per image, e.g. unit means: each unit's activation averaged over positions.
        items, folds, seed: See `probe_accuracy`.
    """
    sites = []
    left_out = []
    for site, x in features.items():
        for target, labels in zip(TARGETS, (classes, domains), strict=False):
            interval = _over_folds(
                probe_accuracy(x, labels, items, folds=folds, seed=seed)
            )
            sites.append((site, target, *interval, chance_accuracy(labels), len(x)))
        by_domain = probe_left_out(x, classes, domains, items, folds=folds)
        chance = chance_accuracy(classes)
        interval = mean_interval(np.array(list(by_domain.values())))
        sites.append((site, TARGETS[2], *interval, chance, len(x)))
        left_out += [
            (site, name, value, chance, list(domains).count(name))
            for name, value in by_domain.items()
        ]
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
    """Mean and its interval within 0..1."""
    folds = len(values)
    mean = float(values.mean())
    error = float(values.std(ddof=1)) * np.sqrt(1 / folds + 1 / (folds - 1))
    reach = float(stats.t.ppf(0.975, folds - 1)) * error
    return mean, max(0.0, mean - reach), min(1.0, mean + reach)


def chance_accuracy(labels: Sequence[str]) -> float:
    """Return the balanced accuracy of guessing: one over the number of different labels."""
    return 1 / len(set(labels))


def _checked(
    features: np.ndarray, label: Sequence[str], **more: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    n = len(features)
    for what, given in {"label": label, **more}.items():
        if given is not None and len(given) != n:
            raise InputError(
                f"Probes need one {what} per image, but {len(given)} {what}s for {n} images were given."
            )
    if len(set(label)) < 2:
        raise InputError(
            f"A probe needs at least two classes, but {len(set(label))} was given."
        )
    if not features.shape[1] or not np.isfinite(features).all():
        raise InputError(
            f"Probes need features that are finite, but those given {list(features.shape)} "
            + ("hold NaN or infinite values." if features.shape[1] else "are empty.")
        )
    return features.astype(np.float64), np.asarray(label)


def _balanced_accuracies(
    x: np.ndarray, y: np.ndarray, splits: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Return, for each pair of training and test images, the balanced accuracy on the test images."""
    with warnings.catch_warnings():
        # A guessed class may be absent from the group; the mean is over the group's classes.
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        found = cross_val_score(
            ridge_probe(),
            x,
            y,
            scoring="balanced_accuracy",
            cv=splits,
            error_score="raise",
        )
    return np.asarray(found)
