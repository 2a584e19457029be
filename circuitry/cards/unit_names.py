"""Names of units, made of words. Does not import torch.

Names are fitted on one half of the images and tested on the other half.

A model's text encoder gives the probability of each word of a vocabulary in each image. For the units of one site:

1. Candidates are the words with the largest soft weighted pointwise mutual information with the unit (CLIP-Dissect,
   Oikarinen and Weng 2023, arXiv 2204.10965). Such words are probable in the top images of the unit, and less probable
   in the top images of other units.
2. A name is at most three candidates. Their probabilities, with weights of zero or more, fit the activation best
   (Linear Explanations, arXiv 2405.06855). Candidates are added one by one, as long as each explains a further
   hundredth of the variance of the activation.
3. A name is tested on the other half of the items by two scores: the Pearson correlation, and the area under the
   precision-recall curve. Both scores pass the sanity checks of NeuronEval (arXiv 2506.05774): they fall if labels of a
   concept are missing, and if its labels are doubled. Most other scores of names fail one of these checks.
4. Two references are computed on the same images. The first is the correlation that names reach by chance. For this,
   names are fitted to permuted activations. All images of a class in a domain form a cell, and cells are permuted as
   wholes, because the images of a cell are not independent. The second reference is the correlation of the best class
   label and of the best domain label.

Steps 1 and 2 use only one half of the images. All reported scores are computed on the other half.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import nnls
from scipy.special import logsumexp

from circuitry.cards.unit_card import FEWEST, UnitName
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError

MOST_WORDS = 3
"""Largest number of words in a name."""
MOST_CANDIDATES = 10
"""Number of candidates among which the words of a name are chosen."""
LEAST_GAIN = 0.01
"""Share of the activation's variance that a further word must explain."""
ACTIVE = 0.05
"""Share of the images that count as active for the precision-recall curve."""
PERMUTATIONS = 100
"""Number of random permutations for chance level."""
QUANTILE = 0.95
"""Quantile of the correlations after permutation. A name whose correlation is not above this quantile is weak."""

_FIRST = 0.998
_LAST = 0.97
"""Weights of top images in CLIP-Dissect. The first top image has `_FIRST`. An image after the last top image would have
`_LAST`."""


@dataclass(frozen=True, eq=False)
class WordedImages:
    """Images with the probabilities of words in them, and the halves that names are fitted and tested on.

    Example:
        >>> from circuitry.cards import WordedImages, name_units
        >>> draws = np.random.default_rng(0)
        >>> probabilities = draws.random((100, 3))
        >>> classes = ["zebra", "cow"] * 50
        >>> domains = ["real"] * 50 + ["sketch"] * 50
        >>> tested = np.arange(100) % 4 < 2
        >>> worded = WordedImages(["stripes", "grass", "sky"], probabilities, classes, domains, tested)
        >>> activations = probabilities[:, :1] + 0.1 * draws.random((100, 1))
        >>> name_units(activations, worded)[0].name
        'stripes'
    """

    words: Sequence[str]  #: Candidates for names.
    probabilities: Float[np.ndarray, "images words"]
    """Probability of each word in each image, such as the softmax over the logits of all words."""
    classes: Sequence[str]
    """Class of each image."""
    domains: Sequence[str]
    """Domain of each image."""
    tested: Bool[np.ndarray, " images"]
    """Whether an image is in the half on which names are tested. Names are fitted on all other images. Images of one
    item should be in the same half."""
    style_words: Collection[str] = ()
    """Words that name a domain; see `UnitName.style`."""

    def __post_init__(self) -> None:
        n_tested = int(self.tested.sum())
        n_fitted = int((~self.tested).sum())
        fewest = min(n_tested, n_fitted)
        if fewest < FEWEST or len(self.words) < 2:
            raise InputError(
                f"Names need at least {FEWEST} images in each half and 2 words, but the smaller half has {fewest} and "
                f"the vocabulary {len(self.words)}: give more images, or a longer vocabulary."
            )


@checked
def name_units(
    activations: Float[np.ndarray, "images units"],
    images: WordedImages,
    *,
    seed: int = 0,
) -> list[UnitName | None]:
    """Return a tested name for each unit of a site.

    A unit has None instead of a name if no candidate fits, or if its activation does not vary in one of the halves.

    Args:
        activations: Activations of the units in the images.
        images: The images, with the probabilities of words and the two halves.
        seed: Seed of the permutations for chance level.

    Example:
        >>> from circuitry.cards import WordedImages, name_units
        >>> probabilities = np.random.default_rng(0).random((100, 2))
        >>> tested = np.arange(100) % 2 == 1
        >>> worded = WordedImages(["stripes", "grass"], probabilities, ["zebra"] * 100, ["real"] * 100, tested)
        >>> name = name_units(2 * probabilities + [[3, 1]], worded)[1]
        >>> name.name, round(name.correlation, 2)
        ('grass', 1.0)
    """
    rng = np.random.default_rng(seed)
    fitted_on = _Half(activations, images, ~images.tested)
    tested_on = _Half(activations, images, images.tested)
    scores = word_information(fitted_on.raw, fitted_on.probabilities)
    # A cell is all images of a class in a domain.
    labels = np.stack([images.classes, images.domains])
    _, cells = np.unique(labels, axis=1, return_inverse=True)
    chance = _chance(fitted_on, tested_on, cells, rng)
    halves = (fitted_on, tested_on)
    names: list[UnitName | None] = []
    for unit in range(activations.shape[1]):
        # The sort is stable, so that words with equal scores stay in the order of the vocabulary.
        candidates = np.argsort(-scores[unit], kind="stable")[:MOST_CANDIDATES]
        names.append(_named(unit, candidates, halves, float(chance[unit]), images))
    return names


def word_information(
    activations: Float[np.ndarray, "images units"],
    probabilities: Float[np.ndarray, "images words"],
) -> Float[np.ndarray, "units words"]:
    """Return the soft weighted pointwise mutual information of units and words.

    A unit's top images are a hundredth of all images, but at least 5 and at most 100 images. A word has a low score if
    it is probable in the top images of most units. In contrast to CLIP-Dissect, the probabilities have the model's own
    temperature.
    """
    n_images = len(activations)
    n = int(np.clip(n_images // 100, min(5, n_images), 100))
    # The weight falls linearly from the first to the last top image.
    weights = _FIRST - np.arange(n) / n * (_FIRST - _LAST)
    top = np.argsort(-activations, axis=0, kind="stable")[:n].T
    by_unit = []
    for places in top:
        # log(1 + w (p - 1)): an image of weight w multiplies the likelihood of a word by at least 1 - w.
        softened = weights[:, None] * (probabilities[places] - 1)
        by_unit.append(np.log1p(softened + 1e-7).sum(0))
    given = np.stack(by_unit)
    # In logarithms, the mean over units of the probability of a word given a unit is subtracted.
    expected = logsumexp(given, axis=0) - np.log(len(given))
    return np.asarray(given - expected)


class _Half:
    """One half of the images, with its standardised activations and labels.

    ``chosen`` is the mask of the half over all images.
    """

    def __init__(
        self,
        activations: np.ndarray,
        images: WordedImages,
        chosen: np.ndarray,
    ) -> None:
        self.chosen = chosen
        self.probabilities = images.probabilities[chosen]
        self.raw = activations[chosen].astype(float)
        self.activations = _standardised(self.raw)
        self.domains = np.asarray(images.domains)[chosen]
        self.labels = {
            "class": _one_hot(np.asarray(images.classes)[chosen]),
            "domain": _one_hot(self.domains),
        }


def _named(
    unit: int,
    candidates: np.ndarray,
    halves: tuple[_Half, _Half],
    chance: float,
    images: WordedImages,
) -> UnitName | None:
    """Return the name of a unit, or None if no candidate fits or the activation does not vary in one of the halves.

    Args:
        unit: Index of the unit.
        candidates: Indices of the candidates in the vocabulary.
        halves: The half on which the name is fitted, and the half on which it is tested.
        chance: Chance level of the correlation.
        images: The images of both halves.
    """
    fitted_on, tested_on = halves
    goal = fitted_on.activations[:, unit]
    shown = tested_on.activations[:, unit]
    if not goal.any() or not shown.any():
        return None
    chosen, weights = fit_words(fitted_on.probabilities[:, candidates], goal)
    if not len(chosen):
        return None
    words = candidates[chosen]
    predicted = tested_on.probabilities[:, words] @ weights
    raw = tested_on.raw[:, unit]
    by_domain: dict[str, tuple[float, float]] = {}
    for domain in dict.fromkeys(images.domains):
        of_domain = tested_on.domains == domain
        if of_domain.any():
            by_domain[domain] = _scores(predicted[of_domain], raw[of_domain])
    # The runner-up is the best single word among the other candidates. It is chosen on the half for fitting, and its
    # correlation is computed on the half for testing.
    alone = _standardised(fitted_on.probabilities[:, candidates]).T @ goal
    ranked = candidates[np.argsort(-alone, kind="stable")]
    rest = ranked[~np.isin(ranked, words)]
    runner_up = None
    runner_up_correlation = float("nan")
    if len(rest):
        runner_up = images.words[rest[0]]
        runner_up_correlation = _correlation(tested_on.probabilities[:, rest[0]], shown)
    references: dict[str, tuple[str, float]] = {}
    for kind, labels in fitted_on.labels.items():
        references[kind] = _best_label(labels, tested_on.labels[kind], goal, shown)
    return UnitName(
        words=tuple(images.words[word] for word in words),
        weights=tuple(map(float, weights)),
        correlation=_correlation(predicted, shown),
        auprc=_auprc(predicted, raw),
        by_domain=by_domain,
        runner_up=runner_up,
        runner_up_correlation=runner_up_correlation,
        chance=chance,
        style=images.words[words[0]] in images.style_words,
        references=references,
    )


def _chance(
    fitted_on: _Half,
    tested_on: _Half,
    cells: Int[np.ndarray, " images"],
    rng: np.random.Generator,
) -> Float[np.ndarray, " units"]:
    """Return the chance level of the correlation for each unit: the 95 % quantile over permutations.

    A cell is all images of a class in a domain. In each permutation the cells exchange their activations at random. The
    exchange is the same in both halves. Then a new name is fitted to the permuted activations of one half. A name is a
    weighted sum of the probabilities of words. Finally the new name is correlated with the permuted activations of the
    other half.

    A new name is made greedily, from all words. The weight of a word is its correlation with the part of the activation
    that earlier words do not explain.

    A new name is fitted in each permutation for this reason: a unit has similar activations in the two halves of a
    cell. So a name that fits the permuted activations of one half by chance also fits the permuted activations of the
    other half. The chance level must include this effect. It would not include the effect if the name that was fitted
    to the real activations were tested on permuted activations.

    Args:
        fitted_on: The half on which names are fitted.
        tested_on: The half on which names are tested.
        cells: Index of the cell of each image, for the images of both halves.
        rng: Generator of the permutations.
    """
    fitting = _standardised(fitted_on.probabilities).astype(np.float32)
    testing = _standardised(tested_on.probabilities).astype(np.float32)
    correlations = []
    for _ in range(PERMUTATIONS):
        # Both halves have the same order of the cells, so that a cell gets the same new place in both halves.
        keys = rng.random(cells.max() + 1)
        rest = _permuted_units(fitted_on, cells, keys)
        goal = _permuted_units(tested_on, cells, keys)
        predicted = np.zeros_like(goal)
        for n_before in range(MOST_WORDS):
            alone = fitting.T @ rest / len(rest)
            # For each unit, the word that correlates most with what is left of the unit's activation.
            best = np.argmax(alone, axis=0)
            weights = np.maximum(alone.max(0), 0)
            # A squared correlation is the share of variance that a further word explains.
            if n_before:
                weights[weights**2 < LEAST_GAIN] = 0
            predicted += weights * testing[:, best]
            rest -= weights * fitting[:, best]
        correlations.append((_standardised(predicted) * goal).mean(0))
    return np.asarray(np.quantile(correlations, QUANTILE, axis=0))


def _permuted_units(
    half: _Half,
    cells: Int[np.ndarray, " images"],
    keys: np.ndarray,
) -> np.ndarray:
    """Return the standardised activations of a half after its cells have exchanged their images.

    A cell is all images of a class in a domain. Each cell gets the activations of one cell, as ``keys`` decides. If
    this cell has fewer images, its images are repeated.

    Args:
        half: The half.
        cells: Index of the cell of each image, for the images of both halves.
        keys: A random number for each cell. The i-th cell gets the activations of the cell with the i-th smallest
            number.
    """
    cells = cells[half.chosen]
    present = np.unique(cells)
    order = np.empty(len(cells), int)
    others = present[np.argsort(keys[present])]
    for cell, other in zip(present, others, strict=True):
        into = np.flatnonzero(cells == cell)
        taken = np.flatnonzero(cells == other)
        order[into] = np.resize(taken, len(into))
    return _standardised(half.raw[order]).astype(np.float32)


def fit_words(
    probabilities: Float[np.ndarray, "images words"],
    activation: Float[np.ndarray, " images"],
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a standardised activation by a weighted sum of the probabilities of at most three words.

    All weights are positive. The word that lowers the squared error most is chosen first. Further words are added as
    long as each explains a further hundredth of the variance.

    Returns:
        The columns of the chosen words in ``probabilities``, and their weights. Words are sorted by weight times
        standard deviation, with the largest first. Both arrays are empty if no word correlates positively.
    """
    centred = probabilities - probabilities.mean(0)
    total = float(activation @ activation)
    # After this rotation there are only as many rows as words, so each of the many fits below is small.
    q, r = np.linalg.qr(centred)
    goal = q.T @ activation
    varying = np.flatnonzero(centred.any(0)).tolist()
    chosen: list[int] = []
    weights = np.zeros(0)
    explained = 0.0
    while len(chosen) < MOST_WORDS:
        fits: dict[int, tuple[np.ndarray, float]] = {}
        for word in varying:
            if word not in chosen:
                fits[word] = nnls(r[:, [*chosen, word]], goal)
        if not fits:
            break
        best = min(fits, key=lambda word: fits[word][1])
        of_best, error = fits[best]
        gain = float(goal @ goal) - error**2
        # A weight of zero means that a word is not in the fit. Then no further word improves the fit.
        helps = of_best.all()
        gains_little = gain - explained < LEAST_GAIN * total
        if not helps or (chosen and gains_little):
            break
        chosen.append(best)
        weights = of_best
        explained = gain
    deviations = centred[:, chosen].std(0)
    order = np.argsort(-weights * deviations, kind="stable")
    return np.array(chosen, int)[order], weights[order]


_OneHot = tuple[list[str], np.ndarray]
"""Labels, and an array with a standardised column [images] for each label."""


def _best_label(
    fitted: _OneHot,
    tested: _OneHot,
    goal: np.ndarray,
    shown: np.ndarray,
) -> tuple[str, float]:
    """Return the label that fits the activation best on one half, and its correlation on the other half.

    Args:
        fitted: Labels of the half for fitting.
        tested: Labels of the half for testing.
        goal: Standardised activation in the half for fitting.
        shown: Standardised activation in the half for testing.
    """
    labels, columns = fitted
    best = labels[int(np.argmax(columns.T @ goal))]
    labels, columns = tested
    # If no image of the other half has the label, it predicts nothing there.
    if best not in labels:
        return best, 0.0
    column = columns[:, labels.index(best)]
    return best, float(column @ shown / len(shown))


def _correlation(predicted: np.ndarray, shown: np.ndarray) -> float:
    """Return the correlation of a prediction with a standardised activation."""
    return float(_standardised(predicted) @ shown / len(shown))


def _scores(predicted: np.ndarray, activation: np.ndarray) -> tuple[float, float]:
    """Return the correlation and the average precision of a prediction.

    Both numbers are NaN if the prediction or the activation is constant.
    """
    # Constant values have no correlation, and numpy would warn.
    if np.ptp(predicted) == 0 or np.ptp(activation) == 0:
        return float("nan"), float("nan")
    correlation = float(np.corrcoef(predicted, activation)[0, 1])
    return correlation, _auprc(predicted, activation)


def _auprc(predicted: np.ndarray, activation: np.ndarray) -> float:
    """Return the average precision with which a prediction finds the images with the largest activations."""
    # Exactly this number of images is active, even if several images have the same activation.
    n = max(1, round(ACTIVE * len(activation)))
    active = np.zeros(len(activation), bool)
    active[np.argsort(-activation, kind="stable")[:n]] = True
    return _average_precision(active, predicted)


def _average_precision(active: np.ndarray, predicted: np.ndarray) -> float:
    """Return the area under the steps of the precision-recall curve.

    It equals `average_precision_score` of scikit-learn, whose checks take longer than all else of a card's scores.
    """
    order = np.argsort(-predicted, kind="stable")
    # Images of one prediction are found together.
    falls = np.flatnonzero(np.diff(predicted[order]))
    last = np.append(falls, len(order) - 1)
    found = np.cumsum(active[order])[last]
    precision = found / (last + 1)
    gained = np.diff(found / found[-1], prepend=0.0)
    # From the lowest prediction up, as scikit-learn adds, so that every bit is equal.
    return float(np.sum(np.ascontiguousarray((gained * precision)[::-1])))


def _standardised(values: np.ndarray) -> np.ndarray:
    """Return the columns of ``values`` with mean 0 and variance 1. Constant columns become 0."""
    centred = values - values.mean(0)
    scale = centred.std(0)
    # By rounding, the deviation of a constant column may be a little above zero.
    varies = scale > 1e-12 * np.abs(values).max(0)
    standardised: np.ndarray = np.zeros_like(centred)
    np.divide(centred, scale, out=standardised, where=varies)
    return standardised


def _one_hot(of_images: np.ndarray) -> _OneHot:
    labels, places = np.unique(of_images, return_inverse=True)
    return labels.tolist(), _standardised(np.eye(len(labels))[places])
