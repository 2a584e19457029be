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
from circuitry.circuits.direct_decomposition import direct_vectors
from circuitry.circuits.embedding_pairs import pooling_pairs
from circuitry.data.captions import distinct_words
from circuitry.data.parts import Key
from circuitry.explorer.view_files import ClassVectors, ImageAnswers, ModelView
from circuitry.interventions.gated import kept_embeddings
from circuitry.models.classifier import Classifier
from circuitry.models.image_pass import read_images
from circuitry.questions.checks import CausalChecks
from circuitry.representations.strongest_features import default_vocabulary
from circuitry.runs.errors import InputError
from circuitry.runs.given import Count, Names
from circuitry.runs.progress import Bar
from circuitry.runs.workers import Work

STRONGEST_COMPONENTS = 32
"""Components of a class whose vectors are exported."""
WORD_TEMPLATES = ("a {}.",)
"""Texts of words."""
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
        vocabulary: Words that direct effects are shown on, beside the classes (default: `default_vocabulary`). A
            classifier, which reads no text, has its classes alone.

    Example:
        >>> view = view_model(CausalChecks(clip, images, graphs))
        >>> export_explorer(graphs, "runs/x/explorer", cards=cards, model=view)
    """
    class_names = checks.images.all_classes
    answers: dict[str, ImageAnswers] = {}
    found: dict[Key, _Vectors] = {}
    reason = ""
    for key in Bar(
        checks.chosen.tested, desc="model", unit="circuit", disable=not work.progress
    ):
        records, images = read_images(
            checks.clip, checks.chosen.own(key)[:n_images], strict=work.strict
        )
        if not len(images):
            continue
        embeddings = circuit_embeddings(checks, key, images, work)
        found_of = image_answers(checks, key[1], embeddings)
        answers |= {
            record.relative: answer
            for record, answer in zip(records, found_of, strict=True)
        }
        if not reason:
            try:
                found[key] = _vectors(checks, images, embeddings[0], work)
            except InputError as error:  # of a tower that is not linear there
                reason = str(error)
    others = (
        ()
        if isinstance(checks.clip, Classifier)
        else vocabulary or checks.clip.known(default_vocabulary())
    )
    named = len(distinct_words(class_names))
    words = (*class_names, *distinct_words([*class_names, *others])[named:])
    texts = np.zeros((0, 0)) if reason else _texts(checks, words)
    classes = (
        {}
        if reason
        else _by_class(
            found, checks.graphs.domains, dict(zip(words, texts, strict=True))
        )
    )
    baseline = str(checks.asked["baseline"])
    shown, circuits = () if reason else words, checks.graphs.identity.key
    return ModelView(
        tuple(class_names), answers, baseline, shown, texts, classes, reason, circuits
    )


def circuit_embeddings(
    checks: CausalChecks, key: Key, images: Tensor, work: Work
) -> Tensor:
    """Return the embeddings [runs, images, d] of some images; see `RUNS`."""
    circuit = checks.circuit(key)
    runs = [circuit.nothing().complement(), circuit, circuit.complement()]
    return kept_embeddings(checks.task(key, images, work=work), runs)


@torch.no_grad()
def image_answers(
    checks: CausalChecks, domain: str, embeddings: Tensor
) -> list[ImageAnswers]:
    """Return the model's answer to each image, given embeddings [runs, images, d] and the domain of its texts."""
    rows, weights = embeddings.flatten(0, 1), checks.weights(domain)
    no_text = isinstance(checks.clip, Classifier)
    logits = (
        F.normalize(rows, dim=-1) @ weights.T
        if no_text
        else checks.clip.pair_logits(rows, weights)
    )
    shares = logits.softmax(-1).reshape(*embeddings.shape[:2], -1)
    best = shares.topk(min(SHOWN_ANSWERS, shares.shape[-1]), dim=-1)
    values, classes = best.values.cpu().numpy(), best.indices.cpu().numpy()
    return [ImageAnswers(classes[:, i], values[:, i]) for i in range(values.shape[1])]


def _vectors(
    checks: CausalChecks, images: Tensor, embeddings: Tensor, work: Work
) -> _Vectors:
    encoder = checks.clip.encoder
    try:
        pairs = pooling_pairs(encoder, images)
    except InputError:
        stream = ResidualStream.of(encoder)
        added = direct_vectors(stream, images, work)
        lengths = embeddings.norm(dim=-1).cpu().double().numpy()
        return tuple(map(str, stream.writers)), (added / lengths[:, None, None]).mean(0)
    read = (pairs.read / np.linalg.norm(pairs.embeddings, axis=-1)[:, None, None]).mean(
        0
    )
    heads, units = read.shape
    names = tuple(
        f"head {head} x {encoder.sites[-2]}/{unit}"
        for head in range(heads)
        for unit in range(units)
    )
    return names, (read[..., None] * pairs.directions).reshape(heads * units, -1)


def _texts(checks: CausalChecks, words: Sequence[str]) -> np.ndarray:
    """Return a vector for each word; a class has the vector that its circuit in the first domain was found with."""
    n_classes = len(checks.images.all_classes)
    own = checks.weights(checks.graphs.domains[0]).cpu().numpy()
    if len(words) == n_classes:
        return own
    return np.concatenate(
        [own, checks.clip.text_weights(words[n_classes:], WORD_TEMPLATES).cpu().numpy()]
    )


def _by_class(
    found: Mapping[Key, _Vectors],
    domains: Sequence[str],
    texts: Mapping[str, np.ndarray],
) -> dict[str, ClassVectors]:
    """Return the strongest components of each class, by their largest effect on it in any domain."""
    classes = {}
    for class_name in dict.fromkeys(name for name, _ in found):
        mine = {
            domain: found[class_name, domain]
            for domain in domains
            if (class_name, domain) in found
        }
        names, vectors = (
            next(iter(mine.values()))[0],
            np.stack([one for _, one in mine.values()]),
        )
        effects = np.stack([np.abs(one @ texts[class_name]) for one in vectors]).max(0)
        chosen = np.argsort(-effects, kind="stable")[:STRONGEST_COMPONENTS]
        classes[class_name] = ClassVectors(
            tuple(names[i] for i in chosen), tuple(mine), vectors[:, chosen]
        )
    return classes
