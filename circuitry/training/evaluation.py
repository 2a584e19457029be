"""Zero-shot accuracy of a CLIP model by domain, apart for held-out and seen classes (method.md section 8).

1. ``predictions``: the class whose text weights are nearest to an image's embedding, for every image.
2. ``accuracy_table``: from those to accuracies, by sample and averaged over classes.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from circuitry.data.domains import DomainFolder
from circuitry.data.images import Preprocess, load_batches
from circuitry.errors import InputError


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
    table = predictions(embed, preprocess, text_weights, images, batch_size=batch_size, progress=progress)
    return accuracy_table(table, held_out)


@torch.no_grad()
def predictions(
    embed: Callable[[Tensor], Tensor],
    preprocess: Preprocess,
    text_weights: Float[Tensor, "classes dim"],
    images: DomainFolder,
    *,
    batch_size: int = 256,
    progress: bool = True,
) -> pd.DataFrame:
    """Classify images: one row per image with ``relative``, ``domain``, ``class`` and ``predicted``.

    Args:
        embed: [batch,3,H,W] to embeddings [batch,dim]; they need not be normalised. Put a model in eval mode
            first.
        text_weights: one normalised row per class, in the order of ``images.all_classes``; batches go to its
            device.
        images: what to classify. Files that cannot be read are left out, with a warning each.

    Raises:
        InputError: weights for another number of classes or dimensions; embeddings that are not finite.
    """
    if len(text_weights) != len(images.all_classes):
        raise InputError(
            f"expected text weights for the {len(images.all_classes)} classes of images.all_classes, "
            f"given {len(text_weights)} rows"
        )
    skipped: set[Path] = set()

    def skip(path: Path, reason: str) -> None:
        skipped.add(path)
        warnings.warn(f"skipped an image: {reason}", stacklevel=2)

    labels: list[int] = []
    batches = load_batches([record.path for record in images.records], preprocess, batch_size, on_skip=skip)
    with tqdm(total=len(images), unit="image", desc="zero-shot", disable=not progress) as bar:
        for batch in batches:
            embeddings = embed(batch.to(text_weights.device))
            labels += _nearest(embeddings, text_weights).tolist()
            bar.update(len(batch))
    records = [record for record in images.records if record.path not in skipped]
    return pd.DataFrame(
        {
            "relative": [record.relative for record in records],
            "domain": [record.domain for record in records],
            "class": [record.class_name for record in records],
            "predicted": [images.all_classes[label] for label in labels],
        }
    )


def _nearest(embeddings: Tensor, text_weights: Tensor) -> Tensor:
    if embeddings.ndim != 2 or embeddings.shape[1] != text_weights.shape[1]:
        raise InputError(
            f"expected embeddings [batch, {text_weights.shape[1]}], as wide as the text weights; "
            f"given {list(embeddings.shape)}"
        )
    if not torch.isfinite(embeddings).all():
        raise InputError("the embeddings are not finite numbers; the model may have diverged or overflowed")
    # The length of an embedding scales all its logits alike, so the nearest class needs no normalisation.
    return (embeddings.to(text_weights.dtype) @ text_weights.T).argmax(dim=1)


def accuracy_table(predictions: pd.DataFrame, held_out: Sequence[str] = ()) -> pd.DataFrame:
    """Accuracies per domain and part, from the table that ``predictions`` returns.

    Part "held-out" holds the images of the held-out classes, in every domain: only in the test domain were
    they unseen in training, elsewhere they show how hard these classes are. All else is "seen".

    Returns:
        one row per domain and part with images: ``accuracy`` (share of images), ``balanced_accuracy`` (mean
            over classes of
        the share of each), ``n_images``, ``n_classes``.

    Raises:
        InputError: a held-out class without an image in the table.
    """
    unknown = sorted(set(held_out) - set(predictions["class"]))
    if unknown:
        raise InputError(f"there are no images of the held-out class {unknown[0]!r} among those classified")
    images = pd.DataFrame(
        {
            "domain": predictions["domain"],
            "class": predictions["class"],
            "part": predictions["class"].isin(list(held_out)).map({True: "held-out", False: "seen"}),
            "correct": predictions["class"] == predictions["predicted"],
        }
    )
    classes = images.groupby(["domain", "part", "class"], sort=False)["correct"].agg(["mean", "sum", "size"])
    parts = classes.groupby(["domain", "part"], sort=False).agg(
        correct=("sum", "sum"),
        balanced_accuracy=("mean", "mean"),
        n_images=("size", "sum"),
        n_classes=("size", "size"),
    )
    parts["accuracy"] = parts["correct"] / parts["n_images"]
    order = ["domain", "part", "accuracy", "balanced_accuracy", "n_images", "n_classes"]
    return parts.reset_index().sort_values(["domain", "part"], ascending=[True, False], ignore_index=True)[order]
