"""Pieces of a vector drawing, and the few curves that all toy drawings consist of. Does not import torch.

Coordinates are unit coordinates: x points to the right and y downwards, and both run from -1 to 1 across the picture.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

# beartype, unlike mypy, does not take an int for a float.
Number = float | int
Outline = Float[np.ndarray, "_ 2"]
Colour = tuple[float, float, float]
Role = Literal["body", "accent", "detail"]


@dataclass(frozen=True)
class DrawnPiece:
    """One area or one stroke of a drawing; later pieces cover earlier ones."""

    points: Outline
    """Corners of the area, or the centre line of the stroke, in unit coordinates."""
    role: Role
    """The pieces with the roles body and accent make up the shape. A detail may be missing in a hasty drawing."""
    colour: Colour
    """Natural colour: red, green and blue from 0 to 1."""
    width: float = 0.0
    """Width of the stroke in unit coordinates; 0 for an area."""

    def area(self) -> Outline:
        """Return the corners of the filled area [points, 2]. A ring is cut open, so that it has a single outline."""
        return band(self.points, self.width) if self.width > 0 else self.points

    def rims(self) -> tuple[Outline, ...]:
        """Return the closed outlines of the area: two outlines for a stroke that ends where it begins, else one."""
        area = self.area()
        if self.width == 0 or not np.allclose(self.points[0], self.points[-1]):
            return (closed(area),)
        # `band` runs along one rim of a ring and then back along the other rim.
        half = len(area) // 2
        return area[:half], area[half:]


def closed(points: Outline) -> Outline:
    """Return the outline with its first point again at the end."""
    return np.concatenate([points, points[:1]])


def ellipse(
    x: Number,
    y: Number,
    rx: Number,
    ry: Number,
    start: Number = 0,
    stop: Number = 360,
    *,
    n: int = 28,
) -> Outline:
    """Return ``n`` points of the ellipse from ``start`` to ``stop`` degrees, ends included; 0 is right, 90 is down."""
    angle = np.radians(np.linspace(start, stop, n))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def polygon(*corners: tuple[Number, Number]) -> Outline:
    """Return the corners as an array."""
    return np.array(corners, dtype=float)


def box(left: Number, top: Number, right: Number, bottom: Number) -> Outline:
    """Return the four corners of an upright rectangle."""
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def smooth(
    *corners: tuple[Number, Number], closed_curve: bool = True, steps: int = 6
) -> Outline:
    """Return points of the Catmull-Rom curve through the corners."""
    knots = np.array(corners, dtype=float)
    # Each segment needs a neighbour on both sides. A closed curve goes on at its other end; an open curve is extended
    # by the mirror image of its last segment.
    if closed_curve:
        knots = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        knots = np.concatenate(
            [2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]]
        )
    before = knots[:-3]
    start = knots[1:-2]
    stop = knots[2:-1]
    after = knots[3:]
    # [segments, steps, 2] after broadcasting; a segment's end is the start of the next segment.
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    curve = 0.5 * (
        2 * start[:, None]
        + (stop - before)[:, None] * t
        + (2 * before - 5 * start + 4 * stop - after)[:, None] * t**2
        + (3 * start - before - 3 * stop + after)[:, None] * t**3
    ).reshape(-1, 2)
    return curve if closed_curve else np.concatenate([curve, stop[-1:]])


def band(points: Outline, width: float) -> Outline:
    """Return the corners of the stroke of this width along ``points``: along one side, then back along the other."""
    steps = np.diff(points, axis=0)
    # Two equal points have no direction; the bound avoids a division by zero.
    lengths = np.maximum(np.hypot(steps[:, 0], steps[:, 1]), 1e-9)
    normals = np.stack([-steps[:, 1], steps[:, 0]], axis=1) / lengths[:, None]
    # Each point has the normals of the segments before and after it. The ends of a ring are neighbours.
    ends = [normals[:1], normals[-1:]]
    if np.allclose(points[0], points[-1]):
        ends.reverse()
    before = np.concatenate([ends[0], normals])
    after = np.concatenate([normals, ends[1]])
    middle = before + after
    # A mitre grows without bound at a sharp corner: never longer than twice the half width.
    squared = np.maximum((middle**2).sum(axis=1, keepdims=True), 1.0)
    offset = middle / squared * width
    return np.concatenate([points + offset, (points - offset)[::-1]])


def resample(points: Outline, n: int) -> Outline:
    """Return ``n`` points equally spaced along the line through ``points``, ends included."""
    steps = np.hypot(*np.diff(points, axis=0).T)
    # The distance along the line from its first point to each point.
    travelled = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.linspace(0, travelled[-1], n)
    return np.stack(
        [
            np.interp(at, travelled, points[:, 0]),
            np.interp(at, travelled, points[:, 1]),
        ],
        axis=1,
    )


def length(points: Outline) -> float:
    """Return the length of the line through ``points``, in unit coordinates."""
    return float(np.hypot(*np.diff(points, axis=0).T).sum())


def placed(
    pieces: Sequence[DrawnPiece], x: Number, y: Number, half: Number
) -> tuple[DrawnPiece, ...]:
    """Move and scale pieces together, until their bounding box has the centre (x, y) and the longer side 2 ``half``."""
    corners = np.concatenate([piece.area() for piece in pieces])
    low = corners.min(axis=0)
    high = corners.max(axis=0)
    # One scale for both axes keeps the proportions; strokes become wider in proportion.
    scale = 2 * half / float((high - low).max())
    shift = np.array([x, y]) - scale * (low + high) / 2
    return tuple(
        replace(piece, points=piece.points * scale + shift, width=piece.width * scale)
        for piece in pieces
    )


def pick(rng: np.random.Generator, *palette: str, spread: float = 0.05) -> Colour:
    """Draw a random colour (``rrggbb``) of the palette, and vary its hue, saturation and value by about ``spread``."""
    return varied(rng, rgb(palette[int(rng.integers(len(palette)))]), spread)


def rgb(code: str) -> Colour:
    """Return the colour that is written ``rrggbb``."""
    red, green, blue = bytes.fromhex(code)
    return red / 255, green / 255, blue / 255


def varied(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    """Return the colour after its hue, saturation and value are varied by about ``spread``."""
    hue, saturation, value = colorsys.rgb_to_hsv(*colour)
    turn, fade, lift = rng.normal(0, spread, 3)
    saturation = min(max(saturation + fade, 0.0), 1.0)
    value = min(max(value + lift, 0.0), 1.0)
    # Hue is a circle, and changes of it show more than changes of the other two.
    return colorsys.hsv_to_rgb((hue + 0.4 * turn) % 1, saturation, value)


def shaded(colour: Colour, factor: float) -> Colour:
    """Return a darker colour for a factor below 1, or a colour nearer to white for a factor from 1 to 2."""
    channels = np.array(colour)
    if factor <= 1:
        channels *= factor
    else:
        channels += (1 - channels) * (factor - 1)
    red, green, blue = channels.tolist()
    return red, green, blue
