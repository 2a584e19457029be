"""Classify images by one or several heads, to measure generalization.

The true class of each image is ranked three times. Two of the ranks separate two causes of low accuracy, as in
generalized zero-shot learning (Chao et al. 2016): features that confuse held-out classes, and a bias against predicting
any of them.
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
"""Embeddings [batch, dim] -> a score for every class [batch, classes], in the order of ``images.all_classes``."""
Texts = str | Sequence[Template]
"""Class texts, as `templates_of` takes them: ``"pooled"``, ``"own-style"``, or templates."""

ZERO_SHOT_TEXTS: Mapping[str, Texts] = MappingProxyType(
    {"all templates": "pooled", "own style": "own-style"}
)
"""Classifiers of a CLIP model by name: the default templates pooled, and the prompts of the images' own style."""
_BATCH_SIZE = 256
"""Images in one run; another number changes nothing except rounding."""


def text_head(weights: Float[Tensor, "classes dim"]) -> Head:
    """Return the zero-shot head of text weights: cosines, if the weights are normalised."""
    rows = weights.to(torch.promote_types(weights.dtype, torch.float32))

    def scores(embeddings: Tensor) -> Tensor:
        if embeddings.ndim != 2 or embeddings.shape[1] != rows.shape[1]:
            raise InputError(
                f"Text weights of width {rows.shape[1]} score embeddings [batch, {rows.shape[1]}], but "
                f"{list(embeddings.shape)} was given: take the weights of the same model."
            )
        # The nearest class needs no normalisation, but centring does: it takes a mean over images.
        return F.normalize(embeddings.to(rows), dim=-1) @ rows.T

    return scores


def zero_shot_heads(
    clip: Clip,
    class_names: Sequence[str],
    texts: Mapping[str, Texts],
    styles: Mapping[str, str],
) -> dict[str, Head | dict[str, Head]]:
    """Return the zero-shot heads of class texts by name; prompts in the images' own style give a head per domain.

    Args:
        class_names: In the order of the scores.
        styles: Domain -> domain of the style in its prompts, usually itself.

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
    """Classify every image of ``images`` and return all accuracies: see `predictions` and `tidy_accuracy`.

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
    """Classify every image of ``images`` by class texts: see `predictions`.

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
    """Classify images by each head, in one pass.

    Args:
        heads: By name; each gives one score per class of ``images.all_classes``. A head may be a mapping from each
            domain to its own.
        images: Images to classify; unreadable files are left out with a warning.
        held_out: In ``rank_alone`` these classes compete with each other, and so do all others.

    Returns:
        A row per head and image: ``classifier``, ``relative``, ``domain``, ``class``, ``top_1``, ``top_2``, ... (up to
        five classes with the highest scores), and the ranks of the true class, from 1: ``rank``, ``rank_alone`` and
        ``rank_centred``, see `outcomes`. Where classes share the highest score, and for embeddings that are not finite,
        there is no answer (`given_classes`): ``top_1`` is missing, and the true class ranks behind its equals.

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
    # One pass: the encoder is the cost, and every head reads the same embeddings.
    for of_batch, found in activations(
        encoder, preprocess, images.records, [last],
        batch_size=_BATCH_SIZE, strict=work.strict, progress=work.bar("classifying"),
    ):  # fmt: skip
        # Not `images.records`: unreadable files are left out.
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
    """Add the `outcomes` of one head to a table of images; centring is within a domain."""
    classes = list(about["class"].cat.categories)
    top = np.zeros((len(about), min(N_KEPT, len(classes))), dtype=int)
    ranks = np.zeros((len(about), len(RANKS)), dtype=int)
    for domain in set(about["domain"]):
        # An array: a tensor of one boolean indexes as a number does.
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
    """Return the classes by falling score for images of one domain, and `RANKS` of the true class, from 1.

    The first class is `NO_ANSWER` where no score is above all others. For ``rank_alone`` the true class competes with
    the classes of its group: the held-out classes, or the seen ones. For ``rank_centred`` each class's mean score over
    the images is subtracted. Centring needs no labels. It removes the model's bias towards a class in this domain, and
    with it the frequency of the class there.
    """
    same_group = held_out[None] == held_out[labels][:, None]
    # By each of `RANKS`.
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
    """Return the rank of the true class, behind those that share its score; of NaN it is the last."""
    # Counted are the classes that are below: one that is equal, or not a number, is before the true class.
    own = scores.gather(1, labels[:, None])
    return scores.shape[1] - (scores < own).sum(1)
