"""Read an image file, either as an upright 8-bit RGB picture, or as it is stored. Does not import torch.

- Upright: the EXIF orientation is applied, transparent pixels are composited over white, 16-bit grey is scaled to 8
  bits (not clipped), and CMYK and palettes are converted to RGB.
- As stored: the picture is what Pillow opens. The study read its images in this way. open_clip's transform resizes such
  a picture in the stored mode, for instance with a palette, and then converts it to RGB. Orientation and transparency
  are ignored.

A file that cannot be read raises an `InputError` that names the file and the reason.
"""

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from circuitry.data.domains import ImageRecord
from circuitry.data.shared_options import Decoding as Decoding
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError
from circuitry.runs.progress import say_once

log = logging.getLogger(__name__)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""Formats of pictures that are read. Pillow recognises a format by content, whatever the name of the file, and starts
another program for some formats, such as Ghostscript for PostScript. Such formats must not be added here."""
_16_BIT_FORMATS = ("PNG", "PPM")
"""Formats with 16-bit pixels, which Pillow may return as 32-bit integers from 0 to 65535."""
_lock = Lock()
_before: list[bool] = []
"""For each open block of `_whole_files`: the value of Pillow's setting before the block."""
_ABSENT = "absent"
"""Identity of a file that does not exist."""
MOST_STRETCHED = 1000
"""Largest ratio of the long side of an image to its short side. A model's transform enlarges the short side to about
224 pixels, and a longer image would become very large."""


@cache
def picture_formats() -> tuple[str, ...]:
    """Return the names in `FORMATS` that the installed version of Pillow can decode."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_picture(file: Path | BytesIO) -> Image.Image:
    """Open a picture in one of `FORMATS` without decoding its pixels.

    All pictures are opened by this function, so that files in other formats are refused.
    """
    return Image.open(file, formats=picture_formats())


@checked
def load_image(
    path: str | os.PathLike[str], decoding: Decoding = "upright"
) -> Image.Image:
    """Read an image file as an upright 8-bit RGB picture, or as it is stored. An animation gives its first frame.

    Args:
        path: The file.
        decoding: "upright" for an upright 8-bit RGB picture, or "as-stored" for the picture as Pillow opens it.

    Example:
        >>> circuitry.data.load_image(folder.records[0].path).size
        (64, 64)

    Raises:
        InputError: For a file that is missing, empty, truncated or not an image; for an image whose pixels have no
            defined range; and for an image whose long side is more than `MOST_STRETCHED` times its short side.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(
            f"Cannot read {file}: {'it is a folder' if file.is_dir() else 'there is no such file'}."
        )
    if file.stat().st_size == 0:
        raise InputError(f"Cannot read {file}: the file is empty.")
    try:
        with _whole_files(), open_picture(file) as image:
            if max(image.size) > MOST_STRETCHED * min(image.size):
                raise ValueError(
                    f"it has {image.width} x {image.height} pixels, too long and thin to be resized"
                )
            if decoding == "upright":
                return upright(image)
            image.load()
            return image.copy()
    except UnidentifiedImageError:
        raise InputError(
            f"Cannot read {file}: it is not an image in one of the formats {', '.join(FORMATS)}: save it "
            "as one of them."
        ) from None
    except Exception as error:  # decoders of broken files raise almost anything (OSError, SyntaxError, struct.error)
        raise InputError(f"Cannot read {file}: {reason_of(error)}.") from error


@contextmanager
def _whole_files() -> Iterator[None]:
    """Make Pillow refuse truncated files within the block, even if another library has allowed them.

    All threads share this setting of Pillow. It is restored when the last open block ends.
    """
    with _lock:
        _before.append(ImageFile.LOAD_TRUNCATED_IMAGES)
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        with _lock:
            ImageFile.LOAD_TRUNCATED_IMAGES = _before.pop()


def reason_of(error: Exception) -> str:
    """Return the message of an error without a full stop, or the name of its class if the message is empty."""
    return str(error).strip().rstrip(".") or type(error).__name__


def upright(image: Image.Image) -> Image.Image:
    """Return a picture upright, in 8-bit RGB, composited over white.

    Raises:
        ValueError: for pixels without a defined range.
    """
    if image.mode == "F" or (image.mode == "I" and image.format not in _16_BIT_FORMATS):
        kind = "floating-point numbers" if image.mode == "F" else "32-bit integers"
        raise ValueError(
            f"pixels are {kind} without a defined range; save it with 8 or 16 bits"
        )
    image = ImageOps.exif_transpose(image)
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
    if 0 < values.max() < 4096:
        raise ValueError(
            f"its 16-bit pixels reach {values.max()} of 65535, as those of 12 bits do; save it with its whole range"
        )
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


def image_listing(records: Iterable[ImageRecord]) -> dict[str, str]:
    """Return the identity of each image's file, by the path of the image below the root.

    An identity is a text with the size of the file in bytes and its checksum; for a missing file it is ``absent``.
    `runs.manifest.claim` stores the identities, so that results of replaced, repaired or other images are recognised.

    Example:
        >>> circuitry.data.image_listing(folder.select("clock", "sketch", n=1))
        {'sketch/clock/sketch_0...png': '...'}
    """
    chosen = list(records)
    with ThreadPoolExecutor(4) as pool:
        identities = list(pool.map(_identity_of, [record.path for record in chosen]))
    _tell_of_copies(chosen, identities)
    names = [record.relative for record in chosen]
    return dict(zip(names, identities, strict=True))


def _tell_of_copies(records: Sequence[ImageRecord], identities: Sequence[str]) -> None:
    """Log a warning if an image is a copy: an earlier image with another path has the same content.

    Args:
        records: The images.
        identities: The identity of each image's file: its size and checksum.
    """
    first: dict[str, ImageRecord] = {}
    copies: dict[ImageRecord, ImageRecord] = {}
    for record, identity in zip(records, identities, strict=True):
        if identity == _ABSENT:
            continue
        original = first.setdefault(identity, record)
        if record.relative != original.relative:
            copies[record] = original
    if not copies:
        return
    copy, original = next(iter(copies.items()))
    elsewhere = sum(a.class_name != b.class_name for a, b in copies.items())
    say_once(
        log,
        f"{len(copies)} of {len(records)} images are the picture of another one, such as {copy.path} and "
        f"{original.path}; {elsewhere} of them are in another class than that. Folds that share pictures are more "
        "alike, which raises ceilings: keep each picture once.",
    )


def _identity_of(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()[:16]
            return f"{file.tell()} {checksum}"
    except OSError:
        return _ABSENT
