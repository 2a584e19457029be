"""What only the model can tell the explorer: its answers with and without a circuit, and direct effects on words.

1. For held-out images of every class and domain: the predictions of the whole model, of the circuit alone (all kept
   units, everything else at the baseline), and of all but the circuit.
2. The logit of any text is linear in what each component adds to the embedding. So the page gets, by class and domain,
   the mean of that vector for the strongest components (heads and MLPs of a transformer, pairs of the pooling of a CLIP
   ResNet), and a vector for every word; a dot product is the direct effect.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from circuitry.bases.residual import ResidualStream
from circuitry.circuits.direct_effects import direct_vectors
from circuitry.circuits.pooling_pairs import pooling_pairs
from circuitry.data.captions import distinct_words
from circuitry.data.parts import Key
from circuitry.explorer.image_answers import circuit_embeddings, image_answers
from circuitry.explorer.view_files import ClassVectors, ImageAnswers, ModelView
from circuitry.interventions.circuit_checks import CausalChecks
from circuitry.models.classifier import Classifier
from circuitry.models.image_pass import read_images
from circuitry.representations.strongest_features import default_vocabulary
from circuitry.runs.errors import InputError
from circuitry.runs.given import Count, Names, checked
from circuitry.runs.progress import Bar
from circuitry.runs.workers import Work

STRONGEST_COMPONENTS = 32
"""Components of a class whose vectors are kept."""
WORD_TEMPLATES = ("a {}.",)
"""Texts of words."""


class _Vectors(NamedTuple):
    names: tuple[str, ...]
    vectors: np.ndarray
    """Mean over images of what each component adds, by the length of the embedding [components, d]."""


@checked
def view_model(
    checks: CausalChecks, *, n_images: Count = 4, vocabulary: Names | None = None, work: Work = Work()
) -> ModelView:
    """Ask a model what the explorer shows of it.

    Args:
        checks: The model, its circuits, and images to check them on.
        n_images: Images of each class and domain.
        vocabulary: Words that direct effects are shown on, beside the classes (default: `default_vocabulary`). A
            classifier, which reads no text, has its classes alone.
        work: Memory and progress bar.

    Raises:
        InputError: what reading images and running circuits raises.

    Example:
        >>> view = view_model(CausalChecks(clip, images, graphs))
        >>> export_explorer(graphs, "runs/x/explorer", cards=cards, model=view)
    """
    class_names = checks.images.all_classes
    answers: dict[str, ImageAnswers] = {}
    found: dict[Key, _Vectors] = {}
    reason = ""
    for key in Bar(checks.chosen.keys, desc="model", unit="circuit", disable=not work.progress):
        records, images = read_images(checks.clip, checks.chosen.own(key)[:n_images], strict=work.strict)
        if not len(images):
            continue
        embeddings = circuit_embeddings(checks, key, images, work)
        found_of = image_answers(checks, key[1], embeddings)
        answers |= {record.relative: answer for record, answer in zip(records, found_of, strict=True)}
        if not reason:
            try:
                found[key] = _vectors(checks, images, embeddings[0], work)
            except InputError as error:  # of a tower that is not linear there
                reason = str(error)
    others = () if isinstance(checks.clip, Classifier) else vocabulary or checks.clip.known(default_vocabulary())
    named = len(distinct_words(class_names))
    words = (*class_names, *distinct_words([*class_names, *others])[named:])
    texts = np.zeros((0, 0)) if reason else _texts(checks, words)
    classes = {} if reason else _by_class(found, checks.graphs.domains, dict(zip(words, texts, strict=True)))
    baseline = str(checks.asked["baseline"])
    return ModelView(tuple(class_names), answers, baseline, () if reason else words, texts, classes, reason)


def _vectors(checks: CausalChecks, images: Tensor, embeddings: Tensor, work: Work) -> _Vectors:
    encoder = checks.clip.encoder
    try:
        pairs = pooling_pairs(encoder, images)
    except InputError:
        stream = ResidualStream.of(encoder)
        added = direct_vectors(stream, images, work)
        lengths = embeddings.norm(dim=-1).cpu().double().numpy()
        return _Vectors(tuple(map(str, stream.writers)), (added / lengths[:, None, None]).mean(0))
    read = (pairs.read / np.linalg.norm(pairs.embeddings, axis=-1)[:, None, None]).mean(0)
    heads, units = read.shape
    names = tuple(f"head {head} x {encoder.sites[-2]}/{unit}" for head in range(heads) for unit in range(units))
    return _Vectors(names, (read[..., None] * pairs.directions).reshape(heads * units, -1))


def _texts(checks: CausalChecks, words: Sequence[str]) -> np.ndarray:
    """Return a vector for each word; of a class the one that circuits were found with, in the first domain."""
    n_classes = len(checks.images.all_classes)
    own = checks.weights(checks.graphs.domains[0]).cpu().numpy()
    if len(words) == n_classes:
        return own
    return np.concatenate([own, checks.clip.text_weights(words[n_classes:], WORD_TEMPLATES).cpu().numpy()])


def _by_class(
    found: Mapping[Key, _Vectors], domains: Sequence[str], texts: Mapping[str, np.ndarray]
) -> dict[str, ClassVectors]:
    """Return the strongest components of each class, by their largest effect on it in any domain."""
    classes = {}
    for class_name in dict.fromkeys(name for name, _ in found):
        mine = {domain: found[class_name, domain] for domain in domains if (class_name, domain) in found}
        names = next(iter(mine.values())).names
        effects = np.stack([np.abs(one.vectors @ texts[class_name]) for one in mine.values()]).max(0)
        chosen = np.argsort(-effects, kind="stable")[:STRONGEST_COMPONENTS]
        vectors = np.stack([one.vectors[chosen] for one in mine.values()])
        classes[class_name] = ClassVectors(tuple(names[i] for i in chosen), tuple(mine), vectors)
    return classes
