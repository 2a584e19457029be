"""Names of units by words, fitted on one half of the images and tested on the other. No torch.

A model's text encoder gives the probability of each word of a vocabulary in each image. For the units of one site:

1. candidates: the words with the largest soft weighted pointwise mutual information with the unit (CLIP-Dissect,
   Oikarinen and Weng 2023, arXiv 2204.10965): probable in its top images, less so in the top images of other units;
2. name: at most three candidates whose probabilities, with weights of zero or more, fit the activation best (Linear
   Explanations, 2405.06855), added one by one while each explains a further hundredth of its variance;
3. test on the other half of the items: Pearson correlation and the area under the precision-recall curve. Both fall
   when labels are missing or doubled, which most scores of names do not (NeuronEval, arXiv 2506.05774);
4. references on the same images: names of the unit with its cells of class and domain permuted, since images of a cell
   are not independent; the best class label and the best domain label.

Steps 1 and 2 see the one half alone; whatever is reported is of the other half.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import nnls
from scipy.special import logsumexp
from sklearn.metrics import average_precision_score

from circuitry.cards.unit_card import FEWEST, UnitName
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked

MOST_WORDS = 3
"""Words of a name."""
MOST_CANDIDATES = 10
"""Words that a name is made of."""
LEAST_GAIN = 0.01
"""Share of the activation's variance that a further word must explain."""
ACTIVE = 0.05
"""Share of the images that count as active, for the precision-recall curve."""
PERMUTATIONS = 100
"""Draws of permuted cells."""
QUANTILE = 0.95
"""Quantile of their names' correlations below which a name is weak."""

_FIRST, _LAST = 0.998, 0.97
"""Weight of the first and past the last top image, as CLIP-Dissect has them."""


@dataclass(frozen=True, eq=False)
class WordedImages:
    """Images with the probabilities of words in them, and the halves that names are fitted and tested on.

    Example:
        >>> images = WordedImages(words, probabilities, classes, domains, tested=np.arange(100) % 2 == 1)
        >>> name_units(activations, images)
    """

    words: Sequence[str]  #: Candidates for names.
    probabilities: Float[np.ndarray, "images words"]
    """How probable each word is in each image, such as the softmax of its logits."""
    classes: Sequence[str]
    """Class of each image."""
    domains: Sequence[str]
    """Domain of each image."""
    tested: Bool[np.ndarray, " images"]
    """The half on which names are tested; items should be in one of them."""
    style_words: Collection[str] = ()
    """Words that name a domain."""

    def __post_init__(self) -> None:
        fewest = min(int(self.tested.sum()), int((~self.tested).sum()))
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
    """Return a tested name for each unit of a site; None where no candidate fits, or the activation does not vary.

    Example:
        >>> name = name_units(activations, images)[0]
        >>> name.name, name.correlation, name.chance, name.weak
        ('zebra + stripes', 0.41, 0.12, False)
    """
    rng = np.random.default_rng(seed)
    halves = [
        _Half(activations, images, chosen) for chosen in (~images.tested, images.tested)
    ]
    scores = word_information(
        activations[~images.tested], images.probabilities[~images.tested]
    )
    cells = np.unique(
        np.stack([images.classes, images.domains]), axis=1, return_inverse=True
    )[1]
    chance = _chance(halves, cells, rng)
    names: list[UnitName | None] = []
    for unit in range(activations.shape[1]):
        candidates = np.argsort(-scores[unit], kind="stable")[:MOST_CANDIDATES]
        names.append(_named(unit, candidates, halves, float(chance[unit]), images))
    return names


def word_information(
    activations: Float[np.ndarray, "images units"],
    probabilities: Float[np.ndarray, "images words"],
) -> Float[np.ndarray, "units words"]:
    """Return the soft weighted pointwise mutual information of units and words.

    A unit's top images are a hundredth of all, at least 5 and at most 100. Words that are probable in the top images of
    most units score low. Unlike CLIP-Dissect's, probabilities are at the model's own temperature.
    """
    n = int(np.clip(len(activations) // 100, min(5, len(activations)), 100))
    weights = _FIRST - np.arange(n) / n * (_FIRST - _LAST)
    top = np.argsort(-activations, axis=0, kind="stable")[:n].T
    given = np.stack(
        [
            np.log1p(weights[:, None] * (probabilities[places] - 1) + 1e-7).sum(0)
            for places in top
        ]
    )
    found: np.ndarray = given - (logsumexp(given, axis=0) - np.log(len(given)))
    return found


class _Half:
    """Half of the images: activations and labels, standardised."""

    def __init__(
        self, activations: np.ndarray, images: WordedImages, chosen: np.ndarray
    ) -> None:
        self.chosen = chosen
        self.probabilities = images.probabilities[chosen]
        self.raw = activations[chosen].astype(float)
        self.activations = _standardised(self.raw)
        self.classes, self.domains = (
            np.asarray(of)[chosen] for of in (images.classes, images.domains)
        )
        self.labels = {
            kind: _one_hot(of)
            for kind, of in (("class", self.classes), ("domain", self.domains))
        }

    def words(self, words: np.ndarray) -> np.ndarray:
        return _standardised(self.probabilities[:, words])


def _named(
    unit: int,
    candidates: np.ndarray,
    halves: Sequence[_Half],
    chance: float,
    images: WordedImages,
) -> UnitName | None:
    fitted_on, tested_on = halves
    if (
        not fitted_on.activations[:, unit].any()
        or not tested_on.activations[:, unit].any()
    ):
        return None
    goal, shown = fitted_on.activations[:, unit], tested_on.activations[:, unit]
    words, weights = fit_words(fitted_on.probabilities[:, candidates], goal)
    if not len(words):
        return None
    predicted = tested_on.probabilities[:, candidates[words]] @ weights
    standard = _standardised(predicted[:, None])[:, 0]
    alone = fitted_on.words(candidates).T @ goal
    rest = [int(i) for i in np.argsort(-alone, kind="stable") if i not in words]
    best = candidates[words]
    second = tested_on.words(candidates[rest[:1]]).T @ shown / len(shown)
    return UnitName(
        words=tuple(images.words[i] for i in best),
        weights=tuple(map(float, weights)),
        correlation=float(standard @ shown / len(shown)),
        auprc=_auprc(predicted, tested_on.raw[:, unit]),
        by_domain={
            domain: _scores(predicted[there], tested_on.raw[there, unit])
            for domain in dict.fromkeys(images.domains)
            if (there := tested_on.domains == domain).any()
        },
        runner_up=images.words[int(candidates[rest[0]])] if rest else None,
        runner_up_correlation=float(second[0]) if rest else float("nan"),
        chance=chance,
        style=images.words[int(best[0])] in images.style_words,
        references={
            kind: _label(fitted_on.labels[kind], tested_on.labels[kind], goal, shown)
            for kind in ("class", "domain")
        },
    )


def _chance(
    halves: Sequence[_Half], cells: Int[np.ndarray, " images"], rng: np.random.Generator
) -> Float[np.ndarray, " units"]:
    """Return the correlation that names of permuted units reach: cells change places as wholes, alike in both halves.

    What a unit does in a cell is the same in both halves, so a name of three words may fit by chance cells that it was
    not tested on. Hence permuted units are named anew, greedily from all words, each weighted by its correlation with
    what the words before it leave.
    """
    words = [_standardised(half.probabilities).astype(np.float32) for half in halves]
    found = []
    for _ in range(PERMUTATIONS):
        keys = rng.random(cells.max() + 1)
        left, tested = (
            _standardised(half.raw[_permuted(cells[half.chosen], keys)]).astype(
                np.float32
            )
            for half in halves
        )
        predicted = np.zeros_like(tested)
        for least in (0.0, *[LEAST_GAIN] * (MOST_WORDS - 1)):
            alone = words[0].T @ left / len(left)
            best, weights = np.argmax(alone, axis=0), np.maximum(alone.max(0), 0)
            weights[weights**2 < least] = 0
            predicted += weights * words[1][:, best]
            left -= weights * words[0][:, best]
        found.append((_standardised(predicted) * tested).mean(0))
    return np.asarray(np.quantile(found, QUANTILE, axis=0))


def _permuted(
    cells: Int[np.ndarray, " images"], keys: np.ndarray
) -> Int[np.ndarray, " images"]:
    """Return for every image one of another cell, by the order of the cells' keys; a smaller cell is repeated."""
    there, order = np.unique(cells), np.empty(len(cells), int)
    for cell, other in zip(there, there[np.argsort(keys[there])], strict=True):
        into = np.flatnonzero(cells == cell)
        order[into] = np.resize(np.flatnonzero(cells == other), len(into))
    return order


def fit_words(
    probabilities: Float[np.ndarray, "images words"],
    activation: Float[np.ndarray, " images"],
) -> tuple[np.ndarray, np.ndarray]:
    """Return at most three words and their weights, which are positive: a sparse fit of the standardised activation.

    The word that lowers the squared error most comes first, then others, as long as each explains a further hundredth
    of the variance. No word is returned where none correlates positively. Words are sorted by weight times deviation.
    """
    centred = probabilities - probabilities.mean(0)
    q, r = np.linalg.qr(centred)
    goal, total = q.T @ activation, float(activation @ activation)
    chosen: list[int] = []
    weights, explained = np.zeros(0), 0.0
    while len(chosen) < MOST_WORDS:
        fits = {
            word: nnls(r[:, [*chosen, word]], goal)
            for word in range(probabilities.shape[1])
            if word not in chosen and centred[:, word].any()
        }
        if not fits:
            break
        word, (found, error) = min(fits.items(), key=lambda one: one[1][1])
        gain = float(goal @ goal) - error**2
        if not found.all() or (chosen and gain - explained < LEAST_GAIN * total):
            break
        chosen, weights, explained = [*chosen, word], found, gain
    order = np.argsort(-weights * centred[:, chosen].std(0), kind="stable")
    return np.array(chosen, int)[order], weights[order]


def _label(
    fitted: tuple[list[str], np.ndarray],
    tested: tuple[list[str], np.ndarray],
    goal: np.ndarray,
    shown: np.ndarray,
) -> tuple[str, float]:
    """Return the label that fits the one half best, and its correlation on the other."""
    names, columns = fitted
    best = names[int(np.argmax(columns.T @ goal))]
    if best not in tested[0]:
        return best, 0.0
    return best, float(tested[1][:, tested[0].index(best)] @ shown / len(shown))


def _scores(predicted: np.ndarray, activation: np.ndarray) -> tuple[float, float]:
    if np.ptp(predicted) == 0 or np.ptp(activation) == 0:
        return float("nan"), float("nan")
    return float(np.corrcoef(predicted, activation)[0, 1]), _auprc(
        predicted, activation
    )


def _auprc(predicted: np.ndarray, activation: np.ndarray) -> float:
    """Return the average precision of a prediction for the most active images."""
    n = max(1, round(ACTIVE * len(activation)))
    active = np.zeros(len(activation), bool)
    active[np.argsort(-activation, kind="stable")[:n]] = True
    return float(average_precision_score(active, predicted))


def _standardised(columns: np.ndarray) -> np.ndarray:
    """Return columns with mean 0 and variance 1; constant columns become 0."""
    centred = columns - columns.mean(0)
    scale = centred.std(0)
    found: np.ndarray = np.divide(
        centred,
        scale,
        out=np.zeros_like(centred),
        where=scale > 1e-12 * np.abs(columns).max(0),
    )
    return found


def _one_hot(labels: np.ndarray) -> tuple[list[str], np.ndarray]:
    names, places = np.unique(labels, return_inverse=True)
    return names.tolist(), _standardised(np.eye(len(names))[places])
