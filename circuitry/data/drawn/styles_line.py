"""The two line styles: a hasty doodle and a pencil sketch. No torch."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from circuitry.data.drawn.geometry import DrawnPart, Outline, closed, length, resample
from circuitry.data.drawn.styles_raster import Canvas, mask_of, noise, pixels, to_image, unit

_PAPER = 246
"""Grey value of paper white."""
THIN = 0.085
"""A stroke thinner than this is one line of the pencil, a wider one shows both its rims."""


def quickdraw(parts: Sequence[DrawnPart], rng: np.random.Generator, side: int) -> Image.Image:
    """Draw a few wobbly thick black strokes on white: details missing, ends that do not meet."""
    canvas = Canvas(side, 255)
    width, shake, patience = rng.uniform(0.05, 0.08), rng.uniform(0.008, 0.022), rng.uniform(0.2, 0.7)
    for part in parts:
        if part.role == "detail" and rng.random() > patience:
            continue
        if part.width == 0:
            canvas.fill(part.points, 255)
        line = part.points if part.width > 0 else _reopened(part.points, rng)
        _stroke(canvas, _wobbly(line, shake, rng), width)
    return canvas.finished().convert("RGB")


def _reopened(points: Outline, rng: np.random.Generator) -> Outline:
    """Return the outline from a random start, stopping short of it or running past it."""
    start = int(rng.integers(len(points)))
    n = max(int(length(closed(points)) / 0.06), 12)
    dense = resample(closed(np.roll(points, -start, axis=0)), n)
    missing = round(n * rng.uniform(-0.05, 0.09))
    return dense[:-missing] if missing > 0 else np.concatenate([dense, dense[1 : 1 - missing]])


def _wobbly(points: Outline, shake: float, rng: np.random.Generator) -> Outline:
    """Return the line redrawn by an unsteady hand, which also rounds its corners a little."""
    reach = length(points)
    line = resample(points, max(int(reach / 0.09), 4))
    knots = max(int(reach / 0.35), 2)
    drift = rng.normal(0, shake, (knots, 2))
    at = np.linspace(0, knots - 1, len(line))
    return line + np.stack([np.interp(at, np.arange(knots), drift[:, axis]) for axis in (0, 1)], axis=1)


def _stroke(canvas: Canvas, line: Outline, width: float) -> None:
    """Draw a black line with round corners and ends."""
    flat, r = pixels(line, canvas.side), width * canvas.side / 4
    canvas.pen.line(flat, fill=0, width=round(2 * r), joint="curve")
    for x, y in (flat[:2], flat[-2:]):
        canvas.pen.ellipse((x - r, y - r, x + r, y + r), fill=0)


def sketch(parts: Sequence[DrawnPart], rng: np.random.Generator, side: int) -> Image.Image:
    """Draw thin repeated pencil lines and hatching on paper white."""
    canvas = Canvas(side, _PAPER)
    hatches = [_hatching(rng, side, n) for n in (0, 1, 2)]
    shake = rng.uniform(0.006, 0.014)
    for part in parts:
        tone = 1 - float(np.dot(part.colour, (0.3, 0.59, 0.11)))
        dark = int(tone > 0.3) + int(tone > 0.6)
        wide = part.width == 0 or part.width >= THIN
        if wide:
            canvas.image.paste(hatches[dark], mask=mask_of([part], side).image)
        for line in part.rims() if wide else (part.points,):
            for _ in range(2 if part.role == "detail" else 3):  # the same line again, a little off
                off = _wobbly(line, shake, rng) + rng.normal(0, 0.7 * shake, 2)
                canvas.line(off, int(rng.integers(40, 125)), 0.011)
    grain = 1 + 0.02 * rng.standard_normal((side, side), dtype=np.float32) + 0.012 * noise(rng, side, 3, 3)
    picture = unit(canvas.finished()) * grain
    return to_image(picture[:, :, None] * rng.uniform(0.975, 1.0, 3).astype(np.float32))


def _hatching(rng: np.random.Generator, side: int, layers: int) -> Image.Image:
    """Return a sheet of paper covered with this many layers of parallel pencil lines."""
    sheet = Canvas(side, _PAPER)
    first = rng.uniform(20, 70) * rng.choice([-1, 1])
    for k in range(layers):
        angle = np.radians(first + 65 * k)
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        for at in np.arange(-1.4, 1.4, 0.095):
            ends = across * (at + rng.normal(0, 0.012)) + np.outer([-1.5, 1.5], along)
            sheet.line(ends, int(rng.integers(110, 175)), 0.009)
    return sheet.image
