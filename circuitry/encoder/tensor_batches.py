"""Turn images of any supported type into batches that several passes can read."""

import logging
import math
import weakref
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from circuitry.encoder.encoder import Encoder
from circuitry.runs.arguments import lacking_values
from circuitry.runs.errors import InputError
from circuitry.runs.provenance import weights_digest

Images = Tensor | Iterable[Tensor] | Iterable[Sequence[Any]] | Dataset[Any]
"""A tensor [B, 3, H, W]; or an iterable or data set of batches, of images [3, H, W], or of pairs (images, labels)."""

log = logging.getLogger(__name__)
LARGEST = 20.0
"""No normalised image has a larger value: with CLIP's, white is 2.1, and with a standard deviation of 0.05 it is 20."""
_SLACK = 0.02
"""Distance by which rounding may move black and white."""
_DIGESTS = "pixel_digests"
"""Attribute of a tensor of images: their `pixel_digests`, after the first use."""
_MARK = "times_written"
"""Attribute of a checked tensor of images: PyTorch's count of writes into it when it was checked."""


class ImageBatches:
    """Batches of at most ``rows`` images on the encoder's device; every pass yields the same batches.

    Images of a one-shot iterator stay in memory, since attribution needs all images twice (for nodes, then for edges).
    The first pass warns about values that are not normalised. A later pass that begins with other images is refused.
    """

    def __init__(self, images: Images, encoder: Encoder, rows: int) -> None:
        if isinstance(images, Iterator):
            images = list(checked_batches(images))
        self._images = images
        self._encoder = encoder
        self._rows = rows
        self._first = ""
        self._named = isinstance(images, ImageBatches)
        self._digests: tuple[str, ...] | None = None

    def __iter__(self) -> Iterator[Float[Tensor, "batch 3 h w"]]:
        # A tensor cannot change between passes, and inner `ImageBatches` check themselves.
        may_change = not isinstance(self._images, ImageBatches | Tensor)
        is_empty = True
        digests = list[str]()
        for place, batch in enumerate(checked_batches(self._images)):
            if may_change and self._digests is None:
                digests += pixel_digests(batch)
            if may_change and place == 0:
                self._check_same_first(batch)
            if not self._named and _MARK not in vars(batch):
                self._named = name_values(batch, self._encoder)
            for piece in torch.split(batch, self._rows) if len(batch) else ():
                yield seen(self._prepared(piece))
                is_empty = False
        if is_empty:
            raise InputError("A run needs at least one image, but there were none.")
        # Only here, behind a whole pass: a pass that was broken off has the digests of some images.
        self._digests = self._digests or tuple(digests)

    def _check_same_first(self, batch: Tensor) -> None:
        """Raise `InputError` if a pass begins with other images than the pass before."""
        # Eight images are cheap, and enough to notice a loader that shuffles.
        before = self._first
        self._first = weights_digest({"images": batch[:8]})
        if before not in ("", self._first):
            raise InputError(
                "Images are gone through several times and are the same each time, but a second pass began "
                "with other ones: read them without shuffling and random changes, or as one tensor."
            )

    @property
    def digests(self) -> tuple[str, ...]:
        """The `pixel_digests` of all images, which the first whole pass computes."""
        if isinstance(self._images, ImageBatches | Tensor):
            return digests_of(self._images)
        if self._digests is None:
            for _ in self:
                pass
        return self._digests or ()

    def _prepared(self, piece: Tensor) -> Tensor:
        piece = piece.to(self._encoder.device, self._encoder.dtype)
        if piece.is_inference() and not torch.is_inference_mode_enabled():
            # Autograd cannot save inference tensors; a copy is an ordinary tensor.
            return piece.clone()
        return piece


def images_of_task(
    sets: Sequence[Images | None], encoder: Encoder, memory_gib: float
) -> list[Any]:
    """Return sets of images as a task holds them: checked tensors, or `ImageBatches` of anything else.

    Warn about images that are in both sets, and about values that are not normalised.
    """
    fresh: list[Any] = [images for images in sets if _is_fresh(images)]
    if len(fresh) == 2:
        shared = _count_shared(*fresh)
        if shared:
            log.warning(
                "%d of the %d images of the class are among those of other classes, too, so selectivity compares them "
                "with themselves: leave them out of the others.",
                shared,
                len(fresh[0]),
            )
    held = list[Any](sets)
    for place, images in enumerate(sets):
        if isinstance(images, Tensor) and _MARK not in vars(images):
            for batch in checked_batches(images):
                name_values(batch, encoder)
            held[place] = seen(batch.detach())
        elif images is not None and not isinstance(images, Tensor | ImageBatches):
            held[place] = ImageBatches(
                images, encoder, rows_that_fit(encoder, memory_gib)
            )
    return held


def _is_fresh(images: Images | None) -> bool:
    """Return whether images are a tensor with values that was not checked before."""
    if not isinstance(images, Tensor) or images.dim() != 4 or images.is_meta:
        return False
    return _MARK not in vars(images)


def seen(images: Tensor) -> Tensor:
    """Mark a tensor of images as checked and return it; `checked_batches` refuses it once it was written into."""
    vars(images)[_MARK] = 0 if images.is_inference() else images._version
    return images


def pixel_digests(images: Float[Tensor, "images _ _ _"]) -> tuple[str, ...]:
    """Return a short digest of the pixels of each image, equal for equal pictures in different files.

    Pixels are rounded to bfloat16 first, so that the device and the precision of the encoder make no difference.
    """
    # bfloat16 still tells neighbouring grey values apart, or nearly.
    if images.is_meta:
        return ()
    return tuple(
        weights_digest({"image": image})
        for image in images.detach().to("cpu", torch.bfloat16)
    )


def digests_of(images: Images) -> tuple[str, ...]:
    """Return the `pixel_digests` of images of any supported type; those of a checked tensor are computed once."""
    if isinstance(images, ImageBatches):
        return images.digests
    if not isinstance(images, Tensor):
        return tuple(chain.from_iterable(map(pixel_digests, checked_batches(images))))
    if _MARK not in vars(images):
        return pixel_digests(images)
    if _DIGESTS not in vars(images):
        vars(images)[_DIGESTS] = pixel_digests(images)
    digests: tuple[str, ...] = vars(images)[_DIGESTS]
    return digests


def _count_shared(own: Tensor, others: Tensor) -> int:
    """Return how many images of the first set are also in the second."""
    known = {*_some_bytes(others)}
    return sum(image in known for image in _some_bytes(own))


def _some_bytes(images: Tensor) -> list[bytes]:
    # Every seventh number is enough to recognise a picture, and takes a seventh of the memory.
    numbers = images.detach().flatten(1)[:, ::7].float().cpu()
    return [image.tobytes() for image in numbers.numpy()]


def one_tensor(images: Images) -> Float[Tensor, "images 3 h w"]:
    """Return images of any supported type as one tensor."""
    return seen(torch.cat(list(checked_batches(images))))


def checked_batches(images: object) -> Iterator[Tensor]:
    """Return an iterator over the batches of images; each batch is checked when it is reached, and may be empty.

    Labels of pairs (images, labels), as from a `DataLoader` or a torchvision data set, are dropped.
    """
    # A map-style data set may lack an end of iteration; by index its length ends it.
    if isinstance(images, Dataset) and isinstance(images, Sized):
        images = map(images.__getitem__, range(len(images)))
    if not isinstance(images, Iterable):
        raise _no_images(images)
    if not isinstance(images, Tensor):
        return map(_checked, images)
    times_written = 0 if images.is_inference() else images._version
    if vars(images).get(_MARK, times_written) != times_written:
        raise InputError(
            "The images of a task were changed in place after it was made: make it again of these images."
        )
    return iter([_checked(images)])


def count_batches(images: object, rows: int) -> int | None:
    """Return the number of batches that `ImageBatches` makes, for a progress bar.

    It is None if the images would have to be read to count them.
    """
    if isinstance(images, ImageBatches):
        return count_batches(images._images, min(rows, images._rows))
    batches = [images] if isinstance(images, Tensor) else images
    if not isinstance(batches, (list, tuple)):
        return None
    count = 0
    for batch in batches:
        if not isinstance(batch, Tensor):
            return None
        n_images = len(batch) if batch.dim() == 4 else 1
        count += math.ceil(n_images / rows)
    return count


def _checked(batch: object) -> Tensor:
    """Return a batch of images [B, 3, H, W] without labels; raise `InputError` for anything else."""
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        first, second = batch
        if isinstance(first, Tensor) and _is_label(second, first):
            batch = first
    if not isinstance(batch, Tensor):
        raise _no_images(batch)
    lacking = lacking_values(batch)
    if lacking:
        raise InputError(
            f"Images are tensors with all their values, but {lacking} was given: prepare them."
        )
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
    return batch


def _is_label(value: object, images: Tensor) -> bool:
    """Return whether the second value of a pair is a label and no second image."""
    # Two images of a pair have equal numbers of channels; labels of floating point have other axes.
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return True
    return value.shape[-3:-2] != images.shape[-3:-2]


def name_values(images: Tensor, encoder: Encoder) -> bool:
    """Warn about values that no preprocessing gives, and return whether there are any.

    The tower of a whole model knows the means and deviations of its preprocessing, and so the values of black and
    white. For another tower values up to `LARGEST` pass.
    """
    if not images.numel() or images.is_meta:
        return False
    low, high = map(float, torch.aminmax(images.detach()))
    means = getattr(encoder.tower, "image_mean", None) or ()
    deviations = getattr(encoder.tower, "image_std", None) or ()
    ends = list[float]()
    for mean, deviation in zip(means, deviations, strict=True):
        ends += [-mean / deviation, (1 - mean) / deviation]
    black = min(ends, default=-LARGEST)
    white = max(ends, default=LARGEST)
    where = ""
    if (low < black - _SLACK or high > white + _SLACK) and max(-low, high) < math.inf:
        where = f"reach from {low:.3g} to {high:.3g}, beyond {black:.3g} to {white:.3g}"
    # Pixels in [0, 1] or [-1, 1] that were never normalised lie within black and white. They show by their ends, unless
    # the model's own black is such an end.
    for least, known in ((0, black < -_SLACK), (-1, ends and black < -1.2)):
        if known and least <= low < least + 0.1 and 0.9 < high <= 1:
            where = f"lie between {least} and 1"
    if where:
        log.warning(
            "The values of these images %s, as if they were not normalised: prepare them by clip.preprocess, unless "
            "the model was trained on such images.",
            where,
        )
    return bool(where)


def _no_images(given: object) -> InputError:
    return InputError(
        f"Images are a tensor [batch, 3, height, width] or an iterable of such batches, but {type(given).__name__} was "
        "given: prepare pictures by clip.preprocess, make other arrays tensors by torch.as_tensor, and make a list of "
        "images one batch by torch.stack."
    )


_measured: weakref.WeakKeyDictionary[
    Encoder, dict[tuple[torch.device, torch.dtype], int]
] = weakref.WeakKeyDictionary()
"""Bytes per image by encoder, device and type; measuring takes two runs."""


def bytes_per_image(encoder: Encoder) -> int:
    """Return the bytes that one more image adds to a run with gradients."""
    # The difference of two runs leaves out weights. Twice, since each saved activation gets a gradient as large.
    with encoder.running(gradients=True):
        return 2 * (_bytes_kept(encoder, 2) - _bytes_kept(encoder, 1))


def _bytes_kept(encoder: Encoder, n_images: int) -> int:
    """Return the bytes of all tensors that autograd saves in a run."""
    # By address: several saved tensors may be views of one storage.
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    alive: list[Tensor] = []  # so that no address is used twice while counting
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        alive.append(encoder(encoder.blank(n_images).requires_grad_()))
    return sum(kept.values())


def rows_that_fit(encoder: Encoder, memory_gib: float) -> int:
    """Return how many images a run may take within ``memory_gib``: at least one."""
    measured = _measured.setdefault(encoder, {})
    setting = encoder.device, encoder.dtype
    if setting not in measured:
        measured[setting] = max(1, bytes_per_image(encoder))
    rows = int(memory_gib * 2**30) // measured[setting]
    return min(max(rows, 1), 2**31)
