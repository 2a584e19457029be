"""From many image files to batches of tensors: decoded and preprocessed ahead of the consumer.

A file that cannot be read or preprocessed is skipped with a warning; with ``strict`` it is an `InputError`.
"""

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

Preprocess = Callable[[Image.Image], Tensor]
"""From a picture to a float tensor [3,H,W]; open_clip's validation transform is one. Files are decoded upright, except
for an `AsStored`."""


@dataclass(frozen=True)
class AsStored:
    """A preprocessing whose pictures are decoded as stored, as in the study; see `load_image`."""

    transform: Preprocess

    def __call__(self, picture: Image.Image) -> Tensor:
        return self.transform(picture)


def with_decoding(preprocess: Preprocess, decoding: Decoding) -> Preprocess:
    """Return a preprocessing whose pictures are decoded in a way.

    Example:
        >>> as_stored = circuitry.data.with_decoding(clip.preprocess, "as-stored")
    """
    plain = preprocess.transform if isinstance(preprocess, AsStored) else preprocess
    return AsStored(plain) if decoding == "as-stored" else plain


_THREADS = 2
"""Images that are decoded at a time."""


def numbered_batches(
    paths: Iterable[Path],
    preprocess: Preprocess,
    batch_size: int,
    *,
    strict: bool = False,
) -> Iterator[tuple[list[int], Float[Tensor, "batch 3 height width"]]]:
    """Decode and preprocess images ahead of the consumer; yield batches and the places of their images in ``paths``.

    Batches keep the order of ``paths``, and stay full where images cannot be read.
    """
    places: list[int] = []
    batch: list[Tensor] = []
    for place, (path, tensor) in enumerate(
        _decoded_ahead(paths, preprocess, ahead=batch_size + _THREADS)
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
    """Yield (path, tensor or the reason why not) in order, with at most ``ahead`` images decoded in advance."""
    decoding: Decoding = "as-stored" if isinstance(preprocess, AsStored) else "upright"

    def decode(path: Path) -> Tensor | InputError:
        try:
            return preprocess(load_image(path, decoding))
        except InputError as error:
            return error
        # MemoryError, too: one image is no reason to end a long run.
        except Exception as error:
            reason = InputError(f"Cannot preprocess {path}: {reason_of(error)}.")
            reason.__cause__ = error
            return reason

    remaining = iter(paths)
    pool = ThreadPoolExecutor(_THREADS)
    try:
        waiting: deque[tuple[Path, Future[Tensor | InputError]]] = deque(
            (path, pool.submit(decode, path)) for path in islice(remaining, ahead)
        )
        while waiting:
            path, future = waiting.popleft()
            result = future.result()
            waiting.extend(
                (following, pool.submit(decode, following))
                for following in islice(remaining, 1)
            )
            yield path, result
    finally:  # reached when the consumer stops early, too
        # The garbage collector may close this generator in a thread of the pool, which cannot wait for itself.
        in_its_thread = threading.current_thread() in pool._threads
        pool.shutdown(wait=not in_its_thread, cancel_futures=True)
