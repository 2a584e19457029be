"""Linear probes against closed forms, and least squares written out with leave-one-out by brute force."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from circuitry.models.ridge import PENALTIES
from circuitry.runs import InputError
from experiments.representations.probes import (
    TARGETS,
    probe_accuracy,
    probe_left_out,
    probe_sites,
)

NAMES = ["axe", "cat", "fish"]


def clusters(
    n: int, spread: float, seed: int = 0, width: int = 4
) -> tuple[np.ndarray, list[str]]:
    """n images of each of three classes around three points, the classes in turn."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, width))
    labels = NAMES * n
    return np.tile(centres, (n, 1)) + spread * rng.normal(size=(3 * n, width)), labels


def by_hand(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, penalties: list[float]
) -> np.ndarray:
    """Predictions of the ridge classifier: normal equations, and one refit per image left out for the penalty."""
    mean, deviation = x.mean(0), x.std(0)
    x, x_test = (x - mean) / deviation, (x_test - mean) / deviation
    names = np.unique(y)
    targets = np.where(y[:, None] == names, 1.0, -1.0)

    def fit(
        x: np.ndarray, t: np.ndarray, penalty: float
    ) -> tuple[np.ndarray, np.ndarray]:
        centred, offset = x - x.mean(0), t.mean(0)
        w = np.linalg.solve(
            centred.T @ centred + penalty * np.eye(x.shape[1]), centred.T @ (t - offset)
        )
        return w, offset - x.mean(0) @ w

    errors = []
    for penalty in penalties:
        error = 0.0
        for i in range(len(x)):
            others = np.arange(len(x)) != i
            w, b = fit(x[others], targets[others], penalty)
            error += float(((x[i] @ w + b - targets[i]) ** 2).sum())
        errors.append(error)
    w, b = fit(x, targets, penalties[int(np.argmin(errors))])
    return np.asarray(names[(x_test @ w + b).argmax(1)])


@pytest.mark.parametrize(("width", "spread"), [(3, 1.2), (30, 5.0)])
def test_folds_are_ridges_of_the_best_penalty(
    width: int, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, labels = clusters(8, spread, width=width)
    y, penalties = np.array(labels), [0.3, 30.0, 3000.0]
    monkeypatch.setattr("circuitry.models.ridge.PENALTIES", penalties)
    expected = []
    for train, test in StratifiedKFold(4, shuffle=True, random_state=3).split(x, y):
        guesses = by_hand(x[train], y[train], x[test], penalties)
        expected.append(
            np.mean([(guesses == y[test])[y[test] == name].mean() for name in NAMES])
        )
    assert probe_accuracy(x, labels, folds=4, seed=3) == pytest.approx(expected)
    assert 0.4 < np.mean(expected) < 1


def test_accuracy_is_the_mean_over_classes_of_their_shares() -> None:
    # The others put the threshold at 0; of nine cats three lie on the wrong side, and the one dog is right.
    x = np.array([[-1.0], [1.0]] * 5 + [[-1.0]] * 6 + [[1.0]] * 3 + [[1.0]])
    labels = ["cat", "dog"] * 5 + ["cat"] * 9 + ["dog"]
    assert probe_left_out(x, labels, ["a"] * 10 + ["b"] * 10)["b"] == pytest.approx(
        (6 / 9 + 1) / 2
    )


def test_only_the_direction_of_classes_counts_not_offset_and_scale_of_a_feature() -> (
    None
):
    x, labels = clusters(10, 1.5)
    expected = probe_accuracy(x, labels)
    assert (
        probe_accuracy(x * [1e-3, 1, 50, 1e4] + [7, 0, -3, 100], labels).tolist()
        == expected.tolist()
    )
    constant = np.full((len(x), 1), 0.1)
    assert (
        probe_accuracy(np.hstack([x, constant]), labels).tolist() == expected.tolist()
    )


def test_accuracies_are_those_of_the_code_before_scikit_learn_did_the_folds() -> None:
    # Stored from the loop over folds with recall_score, bit for bit; the groups' classes are not all alike.
    rng = np.random.default_rng(3)
    x = rng.normal(size=(120, 12)).astype(np.float32)
    labels = np.array(["a", "b", "c"])[rng.integers(0, 3, 120)].tolist()
    x[:, 0] += np.array(labels) == "a"
    x[:, 1] += 0.5 * (np.array(labels) == "b")
    groups = np.array(["u", "v", "w", "z"])[rng.integers(0, 4, 120)].tolist()
    assert probe_accuracy(x, labels, seed=2).tolist() == [
        *(
            0.3703703703703704,
            0.35185185185185186,
            0.43716931216931226,
            0.5945767195767196,
            0.47420634920634924,
        )
    ]
    found = probe_left_out(x, labels, groups)
    assert list(found) == ["u", "v", "w", "z"]
    assert list(found.values()) == [
        0.5438311688311689,
        0.48148148148148145,
        0.44523809523809527,
        0.5079365079365079,
    ]


def paired(seed: int) -> tuple[np.ndarray, list[str], list[str], list[str]]:
    """Noise in which the images of an item are alike in two domains: features, classes, domains and items."""
    rng = np.random.default_rng(seed)
    once = rng.normal(size=(60, 80))
    x = np.concatenate([once, once + 0.01 * rng.normal(size=(60, 80))])
    items = [f"{name}/{i}" for i, name in enumerate(NAMES * 20)] * 2
    return x, NAMES * 40, ["ink"] * 60 + ["photo"] * 60, items


def test_an_item_is_never_trained_on_and_tested(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A classifier that has seen the other image of an item knows its class; there is nothing else to be read off.
    x, labels, domains, items = paired(0)
    monkeypatch.setattr("circuitry.models.ridge.PENALTIES", [0.1])
    assert probe_accuracy(x, labels).mean() > 0.8
    assert probe_accuracy(x, labels, items).mean() < 0.45  # guessing: a third
    assert min(probe_left_out(x, labels, domains).values()) > 0.9
    apart = probe_left_out(x, labels, domains, items)
    assert max(apart.values()) < 0.45
    found = probe_sites({"a": x}, labels, domains, items)
    assert found.left_out["value"].tolist() == list(
        probe_left_out(x, labels, domains, items).values()
    )
    assert found.sites["value"][0] == probe_accuracy(x, labels, items).mean()


def test_a_group_is_tested_by_the_others_alone() -> None:
    # In the group "mirror" every class lies where another one lies elsewhere.
    x, labels = clusters(12, 0.05)
    groups = ["a", "a", "a", "b", "b", "b"] * 6
    assert probe_left_out(x, labels, groups) == {"a": 1.0, "b": 1.0}
    moved = [
        NAMES[(NAMES.index(name) + 1) % 3] if group == "b" else name
        for name, group in zip(labels, groups, strict=True)
    ]
    assert probe_left_out(x, moved, groups) == {"a": 0.0, "b": 0.0}
    y, part = np.array(labels), np.array(groups)
    far, _ = clusters(12, 1.5)
    guesses = by_hand(
        far[part == "a"], y[part == "a"], far[part == "b"], list(PENALTIES)
    )
    expected = np.mean(
        [(guesses == y[part == "b"])[y[part == "b"] == name].mean() for name in NAMES]
    )
    assert probe_left_out(far, labels, groups)["b"] == pytest.approx(expected)


def test_classes_that_no_other_group_has_do_not_count() -> None:
    x, labels = clusters(8, 0.05)
    groups = [
        "c" if name == "fish" else group
        for name, group in zip(labels, ["a", "b", "b", "b", "a", "a"] * 4, strict=True)
    ]
    found = probe_left_out(x, labels, groups)
    assert found == {"a": 1.0, "b": 1.0}  # not c: nothing else has fish


def test_every_site_is_probed_for_class_domain_and_transfer() -> None:
    x, labels = clusters(20, 0.05)
    domains = ["a", "a", "a", "b", "b", "b"] * 10
    styled = np.hstack([x, np.array(domains)[:, None] == "a"]).astype(float)
    noise = np.random.default_rng(5).normal(size=(60, 2))
    found = probe_sites(
        {"early": noise, "middle": styled, "late": x}, labels, domains, folds=4, seed=1
    )
    assert found.sites["site"].tolist() == ["early"] * 3 + ["middle"] * 3 + ["late"] * 3
    assert found.sites["target"].tolist() == list(TARGETS) * 3
    value = found.sites.set_index(["site", "target"])["value"].to_dict()
    assert [value["middle", target] for target in TARGETS] == [1, 1, 1]
    assert value["late", "class"] == 1
    assert value["late", "domain"] < 0.8
    assert (
        value["early", "domain"]
        == probe_accuracy(noise, domains, folds=4, seed=1).mean()
    )
    across = probe_left_out(noise, labels, domains)
    assert value["early", "class across domains"] == pytest.approx(
        np.mean(list(across.values()))
    )
    early = found.left_out[found.left_out["site"] == "early"]
    assert dict(zip(early["domain"], early["value"], strict=True)) == across
    assert early["n_images"].tolist() == [30, 30]
    chance = dict(zip(found.sites["target"], found.sites["chance"], strict=True))
    assert chance == {"class": 1 / 3, "domain": 1 / 2, "class across domains": 1 / 3}


def test_the_interval_over_folds_is_raised_for_their_common_images() -> None:
    x, labels = clusters(10, 2.0)
    values = probe_accuracy(x, labels, folds=3)
    row = probe_sites({"a": x}, labels, ["a", "b"] * 15, folds=3).sites.iloc[0]
    # Student's t with two degrees of freedom at 97.5 % is 4.3027; 1/3 + 1/2 = 5/6.
    reach = 4.3027 * values.std(ddof=1) * np.sqrt(5 / 6)
    assert reach > 0
    assert row["low"] == pytest.approx(max(0, values.mean() - reach), abs=1e-4)
    assert row["high"] == pytest.approx(min(1, values.mean() + reach), abs=1e-4)


X, LABELS = clusters(4, 1.0)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: probe_accuracy(X, ["cat"] * len(X)), "two classes, but 1"),
        (lambda: probe_accuracy(X, LABELS), "5 folds, but 'axe' has 4"),
        (lambda: probe_accuracy(X, LABELS[:-1], folds=2), "11 labels for 12 images"),
        (
            lambda: probe_accuracy(X, LABELS, ["a", "b"], folds=2),
            "2 items for 12 images",
        ),
        (lambda: probe_left_out(X, LABELS, ["a"] * 12), "two groups, but 1"),
        (
            lambda: probe_left_out(X, LABELS, ["b", "a", "a"] * 4),
            "two classes outside 'a', but there is 1",
        ),
        (
            lambda: probe_left_out(
                X, ["cat", "dog"] * 3 + ["axe", "bed"] * 3, ["a"] * 6 + ["b"] * 6
            ),
            "no two groups",
        ),
        (
            lambda: probe_accuracy(np.where(X[3, 1] == X, np.nan, X), LABELS, folds=2),
            r"\[12, 4\] .*NaN",
        ),
    ],
)
def test_bad_input_is_named(use: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        use()
