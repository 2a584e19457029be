"""Accuracy of a classifier by domain, apart for held-out and seen classes: what generalization is judged by.

1. ``predictions``: for every image the class with the highest score, and the rank of the true one. Several heads
   (zero-shot with all templates, with style words only, a supervised head) share one pass over the images.
2. ``accuracy_table``: accuracies per domain and part, by sample and averaged over classes (balanced).
3. ``tidy_accuracy``: everything that is reported, one number a row: also top-k, and every held-out class alone.

Held-out classes are reported in every domain: only in the test domain were they unseen in training, elsewhere they show
how hard these classes are.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from circuitry.data.batches import Preprocess, load_batches
from circuitry.data.domains import DomainFolder
from circuitry.runs.errors import InputError

Head = Callable[[Tensor], Tensor]
"""Embeddings [batch, dim] -> a score for every class [batch, classes], in the order of ``images.all_classes``."""

TOP = (1, 5)
"""The k of top-k accuracy."""


def text_head(weights: Float[Tensor, "classes dim"]) -> Head:
    """Return the zero-shot head of text weights: the class whose text is nearest scores highest."""

    def scores(embeddings: Tensor) -> Tensor:
        if embeddings.ndim != 2 or embeddings.shape[1] != weights.shape[1]:
            raise InputError(
                f"expected embeddings [batch, {weights.shape[1]}], as wide as the text weights; "
                f"given {list(embeddings.shape)}"
            )
        # The length of an embedding scales all its logits alike, so the nearest class needs no normalisation.
        return embeddings.to(weights.dtype) @ weights.T

    return scores


def zero_shot_accuracy(
    embed: Callable[[Tensor], Tensor],
    preprocess: Preprocess,
    text_weights: Float[Tensor, "classes dim"],
    images: DomainFolder,
    held_out: Sequence[str] = (),
    *,
    batch_size: int = 256,
    progress: bool = True,
) -> pd.DataFrame:
    """Classify every image of ``images`` and return accuracies: see ``predictions`` and ``accuracy_table``.

    Example:
        >>> weights = clip.text_weights(images.all_classes)
        >>> zero_shot_accuracy(clip.encoder, clip.preprocess, weights, images, held_out=("axe", "lion"))
    """
    heads = {"zero-shot": text_head(text_weights)}
    device = text_weights.device
    found = predictions(embed, heads, preprocess, images, device=device, batch_size=batch_size, progress=progress)
    return accuracy_table(found, held_out)


@torch.no_grad()
def predictions(
    embed: Callable[[Tensor], Tensor],
    heads: Mapping[str, Head],
    preprocess: Preprocess,
    images: DomainFolder,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
    progress: bool = True,
) -> pd.DataFrame:
    """Classify images by each head, in one pass.

    Args:
        embed: [batch,3,H,W] to embeddings [batch,dim]; they need not be normalised. Put a model in eval mode
            first.
        heads: by name; each gives one score per class of ``images.all_classes``.
        images: what to classify. Files that cannot be read are left out, with a warning each.
        device: where batches go.

    Returns:
        A row per head and image: ``classifier``, ``relative``, ``domain``, ``class``, ``predicted``, and ``rank`` of
        the true class, 1 being the highest score (of equal scores the earlier class is the higher).

    Raises:
        InputError: scores for another number of classes; embeddings that are not finite or too wide or narrow.
    """
    skipped: set[Path] = set()

    def skip(path: Path, reason: str) -> None:
        skipped.add(path)
        warnings.warn(f"skipped an image: {reason}", stacklevel=2)

    scores: dict[str, list[Tensor]] = {name: [] for name in heads}
    batches = load_batches([record.path for record in images.records], preprocess, batch_size, on_skip=skip)
    with tqdm(total=len(images), unit="image", desc="classifying", disable=not progress) as bar:
        for batch in batches:
            embeddings = embed(batch.to(device))
            if not torch.isfinite(embeddings).all():
                raise InputError("the embeddings are not finite numbers; the model may have diverged or overflowed")
            for name, head in heads.items():
                scores[name].append(_checked_scores(head(embeddings), images, name))
            bar.update(len(batch))
    records = [record for record in images.records if record.path not in skipped]
    labels = torch.tensor([images.label(record.class_name) for record in records])
    about = pd.DataFrame(
        {
            "relative": [record.relative for record in records],
            "domain": [record.domain for record in records],
            "class": [record.class_name for record in records],
        }
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
            f"expected of head {name!r} a score for each of the {len(images.all_classes)} classes of "
            f"images.all_classes, given {list(scores.shape)}"
        )
    return scores.double().cpu()


def _ranks(scores: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]) -> Int[Tensor, " images"]:
    own = scores.gather(1, labels[:, None])
    earlier = torch.arange(scores.shape[1]) < labels[:, None]
    return 1 + ((scores > own) | ((scores == own) & earlier)).sum(1)


def accuracy_table(predictions: pd.DataFrame, held_out: Sequence[str] = ()) -> pd.DataFrame:
    """Accuracies per domain and part ("held-out" or "seen" classes), of one classifier.

    Args:
        predictions: columns ``domain``, ``class``, ``predicted``, as ``predictions`` returns them.

    Returns:
        One row per domain and part with images: ``accuracy`` (share of images), ``balanced_accuracy`` (mean over
        classes of the share of each), ``n_images``, ``n_classes``.

    Raises:
        InputError: a held-out class without an image in the table.
    """
    images = predictions.assign(
        part=_part(predictions, held_out), correct=predictions["class"] == predictions["predicted"]
    )
    parts = _averages(images, ["domain", "part"])
    order = ["domain", "part", "accuracy", "balanced_accuracy", "n_images", "n_classes"]
    return parts.sort_values(["domain", "part"], ascending=[True, False], ignore_index=True)[order]


def _part(predictions: pd.DataFrame, held_out: Sequence[str]) -> "pd.Series[str]":
    unknown = sorted(set(held_out) - set(predictions["class"]))
    if unknown:
        raise InputError(f"there are no images of the held-out class {unknown[0]!r} among those classified")
    return predictions["class"].isin(list(held_out)).map({True: "held-out", False: "seen"})


def _averages(images: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean of ``correct`` by sample and by class in each group."""
    classes = images.groupby([*by, "class"], sort=False)["correct"].agg(["mean", "sum", "size"])
    parts = classes.groupby(by, sort=False).agg(
        correct=("sum", "sum"),
        balanced_accuracy=("mean", "mean"),
        n_images=("size", "sum"),
        n_classes=("size", "size"),
    )
    parts["accuracy"] = parts["correct"] / parts["n_images"]
    return parts.reset_index()


def tidy_accuracy(predictions: pd.DataFrame, held_out: Sequence[str] = (), top: Sequence[int] = TOP) -> pd.DataFrame:
    """All accuracies of all classifiers, one a row.

    Returns:
        ``classifier``, ``domain``, ``part`` ("all", "seen", "held-out", or the name of a held-out class), ``measure``
        ("top-1", "balanced top-1", ...), ``value``, ``n_images``, ``n_classes``.

    Raises:
        InputError: a held-out class without an image in the table, or no positive k.

    Example:
        >>> table = tidy_accuracy(predictions(...), held_out=("axe", "lion"))
        >>> table.query("part == 'held-out' and measure == 'balanced top-1'")
    """
    if not top or min(top) < 1:
        raise InputError(f"top-k accuracy needs positive k, given {list(top)}")
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
