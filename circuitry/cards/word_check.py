"""Compute the probability that a model gives to each word in each image, and test whether the words work at all.

The words work if the model classifies images by the names of classes better than chance.
"""

from collections.abc import Mapping, Sequence
from itertools import chain

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
from circuitry.runs.arguments import Names, checked
from circuitry.runs.errors import InputError

CONFIDENCE = 0.95
"""Confidence of the interval of the accuracy. The words work if the lower end of the interval is above chance level."""


def default_vocabulary(class_names: Names = ()) -> tuple[str, ...]:
    """Return the given class names, the words of DomainNet's styles, and the names of ImageNet's 1000 classes.

    Example:
        >>> from circuitry.cards import default_vocabulary
        >>> default_vocabulary(["lighthouse", "ice_cream"])[:2]
        ('lighthouse', 'ice cream')
    """
    styles = chain.from_iterable(STYLE_WORDS.values())
    return distinct_words([*class_names, *STYLE_WORDS, *styles, *IMAGENET_CLASSNAMES])


def vocabulary_of(
    clip: Clip,
    names: Sequence[str],
    given: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Return the words with which units of a model are named.

    A classifier reads no text. If it has 1000 outputs, the names of ImageNet's classes are returned; otherwise the
    names of its own classes.

    Args:
        clip: A model with a text encoder, or a classifier.
        names: Words that come first, such as the names of the images' classes and domains. Ignored for a classifier.
        given: Further words (default: styles, ImageNet's classes, and about 470 words for colours, textures, materials,
            shapes, parts, lines, media and lettering, without words that the model does not know).

    Raises:
        InputError: if ``given`` is given for a classifier.

    Example:
        >>> from circuitry.cards import vocabulary_of
        >>> vocabulary_of(clip, ["ice_cream", "sketch"], ["star", "sketch"])
        ('ice cream', 'sketch', 'star')
    """
    if isinstance(clip, Classifier):
        if given is not None:
            raise InputError(
                f"{clip.name} is a classifier, which reads no text: leave out the vocabulary."
            )
        if len(clip.rows) == len(IMAGENET_CLASSNAMES):
            return tuple(IMAGENET_CLASSNAMES)
        return tuple(clip.classes)
    if given is None:
        given = clip.known((*default_vocabulary(), *unit_words()))
    return distinct_words((*names, *given))


@torch.no_grad()
@checked
def word_probabilities(
    clip: Clip,
    words: Sequence[str],
    embeddings: Float[Tensor, "images d"],
) -> Float[np.ndarray, "images words"]:
    """Return the probability of each word in each image.

    For each image, the probabilities are the softmax of the model's own logits over the words.

    Args:
        clip: The model.
        words: The words that `vocabulary_of` returns.
        embeddings: The model's embeddings of the images.

    Example:
        >>> from circuitry.cards import vocabulary_of, word_probabilities
        >>> words = vocabulary_of(clip, folder.classes, ["star"])
        >>> probabilities = word_probabilities(clip, words, encoder(images))
        >>> probabilities.shape      # [images, words]
        (4, 5)
    """
    embeddings = embeddings.to(clip.encoder.device, clip.encoder.dtype)
    if not isinstance(clip, Classifier):
        # Words are used without a template, because a template would suit only some of them.
        texts = clip.text_weights(words, ["{}"])
        logits = clip.pair_logits(embeddings, texts)
        return logits.float().softmax(-1).cpu().numpy()
    probabilities = clip.logits(embeddings).float().softmax(-1)
    if probabilities.shape[1] != len(words):
        # A classifier may have several outputs for a class.
        by_word: list[Tensor] = []
        for word in words:
            outputs = list(clip.classes[word])
            by_word.append(probabilities[:, outputs].sum(1))
        probabilities = torch.stack(by_word, 1)
    return probabilities.cpu().numpy()


def check_words(
    model: str,
    right: Mapping[str, Bool[np.ndarray, " images"]],
    n_classes: int,
) -> WordCheck:
    """Compare a model's zero-shot accuracy with chance level, and return the result.

    Args:
        model: Name of the model.
        right: For each domain, a mask of the images that are classified right.
        n_classes: Number of classes among which the model chose.
    """
    chance = 1 / n_classes
    # The empty array comes first, because there may be no domain with images.
    nothing = np.zeros(0, bool)
    answers = np.concatenate([nothing, *right.values()])
    accuracy = float("nan")
    low = 0.0
    if len(answers):
        accuracy = float(answers.mean())
        test = binomtest(int(answers.sum()), len(answers))
        interval = test.proportion_ci(CONFIDENCE)
        low = interval.low
    by_domain: dict[str, float] = {}
    for domain, is_right in right.items():
        by_domain[domain] = float(is_right.mean())
    return WordCheck(
        model=model,
        accuracy=accuracy,
        by_domain=by_domain,
        chance=chance,
        n_images=len(answers),
        works=bool(low > chance),
    )
