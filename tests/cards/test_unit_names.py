"""Names against planted units and brute force, and whether the words of a model work."""

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip import IMAGENET_CLASSNAMES
from sklearn.metrics import average_precision_score

from circuitry import Clip, load_clip
from circuitry.cards import (
    UnitName,
    WordCheck,
    WordedImages,
    name_units,
    read_vocabulary,
    unit_names,
    vocabulary_of,
    word_probabilities,
)
from circuitry.cards.unit_card import FEWEST
from circuitry.cards.unit_names import fit_words, word_information
from circuitry.cards.vocabulary import words_of_domains
from circuitry.cards.word_check import check_words
from circuitry.models.classifier import Classifier
from tests.support.assert_same import assert_same

THINGS = ("cat", "dog", "fish", "cup", "key", "axe")
WORDS = (*THINGS, "sketch", "clipart", "stripes", "noise a", "noise b")
N = 600
CLASSES: np.ndarray = np.array(THINGS)[np.arange(N) % 6]
DOMAINS: np.ndarray = np.array(["real", "sketch", "clipart"])[np.arange(N) // 6 % 3]
TESTED: np.ndarray = np.arange(N) // 18 % 2 == 1


def worded(seed: int = 0) -> WordedImages:
    """Images whose words are right: each thing and style is probable where it is shown, stripes in a tenth."""
    rng = np.random.default_rng(seed)
    styles = [word == DOMAINS for word in ("sketch", "clipart")]
    shown = np.stack(
        [*(word == CLASSES for word in THINGS), *styles, rng.random(N) < 0.1], 1
    )
    probabilities = np.concatenate(
        [0.9 * shown + 0.1 * rng.random((N, 9)), rng.random((N, 2))], 1
    )
    return WordedImages(
        WORDS,
        probabilities,
        CLASSES.tolist(),
        DOMAINS.tolist(),
        TESTED,
        ("sketch", "clipart"),
    )


def planted(images: WordedImages) -> np.ndarray:
    """Units for fish, for sketches, for cats more than for stripes, for cats in sketches alone, and for nothing."""
    rng = np.random.default_rng(1)
    of = dict(zip(WORDS, images.probabilities.T, strict=True))
    units = [
        of["fish"],
        of["sketch"],
        2 * of["cat"] + 3 * of["stripes"],
        of["cat"] * (DOMAINS == "sketch"),
    ]
    return np.stack(
        [
            *(unit + 0.05 * rng.standard_normal(N) for unit in units),
            rng.standard_normal(N),
        ],
        1,
    )


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
    scrambled = np.where(
        TESTED[:, None], np.random.default_rng(3).permutation(fish), fish
    )
    (name,) = names(scrambled, images)
    assert name.words[0] == "fish"  # fitted on the first half
    assert name.weak
    (same,) = names(np.where(TESTED[:, None], fish, 2 * fish - 1), images)
    assert same.correlation == pytest.approx(
        names(fish, images)[0].correlation, abs=0.01
    )


@pytest.mark.parametrize("digits", [1, 9])
def test_average_precision_is_scikit_learns(digits: int) -> None:
    rng = np.random.default_rng(0)
    predicted = rng.normal(size=50).round(digits)  # with one digit many are equal
    active: np.ndarray = rng.random(50) < 0.2
    found = unit_names._average_precision(active, predicted)
    assert found == average_precision_score(active, predicted)


def test_scores_equal_numpy_and_a_count_by_hand() -> None:
    images = worded()
    unit = 2
    activation = planted(images)[:, unit]
    name = names(planted(images), images)[unit]
    columns = [images.probabilities[:, WORDS.index(word)] for word in name.words]
    predicted = np.array(columns).T @ name.weights
    assert name.correlation == pytest.approx(
        np.corrcoef(predicted[TESTED], activation[TESTED])[0, 1]
    )
    there: np.ndarray = TESTED & (DOMAINS == "sketch")
    assert name.by_domain["sketch"][0] == pytest.approx(
        np.corrcoef(predicted[there], activation[there])[0, 1]
    )
    active = set(
        np.argsort(-activation[TESTED])[
            : round(0.05 * np.count_nonzero(TESTED))
        ].tolist()
    )
    hits = 0
    precisions = []
    for rank, place in enumerate(np.argsort(-predicted[TESTED]).tolist(), start=1):
        if place in active:
            hits += 1
            precisions.append(hits / rank)
    assert name.auprc == pytest.approx(np.mean(precisions))
    label = np.array(images.classes) == name.references["class"][0]
    assert name.references["class"][1] == pytest.approx(
        np.corrcoef(label[TESTED], activation[TESTED])[0, 1]
    )


def permuted_names(
    unit: np.ndarray, images: WordedImages, cells: np.ndarray
) -> list[float]:
    """Return the correlation of a name for every order of the cells: greedy, each word weighted by its correlation."""

    def correlate(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.corrcoef(x, y)[0, 1])

    found = []
    names = sorted(set(cells))
    for order in permutations(names):
        moved = np.empty(len(unit))
        goes = dict(zip(names, order, strict=True))
        for half in (images.tested, ~images.tested):
            for cell in names:
                moved[half & (cells == cell)] = unit[half & (cells == goes[cell])]
        goal = moved[~images.tested]
        left = (goal - goal.mean()) / goal.std()
        predicted = np.zeros(np.count_nonzero(images.tested))
        for least in (0, 0.1, 0.1):  # a hundredth of the variance
            fits = [
                correlate(of, left) * left.std()
                for of in images.probabilities[~images.tested].T
            ]
            best = int(np.argmax(fits))
            if fits[best] < least:
                break
            word = images.probabilities[:, best]
            for half, into, sign in (
                (~images.tested, left, -1),
                (images.tested, predicted, 1),
            ):
                into += (
                    sign
                    * fits[best]
                    * (word[half] - word[half].mean())
                    / word[half].std()
                )
        found.append(correlate(predicted, moved[images.tested]))
    return found


def test_chance_is_that_of_all_orders_of_the_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unit_names, "PERMUTATIONS", 3000)
    some = (
        np.isin(CLASSES, THINGS[:2])
        & np.isin(DOMAINS, ["real", "sketch"])
        & (np.arange(N) < 576)
    )  # equal cells
    of = worded()
    images = WordedImages(
        WORDS,
        of.probabilities[some],
        CLASSES[some].tolist(),
        DOMAINS[some].tolist(),
        TESTED[some],
    )
    cells = np.char.add(CLASSES, DOMAINS)[some]
    for unit in planted(of)[some].T[[0, 1, 3]]:
        (name,) = names(unit[:, None], images)
        assert name.chance == pytest.approx(
            np.quantile(permuted_names(unit, images, cells), 0.95), abs=0.01
        )


@pytest.mark.parametrize("one_cell", [True, False])
def test_units_of_cells_have_no_name(one_cell: bool) -> None:
    """Words fit what units do in a cell on both halves, although they say nothing about it."""
    images = worded()
    rng = np.random.default_rng(6)
    cells = np.unique(np.char.add(CLASSES, DOMAINS), return_inverse=True)[1]
    units = 3 * np.eye(18)[cells] if one_cell else rng.standard_normal((18, 40))[cells]
    found = names(units + 0.7 * rng.standard_normal((N, units.shape[1])), images)
    assert np.mean([not name.weak for name in found]) <= 0.15
    assert np.median([name.correlation for name in found]) > 0.3


def test_information_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(4)
    activations = rng.random((40, 3))
    probabilities = rng.dirichlet(np.ones(6), 40)
    found = word_information(activations, probabilities)
    given = np.zeros((3, 6))
    for unit in range(3):
        for rank, image in enumerate(
            sorted(range(40), key=lambda i: -activations[i, unit])[:5]
        ):
            weight = 0.998 - rank / 5 * 0.028
            given[unit] += np.log(1 + weight * (probabilities[image] - 1) + 1e-7)
    assert_same(found, given - np.log(np.mean(np.exp(given), 0)), at_least=0.1)


def test_words_fit_as_well_as_any_of_as_many() -> None:
    """Greedy, so compared where words are independent: with all sets of as many words, by unconstrained regression."""
    rng = np.random.default_rng(5)
    words = rng.random((200, 8))
    goal = (
        2 * words[:, 1] + words[:, 4] - 3 * words[:, 6] + 0.3 * rng.standard_normal(200)
    )
    goal = (goal - goal.mean()) / goal.std()
    chosen, weights = fit_words(words, goal)
    assert chosen.tolist() == [1, 4]  # a negative weight is not given
    assert (weights > 0).all()

    def error(some: Iterable[int]) -> float:
        columns = words[:, list(some)] - words[:, list(some)].mean(0)
        solved = np.linalg.lstsq(columns, goal, rcond=None)[0]
        return (
            float(((columns @ solved - goal) ** 2).sum())
            if (solved > 0).all()
            else math.inf
        )

    assert set(min(combinations(range(8), 2), key=error)) == {1, 4}
    assert error((1, 4)) == pytest.approx(
        float((((words - words.mean(0))[:, chosen] @ weights - goal) ** 2).sum()),
        rel=1e-6,
    )
    assert not len(fit_words(words[:, [6]], goal)[0])


def test_a_unit_that_does_not_vary_has_no_name() -> None:
    images = worded()
    assert name_units(np.zeros((N, 1)), images) == [None]
    assert name_units(
        np.where(TESTED, 0.0, planted(images)[:, 0])[:, None], images
    ) == [None]


def classifier(clip: Clip, outputs: int) -> Classifier:
    rows = torch.randn(outputs, 16)
    of = {"fish": (0, 2), "cat": (1,)}
    values = {
        name: getattr(clip, name)
        for name in ("name", "model", "encoder", "preprocess", "tokenizer")
    }
    return Classifier(**values, rows=rows, bias=torch.randn(outputs), classes=of)


def test_probabilities_are_the_softmax_of_the_model_s_logits(clip: Clip) -> None:
    words = ("red", "blue", "fur")
    embeddings = torch.randn(5, 16)
    texts = clip.model.encode_text(clip.tokenizer(list(words)))  # type: ignore[operator]
    scale = clip.model.logit_scale.exp()  # type: ignore[operator]
    logits = scale * F.normalize(embeddings, dim=-1) @ F.normalize(texts, dim=-1).T
    expected = (logits.exp() / logits.exp().sum(1, keepdim=True)).detach().numpy()
    np.testing.assert_allclose(
        word_probabilities(clip, words, embeddings), expected, rtol=1e-4
    )


def test_words_by_default_are_those_that_the_model_knows() -> None:
    clip = load_clip("rn-tiny")
    words = vocabulary_of(clip, ["cup", "photo"])
    assert words[:2] == ("cup", "photo")
    assert "sketch" in words
    assert "tench" not in words
    assert len(clip.text_weights(words, ["{}"])) == len(words) < 100


def test_a_classifier_s_words_are_its_outputs(clip: Clip) -> None:
    embeddings = torch.randn(5, 16)
    small = classifier(clip, 4)
    assert vocabulary_of(small, ["fish"]) == ("fish", "cat")
    logits = (embeddings @ small.rows.T + small.bias).numpy().astype(float)
    every = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = np.stack([every[:, 0] + every[:, 2], every[:, 1]], 1)
    np.testing.assert_allclose(
        word_probabilities(small, ("fish", "cat"), embeddings), expected, rtol=1e-4
    )
    imagenet = classifier(clip, len(IMAGENET_CLASSNAMES))
    assert vocabulary_of(imagenet, ["fish"]) == tuple(IMAGENET_CLASSNAMES)
    assert word_probabilities(imagenet, IMAGENET_CLASSNAMES, embeddings).shape == (
        5,
        1000,
    )


@pytest.mark.parametrize(
    ("right", "works", "words"),
    [
        (30, True, ["work", "30%", "10%", f"{FEWEST} images"]),
        (12, False, ["do not work", "12%", "10%"]),
        (0, False, ["do not work", "0%"]),
    ],
)
def test_words_work_above_chance(right: int, works: bool, words: list[str]) -> None:
    answers = np.arange(100) < right
    found = check_words("rn-tiny", {"real": answers[:50], "sketch": answers[50:]}, 10)
    assert (found.accuracy, found.chance, found.n_images, found.works) == (
        right / 100,
        0.1,
        100,
        works,
    )
    assert found.by_domain == {
        "real": min(right, 50) / 50,
        "sketch": max(right - 50, 0) / 50,
    }
    assert all(word in found.sentence for word in ["rn-tiny", "100", *words])


def test_no_image_is_no_evidence() -> None:
    found = check_words("rn-tiny", {}, 10)
    assert not found.works
    assert replace(found, accuracy=0.0) == WordCheck(
        "rn-tiny", 0.0, {}, 0.1, 0, works=False
    )


def test_vocabularies(clip: Clip, tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("# colours\nred\n\n  dark blue \nred\n")
    assert read_vocabulary(file) == ("red", "dark blue")
    assert vocabulary_of(clip, ["ice_cream", "real"], ["red", "real"]) == (
        "ice cream",
        "real",
        "red",
    )
    everything = vocabulary_of(clip, ["ice_cream"])
    assert everything[0] == "ice cream"
    assert {"tench", "striped", "doodle"} <= set(everything)
    assert words_of_domains(["infograph", "real", "night_time"]) == {
        *(
            "infograph",
            "informational chart",
            "informational",
            "chart",
            "real",
            "photo",
            "snapshot",
            "night time",
        )
    }
