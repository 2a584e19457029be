"""How far domains agree on single features, on paper and by brute force."""

from itertools import permutations

import pandas as pd
import pytest

from experiments.study.features_command import (
    feature_frequency,
    feature_summary,
    images_of_feature,
    most_shared,
)
from tests.study.representations.test_features import features_of, random_features


def test_frequencies_are_shares_of_images() -> None:
    features = features_of(
        [
            ("a", "real", [1, 2], [1, 1]),
            ("b", "real", [1], [1]),
            ("a", "sketch", [2, 3], [1, 1]),
        ],
        n_features=4,
    )
    table = feature_frequency(features)
    assert table["real"].tolist() == [0, 1, 0.5, 0]
    assert table["sketch"].tolist() == [0, 0, 1, 1]


def test_sharing_by_feature_by_brute_force() -> None:
    features = random_features(domains=3, images=1)
    cells = features.cells()
    tops = {key: set(features.ranked(rows).tolist()) for key, rows in cells.items()}
    table = feature_summary(features).set_index("feature")
    for feature in table.index:
        given_one, weight = 0.0, 0
        for name in ("c0", "c1", "c2"):
            domains = [domain for other, domain in cells if other == name]
            holding = [
                feature in tops[name, b]
                for a, b in permutations(domains, 2)
                if feature in tops[name, a]
            ]
            given_one += sum(holding) / (len(domains) - 1)
            weight += sum(feature in tops[name, domain] for domain in domains)
        assert table.loc[feature, "shared"] == pytest.approx(given_one / weight)
        assert table.loc[feature, "n_tops"] == weight
        assert table.loc[feature, "n_images"] == (features.strongest == feature).sum()
    assert set(table.index) == set().union(*tops.values())


def test_the_most_and_the_least_shared_are_chosen() -> None:
    tops, classes, shared = (
        [30, 6, 3, 12, 1, 5],
        [5, 1, 1, 12, 1, 5],
        [1.0, 1.0, 0.5, 0.0, 0.0, 0.0],
    )
    summary = pd.DataFrame(
        {"feature": range(6), "n_tops": tops, "n_classes": classes, "shared": shared}
    )
    assert most_shared(summary, 3) == [1, 0, 2]
    assert most_shared(summary, 3, least=True) == [3, 5, 2]
    assert most_shared(summary, 3, least=True, min_tops=1) == [3, 5, 4]
    assert most_shared(summary, 9, min_tops=6) == [1, 0, 3]


def test_top_images_are_the_most_active() -> None:
    real = [
        ("a", "real", [1, 2], [0.5, 0.1]),
        ("a", "real", [2, 1], [0.9, 0.8]),
        ("b", "real", [1], [0.6]),
    ]
    features = features_of(
        [*real, ("b", "sketch", [1], [0.7]), ("b", "real", [3], [0.7])]
    )
    assert images_of_feature(features, 1, "real", 2) == ["real/a/1.png", "real/b/2.png"]
    assert images_of_feature(features, 1, "real", 9) == [
        "real/a/1.png",
        "real/b/2.png",
        "real/a/0.png",
    ]
    assert images_of_feature(features, 9, "real", 2) == []
