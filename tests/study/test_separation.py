"""Measures of separation against hand-worked numbers and brute force, on rotated spaces, and on blobs."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitry.comparison.fold_array import WHOLE
from experiments.representations.cells import ALL, cut_images
from experiments.representations.embedding_set import Embeddings
from experiments.study.separation import (
    DISTANCES,
    by_seed,
    class_accuracy,
    compare_distances,
    differences,
    distance,
    domain_probe,
    gather,
    image_spread,
    mean_distances,
    modality_gap,
    separation_measures,
    silhouettes,
    summarise,
)

ROOT = math.sqrt(2)


def embeddings(*rows: tuple[str, str, list[float]]) -> Embeddings:
    """From (domain, class, vector)."""
    domain, class_name, vectors = zip(*rows, strict=True)
    sources = np.array([str(i) for i in range(len(rows))])
    return Embeddings(
        np.array(vectors, float), sources, np.array(domain), np.array(class_name)
    )


X, Y, Z = [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]
HAND = embeddings(
    *(("ink", "axe", X), ("ink", "axe", Y), ("ink", "cat", Z), ("ink", "cat", Z)),
    *(("photo", "axe", X), ("photo", "axe", X), ("photo", "cat", Y)),
)


def random_embeddings(
    seed: int, n: int = 40, d: int = 6, domains: int = 3, classes: int = 2
) -> Embeddings:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, d))
    labels = np.arange(n)  # every class in every domain, evenly
    return Embeddings(
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        labels.astype(str),
        np.array([f"d{i % domains}" for i in labels]),
        np.array([f"c{i // domains % classes}" for i in labels]),
    )


def blobs(gap: float, seed: int = 0, n: int = 30) -> Embeddings:
    """Two domains and two classes on a sphere; domains lie ``gap`` apart along an axis of their own."""
    rng = np.random.default_rng(seed)
    rows = []
    for i, domain in enumerate(("ink", "photo")):
        for j, class_name in enumerate(("axe", "cat")):
            centre = np.eye(8)[0] + gap * np.eye(8)[2 + i] + 0.01 * np.eye(8)[4 + j]
            vectors = centre + 0.05 * rng.normal(size=(n, 8))
            rows += [
                (domain, class_name, (v / np.linalg.norm(v)).tolist()) for v in vectors
            ]
    return embeddings(*rows)


def test_distances_by_hand() -> None:
    # axe in ink has the mean (1/2, 1/2, 0), in photo X: cosine 1/sqrt(2), and (1/2, -1/2) apart.
    found = {
        m: compare_distances(HAND, m).values.set_index("class")["value"].to_dict()
        for m in DISTANCES
    }
    assert found["cosine"] == pytest.approx({"axe": 1 - 1 / ROOT, "cat": 1})
    assert found["euclidean"] == pytest.approx({"axe": 1 / ROOT, "cat": ROOT})
    # X and Y vary by (1/4 + 1/4) * 2 / (2 - 1) = 1 in all, two times X by 0: 1/sqrt(2) / sqrt((1 + 0) / 2).
    assert found["standardised"]["axe"] == pytest.approx(1)
    assert math.isnan(found["standardised"]["cat"])  # one photo


def test_whole_domains_by_hand() -> None:
    # ink: (X + Y + 2 Z) / 4, photo: (2 X + Y) / 3.
    row = mean_distances(HAND).iloc[0]
    ink, photo = np.array([1, 1, 2]) / 4, np.array([2, 1, 0]) / 3
    assert row["cosine"] == pytest.approx(
        1 - 3 / 12 / (math.sqrt(6) / 4 * math.sqrt(5) / 3)
    )
    assert row["euclidean"] == pytest.approx(math.dist(ink, photo))
    variances = (
        (1 - ink @ ink) * 4 / 3,
        (1 - photo @ photo) * 3 / 2,
    )  # mean square 1 minus square of the mean
    assert row["standardised"] == pytest.approx(
        math.dist(ink, photo) / math.sqrt(sum(variances) / 2)
    )


def test_spread_by_hand() -> None:
    found = image_spread(HAND).set_index(["class", "domain"])["value"].to_dict()
    expected = {
        ("axe", "ink"): 1 / ROOT,
        ("cat", "ink"): 0,
        ("axe", "photo"): 0,
        ("cat", "photo"): 0,
    }
    assert found == pytest.approx(expected)


def test_distance_of_a_zero_mean_is_unknown() -> None:
    opposite = np.array([[1.0, 0], [-1.0, 0]])
    assert math.isnan(distance(opposite, np.array([[0, 1.0]])))
    assert math.isnan(distance(np.array([X, X]), np.array([Y, Y]), "standardised"))


def test_standardised_distance_is_that_of_one_dimension() -> None:
    # Along a line it is Cohen's d with the mean variance: means 1 and 4, variances 1 and 3.
    a, b = np.array([[0.0], [1.0], [2.0]]), np.array([[3.0], [3.0], [6.0]])
    assert distance(a, b, "standardised") == pytest.approx(3 / math.sqrt((1 + 3) / 2))
    assert distance(a * 5, b * 5, "standardised") == pytest.approx(3 / math.sqrt(2))


def test_distances_of_folds_are_those_of_the_images_in_them() -> None:
    data = random_embeddings(1, n=60)
    cells = cut_images(data.table())
    for measure in DISTANCES:
        found = compare_distances(data, measure, seed=5)
        assert (found.measure, found.alike, found.sites) == (
            f"{measure}_distance",
            False,
            (),
        )
        for row in found.values.to_dict("records"):
            a, b = (
                data.vectors[cells[row["class"], row[f"domain_{side}"], WHOLE]]
                for side in "ab"
            )
            assert row["value"] == pytest.approx(distance(a, b, measure))
        for row in found.folds.to_dict("records"):
            a = data.vectors[cells[row["class_a"], row["domain_a"], row["fold_a"]]]
            b = data.vectors[cells[row["class_b"], row["domain_b"], row["fold_b"]]]
            assert row["value"] == pytest.approx(distance(a, b, measure), nan_ok=True)


@pytest.mark.parametrize("by", ["domain", "class"])
def test_silhouettes_equal_brute_force(by: Literal["domain", "class"]) -> None:
    data, values = random_embeddings(4, n=24), []
    labels = data.domain if by == "domain" else data.class_name
    for i, x in enumerate(data.vectors):
        others = {
            label: np.flatnonzero((labels == label) & (np.arange(24) != i))
            for label in set(labels)
        }
        means = {
            label: np.mean([1 - x @ data.vectors[j] for j in rows])
            for label, rows in others.items()
        }
        a = means.pop(labels[i])
        b = min(means.values())
        values.append((b - a) / max(a, b))
    found = silhouettes(data, by)
    for row in found.to_dict("records"):
        group = (data.class_name == row["class"]) & (data.domain == row["domain"])
        assert row["value"] == pytest.approx(np.array(values)[group].mean())
    assert len(found) == 6


def test_silhouettes_of_many_images_are_of_an_even_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("experiments.study.separation.MOST_IMAGES", 24)
    data = random_embeddings(4, n=60)
    sample = data.sample(24, seed=3)
    assert {len(rows) for rows in sample.groups().values()} == {4}
    pd.testing.assert_frame_equal(silhouettes(data, seed=3), silhouettes(sample))
    assert not silhouettes(data, seed=4).equals(silhouettes(sample))


def test_blobs_apart_are_told_and_mixed_ones_are_not() -> None:
    apart, mixed = blobs(3.0), blobs(0.0)
    assert domain_probe(apart)["value"].min() == 1
    assert silhouettes(apart)["value"].min() > 0.9
    chance = domain_probe(mixed).groupby("domain")["value"].mean()
    assert chance.to_dict() == pytest.approx(
        dict.fromkeys((ALL, "ink", "photo"), 0.5), abs=0.14
    )
    assert (
        abs(silhouettes(mixed)["value"].mean()) < 0.05
    )  # the wider domain is below 0, the other above


def test_one_domain_among_many_is_found_and_the_others_are_at_chance() -> None:
    data = random_embeddings(5, n=240, d=8)
    vectors = data.vectors.copy()
    vectors[:, 0] = 3 * (data.domain == "d1")
    data = replace(
        data, vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    )
    found = domain_probe(data).groupby("domain")["value"].mean()
    assert found["d1"] == 1
    assert found[ALL] == pytest.approx((1 + 0.5 + 0.5) / 3, abs=0.1)


def test_modality_gap_by_hand() -> None:
    texts = embeddings(("", "axe", X), ("", "cat", Y))
    images = embeddings(
        ("ink", "axe", Z), ("ink", "cat", Z), ("photo", "axe", X), ("photo", "cat", X)
    )
    found = modality_gap(images, texts).set_index("domain")["value"].to_dict()
    # Texts have the mean (1/2, 1/2, 0), ink Z, photo X, all images (1/2, 0, 1/2).
    assert found == pytest.approx(
        {ALL: 1 / ROOT, "ink": math.sqrt(1.5), "photo": 1 / ROOT}
    )


def test_accuracy_by_hand() -> None:
    texts = embeddings(("", "cat", Z), ("", "axe", X), ("", "bed", Y))
    found = (
        class_accuracy(HAND, texts).set_index(["class", "domain"])["value"].to_dict()
    )
    assert found == {
        ("axe", "ink"): 0.5,
        ("axe", "photo"): 1,
        ("cat", "ink"): 1,
        ("cat", "photo"): 0,
    }


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_rotation_changes_no_distance_spread_silhouette_gap_or_accuracy(
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    images, texts = (
        random_embeddings(seed, n=30),
        random_embeddings(seed + 1, n=2, domains=1),
    )
    before, after = (
        pd.concat(
            [
                *(
                    compare_distances(i, measure).values["value"]
                    for measure in DISTANCES
                ),
                *(mean_distances(i)[measure] for measure in DISTANCES),
                compare_distances(i, "standardised").folds["value"],
                image_spread(i)["value"],
                *(silhouettes(i, by)["value"] for by in ("domain", "class")),
                modality_gap(i, t)["value"],
                class_accuracy(i, t)["value"],
            ]
        ).to_numpy()
        for i, t in (
            (images, texts),
            [replace(one, vectors=one.vectors @ rotation) for one in (images, texts)],
        )
    )
    assert after == pytest.approx(before, abs=1e-9, nan_ok=True)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_images_changes_nothing(seed: int) -> None:
    data = random_embeddings(seed, n=30)
    shuffled = data.take(np.random.default_rng(seed).permutation(len(data)))
    measures: list[Callable[[Embeddings], pd.DataFrame]] = [
        mean_distances,
        image_spread,
        silhouettes,
    ]
    measures.append(lambda images: compare_distances(images).values)
    for measure in measures:
        pd.testing.assert_frame_equal(measure(data), measure(shuffled))


def test_all_measures_of_one_model() -> None:
    images = random_embeddings(6, n=60)
    texts = random_embeddings(7, n=2, domains=1)
    table = separation_measures(images, texts, held_out=("c1",))
    sizes = table.groupby("measure", sort=False).size().to_dict()
    by_class = (
        "distance",
        "standardised distance",
        "spread",
        "silhouette by domain",
        "silhouette by class",
    )
    assert {
        sizes[name]
        for name in (*by_class, "distance of folds", "standardised distance of folds")
    } == {6}
    assert (sizes["domain probe"], sizes["modality gap"]) == (4, 4)
    assert set(table[table["measure"] == "accuracy, held-out classes"]["class"]) == {
        "c1"
    }
    assert set(table[table["measure"] == "accuracy, seen classes"]["class"]) == {"c0"}
    distances = compare_distances(images).values.set_index(
        ["class", "domain_a", "domain_b"]
    )["value"]
    found = table.set_index(["measure", "class", "domain"])["value"]
    expected = (distances["c0", "d0", "d1"] + distances["c0", "d1", "d2"]) / 2
    assert found["distance", "c0", "d1"] == pytest.approx(expected)
    assert table[table["measure"] == "modality gap"]["class"].isna().all()
    without = separation_measures(images, texts)
    assert "accuracy, held-out classes" not in set(without["measure"])


def measured(values: Mapping[Any, float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "measure": "distance",
            "class": list(values),
            "domain": "ink",
            "value": list(values.values()),
        }
    )


def test_seeds_are_averaged_before_classes_and_differences_are_paired() -> None:
    seeds = {
        ("a", 0): {"axe": 1.0, "cat": 2.0},
        ("a", 1): {"axe": 3.0, "cat": 2.0},
        ("b", 0): {"axe": 1.0, "cat": 0.5},
    }
    table = gather({key: measured(values) for key, values in seeds.items()})
    found = summarise(table)
    assert found["model"].tolist() == ["a", "b"]
    reach = (
        12.7062 * 0.25
    )  # Student's quantile with one degree of freedom, and the standard error of 0.5 and 1
    assert found[["value", "n_classes", "n_seeds"]].to_numpy().tolist() == [
        [2, 2, 2],
        [0.75, 2, 1],
    ]
    assert found["low"].tolist() == pytest.approx([2, 0.75 - reach], rel=1e-5)
    assert found["high"].tolist() == pytest.approx([2, 0.75 + reach], rel=1e-5)
    assert by_seed(table)["value"].tolist() == [1.5, 2.5, 0.75]
    change = differences(table, "a", "b").iloc[0]
    expected = [-1.25, -1.25 - reach, -1.25 + reach]
    assert change[["difference", "low", "high"]].tolist() == pytest.approx(
        expected, rel=1e-5
    )
    assert change["n_classes"] == 2


def test_what_is_not_of_a_class_has_no_interval() -> None:
    table = gather(
        {
            ("a", 0): measured({None: 0.5}),
            ("a", 1): measured({None: 0.7}),
            ("b", 0): measured({None: 0.1}),
        }
    )
    row = summarise(table).iloc[0]
    assert row["value"] == pytest.approx(0.6)
    assert row[["low", "high"]].isna().all()
    assert (row["n_classes"], row["n_seeds"]) == (0, 2)
    assert differences(table, "a", "b")["difference"].item() == pytest.approx(-0.5)
