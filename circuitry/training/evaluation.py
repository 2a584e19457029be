"""Classify images by one or several heads: what generalization is judged by.

1. The images go once through the encoder; each head (zero-shot with all templates, in the images' own style, a
   supervised head) scores every class.
2. Of the scores of a domain's images three places of the true class are kept (`outcomes`): among all classes, among
   those of its part alone (held-out or seen), and after each class's scores were centred within the domain.
3. `accuracy` makes all accuracies from them.

The last two tell apart what accuracy among all classes mixes: whether the features tell held-out classes from each
other, and how readily one of them is predicted at all, as in generalized zero-shot learning (Chao et al. 2016).
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitry.data.decoding import Preprocess
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.names import chosen_names
from circuitry.models.clip import Clip
from circuitry.models.encoder import Encoder
from circuitry.models.image_pass import activations
from circuitry.models.prompts import Template, templates_of
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work
from circuitry.training.accuracy import N_KEPT, RANKS, class_column, tidy_accuracy

Head = Callable[[Tensor], Tensor]
"""Embeddings [batch, dim] -> a score for every class [batch, classes], in the order of ``images.all_classes``."""
Texts = str | Sequence[Template]
"""Class texts, as `templates_of` takes them: ``"pooled"``, ``"own-style"``, or templates."""

TEXTS: Mapping[str, Texts] = MappingProxyType({"all templates": "pooled", "own style": "own-style"})
"""Classifiers of a CLIP model by name: the default templates pooled, and the prompts of the images' own style."""
BATCH_SIZE = 256
"""Images in one run; it changes no number but for rounding."""


def text_head(weights: Float[Tensor, "classes dim"]) -> Head:
    """Return the zero-shot head of text weights: cosines, if the weights are normalised."""
    rows = weights.to(torch.promote_types(weights.dtype, torch.float32))

    def scores(embeddings: Tensor) -> Tensor:
        if embeddings.ndim != 2 or embeddings.shape[1] != rows.shape[1]:
            raise InputError(
                f"Text weights of width {rows.shape[1]} score embeddings [batch, {rows.shape[1]}], but "
                f"{list(embeddings.shape)} was given: take the weights of the same model."
            )
        # The nearest class needs no normalisation, but a mean over images does: centring weighs them alike.
        return F.normalize(embeddings.to(rows), dim=-1) @ rows.T

    return scores


def zero_shot_heads(
    clip: Clip, class_names: Sequence[str], texts: Mapping[str, Texts], styles: Mapping[str, str]
) -> dict[str, Head | dict[str, Head]]:
    """Return the zero-shot heads of class texts by name; those in the images' own style are one for each domain.

    Args:
        clip: The model.
        class_names: In the order of the scores.
        texts: Class texts by the name to show.
        styles: Domain -> the domain whose style its prompts name, usually itself.
    """

    def head(of: Texts, style: str) -> Head:
        return text_head(clip.text_weights(class_names, templates_of(of, style)))

    return {
        name: {domain: head(of, style) for domain, style in styles.items()} if of == "own-style" else head(of, "")
        for name, of in texts.items()
    }


def zero_shot_accuracy(
    clip: Clip,
    images: DomainFolder,
    held_out: Sequence[str] = (),
    *,
    texts: Mapping[str, Texts] = TEXTS,
    batch_size: int = BATCH_SIZE,
    work: Work = Work(),
) -> pd.DataFrame:
    """Classify every image of ``images`` and return all accuracies: see `predictions` and `tidy_accuracy`.

    Example:
        >>> accuracy = zero_shot_accuracy(clip, images, held_out=("axe", "lion"))
        >>> told_apart(accuracy)  # a row per domain: seen and held-out classes, and what the latter's accuracy mixes
    """
    heads = zero_shot_heads(clip, images.all_classes, texts, {domain: domain for domain in images.domains})
    found = predictions(clip.encoder, heads, clip.preprocess, images, held_out, batch_size=batch_size, work=work)
    return tidy_accuracy(found, held_out)


def predictions(
    encoder: Encoder,
    heads: Mapping[str, Head | Mapping[str, Head]],
    preprocess: Preprocess,
    images: DomainFolder,
    held_out: Sequence[str] = (),
    *,
    batch_size: int = BATCH_SIZE,
    work: Work = Work(),
) -> pd.DataFrame:
    """Classify images by each head, in one pass; the encoder is left as it was.

    Args:
        encoder: From images to embeddings, which need not be normalised.
        heads: By name; each gives one score per class of ``images.all_classes``. Instead of one there may be a mapping
            from each domain to its own.
        preprocess: RGB picture -> tensor [3, H, W], `Clip.preprocess`.
        images: What to classify. Files that cannot be read are left out, with a warning each.
        held_out: Classes that compete with each other in ``rank_alone``, as the seen ones do.
        batch_size, work: How it is carried out; neither changes a number but for rounding.

    Returns:
        A row per head and image: ``classifier``, ``relative``, ``domain``, ``class``, the classes that score highest
        ``top_1``, ``top_2``, ... (at most five), and the place of the true one, 1 being the highest score (of equal
        scores the earlier class is the higher): ``rank``, ``rank_alone`` and ``rank_centred``, see `outcomes`.

    Raises:
        InputError: For scores of another number of classes, embeddings that are not finite, too wide or too narrow, or
            a held-out class that the images lack.
    """
    apart = torch.tensor([name in chosen_held_out(held_out, images) for name in images.all_classes])
    records: list[ImageRecord] = []
    scores: dict[str, list[Tensor]] = {name: [] for name in heads}
    last = encoder.sites[-1]
    with torch.no_grad():
        for there, found in activations(
            encoder, preprocess, images.records, [last],
            batch_size=batch_size, strict=work.strict, progress=work.bar("classifying"),
        ):  # fmt: skip
            records += there
            for name, head in heads.items():
                scores[name].append(_checked_scores(_scores(head, found[last], there), images, name))
    if not records:
        raise InputError(f"None of the {len(images.records)} images to classify can be read: give readable ones.")
    labels = torch.tensor([images.label(record.class_name) for record in records], dtype=torch.long)
    about = pd.DataFrame(
        {
            "relative": [record.relative for record in records],
            "domain": [record.domain for record in records],
            "class": class_column(labels.numpy(), images.all_classes),
        }
    )
    tables = [
        _with_outcomes(about.assign(classifier=name), torch.cat(parts), labels, apart) for name, parts in scores.items()
    ]
    return pd.concat(tables, ignore_index=True)


def chosen_held_out(held_out: Sequence[str], images: DomainFolder) -> tuple[str, ...]:
    """Return held-out classes, each once; InputError for one that is no class of the images, with near names."""
    return chosen_names("held-out class", held_out, images.all_classes) if held_out else ()


def _scores(head: Head | Mapping[str, Head], embeddings: Tensor, records: Sequence[ImageRecord]) -> Tensor:
    if not isinstance(head, Mapping):
        return head(embeddings)
    return torch.cat([head[record.domain](row[None]) for record, row in zip(records, embeddings, strict=True)])


def _checked_scores(scores: Tensor, images: DomainFolder, name: str) -> Tensor:
    if scores.ndim != 2 or scores.shape[1] != len(images.all_classes):
        raise InputError(
            f"The head {name!r} must give a score for each of the {len(images.all_classes)} classes of "
            f"images.all_classes, but gave {list(scores.shape)}."
        )
    return scores.cpu().double()


def _with_outcomes(about: pd.DataFrame, scores: Tensor, labels: Tensor, held_out: Tensor) -> pd.DataFrame:
    """Return what is known of the images with the `outcomes` of one head, domain by domain, in their order."""
    classes = list(about["class"].cat.categories)
    top = np.zeros((len(about), min(N_KEPT, len(classes))), dtype=int)
    ranks = np.zeros((len(about), len(RANKS)), dtype=int)
    for domain in set(about["domain"]):
        rows = torch.from_numpy((about["domain"] == domain).to_numpy(copy=True))
        found = outcomes(scores[rows], labels[rows], held_out)
        top[rows] = found.top[:, : top.shape[1]].numpy()
        ranks[rows] = torch.stack([found.rank, found.alone, found.centred], dim=1).numpy()
    table = about.copy()
    for i in range(top.shape[1]):
        table[f"top_{i + 1}"] = class_column(top[:, i], classes)
    table[list(RANKS)] = ranks
    return table


class Outcomes(NamedTuple):
    """What became of the images of one domain: places are counted from 1, the highest score."""

    top: Int[Tensor, "images classes"]
    """Classes by falling score."""
    rank: Int[Tensor, " images"]
    """Place of the true class among all."""
    alone: Int[Tensor, " images"]
    """Place among the classes of its part alone: a held-out class among the held-out ones, a seen among the seen."""
    centred: Int[Tensor, " images"]
    """Place among all, after the mean over the images was taken from each class's scores."""


def outcomes(
    scores: Float[Tensor, "images classes"], labels: Int[Tensor, " images"], held_out: Bool[Tensor, " classes"]
) -> Outcomes:
    """Tell apart how images of one domain are classified; of equal scores the earlier class is the higher.

    Centring needs no labels. It takes away how readily a class is predicted in this domain whatever the image shows,
    and with it how often the class occurs there.
    """
    same_part = held_out[None] == held_out[labels][:, None]
    return Outcomes(
        scores.sort(dim=1, descending=True, stable=True).indices,
        _ranks(scores, labels),
        _ranks(scores.masked_fill(~same_part, -torch.inf), labels),
        _ranks(scores - scores.mean(0), labels),
    )


def _ranks(scores: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]) -> Int[Tensor, " images"]:
    own = scores.gather(1, labels[:, None])
    earlier = torch.arange(scores.shape[1]) < labels[:, None]
    return 1 + ((scores > own) | ((scores == own) & earlier)).sum(1)
