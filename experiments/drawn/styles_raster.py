"""The few raster operations that the styles share, from unit coordinates to pixels. Does not import torch."""

from collections.abc import Sequence

from experiments.drawn.geometry import Colour, DrawnPiece, Outline

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFilter

OVERSAMPLE = 3
"""Pictures are drawn this many times larger and are then averaged down, since Pillow draws hard edges."""

Plane = Float[np.ndarray, "side side"]
Picture = Float[np.ndarray, "side side 3"]


def pixels(points: Outline, side: int) -> list[float]:
    """Return x, y, x, y, ... in pixels, as Pillow takes them."""
    flat: list[float] = ((points + 1) * (side / 2)).ravel().tolist()
    return flat


class Canvas:
    """A canvas for drawing in unit coordinates; it is `OVERSAMPLE` times as large as the finished picture.

    Args:
        side: Pixels of a side of the finished picture.
        ground: The RGB colour or the grey value (0 to 255) of the ground, or a picture to draw on.
    """

    def __init__(self, side: int, ground: Colour | int | Picture) -> None:
        self.side = OVERSAMPLE * side
        size = (self.side, self.side)
        if isinstance(ground, np.ndarray):
            self.image = to_image(ground).resize(size, Image.Resampling.BILINEAR)
        else:
            # Pillow's "L" has a single channel, of grey values.
            mode = "L" if isinstance(ground, int) else "RGB"
            self.image = Image.new(mode, size, _ink(ground))
        self.pen = ImageDraw.Draw(self.image)

    def fill(self, points: Outline, colour: Colour | int) -> None:
        """Fill the area inside ``points``."""
        self.pen.polygon(pixels(points, self.side), fill=_ink(colour))

    def line(self, points: Outline, colour: Colour | int, width: float) -> None:
        """Draw a line whose width is a share of the side."""
        self.pen.line(
            pixels(points, self.side),
            fill=_ink(colour),
            width=max(round(width * self.side), 1),
        )

    def finished(self) -> Image.Image:
        """Return the picture in its final size."""
        return self.image.reduce(OVERSAMPLE)


def _ink(colour: Colour | int) -> tuple[int, ...] | int:
    """Return a colour as Pillow takes it: channels from 0 to 1 become 0 to 255, a grey value stays as it is."""
    if isinstance(colour, int):
        return colour
    return tuple(round(255 * min(max(channel, 0.0), 1.0)) for channel in colour)


def mask_of(pieces: Sequence[DrawnPiece], side: int) -> Canvas:
    """Return a canvas that is white inside the pieces and black elsewhere."""
    mask = Canvas(side, 0)
    for piece in pieces:
        mask.fill(piece.area(), 255)
    return mask


def coverage(pieces: Sequence[DrawnPiece], side: int) -> Plane:
    """Return the share of each pixel that the pieces cover, 0 to 1, [side, side]."""
    return unit(mask_of(pieces, side).finished())


def unit(image: Image.Image) -> Float[np.ndarray, "..."]:
    """Return pixel values from 0 to 1."""
    return np.asarray(image, dtype=np.float32) / 255


def to_image(picture: Picture) -> Image.Image:
    """Return the picture as an image; values below 0 or above 1 are clipped."""
    # Half is added, since the conversion to integers rounds down.
    return Image.fromarray((picture.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def blurred(plane: Plane, radius: float) -> Plane:
    """Return the Gaussian blur of a plane of values from 0 to 1; the radius is in pixels."""
    # Pillow blurs bytes only.
    image = Image.fromarray((plane.clip(0, 1) * 255).astype(np.uint8))
    return unit(image.filter(ImageFilter.GaussianBlur(radius)))


def noise(rng: np.random.Generator, side: int, columns: int, rows: int) -> Plane:
    """Draw smooth noise [side, side] with about ``columns`` x ``rows`` blobs, of mean 0 and deviation near 1."""
    values = rng.standard_normal((rows + 2, columns + 2)).astype(np.float32)
    coarse = Image.fromarray(values)
    # Half a blob is cut off at each side, where the interpolation lacks neighbours.
    inner = (0.5, 0.5, columns + 1.5, rows + 1.5)
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC, box=inner))
