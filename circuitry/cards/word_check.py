"""The probability of each word in each image by a model, and a test that its words work at all."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from open_clip import IMAGENET_CLASSNAMES
from scipy.stats import binomtest
from torch import Tensor

from circuitry.cards.unit_card import WordCheck
from circuitry.cards.vocabulary import unit_words
from circuitry.data.captions import STYLE_WORDS, distinct_words
from circuitry.models.classifier import Classifier
from circuitry.models.clip import Clip
from circuitry.runs.errors import InputError
from circuitry.runs.given import Names, checked

CONFIDENCE = 0.95
"""Of the interval of the accuracy whose lower end must lie above chance."""


def default_vocabulary(class_names: Names = ()) -> tuple[str, ...]:
    """Return class names, the words of DomainNet's styles, and the names of ImageNet's 1000 classes.

    Example:
        >>> from circuitry.cards import default_vocabulary
        >>> default_vocabulary(["lighthouse", "ice_cream"])[:2]
        ('lighthouse', 'ice cream')
    """
    styles = [word for words in STYLE_WORDS.values() for word in words]
    return distinct_words([*class_names, *STYLE_WORDS, *styles, *IMAGENET_CLASSNAMES])


def vocabulary_of(
    clip: Clip, names: Sequence[str], given: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Return the words that a model names units by; a classifier's words are the names of its outputs.

    Args:
        clip: A model with a text encoder, or a classifier.
        given: Other words (default: styles, ImageNet's classes and `unit_words`, as far as the model knows them).
    """
    if not isinstance(clip, Classifier):
        others = (
            clip.known((*default_vocabulary(), *unit_words()))
            if given is None
            else given
        )
        return distinct_words((*names, *others))
    if given is not None:
        raise InputError(
            f"{clip.name} is a classifier, which reads no text: leave out the vocabulary."
        )
    return (
        tuple(IMAGENET_CLASSNAMES)
        if len(clip.rows) == len(IMAGENET_CLASSNAMES)
        else tuple(clip.classes)
    )


@torch.no_grad()
@checked
def word_probabilities(
    clip: Clip, words: Sequence[str], embeddings: Float[Tensor, "images d"]
) -> Float[np.ndarray, "images words"]:
    """Return the probability of each word in each image: the softmax of the model's own logits over the vocabulary.

    Example:
        >>> words = vocabulary_of(clip, images.classes)
        >>> probabilities = word_probabilities(clip, words, clip.encoder(photos))
    """
    embeddings = embeddings.to(clip.encoder.device, clip.encoder.dtype)
    if not isinstance(clip, Classifier):
        logits = clip.pair_logits(embeddings, clip.text_weights(words, ["{}"]))
        return logits.float().softmax(-1).cpu().numpy()
    probabilities = clip.logits(embeddings).float().softmax(-1)
    if len(words) == probabilities.shape[1]:
        return probabilities.cpu().numpy()
    return (
        torch.stack(
            [probabilities[:, list(clip.classes[word])].sum(1) for word in words], 1
        )
        .cpu()
        .numpy()
    )


def check_words(
    model: str, right: Mapping[str, Bool[np.ndarray, " images"]], n_classes: int
) -> WordCheck:
    """Compare a model's zero-shot accuracy with chance; ``right`` says by domain which images are classified right."""
    every = np.concatenate([np.zeros(0, bool), *right.values()])
    chance, n = 1 / n_classes, len(every)
    low = binomtest(int(every.sum()), n).proportion_ci(CONFIDENCE).low if n else 0.0
    by_domain = {
        domain: float(some.mean()) if len(some) else float("nan")
        for domain, some in right.items()
    }
    accuracy = float(every.mean()) if n else float("nan")
    return WordCheck(model, accuracy, by_domain, chance, n, bool(low > chance))
