"""Classify images by one or several heads, to measure generalization.

A head is a function that computes a score for each class from an embedding. The true class of each image is ranked in
three ways, see `outcomes`. The second and the third rank separate two causes of a low accuracy on held-out classes, as
in generalized zero-shot learning (Chao et al. 2016): the features may confuse held-out classes with each other, or the
model may be biased against predicting any held-out class.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitry.data.decoding import Preprocess
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.names import chosen_names
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.metrics import NO_ANSWER, given_classes
from circuitry.encoder.modes import own_modes
from circuitry.models.clip import Clip
from circuitry.models.image_pass import activations
from circuitry.models.prompts import Template, templates_of
from circuitry.runs.arguments import SOME, Names, checked
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work
from circuitry.training.accuracy import N_KEPT, RANKS, class_column, tidy_accuracy

Head = Callable[[Tensor], Tensor]
"""Function that takes embeddings [batch, dim] and returns a score for each class [batch, classes].

The classes are in the order of ``images.all_classes``.
"""
Texts = str | Sequence[Template]
"""Class texts, as `templates_of` takes them: ``"pooled"``, ``"own-style"``, or templates."""

ZERO_SHOT_TEXTS: Mapping[str, Texts] = MappingProxyType(
    {"all templates": "pooled", "own style": "own-style"}
)
"""Class texts of each classifier of a CLIP model, by the name of the classifier.

One classifier pools the default templates. The other uses prompts in the style of each image's domain.
"""
_BATCH_SIZE = 256
"""Number of images in one run. Another number changes results only by rounding."""


def text_head(weights: Float[Tensor, "classes dim"]) -> Head:
    """Return the zero-shot head of text weights. Its scores are cosines if the weights are normalised."""
    rows = weights.to(torch.promote_types(weights.dtype, torch.float32))

    def scores(embeddings: Tensor) -> Tensor:
        if embeddings.ndim != 2 or embeddings.shape[1] != rows.shape[1]:
            raise InputError(
                f"Text weights of width {rows.shape[1]} score embeddings [batch, {rows.shape[1]}], but "
                f"{list(embeddings.shape)} was given: take the weights of the same model."
            )
        # The class with the highest score does not depend on the normalisation. Centring does, because it subtracts a
        # mean over images.
        return F.normalize(embeddings.to(rows), dim=-1) @ rows.T

    return scores


def zero_shot_heads(
    clip: Clip,
    class_names: Sequence[str],
    texts: Mapping[str, Texts],
    styles: Mapping[str, str],
) -> dict[str, Head | dict[str, Head]]:
    """Return the zero-shot heads of a CLIP model by name.

    If the class texts of a head are ``"own-style"``, each domain has texts of its own. Then the value is a dictionary
    from domains to heads instead of a head.

    Args:
        clip: The model.
        class_names: Names of the classes, in the order of the scores.
        texts: Class texts of each head, by the name of the head.
        styles: For each domain, the domain whose style its prompts have; usually the domain itself. It is used only for
            ``"own-style"``.

    Example:
        >>> heads = circuitry.training.zero_shot_heads(clip, folder.classes, {"photos": ["a photo of a {}."]}, {})
        >>> list(heads)
        ['photos']
    """

    def head(of: Texts, style: str) -> Head:
        return text_head(clip.text_weights(class_names, templates_of(of, style)))

    heads: dict[str, Head | dict[str, Head]] = {}
    for name, of in texts.items():
        if of == "own-style":
            heads[name] = {domain: head(of, style) for domain, style in styles.items()}
        else:
            heads[name] = head(of, "")
    return heads


@checked
def zero_shot_accuracy(
    clip: Clip,
    images: DomainFolder,
    held_out: Names = (),
    *,
    work: Work = Work(),
) -> pd.DataFrame:
    """Classify all images by class texts and return the table of accuracies; see `tidy_accuracy`.

    Args:
        clip: The model.
        images: Images to classify.
        held_out: Names of the held-out classes, see `predictions`.
        work: Progress bar, and whether unreadable files raise an error.

    Example:
        >>> quiet = circuitry.Work(progress=False)
        >>> accuracy = circuitry.training.zero_shot_accuracy(clip, folder, held_out=["cup"], work=quiet)
        >>> overall = accuracy.query("group == 'all' and measure == 'top-1' and classifier == 'all templates'")
        >>> overall["domain"].tolist()
        ['quickdraw', 'real', 'sketch']
    """
    table = zero_shot_predictions(clip, images, held_out, work=work)
    return tidy_accuracy(table, held_out)


def zero_shot_predictions(
    clip: Clip, images: DomainFolder, held_out: Names = (), *, work: Work = Work()
) -> pd.DataFrame:
    """Classify all images by class texts (`ZERO_SHOT_TEXTS`) and return the table of `predictions`.

    Example:
        >>> answers = zero_shot_predictions(clip, folder, work=circuitry.Work(progress=False))
        >>> sorted(set(answers["domain"]))
        ['quickdraw', 'real', 'sketch']
    """
    styles = {domain: domain for domain in images.domains}
    heads = zero_shot_heads(clip, images.all_classes, ZERO_SHOT_TEXTS, styles)
    return predictions(
        clip.encoder, heads, clip.preprocess, images, held_out, work=work
    )


@own_modes()
def predictions(
    encoder: Encoder,
    heads: Annotated[Mapping[str, Head | Mapping[str, Head]], SOME],
    preprocess: Preprocess,
    images: DomainFolder,
    held_out: Names = (),
    *,
    work: Work = Work(),
) -> pd.DataFrame:
    """Classify images by one or several heads, in one pass of the encoder.

    Args:
        encoder: The encoder of the images.
        heads: Heads by name. A head returns a score for each class of ``images.all_classes``. Instead of a head, a
            mapping from each domain to a head can be given.
        preprocess: Function that prepares an image for the encoder.
        images: Images to classify. Unreadable files are left out with a warning, unless ``work.strict`` is True.
        held_out: Names of the held-out classes. For ``rank_alone``, a held-out class is ranked only among the held-out
            classes, and any other class only among the other classes.
        work: Progress bar, and whether unreadable files raise an error.

    Returns:
        A table with a row for each head and image. The columns are ``classifier`` (the name of the head), ``relative``
        (the path of the image), ``domain`` and ``class``; ``top_1``, ``top_2``, ... (up to five classes with the
        highest scores); and the ranks of the true class, from 1: ``rank``, ``rank_alone`` and ``rank_centred``, see
        `outcomes`. If several classes share the highest score, or if the embedding is not finite, the model gives no
        answer (`given_classes`). Then ``top_1`` is missing, and the true class ranks after all classes with the same
        score.

    Example:
        >>> heads = {"mine": lambda embeddings: embeddings @ weights.T}
        >>> quiet = circuitry.Work(progress=False)
        >>> table = circuitry.training.predictions(encoder, heads, clip.preprocess, folder, work=quiet)
        >>> len(table) == len(folder)
        True
    """
    chosen: Sequence[str] = ()
    if held_out:
        chosen = chosen_names("held-out class", held_out, images.all_classes)
    apart = torch.tensor([name in chosen for name in images.all_classes])
    records: list[ImageRecord] = []
    scores: dict[str, list[Tensor]] = {name: [] for name in heads}
    last = encoder.sites[-1]
    # The encoder is run only once, because it takes most of the time, and every head reads the same embeddings.
    for of_batch, found in activations(
        encoder, preprocess, images.records, [last],
        batch_size=_BATCH_SIZE, strict=work.strict, progress=work.bar("classifying"),
    ):  # fmt: skip
        # `images.records` would also have the unreadable files, which are left out.
        records += of_batch
        for name, head in heads.items():
            given = _scores(head, found[last], of_batch)
            if given.ndim != 2 or given.shape[1] != len(images.all_classes):
                raise InputError(
                    f"The head {name!r} must give a score for each of the {len(images.all_classes)} classes of "
                    f"images.all_classes, but gave {list(given.shape)}: correct it."
                )
            scores[name].append(given.cpu().double())
    if not records:
        raise InputError(
            f"None of the {len(images.records)} images is readable: give others."
        )
    labels = torch.tensor(
        [images.label(record.class_name) for record in records], dtype=torch.long
    )
    about = pd.DataFrame(
        {
            "relative": [record.relative for record in records],
            "domain": [record.domain for record in records],
            "class": class_column(labels.numpy(), images.all_classes),
        }
    )
    tables = [
        _with_outcomes(about.assign(classifier=name), torch.cat(batches), labels, apart)
        for name, batches in scores.items()
    ]
    return pd.concat(tables, ignore_index=True)


def _scores(
    head: Head | Mapping[str, Head], embeddings: Tensor, records: Sequence[ImageRecord]
) -> Tensor:
    if not isinstance(head, Mapping):
        return head(embeddings)
    return torch.cat(
        [
            head[record.domain](row[None])
            for record, row in zip(records, embeddings, strict=True)
        ]
    )


def _with_outcomes(
    about: pd.DataFrame, scores: Tensor, labels: Tensor, held_out: Tensor
) -> pd.DataFrame:
    """Return a table of images with further columns: the classes and ranks that `outcomes` computes for one head.

    `outcomes` is called separately for each domain. So its centred scores are relative to the mean of the domain.
    """
    classes = list(about["class"].cat.categories)
    top = np.zeros((len(about), min(N_KEPT, len(classes))), dtype=int)
    ranks = np.zeros((len(about), len(RANKS)), dtype=int)
    for domain in set(about["domain"]):
        # An array is used, because a tensor with a single boolean would index like a number.
        rows = (about["domain"] == domain).to_numpy(copy=True)
        order, of_true_class = outcomes(scores[rows], labels[rows], held_out)
        top[rows] = order.numpy()[:, : top.shape[1]]
        ranks[rows] = of_true_class.numpy()
    table = about.copy()
    for i in range(top.shape[1]):
        table[f"top_{i + 1}"] = class_column(top[:, i], classes)
    table[list(RANKS)] = ranks
    return table


def outcomes(
    scores: Float[Tensor, "images classes"],
    labels: Int[Tensor, " images"],
    held_out: Bool[Tensor, " classes"],
) -> tuple[Int[Tensor, "images classes"], Int[Tensor, "images ranks"]]:
    """Rank the classes for images of one domain.

    Args:
        scores: Score of each class for each image.
        labels: Index of the true class of each image.
        held_out: Mask of the held-out classes.

    Returns:
        Two arrays. The first [images, classes] has the classes of each image, from the highest score to the lowest. Its
        first class is `NO_ANSWER` if no score is higher than all other scores. The second [images, 3] has the ranks of
        the true class, from 1, in the order of `RANKS`:

        - ``rank``: among all classes;
        - ``rank_alone``: among the held-out classes if the true class is held out, otherwise among the seen classes;
        - ``rank_centred``: among all classes, after the mean over images was subtracted from the scores of each class.
          Centring needs no labels. It removes a bias of the model towards a class in this domain. It also removes what
          the mean says about how frequent the class is in this domain.
    """
    same_group = held_out[None] == held_out[labels][:, None]
    # One array of scores for each of `RANKS`.
    competing = (
        scores,
        scores.masked_fill(~same_group, -torch.inf),
        scores - scores.nanmean(0),
    )
    order = scores.sort(dim=1, descending=True, stable=True).indices
    order[:, 0] = order[:, 0].where(given_classes(scores) != NO_ANSWER, NO_ANSWER)
    return order, torch.stack([_ranks(among, labels) for among in competing], dim=1)


def _ranks(
    scores: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]
) -> Int[Tensor, " images"]:
    """Return the rank of the true class of each image, from 1.

    Other classes with the same score rank before the true class. If the score of the true class is NaN, its rank is the
    last.
    """
    # The classes below the true class are counted. A class with an equal score, or with NaN, counts as above it.
    own = scores.gather(1, labels[:, None])
    return scores.shape[1] - (scores < own).sum(1)
