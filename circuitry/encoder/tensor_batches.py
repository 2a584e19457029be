"""Turn images of any supported type into batches, which can be read several times."""

import logging
import math
import weakref
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import chain, pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from circuitry.encoder.encoder import Encoder
from circuitry.encoder.sites import INPUT
from circuitry.runs.arguments import lacking_values
from circuitry.runs.errors import InputError
from circuitry.runs.provenance import weights_digest

Images = Tensor | Iterable[Tensor] | Iterable[Sequence[Any]] | Dataset[Any]
"""Images: a tensor [B, 3, H, W], an iterable or a data set. The elements of an iterable or a data set are batches
[B, 3, H, W], images [3, H, W], or pairs (images, labels)."""

log = logging.getLogger(__name__)
LARGEST = 20.0
"""Largest value that is accepted in images if their normalisation is not known. With CLIP's normalisation white is 2.1.
With a standard deviation of 0.05 white is 20."""
_SLACK = 0.02
"""Largest difference that rounding can make to the values of black and white."""
_DIGESTS = "pixel_digests"
"""Name of the attribute of a tensor of images that keeps the tensor's `pixel_digests` after their first use."""
_MARK = "times_written"
"""Name of the attribute that marks a tensor of images as checked. Its value is PyTorch's count of writes into the
tensor at the time of the check."""


class ImageBatches:
    """Images in batches on the encoder's device, which can be iterated several times.

    Each pass over the object yields the same batches, and a batch has at most ``rows`` images. If the images come from
    a one-shot iterator, they stay in memory, because attribution needs all images twice (for units, then for edges).
    The first pass warns about values that are not normalised. A later pass raises `InputError` if it does not begin
    with the same images as the first pass.
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
        # Digests are kept only after a whole pass. A pass that stops early has the digests of some images only.
        self._digests = self._digests or tuple(digests)

    def _check_same_first(self, batch: Tensor) -> None:
        """Raise `InputError` if the first batch of a pass differs from the first batch of the pass before."""
        # Eight images are cheap to compare, and enough to notice a loader that shuffles.
        before = self._first
        self._first = weights_digest({"images": batch[:8]})
        if before not in ("", self._first):
            raise InputError(
                "Images are gone through several times and are the same each time, but a second pass began "
                "with other ones: read them without shuffling and random changes, or as one tensor."
            )

    @property
    def digests(self) -> tuple[str, ...]:
        """The `pixel_digests` of all images. They are computed in the first pass over all images, and then kept."""
        if isinstance(self._images, ImageBatches | Tensor):
            return digests_of(self._images)
        if self._digests is None:
            for _ in self:
                pass
        return self._digests or ()

    def _prepared(self, piece: Tensor) -> Tensor:
        piece = piece.to(self._encoder.device, self._encoder.dtype)
        if piece.device.type != "cuda":
            # Convolutions on a CPU are fastest in this layout, and each stage passes it on. No GPU was timed. The copy
            # is an ordinary tensor in any mode of the caller.
            with torch.inference_mode(False):
                piece = piece.contiguous(memory_format=torch.channels_last)
        if piece.is_inference() and not torch.is_inference_mode_enabled():
            # Autograd cannot save inference tensors; a copy is an ordinary tensor.
            return piece.clone()
        return piece


def images_of_task(
    sets: Sequence[Images | None], encoder: Encoder, memory_gib: float | None
) -> list[Any]:
    """Check the images of a new task, and return them in the form in which a task holds them.

    A tensor is checked, marked as checked (`seen`), and returned. Images of any other type become `ImageBatches`. A
    warning names images that are both in the class and in other classes (if both sets are tensors), and values that are
    not normalised.

    Args:
        sets: The images of the class, and the images of other classes or None. None stays None.
        encoder: The encoder of the task.
        memory_gib: Memory in GiB that a run of a batch may use. It sets the size of the batches.
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
    """Return whether images are a tensor of values, not on the meta device, that was not checked before (`seen`)."""
    if not isinstance(images, Tensor) or images.dim() != 4 or images.is_meta:
        return False
    return _MARK not in vars(images)


def seen(images: Tensor) -> Tensor:
    """Mark a tensor of images as checked, and return it.

    If the tensor is written into afterwards, `checked_batches` raises `InputError`.
    """
    vars(images)[_MARK] = 0 if images.is_inference() else images._version
    return images


def pixel_digests(images: Float[Tensor, "images _ _ _"]) -> tuple[str, ...]:
    """Return a short digest of the pixels of each image. Equal pictures in different files have equal digests.

    Pixels are rounded to bfloat16 first, so that the device and the precision of the encoder make no difference.
    """
    # In bfloat16 nearly all neighbouring grey values still differ.
    if images.is_meta:
        return ()
    return tuple(
        weights_digest({"image": image})
        for image in images.detach().to("cpu", torch.bfloat16)
    )


def digests_of(images: Images) -> tuple[str, ...]:
    """Return the `pixel_digests` of images of any supported type.

    If the images are a checked tensor (`seen`), the digests are computed once and kept with the tensor.
    """
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
    """Return how many images of the first set are also in the second set."""
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
    """Return an iterator over the batches of images.

    Each batch is checked when the iterator reaches it. A batch may be empty. Labels of pairs (images, labels), as from
    a `DataLoader` or a torchvision data set, are dropped.
    """
    # Iteration over a map-style data set need not end, so its elements are read by index, up to its length.
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

    Return None if the images would have to be read to count the batches.
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
    """Return a batch of images [B, 3, H, W] without labels. Raise `InputError` for a value that is not a batch."""
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
    if batch.dim() == 3:
        batch = batch[None]
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
    """Return whether the second value of a pair is a label, not a second image."""
    # Two images of a pair have equal numbers of channels. Labels in floating point have other axes.
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return True
    return value.shape[-3:-2] != images.shape[-3:-2]


def name_values(images: Tensor, encoder: Encoder) -> bool:
    """Warn about images whose values seem not to be normalised, and return whether there was a warning.

    There is a warning if values are smaller than black or larger than white. The values of black and white follow from
    the means and standard deviations of the model's preprocessing (``image_mean`` and ``image_std`` of the tower). If
    the tower does not have them, values from -`LARGEST` to `LARGEST` are accepted. There is also a warning if the
    values look like pixels in [0, 1] or [-1, 1].
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
    # Pixels in [0, 1] or [-1, 1] that were never normalised lie between black and white. Their smallest and largest
    # values show it, unless the model's own black is near such a smallest value.
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


PROCESSOR_GIB = 1.0
"""Memory of runs on a processor in GiB, unless it is given. With more memory they are not faster."""
GPU_SHARE = 0.5
"""Share of a GPU's memory that runs use, unless it is given. Weights and the kernels' own memory come on top."""
_measured: weakref.WeakKeyDictionary[
    Encoder, dict[tuple[torch.device, torch.dtype, bool], int]
] = weakref.WeakKeyDictionary()
"""Bytes per image, by encoder, then by device, type and gradients. They are kept, because a measurement takes runs."""


def memory_bytes(device: torch.device, memory_gib: float | None) -> int:
    """Return how many bytes the activations of a run on a device may use.

    Args:
        device: The device.
        memory_gib: The memory in GiB. If it is None, it is half of the memory of a CUDA device (`GPU_SHARE`), and 1 GiB
            on any other device (`PROCESSOR_GIB`).
    """
    if memory_gib is None and device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return int(GPU_SHARE * total)
    return int((PROCESSOR_GIB if memory_gib is None else memory_gib) * 2**30)


def bytes_per_image(encoder: Encoder, *, gradients: bool = True) -> int:
    """Return by how many bytes the memory of a run grows for each further image in the run.

    Args:
        encoder: The encoder.
        gradients: Whether the run keeps what gradients need: activations of all stages, and a gradient for each. If
            not, only the activations of one stage are in memory at a time, and the largest stage counts.
    """
    with encoder.running(gradients=True):
        if gradients:
            whole = [(INPUT, encoder.sites[-1])]
            # It is doubled, because each saved activation gets a gradient of the same size.
            return 2 * _bytes_kept(encoder, whole)
        return _bytes_kept(encoder, list(pairwise(encoder.sites)))


def _bytes_kept(encoder: Encoder, pairs: Sequence[tuple[str, str]]) -> int:
    """Return by how many bytes the tensors that autograd saves grow for a further image.

    Args:
        encoder: The encoder.
        pairs: Pairs of sites, each beginning where the last one ended. The largest growth between the two sites of a
            pair is returned.
    """
    kept = dict[int, int]()

    def keep(tensor: Tensor) -> Tensor:
        # By address: several saved tensors may be views of one storage.
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    growth = [0] * len(pairs)
    # The difference of two runs leaves out weights.
    for n_images, sign in ((1, -1), (2, 1)):
        x = encoder.blank(n_images)
        for place, (start, stop) in enumerate(pairs):
            x = x.detach().requires_grad_()
            kept.clear()
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                # The old activation stays alive, so that no address is used twice while counting.
                after = encoder(x, start=start, stop=stop)
            growth[place] += sign * sum(kept.values())
            x = after
    return max(growth)


def rows_that_fit(
    encoder: Encoder,
    memory_gib: float | None,
    *,
    gradients: bool = True,
    beside: int = 0,
) -> int:
    """Return how many images a run can take if its activations may use ``memory_gib`` GiB of memory.

    The number is at least 1, even if a single image needs more memory.

    Args:
        encoder: The encoder.
        memory_gib: The memory in GiB; None for the default of the device (`memory_bytes`).
        gradients: Whether the run keeps what gradients need. Runs without gradients get half of the memory, because the
            clean activations that they are compared with or replaced by take the rest. On a processor the number is
            that of runs with gradients, because larger batches leave its caches and are slower.
        beside: Bytes of an image that are in memory beside the run.
    """
    gradients = gradients or encoder.device.type == "cpu"
    measured = _measured.setdefault(encoder, {})
    setting = encoder.device, encoder.dtype, gradients
    if setting not in measured:
        measured[setting] = max(1, bytes_per_image(encoder, gradients=gradients))
    memory = memory_bytes(encoder.device, memory_gib)
    of_image = measured[setting] + beside
    rows = (memory if gradients else memory // 2) // of_image
    return min(max(rows, 1), 2**31)
