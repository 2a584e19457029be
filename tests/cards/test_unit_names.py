"""Names against planted units and brute force, and the two checks that a score of names must pass."""

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from circuitry.cards import UnitName, WordedImages, name_units
from circuitry.cards.unit_names import fit_words, word_information
from tests.support.assert_same import assert_same

WORDS = ("cat", "dog", "fish", "sketch", "stripes", "noise a", "noise b")
N = 600
CLASSES: np.ndarray = np.array(WORDS[:3])[np.arange(N) % 3]
DOMAINS: np.ndarray = np.array(["real", "sketch"])[np.arange(N) // 3 % 2]
TESTED: np.ndarray = np.arange(N) // 6 % 2 == 1


def worded(seed: int = 0) -> WordedImages:
    """Images whose words are right: each thing and style is probable where it is shown, stripes in a tenth."""
    rng = np.random.default_rng(seed)
    shown = np.stack([word == CLASSES for word in WORDS[:3]] + [DOMAINS == "sketch", rng.random(N) < 0.1], 1)
    probabilities = np.concatenate([0.9 * shown + 0.1 * rng.random((N, 5)), rng.random((N, 2))], 1)
    return WordedImages(WORDS, probabilities, CLASSES.tolist(), DOMAINS.tolist(), TESTED, ("sketch",))


def planted(images: WordedImages) -> np.ndarray:
    """Units for fish, for sketches, for cats more than for stripes, for cats in sketches alone, and for nothing."""
    rng = np.random.default_rng(1)
    of = dict(zip(WORDS, images.probabilities.T, strict=True))
    units = [of["fish"], of["sketch"], 2 * of["cat"] + 3 * of["stripes"], of["cat"] * (DOMAINS == "sketch")]
    return np.stack([*(unit + 0.05 * rng.standard_normal(N) for unit in units), rng.standard_normal(N)], 1)


def names(activations: np.ndarray, images: WordedImages) -> list[UnitName]:
    found = name_units(activations, images)
    assert all(name is not None for name in found)
    return [name for name in found if name is not None]


def test_planted_units_get_their_words() -> None:
    images = worded()
    fish, sketch, both, cats, _ = names(planted(images), images)
    assert (fish.words[0], fish.style, fish.weak) == ("fish", False, False)
    assert fish.references["class"][0] == "fish"
    assert (sketch.words[0], sketch.style) == ("sketch", True)
    assert sketch.references["domain"][0] == "sketch"
    assert sorted(both.words[:2]) == ["cat", "stripes"]
    assert both.correlation > 0.95
    assert cats.words[0] in ("cat", "sketch")
    assert cats.by_domain["sketch"][0] > 0.9 > 0.3 > abs(cats.by_domain["real"][0])


def test_units_of_nothing_are_weak() -> None:
    images = worded()
    noise = np.random.default_rng(2).standard_normal((N, 40))
    assert np.mean([name.weak for name in names(noise, images)]) >= 0.9
    assert not any(name.weak for name in names(planted(images)[:, :3], images))


def test_only_the_other_half_is_scored() -> None:
    images = worded()
    fish = planted(images)[:, :1]
    scrambled = np.where(TESTED[:, None], np.random.default_rng(3).permutation(fish), fish)
    (name,) = names(scrambled, images)
    assert name.words[0] == "fish"  # fitted on the first half
    assert name.weak
    (same,) = names(np.where(TESTED[:, None], fish, 2 * fish - 1), images)
    assert same.correlation == pytest.approx(names(fish, images)[0].correlation, abs=0.01)


def test_scores_equal_numpy_and_a_count_by_hand() -> None:
    images, unit = worded(), 2
    activation = planted(images)[:, unit]
    name = names(planted(images), images)[unit]
    columns = [images.probabilities[:, WORDS.index(word)] for word in name.words]
    predicted = np.array(columns).T @ name.weights
    assert name.correlation == pytest.approx(np.corrcoef(predicted[TESTED], activation[TESTED])[0, 1])
    there: np.ndarray = TESTED & (DOMAINS == "sketch")
    assert name.by_domain["sketch"][0] == pytest.approx(np.corrcoef(predicted[there], activation[there])[0, 1])
    active = set(np.argsort(-activation[TESTED])[: round(0.05 * np.count_nonzero(TESTED))].tolist())
    hits, precisions = 0, []
    for rank, place in enumerate(np.argsort(-predicted[TESTED]).tolist(), start=1):
        if place in active:
            hits += 1
            precisions.append(hits / rank)
    assert name.auprc == pytest.approx(np.mean(precisions))
    label = np.array(images.classes) == name.references["class"][0]
    assert name.references["class"][1] == pytest.approx(np.corrcoef(label[TESTED], activation[TESTED])[0, 1])
    word = images.probabilities[TESTED, WORDS.index(name.references["random word"][0])]
    assert name.references["random word"][1] == pytest.approx(np.corrcoef(word, activation[TESTED])[0, 1])
    assert name.chance == pytest.approx(
        1.645 / math.sqrt(np.count_nonzero(TESTED)), rel=0.35
    )  # of a permutation, nearly normal


def test_information_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(4)
    activations, probabilities = rng.random((40, 3)), rng.dirichlet(np.ones(6), 40)
    found, given = word_information(activations, probabilities), np.zeros((3, 6))
    for unit in range(3):
        for rank, image in enumerate(sorted(range(40), key=lambda i: -activations[i, unit])[:5]):
            weight = 0.998 - rank / 5 * 0.028
            given[unit] += np.log(1 + weight * (probabilities[image] - 1) + 1e-7)
    assert_same(found, given - np.log(np.mean(np.exp(given), 0)), at_least=0.1)


def test_words_fit_as_well_as_any_of_as_many() -> None:
    """Greedy, so compared where words are independent: with all sets of as many words, by unconstrained regression."""
    rng = np.random.default_rng(5)
    words = rng.random((200, 8))
    goal = 2 * words[:, 1] + words[:, 4] - 3 * words[:, 6] + 0.3 * rng.standard_normal(200)
    goal = (goal - goal.mean()) / goal.std()
    chosen, weights = fit_words(words, goal)
    assert chosen.tolist() == [1, 4]  # a negative weight is not given
    assert (weights > 0).all()

    def error(some: Iterable[int]) -> float:
        columns = words[:, list(some)] - words[:, list(some)].mean(0)
        solved = np.linalg.lstsq(columns, goal, rcond=None)[0]
        return float(((columns @ solved - goal) ** 2).sum()) if (solved > 0).all() else math.inf

    assert set(min(combinations(range(8), 2), key=error)) == {1, 4}
    assert error((1, 4)) == pytest.approx(
        float((((words - words.mean(0))[:, chosen] @ weights - goal) ** 2).sum()), rel=1e-6
    )
    assert not len(fit_words(words[:, [6]], goal)[0])


def right_in(rows: np.ndarray, images: WordedImages) -> UnitName:
    """The name of a unit for stripes by a vocabulary in which stripes are probable in ``rows``."""
    probabilities = np.stack([np.where(rows, 0.9, 0.1), images.probabilities[:, 5]], 1)
    probabilities += 0.01 * np.random.default_rng(6).random((N, 2))
    two = replace(images, words=("stripes", "noise"), probabilities=probabilities)
    truth = images.probabilities[:, 4] > 0.5
    (name,) = names((truth + 0.01 * np.random.default_rng(7).random(N))[:, None], two)
    return name


def test_scores_fall_when_half_of_the_labels_are_missing_or_as_many_are_wrong() -> None:
    """The sanity checks of NeuronEval (arXiv 2506.05774): accuracy, for one, stays the same under both."""
    images, rng = worded(), np.random.default_rng(8)
    truth = images.probabilities[:, 4] > 0.5
    missing = truth & (rng.random(N) < 0.5)
    extra = truth | (rng.random(N) < truth.mean())
    full = right_in(truth, images)
    assert full.words == ("stripes",)
    assert full.correlation > 0.99
    for broken in (missing, extra):
        name = right_in(broken, images)
        assert name.words[0] == "stripes"
        assert name.correlation < full.correlation - 0.1
        assert name.auprc < full.auprc - 0.1


def test_a_unit_that_does_not_vary_has_no_name() -> None:
    images = worded()
    assert name_units(np.zeros((N, 1)), images) == [None]
    assert name_units(np.where(TESTED, 0.0, planted(images)[:, 0])[:, None], images) == [None]
