"""Pieces of a vector drawing, and the few curves all toy drawings are made of. No torch.

Coordinates are unit coordinates: x to the right and y downwards, both from -1 to 1 across the picture.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

Number = float | int  # beartype, unlike mypy, does not take an int for a float
Outline = Float[np.ndarray, "_ 2"]
Colour = tuple[float, float, float]
Role = Literal["body", "accent", "detail"]


@dataclass(frozen=True)
class DrawnPiece:
    """One area or one stroke of a drawing; later pieces cover earlier ones."""

    points: Outline
    """Corners of the area, or the centre line of the stroke, in unit coordinates."""
    role: Role
    """body and accent make the shape; a detail may be missing in a hasty drawing."""
    colour: Colour
    """Natural colour, red green blue from 0 to 1."""
    width: float = 0.0
    """Width of the stroke in unit coordinates; 0 for an area."""

    def area(self) -> Outline:
        """Return the corners of the filled area, [points, 2]; of a ring, both rims joined by a cut of no width."""
        return band(self.points, self.width) if self.width > 0 else self.points

    def rims(self) -> tuple[Outline, ...]:
        """Return the closed outlines of the area: two for a stroke that ends where it begins, else one."""
        area = self.area()
        if self.width == 0 or not np.allclose(self.points[0], self.points[-1]):
            return (closed(area),)
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
    """Return points of an ellipse from ``start`` to ``stop`` degrees, both included; 0 is right, 90 is down."""
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
    if closed_curve:
        knots = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        knots = np.concatenate(
            [2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]]
        )
    before, start, stop, after = knots[:-3], knots[1:-2], knots[2:-1], knots[3:]
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    curve = 0.5 * (
        2 * start[:, None]
        + (stop - before)[:, None] * t
        + (2 * before - 5 * start + 4 * stop - after)[:, None] * t**2
        + (3 * start - before - 3 * stop + after)[:, None] * t**3
    ).reshape(-1, 2)
    return curve if closed_curve else np.concatenate([curve, stop[-1:]])


def band(points: Outline, width: float) -> Outline:
    """Return the corners of the stroke of this width along ``points``: one side forth, the other back."""
    ring = bool(np.allclose(points[0], points[-1]))
    steps = np.diff(points, axis=0)
    lengths = np.maximum(np.hypot(steps[:, 0], steps[:, 1]), 1e-9)
    normals = np.stack([-steps[:, 1], steps[:, 0]], axis=1) / lengths[:, None]
    first, last = (normals[-1:], normals[:1]) if ring else (normals[:1], normals[-1:])
    before, after = np.concatenate([first, normals]), np.concatenate([normals, last])
    middle = before + after
    # A mitre grows without bound at a sharp corner: never longer than twice the half width.
    squared = np.maximum((middle**2).sum(axis=1, keepdims=True), 1.0)
    offset = middle / squared * width
    return np.concatenate([points + offset, (points - offset)[::-1]])


def resample(points: Outline, n: int) -> Outline:
    """Return ``n`` points equally spaced along the line through ``points``, ends included."""
    steps = np.hypot(*np.diff(points, axis=0).T)
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
    """Return the pieces moved and scaled: their bounding box has centre (x, y), its longer side is 2 ``half``."""
    corners = np.concatenate([piece.area() for piece in pieces])
    low, high = corners.min(axis=0), corners.max(axis=0)
    scale = 2 * half / float((high - low).max())
    shift = np.array([x, y]) - scale * (low + high) / 2
    return tuple(
        replace(piece, points=piece.points * scale + shift, width=piece.width * scale)
        for piece in pieces
    )


def pick(rng: np.random.Generator, *palette: str, spread: float = 0.05) -> Colour:
    """Draw one colour (``rrggbb``) of the palette, its hue, saturation and value varied by about ``spread``."""
    return varied(rng, rgb(palette[int(rng.integers(len(palette)))]), spread)


def rgb(code: str) -> Colour:
    """Return the colour written ``rrggbb``."""
    red, green, blue = (int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue


def varied(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    """Return the colour with its hue, saturation and value varied by about ``spread``."""
    hue, saturation, value = colorsys.rgb_to_hsv(*colour)
    turn, fade, lift = rng.normal(0, spread, 3)
    saturation, value = (
        min(max(channel, 0.0), 1.0) for channel in (saturation + fade, value + lift)
    )
    return colorsys.hsv_to_rgb((hue + 0.4 * turn) % 1, saturation, value)


def shaded(colour: Colour, factor: float) -> Colour:
    """Return the colour made darker (factor below 1) or lighter towards white (above 1, up to 2)."""
    if factor <= 1:
        red, green, blue = (channel * factor for channel in colour)
    else:
        red, green, blue = (
            channel + (1 - channel) * (factor - 1) for channel in colour
        )
    return red, green, blue
