"""Turn many image files into batches of tensors. Threads decode and preprocess images before they are needed.

A file that cannot be read or preprocessed is skipped with a warning. With ``strict`` it raises an `InputError`.
"""

import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from circuitry.data.images import Decoding, load_image, reason_of
from circuitry.runs.errors import InputError
from circuitry.runs.processes import allowed_cores

Preprocess = Callable[[Image.Image], Tensor]
"""Function of a picture that returns a tensor of real numbers [3, H, W], such as open_clip's transform for validation.
Image files are decoded upright for it, unless it is an `AsStored`."""


@dataclass(frozen=True)
class AsStored:
    """A preprocessing for which image files are decoded as stored, as in the study; see `load_image`."""

    transform: Preprocess
    """The function that preprocesses a picture."""

    def __call__(self, picture: Image.Image) -> Tensor:
        return self.transform(picture)


def with_decoding(preprocess: Preprocess, decoding: Decoding) -> Preprocess:
    """Return the same preprocessing, with a mark that says how image files are decoded for it.

    Args:
        preprocess: Function of a picture that returns a tensor [3, H, W].
        decoding: "upright" or "as-stored"; see `load_image`.

    Example:
        >>> as_stored = circuitry.data.with_decoding(clip.preprocess, "as-stored")
    """
    plain = preprocess.transform if isinstance(preprocess, AsStored) else preprocess
    return AsStored(plain) if decoding == "as-stored" else plain


_MOST_THREADS = 16  # for machines with many cores: Python runs one thread at a time between decoders


def decoding_threads() -> int:
    """Return how many images this process decodes at the same time: one for each core that it may run on.

    Processes that torchrun started on this machine share its cores. OMP_NUM_THREADS is not read, because torchrun sets
    it to one: this number is meant for sums.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(max(2, allowed_cores() // processes), _MOST_THREADS)


def numbered_batches(
    paths: Iterable[Path],
    preprocess: Preprocess,
    batch_size: int,
    *,
    strict: bool = False,
) -> Iterator[tuple[list[int], Float[Tensor, "batch 3 height width"]]]:
    """Yield (indices, batch [B, 3, H, W]), where the indices are the places of the batch's images in ``paths``.

    Images are decoded and preprocessed in threads before they are needed. They keep the order of ``paths``. A batch is
    full even if some images cannot be read; only the last batch may be smaller.

    Args:
        paths: The image files.
        preprocess: Function of an RGB picture that returns a tensor [3, H, W].
        batch_size: Number of images in a batch.
        strict: Whether an unreadable file raises an `InputError`. If False, it is skipped with a warning.
    """
    places: list[int] = []
    batch: list[Tensor] = []
    for place, (path, tensor) in enumerate(
        _decoded_ahead(paths, preprocess, ahead=batch_size)
    ):
        if isinstance(tensor, InputError):
            if strict:
                raise tensor
            warnings.warn(f"Skipped an image: {tensor}", stacklevel=2)
            continue
        if not isinstance(tensor, Tensor) or tensor.is_complex():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise InputError(
                f"preprocess must give a tensor of real numbers, but {path} became {kind}."
            )
        if batch and tensor.shape != batch[0].shape:
            raise InputError(
                f"preprocess must give every image one shape, but {path} became {tuple(tensor.shape)} "
                f"after {tuple(batch[0].shape)}."
            )
        places.append(place)
        batch.append(tensor)
        if len(batch) == batch_size:
            yield places, torch.stack(batch)
            places = []
            batch = []
    if batch:
        yield places, torch.stack(batch)


def _decoded_ahead(
    paths: Iterable[Path], preprocess: Preprocess, ahead: int
) -> Iterator[tuple[Path, Tensor | InputError]]:
    """Yield (path, preprocessed image) in the order of ``paths``, while threads decode the following images.

    At most ``ahead`` images and one for each thread are decoded in advance. If an image cannot be read or preprocessed,
    the `InputError` is yielded in its place.
    """
    decoding: Decoding = "as-stored" if isinstance(preprocess, AsStored) else "upright"

    def decode(path: Path) -> Tensor | InputError:
        try:
            return preprocess(load_image(path, decoding))
        except InputError as error:
            return error
        # Any error, even a MemoryError, is caught, because one image must not end a long run.
        except Exception as error:
            reason = InputError(f"Cannot preprocess {path}: {reason_of(error)}.")
            reason.__cause__ = error
            return reason

    remaining = iter(paths)
    threads = decoding_threads()
    pool = ThreadPoolExecutor(threads)
    try:
        waiting: deque[tuple[Path, Future[Tensor | InputError]]] = deque(
            (path, pool.submit(decode, path))
            for path in islice(remaining, ahead + threads)
        )
        while waiting:
            path, future = waiting.popleft()
            result = future.result()
            waiting.extend(
                (following, pool.submit(decode, following))
                for following in islice(remaining, 1)
            )
            yield path, result
    finally:  # this also runs if the caller stops early
        # The garbage collector may close this generator in a thread of the pool. This thread cannot wait for itself.
        in_its_thread = threading.current_thread() in pool._threads
        pool.shutdown(wait=not in_its_thread, cancel_futures=True)
