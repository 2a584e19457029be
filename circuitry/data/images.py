"""From an image file to an upright 8-bit RGB picture, whatever the file holds, or to the picture as stored. No torch.

Upright: EXIF orientation is applied, transparency composited over white, 16-bit grey scaled (never clipped), CMYK and
palettes are converted. As stored: the picture as Pillow opens it, as in the study; open_clip's transform then resizes
it in its own mode and converts it to RGB, which ignores orientation and transparency. A file that cannot be read is an
`InputError` that names the file and the reason.
"""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from circuitry.data.domains import ImageRecord
from circuitry.data.shared_options import Decoding as Decoding
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked

MOST_STRETCHED = 1000
"""How many times as long as wide an image may be: a model's transform enlarges its short side to 224 pixels."""


@checked
def load_image(path: str | os.PathLike[str], decoding: Decoding = "upright") -> Image.Image:
    """Read an image file as an upright 8-bit RGB picture, or as stored; animations give their first frame.

    Raises:
        InputError: For a file that is missing, empty, truncated, no image, of a kind without a defined 8-bit
            range, or more than `MOST_STRETCHED` times as long as wide.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"Cannot read {file}: {'it is a folder' if file.is_dir() else 'there is no such file'}.")
    if file.stat().st_size == 0:
        raise InputError(f"Cannot read {file}: the file is empty.")
    try:
        with Image.open(file) as image:
            if max(image.size) > MOST_STRETCHED * min(image.size):
                raise ValueError(f"it has {image.width} x {image.height} pixels, too long and thin to be resized")
            if decoding == "upright":
                return upright(image)
            image.load()
            return image.copy()
    except UnidentifiedImageError:
        raise InputError(f"Cannot read {file}: it is not an image in a known format.") from None
    except Exception as error:  # decoders of broken files raise almost anything (OSError, SyntaxError, struct.error)
        raise InputError(f"Cannot read {file}: {reason_of(error)}.") from error


def reason_of(error: Exception) -> str:
    """Return the message of an error, or its kind if it has none, without a full stop."""
    return str(error).strip().rstrip(".") or type(error).__name__


def upright(image: Image.Image) -> Image.Image:
    """Return a picture upright, in 8-bit RGB over white; ValueError for pixels without a defined range."""
    image = ImageOps.exif_transpose(image)
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


def image_listing(records: Iterable[ImageRecord]) -> dict[str, str]:
    """Return the identity of each image's file: path below the root -> its size in bytes and its checksum.

    For `runs.manifest.claim`, so that results notice replaced, repaired and other images. A missing file is
    ``absent``.

    Example:
        >>> image_listing(images.select("cat", "sketch"))
        {'sketch/cat/1.png': '2301 9f86d081884c7d65', ...}
    """
    chosen = list(records)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(_identified, [record.path for record in chosen]))
    return {record.relative: one for record, one in zip(chosen, found, strict=True)}


def _identified(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()[:16]
            return f"{file.tell()} {checksum}"
    except OSError:
        return "absent"
