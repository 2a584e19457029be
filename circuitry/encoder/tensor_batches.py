"""Images as batches that can be gone through twice, however they come."""

import logging
import math
import weakref
from collections.abc import Iterable, Iterator, Sequence, Sized
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from circuitry.encoder.encoder import Encoder
from circuitry.runs.errors import InputError
from circuitry.runs.given import lacking_values

Images = Tensor | Iterable[Tensor] | Iterable[Sequence[Any]] | Dataset[Any]
"""A tensor [B, 3, H, W]; or an iterable or data set of such batches, of images [3, H, W], or of (images, labels)."""

log = logging.getLogger(__name__)
LARGEST = 20.0
"""No normalised image has a larger value: with CLIP's, white is 2.1, and with a standard deviation of 0.05 it is 20."""


class ImageBatches:
    """Batches of at most ``rows`` images on the encoder's device; every pass gives the same ones.

    What a one-shot iterator gives is kept in memory, since attribution needs the images twice (nodes, then edges).
    """

    def __init__(self, images: Images, encoder: Encoder, rows: int) -> None:
        self._images = list(checked_batches(images)) if isinstance(images, Iterator) else images
        self._encoder, self._rows = encoder, rows

    def __iter__(self) -> Iterator[Float[Tensor, "batch 3 h w"]]:
        empty = True
        for batch in checked_batches(self._images):
            for part in torch.split(batch, self._rows) if len(batch) else ():
                yield self._prepared(part)
                empty = False
        if empty:
            raise InputError("A run needs at least one image, but there were none.")

    def _prepared(self, part: Tensor) -> Tensor:
        part = part.to(self._encoder.device, self._encoder.dtype)
        made_without_gradients = part.is_inference() and not torch.is_inference_mode_enabled()
        return part.clone() if made_without_gradients else part


def one_tensor(images: Images) -> Float[Tensor, "images 3 h w"]:
    """Return images, however they come, as one tensor."""
    return torch.cat(list(checked_batches(images)))


def checked_batches(images: object) -> Iterator[Tensor]:
    """Return the batches of images, which may be empty, each checked to be one when its turn comes.

    Of (images, labels), as a `DataLoader` or a torchvision data set gives them, the images are taken.
    """
    if isinstance(images, Dataset) and isinstance(images, Sized):
        images = map(images.__getitem__, range(len(images)))
    if not isinstance(images, Iterable):
        raise _no_images(images)
    return map(_checked, [images] if isinstance(images, Tensor) else images)


def count_batches(images: object, rows: int) -> int | None:
    """Return how many batches of at most ``rows`` images `ImageBatches` cuts, for a bar; None where reading tells."""
    batches = [images] if isinstance(images, Tensor) else images
    if not isinstance(batches, (list, tuple)) or not all(isinstance(one, Tensor) for one in batches):
        return None
    return sum(-(-(len(one) if one.dim() == 4 else 1) // rows) for one in batches)


def _checked(batch: object) -> Tensor:
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[0], Tensor):
        first, second = batch  # a label has no channels
        alike = isinstance(second, Tensor) and second.is_floating_point() and second.shape[-3:-2] == first.shape[-3:-2]
        batch = batch if alike else first
    if not isinstance(batch, Tensor):
        raise _no_images(batch)
    if lacking := lacking_values(batch):
        raise InputError(f"Images are tensors with all their values, but {lacking} was given: prepare them.")
    batch = batch[None] if batch.dim() == 3 else batch
    if batch.dim() != 4:
        raise InputError(
            f"Images are a tensor [batch, 3, height, width] or an iterable of such batches, but a "
            f"tensor {list(batch.shape)} was given: stack the images along a first axis."
        )
    if not batch.is_floating_point():
        raise InputError(
            f"Images are floating-point numbers, normalised as the model was trained, but {batch.dtype} was given: "
            "prepare them by clip.preprocess."
        )
    if batch.numel():
        low, high = map(float, torch.aminmax(batch.detach()))
        if LARGEST < max(-low, high) < math.inf:
            _name_pixels(f"reach beyond {LARGEST:g}")
        if 0 <= low < high <= 1:
            _name_pixels("lie between 0 and 1")
    return batch


@cache
def _name_pixels(where: str) -> None:
    log.warning(
        "The values of these images %s, as if they were not normalised: prepare them by clip.preprocess, unless the "
        "model was trained on such images.",
        where,
    )


def _no_images(given: object) -> InputError:
    return InputError(
        f"Images are a tensor [batch, 3, height, width] or an iterable of such batches, but {type(given).__name__} was "
        "given: prepare pictures by clip.preprocess, make other arrays tensors by torch.as_tensor, and make a list of "
        "images one batch by torch.stack."
    )


_measured: weakref.WeakKeyDictionary[Encoder, dict[tuple[torch.device, torch.dtype], int]] = weakref.WeakKeyDictionary()
"""Bytes per image by encoder: measuring takes a run."""


def bytes_per_image(encoder: Encoder) -> int:
    """Return the memory that a second image adds to a run with gradients: what autograd keeps, and its gradients."""
    with encoder.running(gradients=True):
        return 2 * (_bytes_kept(encoder, 2) - _bytes_kept(encoder, 1))


def _bytes_kept(encoder: Encoder, n_images: int) -> int:
    """Return the size of all storages that autograd keeps in a run."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = torch.zeros(n_images, 3, *encoder.image_size, device=encoder.device, dtype=encoder.dtype)
    alive: list[Tensor] = []  # so that no address is used twice while counting
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        alive.append(encoder(images.requires_grad_()))
    return sum(kept.values())


def rows_that_fit(encoder: Encoder, memory_gib: float) -> int:
    """Return how many images, or activations of one image, a run may take."""
    known = _measured.setdefault(encoder, {})
    setting = encoder.device, encoder.dtype
    if setting not in known:
        known[setting] = bytes_per_image(encoder)
    return max(1, min(int(memory_gib * 2**30) // max(1, known[setting]), 2**31))
