"""From unit coordinates to pixels: the few raster operations the styles share. No torch."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFilter

from circuitry.data.toy.geometry import Colour, Part, Points

OVERSAMPLE = 3
"""Shapes are drawn this many times larger and averaged down, since Pillow draws hard edges."""

Plane = Float[np.ndarray, "side side"]
Picture = Float[np.ndarray, "side side 3"]


def pixels(points: Points, side: int) -> list[float]:
    """Return x, y, x, y, ... in pixels, as Pillow takes them."""
    flat: list[float] = ((points + 1) * (side / 2)).ravel().tolist()
    return flat


def ink(colour: Colour) -> tuple[int, int, int]:
    """Return the colour in 0..255."""
    red, green, blue = (round(255 * min(max(channel, 0.0), 1.0)) for channel in colour)
    return red, green, blue


def fill(pen: ImageDraw.ImageDraw, points: Points, colour: Colour, side: int) -> None:
    """Fill the area inside ``points``."""
    pen.polygon(pixels(points, side), fill=ink(colour))


def mask_of(areas: Sequence[Points], side: int) -> Image.Image:
    """Return a picture of mode L, ``side`` x ``side``: 255 inside any of the areas, hard edges."""
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    for area in areas:
        pen.polygon(pixels(area, side), fill=255)
    return mask


def coverage(parts: Sequence[Part], side: int) -> Plane:
    """Return the share of each pixel that the parts cover, 0 to 1, [side, side]."""
    mask = mask_of([part.area() for part in parts], OVERSAMPLE * side)
    return unit(mask.reduce(OVERSAMPLE))


def unit(image: Image.Image) -> Float[np.ndarray, "..."]:
    """Return pixel values from 0 to 1."""
    return np.asarray(image, dtype=np.float32) / 255


def to_image(picture: Picture) -> Image.Image:
    """Return the RGB picture of values from 0 to 1; values outside are clipped."""
    return Image.fromarray((picture.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def blurred(plane: Plane, radius: float) -> Plane:
    """Return the Gaussian blur of a plane of values from 0 to 1; the radius is in pixels."""
    image = Image.fromarray((plane.clip(0, 1) * 255).astype(np.uint8))
    return unit(image.filter(ImageFilter.GaussianBlur(radius)))


def noise(rng: np.random.Generator, side: int, columns: int, rows: int) -> Plane:
    """Draw smooth noise of mean 0 and deviation near 1, about ``columns`` x ``rows`` blobs, [side, side]."""
    coarse = Image.fromarray(rng.standard_normal((rows + 2, columns + 2)).astype(np.float32))
    inner = (0.5, 0.5, columns + 1.5, rows + 1.5)
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC, box=inner))
