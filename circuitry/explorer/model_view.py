"""What a model adds to the explorer: its answers with and without a circuit, and direct effects on words.

The embedding of an image is a sum of contributions: each component of the image encoder adds a vector. Components of a
transformer are its heads and MLPs. Components of a CLIP ResNet are pairs of a head of the attention pooling and a unit
of the last block. The logit of a text is linear in the embedding. So the direct effect of a component on a word is the
dot product of the component's contribution and the text embedding of the word. The page computes these products. The
export gives the page the mean contribution of the strongest components, for each class and domain, and the vector of
every word.
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
"""Templates of the text whose embedding is the vector of a word."""
SHOWN_ANSWERS = 3
"""Number of classes in an answer of the model: the likeliest classes."""


_Vectors = tuple[tuple[str, ...], np.ndarray]
"""Names of components, and their mean contributions [components, d] to embeddings that were scaled to length 1."""


def view_model(
    checks: CausalChecks,
    *,
    n_images: Count = 4,
    vocabulary: Names | None = None,
    work: Work = Work(),
) -> ModelView:
    """Compute what a model adds to the explorer: its answers to images, and direct effects of its components on words.

    Args:
        checks: The model, its circuits, and images to test the circuits on.
        n_images: Largest number of images of a class in a domain that the model classifies. These images were not used
            to find the circuit of the class and domain.
        vocabulary: Words, in addition to the names of the classes, on which direct effects are shown (default:
            `default_vocabulary`). It is ignored for a classifier, which reads no text.
        work: How the work is carried out.

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
    # Why the model has no direct effects. The reason is found at the first circuit, and holds for all circuits.
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
        circuit = checks.circuit(key)
        # In the order of `RUNS`.
        runs = [circuit.nothing().complement(), circuit, circuit.complement()]
        embeddings = kept_embeddings(checks.task(key, images, work=work), runs)
        of_images = image_answers(checks, key[1], embeddings)
        for record, answer in zip(records, of_images, strict=True):
            answers[record.relative] = answer
        if not reason:
            try:
                vectors[key] = _vectors(checks, images, embeddings[0], work)
            except InputError as error:
                # The embedding of this tower is not linear in its components.
                reason = str(error)
    words: tuple[str, ...] = ()
    texts = np.zeros((0, 0))
    direct: dict[str, ClassVectors] = {}
    if not reason:
        words = tuple(class_names)
        if not isinstance(checks.clip, Classifier):
            others = vocabulary or checks.clip.known(default_vocabulary())
            # A word that names a class is listed once, as the class.
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


@torch.no_grad()
def image_answers(
    checks: CausalChecks,
    domain: str,
    embeddings: Tensor,
) -> list[ImageAnswers]:
    """Return, for each image, the likeliest classes in each of three runs of the model, and their probabilities.

    The first run keeps all units, the second run keeps only the units of the circuit, and the third run keeps all other
    units. The activations of units that a run does not keep are replaced by the baseline.

    Args:
        checks: The checks, which have the model and the text weights of the classes.
        domain: Domain of the images, which decides the texts of the classes.
        embeddings: Embeddings of the images [runs, images, d] in these runs (`RUNS`).
    """
    weights = checks.weights(domain)
    # [runs x images, d]: all runs are one batch until the softmax.
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
    """Return the names of the components of an image encoder, and their mean contributions to embeddings.

    Contributions [components, d] are averaged over the given images. Each image's contributions are divided by the
    length of its embedding.

    Args:
        checks: The model.
        images: The images.
        embeddings: Embeddings of these images by the whole model [images, d].
        work: How the work is carried out.

    Raises:
        InputError: if the embedding is not linear in the components of the encoder.
    """
    encoder = checks.clip.encoder
    try:
        pairs = pooling_pairs(encoder, images)
    except InputError:
        # The tower has no attention pooling, so it must be a transformer, whose heads and MLPs write into a residual
        # stream.
        stream = ResidualStream.of(encoder)
        added = direct_vectors(stream, images, work)
        # Logits use embeddings scaled to length 1, so each contribution is divided by the length of its embedding.
        lengths = embeddings.norm(dim=-1).cpu().double().numpy()
        means = (added / lengths[:, None, None]).mean(0)
        return tuple(map(str, stream.writers)), means
    lengths = np.linalg.norm(pairs.embeddings, axis=-1)
    read = (pairs.read / lengths[:, None, None]).mean(0)
    names: list[str] = []
    for head, unit in np.ndindex(*read.shape):
        names.append(f"head {head} x {encoder.sites[-2]}/{unit}")
    # The contribution of a pair (head, unit) is a direction, times the mean of what the head reads from the unit.
    written = read[..., None] * pairs.directions
    return tuple(names), written.reshape(len(names), -1)


def _texts(checks: CausalChecks, words: Sequence[str]) -> np.ndarray:
    """Return a vector for each word [words, d].

    The first words are the names of all classes. The vector of a class is its text weight in the first domain of the
    circuits. The vector of any other word is the text embedding of the templates in `WORD_TEMPLATES` with this word.
    """
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
    """Return, for each class, the contributions of its `STRONGEST_COMPONENTS` strongest components.

    The strongest components have the largest absolute direct effects on the class. The effect of a component is taken
    from the domain where it is largest.

    Args:
        vectors: Names and contributions of all components, by class and domain.
        all_domains: The domains in the order of the result.
        texts: The vector of each class [d].
    """
    by_class: dict[str, ClassVectors] = {}
    for class_name in dict.fromkeys(name for name, _ in vectors):
        # A class may lack images in a domain.
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
