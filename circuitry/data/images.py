"""From image files to batches of tensors, whatever the files hold.

1. ``load_image`` decodes one file into an upright 8-bit RGB picture: EXIF orientation applied, transparency
   composited over white, 16-bit grey scaled (never clipped), CMYK and palettes converted.
2. ``load_batches`` runs ``load_image`` and the preprocessing of a model over many files, ahead of the
   consumer.

A file that cannot be read is an ``InputError`` naming the file and the reason; in batches it is skipped and
reported.
"""

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from circuitry.errors import InputError

Preprocess = Callable[[Image.Image], Tensor]
"""From an RGB picture to a float tensor [3,H,W]; open_clip's validation transform is one."""


def load_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image file as an upright 8-bit RGB picture; animations give their first frame.

    Raises:
        InputError: no such file, empty, truncated, not an image, or of a kind without a defined 8-bit range.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"cannot read {file}: {'it is a folder' if file.is_dir() else 'there is no such file'}")
    if file.stat().st_size == 0:
        raise InputError(f"cannot read {file}: the file is empty")
    try:
        with Image.open(file) as image:
            return _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise InputError(f"cannot read {file}: it is not an image in a known format") from None
    except Exception as error:  # decoders of broken files raise almost anything (OSError, SyntaxError, struct.error)
        raise InputError(f"cannot read {file}: {error or type(error).__name__}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers without a defined range; save it with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _from_16_bit(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips at 255, which turns a 16-bit drawing white.
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("pixels are 32-bit integers; save it with 8 or 16 bits")
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


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

    Unreadable files are left out, so batches stay full: ``on_skip(path, reason)`` is called for each in order
    (default: a warning), or with ``strict`` the first one is an error. Which image lands where in the
    sequence does not depend on ``batch_size`` or ``threads``.

    Raises:
        InputError: ``batch_size`` or ``threads`` below 1; tensors of differing shapes; with ``strict``, an
        unreadable file.

    Example:
        >>> for batch in load_batches(paths, clip.preprocess, 64):
        ...     embeddings = clip.encoder(batch)
    """
    if batch_size < 1 or threads < 1:
        raise InputError(f"batch_size and threads must be at least 1; given {batch_size} and {threads}")
    return _batches(paths, preprocess, batch_size, strict, on_skip or _warn, threads)


def _batches(
    paths: Iterable[Path],
    preprocess: Preprocess,
    batch_size: int,
    strict: bool,
    on_skip: Callable[[Path, str], None],
    threads: int,
) -> Iterator[Tensor]:
    batch: list[Tensor] = []
    for path, tensor in _decoded_ahead(paths, preprocess, ahead=batch_size + threads, threads=threads):
        if isinstance(tensor, InputError):
            if strict:
                raise tensor
            on_skip(path, str(tensor))
            continue
        if batch and tensor.shape != batch[0].shape:
            raise InputError(
                f"preprocess must give every image one shape; {path} became {tuple(tensor.shape)} "
                f"after {tuple(batch[0].shape)}"
            )
        batch.append(tensor)
        if len(batch) == batch_size:
            yield torch.stack(batch)
            batch = []
    if batch:
        yield torch.stack(batch)


def _decoded_ahead(
    paths: Iterable[Path], preprocess: Preprocess, ahead: int, threads: int
) -> Iterator[tuple[Path, Tensor | InputError]]:
    """Yield (path, tensor or the reason why not) in order, with at most ``ahead`` images decoded in advance."""

    def decode(path: Path) -> Tensor | InputError:
        try:
            image = load_image(path)
        except InputError as error:
            return error
        return preprocess(image)

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
    warnings.warn(f"skipped an image: {reason}", stacklevel=2)
