"""The model's part of the explorer: its answers with and without a circuit, and direct effects on words.

The logit of any text is linear in the components' contributions to the embedding. So the page gets, by class and
domain, the mean of that vector for the strongest components (heads and MLPs of a transformer, pooling pairs of a CLIP
ResNet), and a vector for every word; a dot product is the direct effect.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from circuitry.bases.residual import ResidualStream
from circuitry.cards.word_check import default_vocabulary
from circuitry.circuits.direct_decomposition import direct_vectors
from circuitry.circuits.embedding_pairs import pooling_pairs
from circuitry.data.captions import distinct_words
from circuitry.data.folds import Key
from circuitry.explorer.view_files import ClassVectors, ImageAnswers, ModelView
from circuitry.interventions.kept_circuits import kept_embeddings
from circuitry.models.classifier import Classifier
from circuitry.models.image_pass import read_images
from circuitry.questions.checks import CausalChecks
from circuitry.runs.arguments import Count, Names
from circuitry.runs.errors import InputError
from circuitry.runs.progress import Bar
from circuitry.runs.workers import Work

STRONGEST_COMPONENTS = 32
"""Number of components whose vectors are exported for a class."""
WORD_TEMPLATES = ("a {}.",)
"""Text that stands for a word."""
SHOWN_ANSWERS = 3
"""Classes that an answer names."""


_Vectors = tuple[tuple[str, ...], np.ndarray]
"""Names of components, and their mean contributions to embeddings of length 1 [components, d]."""


def view_model(
    checks: CausalChecks,
    *,
    n_images: Count = 4,
    vocabulary: Names | None = None,
    work: Work = Work(),
) -> ModelView:
    """Compute a model's answers and direct effects for the explorer.

    Args:
        checks: The model, its circuits, and images to check them on.
        n_images: Number of images of a class and domain that the model answers; the circuit was not found on them.
        vocabulary: Words that direct effects are shown on, beside the classes (default: `default_vocabulary`). A
            classifier, which reads no text, has its classes alone.
        work: How the work is done.

    Example:
        >>> from circuitry.explorer import export_explorer, view_model
        >>> from circuitry.interventions import CheckSettings
        >>> checks = circuitry.CausalChecks(clip, folder, graphs, CheckSettings(seen=True))
        >>> view = view_model(checks, n_images=1, vocabulary=["star"])
        >>> view.words
        ('car', 'clock', 'cup', 'house', 'star')
        >>> explorer = export_explorer(graphs, "runs/x/explorer", model=view)
    """
    class_names = checks.images.all_classes
    answers: dict[str, ImageAnswers] = {}
    vectors: dict[Key, _Vectors] = {}
    # Why the model has no direct effects; found at the first circuit, and then the same for all.
    reason = ""
    for key in Bar(
        checks.chosen.tested,
        desc="model",
        unit="circuit",
        disable=not work.progress,
    ):
        chosen = checks.chosen.own(key)[:n_images]
        records, images = read_images(checks.clip, chosen, strict=work.strict)
        if not len(images):
            continue
        embeddings = circuit_embeddings(checks, key, images, work)
        of_images = image_answers(checks, key[1], embeddings)
        for record, answer in zip(records, of_images, strict=True):
            answers[record.relative] = answer
        if not reason:
            try:
                vectors[key] = _vectors(checks, images, embeddings[0], work)
            except InputError as error:
                # The embedding of such a tower is not linear in its components.
                reason = str(error)
    words: tuple[str, ...] = ()
    texts = np.zeros((0, 0))
    direct: dict[str, ClassVectors] = {}
    if not reason:
        words = tuple(class_names)
        if not isinstance(checks.clip, Classifier):
            others = vocabulary or checks.clip.known(default_vocabulary())
            # Words that name a class are listed as the class alone.
            named = len(distinct_words(class_names))
            words += distinct_words([*class_names, *others])[named:]
        texts = _texts(checks, words)
        of_class = texts[: len(class_names)]
        targets = dict(zip(class_names, of_class, strict=True))
        direct = _by_class(vectors, checks.graphs.domains, targets)
    return ModelView(
        class_names=tuple(class_names),
        answers=answers,
        baseline=str(checks.asked["baseline"]),
        words=words,
        texts=texts,
        direct=direct,
        reason=reason,
        circuits=checks.graphs.identity.key,
    )


def circuit_embeddings(
    checks: CausalChecks,
    key: Key,
    images: Tensor,
    work: Work,
) -> Tensor:
    """Return the embeddings [runs, images, d] of some images; see `RUNS`."""
    circuit = checks.circuit(key)
    # In the order of `RUNS`: the whole model, only the circuit, all but the circuit.
    runs = [circuit.nothing().complement(), circuit, circuit.complement()]
    return kept_embeddings(checks.task(key, images, work=work), runs)


@torch.no_grad()
def image_answers(
    checks: CausalChecks,
    domain: str,
    embeddings: Tensor,
) -> list[ImageAnswers]:
    """Return the model's answer to each image, given embeddings [runs, images, d] and the domain of its texts."""
    weights = checks.weights(domain)
    # Runs and images in one batch [runs x images, d], apart again after the softmax.
    rows = embeddings.flatten(0, 1)
    if isinstance(checks.clip, Classifier):
        logits = F.normalize(rows, dim=-1) @ weights.T
    else:
        logits = checks.clip.pair_logits(rows, weights)
    n_runs, n_images = embeddings.shape[:2]
    shares = logits.softmax(-1).reshape(n_runs, n_images, -1)
    n_shown = min(SHOWN_ANSWERS, shares.shape[-1])
    best = shares.topk(n_shown, dim=-1)
    # From [runs, images, shown] to [images, runs, shown].
    classes = best.indices.cpu().numpy().swapaxes(0, 1)
    values = best.values.cpu().numpy().swapaxes(0, 1)
    return [ImageAnswers(*answer) for answer in zip(classes, values, strict=True)]


def _vectors(
    checks: CausalChecks,
    images: Tensor,
    embeddings: Tensor,
    work: Work,
) -> _Vectors:
    """Return the mean contributions of a tower's components to the embeddings of some images.

    Raises:
        InputError: for a tower whose embedding is not linear in its components.
    """
    encoder = checks.clip.encoder
    try:
        pairs = pooling_pairs(encoder, images)
    except InputError:
        # Without attention pooling: a transformer, whose heads and MLPs write into a residual stream.
        stream = ResidualStream.of(encoder)
        added = direct_vectors(stream, images, work)
        # Logits are of embeddings of length 1, so contributions are divided by the length.
        lengths = embeddings.norm(dim=-1).cpu().double().numpy()
        means = (added / lengths[:, None, None]).mean(0)
        return tuple(map(str, stream.writers)), means
    lengths = np.linalg.norm(pairs.embeddings, axis=-1)
    read = (pairs.read / lengths[:, None, None]).mean(0)
    names: list[str] = []
    for head, unit in np.ndindex(*read.shape):
        names.append(f"head {head} x {encoder.sites[-2]}/{unit}")
    # A pair of head and unit writes one direction, by the mean that the head reads of the unit.
    written = read[..., None] * pairs.directions
    return tuple(names), written.reshape(len(names), -1)


def _texts(checks: CausalChecks, words: Sequence[str]) -> np.ndarray:
    """Return a vector for each word; a class has the vector that its circuit in the first domain was found with."""
    n_classes = len(checks.images.all_classes)
    own = checks.weights(checks.graphs.domains[0]).cpu().numpy()
    if len(words) == n_classes:
        return own
    others = checks.clip.text_weights(words[n_classes:], WORD_TEMPLATES)
    return np.concatenate([own, others.cpu().numpy()])


def _by_class(
    vectors: Mapping[Key, _Vectors],
    all_domains: Sequence[str],
    texts: Mapping[str, np.ndarray],
) -> dict[str, ClassVectors]:
    """Return the strongest components of each class, by their largest effect on it in any domain."""
    by_class: dict[str, ClassVectors] = {}
    for class_name in dict.fromkeys(name for name, _ in vectors):
        # In the order of the folder; the class may lack images in a domain.
        domains = [name for name in all_domains if (class_name, name) in vectors]
        names, _ = vectors[class_name, domains[0]]
        means = np.stack([vectors[class_name, domain][1] for domain in domains])
        effects = np.abs(means @ texts[class_name]).max(0)
        strongest = np.argsort(-effects, kind="stable")[:STRONGEST_COMPONENTS]
        by_class[class_name] = ClassVectors(
            components=tuple(names[component] for component in strongest),
            domains=tuple(domains),
            vectors=means[:, strongest],
        )
    return by_class
