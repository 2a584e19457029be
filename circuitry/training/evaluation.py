"""Accuracy of a classifier by domain, apart for held-out and seen classes: what generalization is judged by.

Several heads (zero-shot with all templates, with style words only, a supervised head) share one pass over the images.
Held-out classes are reported in every domain: only in the test domain were they unseen in training, elsewhere they show
how hard these classes are.
"""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitry.data.batches import Preprocess
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.names import unknown_name
from circuitry.models.encoder import Encoder
from circuitry.models.image_pass import activations
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work

Head = Callable[[Tensor], Tensor]
"""Embeddings [batch, dim] -> a score for every class [batch, classes], in the order of ``images.all_classes``."""

TOP = (1, 5)
"""The k of top-k accuracy."""
BATCH_SIZE = 256
"""Images in one run; it changes no number but for rounding."""


def text_head(weights: Float[Tensor, "classes dim"]) -> Head:
    """Return the zero-shot head of text weights: the class whose text is nearest scores highest."""
    rows = weights.to(torch.promote_types(weights.dtype, torch.float32))

    def scores(embeddings: Tensor) -> Tensor:
        if embeddings.ndim != 2 or embeddings.shape[1] != rows.shape[1]:
            raise InputError(
                f"Text weights of width {rows.shape[1]} score embeddings [batch, {rows.shape[1]}], but "
                f"{list(embeddings.shape)} was given: take the weights of the same model."
            )
        # The length of an embedding scales all its logits alike, so the nearest class needs no normalisation.
        return embeddings.to(rows) @ rows.T

    return scores


def zero_shot_accuracy(
    encoder: Encoder,
    preprocess: Preprocess,
    text_weights: Float[Tensor, "classes dim"],
    images: DomainFolder,
    held_out: Sequence[str] = (),
    *,
    batch_size: int = BATCH_SIZE,
    work: Work = Work(),
) -> pd.DataFrame:
    """Classify every image of ``images`` and return accuracies: see `predictions` and `accuracy_table`.

    Example:
        >>> weights = clip.text_weights(images.all_classes)
        >>> zero_shot_accuracy(clip.encoder, clip.preprocess, weights, images, held_out=("axe", "lion"))
    """
    heads = {"zero-shot": text_head(text_weights)}
    return accuracy_table(predictions(encoder, heads, preprocess, images, batch_size=batch_size, work=work), held_out)


def predictions(
    encoder: Encoder,
    heads: Mapping[str, Head],
    preprocess: Preprocess,
    images: DomainFolder,
    *,
    batch_size: int = BATCH_SIZE,
    work: Work = Work(),
) -> pd.DataFrame:
    """Classify images by each head, in one pass; the encoder is left as it was.

    Args:
        encoder: From images to embeddings, which need not be normalised.
        heads: By name; each gives one score per class of ``images.all_classes``.
        preprocess: RGB picture -> tensor [3, H, W], `Clip.preprocess`.
        images: What to classify. Files that cannot be read are left out, with a warning each.
        batch_size, work: How it is carried out; neither changes a number but for rounding.

    Returns:
        A row per head and image: ``classifier``, ``relative``, ``domain``, ``class``, ``predicted``, and ``rank`` of
        the true class, 1 being the highest score (of equal scores the earlier class is the higher).

    Raises:
        InputError: For scores of another number of classes, or embeddings that are not finite, too wide or too narrow.
    """
    last = encoder.sites[-1]
    records: list[ImageRecord] = []
    scores: dict[str, list[Tensor]] = {name: [] for name in heads}
    with torch.no_grad():
        for there, found in activations(
            encoder, preprocess, images.records, [last],
            batch_size=batch_size, strict=work.strict, progress=work.bar("classifying"),
        ):  # fmt: skip
            records += there
            for name, head in heads.items():
                scores[name].append(_checked_scores(head(found[last]), images, name))
    labels = torch.tensor([images.label(record.class_name) for record in records], dtype=torch.long)
    about = pd.DataFrame(
        [(record.relative, record.domain, record.class_name) for record in records],
        columns=["relative", "domain", "class"],
    )
    tables = []
    for name, parts in scores.items():
        table = torch.cat(parts) if parts else torch.empty(0, len(images.all_classes))
        predicted = [images.all_classes[label] for label in table.argmax(1).tolist()]
        tables.append(about.assign(classifier=name, predicted=predicted, rank=_ranks(table, labels).numpy()))
    return pd.concat(tables, ignore_index=True)


def _checked_scores(scores: Tensor, images: DomainFolder, name: str) -> Tensor:
    if scores.ndim != 2 or scores.shape[1] != len(images.all_classes):
        raise InputError(
            f"The head {name!r} must give a score for each of the {len(images.all_classes)} classes of "
            f"images.all_classes, but gave {list(scores.shape)}."
        )
    return scores.double().cpu()


def _ranks(scores: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]) -> Int[Tensor, " images"]:
    own = scores.gather(1, labels[:, None])
    earlier = torch.arange(scores.shape[1]) < labels[:, None]
    return 1 + ((scores > own) | ((scores == own) & earlier)).sum(1)


def accuracy_table(predictions: pd.DataFrame, held_out: Sequence[str] = ()) -> pd.DataFrame:
    """Return the accuracies of one classifier per domain and part ("held-out" or "seen" classes).

    Args:
        predictions: Columns ``domain``, ``class``, ``predicted``, as `predictions` returns them.
        held_out: Classes that are a part of their own.

    Returns:
        One row per domain and part with images: ``accuracy`` (share of images), ``balanced_accuracy`` (mean over
        classes of the share of each), ``n_images``, ``n_classes``.

    Raises:
        InputError: For a held-out class without an image in the table.
    """
    images = predictions.assign(
        part=_part(predictions, held_out), correct=predictions["class"] == predictions["predicted"]
    )
    by = ["domain", "part"]
    return _averages(images, by).sort_values(by, ascending=[True, False], ignore_index=True)


def _part(predictions: pd.DataFrame, held_out: Sequence[str]) -> "pd.Series[str]":
    classes = sorted(set(predictions["class"]))
    if unknown := sorted(set(held_out) - set(classes)):
        raise unknown_name("classified image of the held-out class", unknown[0], classes)
    return predictions["class"].isin(list(held_out)).map({True: "held-out", False: "seen"})


def _averages(images: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return the mean of ``correct`` by sample and by class in each group."""
    classes = images.groupby([*by, "class"], sort=False)["correct"].agg(["mean", "sum", "size"])
    groups = classes.groupby(by, sort=False)
    n_images = groups["size"].sum()
    averages = {"accuracy": groups["sum"].sum() / n_images, "balanced_accuracy": groups["mean"].mean()}
    return pd.DataFrame({**averages, "n_images": n_images, "n_classes": groups.size()}).reset_index()


def tidy_accuracy(predictions: pd.DataFrame, held_out: Sequence[str] = (), top: Sequence[int] = TOP) -> pd.DataFrame:
    """Return all accuracies of all classifiers, one a row.

    Args:
        predictions: As `predictions` returns them.
        held_out: Classes that are a part of their own, and each alone.
        top: The k of top-k accuracy.

    Returns:
        ``classifier``, ``domain``, ``part`` ("all", "seen", "held-out", or the name of a held-out class), ``measure``
        ("top-1", "balanced top-1", ...), ``value``, ``n_images``, ``n_classes``.

    Raises:
        InputError: For a held-out class without an image in the table, or a k that is not positive.

    Example:
        >>> table = tidy_accuracy(predictions(...), held_out=("axe", "lion"))
        >>> table.query("part == 'held-out' and measure == 'balanced top-1'")
    """
    if not top or min(top) < 1:
        raise InputError(f"Top-k accuracy needs positive k, but {list(top)} was given.")
    part = _part(predictions, held_out)
    named = predictions[part == "held-out"]
    parts = [predictions.assign(part="all")]
    parts += [predictions.assign(part=part), named.assign(part=named["class"])] if held_out else []
    images = pd.concat(parts, ignore_index=True)
    rows = []
    for k in top:
        found = _averages(images.assign(correct=images["rank"] <= k), ["classifier", "domain", "part"])
        for measure, column in ((f"top-{k}", "accuracy"), (f"balanced top-{k}", "balanced_accuracy")):
            rows.append(found.assign(measure=measure, value=found[column]))
    columns = ["classifier", "domain", "part", "measure", "value", "n_images", "n_classes"]
    return pd.concat(rows, ignore_index=True)[columns]
