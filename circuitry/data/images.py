"""From an image file to an upright 8-bit RGB picture, whatever the file holds. No torch.

EXIF orientation is applied, transparency composited over white, 16-bit grey scaled (never clipped), CMYK and palettes
are converted. A file that cannot be read is an `InputError` that names the file and the reason.
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from circuitry.runs.errors import InputError


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
