"""From many image files to batches of tensors: decoded and preprocessed ahead of the consumer.

A file that cannot be read or preprocessed is left out and reported, or with ``strict`` an `InputError` that names it.
"""

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from circuitry.data.images import load_image, reason_of
from circuitry.runs.errors import InputError

Preprocess = Callable[[Image.Image], Tensor]
"""From an RGB picture to a float tensor [3,H,W]; open_clip's validation transform is one."""


def load_batches(
    paths: Iterable[Path],
    preprocess: Preprocess,
    batch_size: int,
    *,
    strict: bool = False,
    on_skip: Callable[[Path, str], None] | None = None,
    threads: int = 2,
) -> Iterator[Float[Tensor, "batch 3 height width"]]:
    """Decode and preprocess images ahead of the consumer; batches keep the order of ``paths``.

    Images that cannot be read or preprocessed are left out, so batches stay full. Which image lands where in the
    sequence does not depend on ``batch_size`` or ``threads``.

    Args:
        paths: Image files.
        preprocess: RGB picture -> float tensor [3, H, W], such as `Clip.preprocess`.
        batch_size: Images in one batch.
        strict: Whether the first image that is left out is an error.
        on_skip: What is called with path and reason of each image that is left out, in order (default: a warning).
        threads: Images that are decoded at a time.

    Raises:
        InputError: For ``batch_size`` or ``threads`` below 1, anything else than paths, what is no tensor of real
            numbers, tensors of differing shapes, and with ``strict`` an image that cannot be read or preprocessed.

    Example:
        >>> for batch in load_batches(paths, clip.preprocess, 64):
        ...     embeddings = clip.encoder(batch)
    """
    numbered = numbered_batches(paths, preprocess, batch_size, strict=strict, on_skip=on_skip, threads=threads)
    return (batch for _, batch in numbered)


def numbered_batches(
    paths: Iterable[Path],
    preprocess: Preprocess,
    batch_size: int,
    *,
    strict: bool = False,
    on_skip: Callable[[Path, str], None] | None = None,
    threads: int = 2,
) -> Iterator[tuple[list[int], Float[Tensor, "batch 3 height width"]]]:
    """Yield batches as `load_batches` does, each with the places of its images among ``paths``."""
    if batch_size < 1 or threads < 1:
        raise InputError(f"batch_size and threads must be at least 1, but {batch_size} and {threads} were given.")
    if isinstance(paths, str | os.PathLike):
        raise InputError(f"Expected a sequence of paths, but the path {os.fspath(paths)!r} was given: write [path].")
    decoded = _decoded_ahead(paths, preprocess, ahead=batch_size + threads, threads=threads)

    def batches() -> Iterator[tuple[list[int], Tensor]]:
        places: list[int] = []
        batch: list[Tensor] = []
        for place, (path, tensor) in enumerate(decoded):
            if isinstance(tensor, InputError):
                if strict:
                    raise tensor
                (on_skip or _warn)(path, str(tensor))
                continue
            if not isinstance(tensor, Tensor) or tensor.is_complex():
                kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
                raise InputError(f"preprocess must give a tensor of real numbers, but {path} became {kind}.")
            if batch and tensor.shape != batch[0].shape:
                raise InputError(
                    f"preprocess must give every image one shape, but {path} became {tuple(tensor.shape)} "
                    f"after {tuple(batch[0].shape)}."
                )
            places.append(place)
            batch.append(tensor)
            if len(batch) == batch_size:
                yield places, torch.stack(batch)
                places, batch = [], []
        if batch:
            yield places, torch.stack(batch)

    return batches()


def _decoded_ahead(
    paths: Iterable[Path], preprocess: Preprocess, ahead: int, threads: int
) -> Iterator[tuple[Path, Tensor | InputError]]:
    """Yield (path, tensor or the reason why not) in order, with at most ``ahead`` images decoded in advance."""

    def decode(path: Any) -> Tensor | InputError:
        if not isinstance(path, str | os.PathLike):
            kind = type(path).__name__
            raise InputError(f"Expected paths of images, but {kind} was given; of an image record pass its .path.")
        try:
            return preprocess(load_image(path))
        except InputError as error:
            return error
        except Exception as error:  # MemoryError, too: one image is no reason to end a long run
            reason = InputError(f"Cannot preprocess {path}: {reason_of(error)}.")
            reason.__cause__ = error
            return reason

    remaining = iter(paths)
    pool = ThreadPoolExecutor(threads)
    try:
        waiting: deque[tuple[Path, Future[Tensor | InputError]]] = deque(
            (path, pool.submit(decode, path)) for path in islice(remaining, ahead)
        )
        while waiting:
            path, future = waiting.popleft()
            result = future.result()
            waiting.extend((following, pool.submit(decode, following)) for following in islice(remaining, 1))
            yield path, result
    finally:  # reached when the consumer stops early, too
        pool.shutdown(wait=True, cancel_futures=True)


def _warn(path: Path, reason: str) -> None:
    warnings.warn(f"Skipped an image: {reason}", stacklevel=2)
