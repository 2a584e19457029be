"""Images as batches that can be gone through twice, however they come and however large they are."""

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from circuitry.models.encoder import Encoder
from circuitry.runs.errors import InputError

Images = Tensor | Iterable[Tensor]
"""A tensor [B, 3, H, W] or an iterable of such batches."""


class ImageBatches:
    """Batches of at most ``rows`` images on the encoder's device; every pass gives the same ones.

    A one-shot iterator is written to temporary files as it is read, since attribution needs the images twice (nodes,
    then edges) and must not hold them all. A pass that was broken off loses none.
    """

    def __init__(self, images: Images, encoder: Encoder, rows: int) -> None:
        if rows < 1:
            raise InputError(f"A batch has at least one image, but a batch size of {rows} was given.")
        self._images, self._encoder, self._rows = images, encoder, rows
        self._spool: Path | None = None
        if isinstance(images, Iterator):
            self._spool, self._spooled, self._unread = Path(tempfile.mkdtemp(prefix="circuitry-")), 0, images
            weakref.finalize(self, shutil.rmtree, self._spool, ignore_errors=True)

    def __iter__(self) -> Iterator[Float[Tensor, "batch 3 h w"]]:
        for batch in self._source():
            for part in torch.split(batch, self._rows) if len(batch) else ():
                yield self._prepared(part)

    def _prepared(self, part: Tensor) -> Tensor:
        part = part.to(self._encoder.device, self._encoder.dtype)
        made_without_gradients = part.is_inference() and not torch.is_inference_mode_enabled()
        return part.clone() if made_without_gradients else part

    def _source(self) -> Iterator[Tensor]:
        if self._spool is None:
            yield from checked_batches(self._images)
            return
        for place in count():
            file = self._spool / f"{place}.pt"
            if place < self._spooled:
                yield torch.load(file, weights_only=True)
            else:
                for batch in checked_batches(islice(self._unread, 1)):
                    torch.save(batch, file)
                    self._spooled += 1
                    yield batch
                if place == self._spooled:
                    return


def checked_batches(images: object) -> Iterator[Tensor]:
    """Return the batches of images, which may be empty, each checked to be one when its turn comes.

    Raises:
        InputError: for anything but floating-point tensors of four dimensions.
    """
    if not isinstance(images, Iterable):
        raise _no_images(images)
    return map(_checked, [images] if isinstance(images, Tensor) else images)


def _checked(batch: object) -> Tensor:
    if not isinstance(batch, Tensor):
        raise _no_images(batch)
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


def _no_images(given: object) -> InputError:
    return InputError(
        f"Images are a tensor [batch, 3, height, width] or an iterable of such batches, but {type(given).__name__} was "
        "given: of (image, label) pairs take the images alone, and make other arrays tensors by torch.as_tensor."
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
    """Return how many images, or activations of one image, a run may take; raise `InputError` for none at all."""
    if memory_gib <= 0:
        raise InputError(f"The memory budget is a positive number of GiB, but {memory_gib} was given.")
    known = _measured.setdefault(encoder, {})
    setting = encoder.device, encoder.dtype
    if setting not in known:
        known[setting] = bytes_per_image(encoder)
    return max(1, int(memory_gib * 2**30) // max(1, known[setting]))
