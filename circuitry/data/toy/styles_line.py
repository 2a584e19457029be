"""The two line styles: a hasty doodle and a pencil sketch. No torch."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from circuitry.data.toy.geometry import Part, Points, closed, length, resample
from circuitry.data.toy.styles_raster import OVERSAMPLE, mask_of, noise, pixels, to_image, unit

THIN = 0.085
"""A stroke thinner than this is one line of the pencil, a wider one shows both its rims."""


def quickdraw(parts: Sequence[Part], rng: np.random.Generator, side: int) -> Image.Image:
    """Draw a few wobbly thick black strokes on white: details missing, ends that do not meet."""
    large = OVERSAMPLE * side
    canvas = Image.new("L", (large, large), 255)
    pen = ImageDraw.Draw(canvas)
    width, shake, patience = rng.uniform(0.05, 0.08), rng.uniform(0.008, 0.022), rng.uniform(0.2, 0.7)
    for part in parts:
        if part.role == "detail" and rng.random() > patience:
            continue
        if part.width == 0:
            pen.polygon(pixels(part.points, large), fill=255)
        line = part.points if part.width > 0 else _reopened(part.points, rng)
        _stroke(pen, _wobbly(line, shake, rng), width, large)
    return canvas.reduce(OVERSAMPLE).convert("RGB")


def _reopened(points: Points, rng: np.random.Generator) -> Points:
    """Return the outline from a random start, stopping short of it or running past it."""
    start = int(rng.integers(len(points)))
    n = max(int(length(closed(points)) / 0.06), 12)
    dense = resample(closed(np.roll(points, -start, axis=0)), n)
    missing = round(n * rng.uniform(-0.05, 0.09))
    return dense[:-missing] if missing > 0 else np.concatenate([dense, dense[1 : 1 - missing]])


def _wobbly(points: Points, shake: float, rng: np.random.Generator) -> Points:
    """Return the line redrawn by an unsteady hand, which also rounds its corners a little."""
    reach = length(points)
    line = resample(points, max(int(reach / 0.09), 4))
    knots = max(int(reach / 0.35), 2)
    drift = rng.normal(0, shake, (knots, 2))
    at = np.linspace(0, knots - 1, len(line))
    return line + np.stack([np.interp(at, np.arange(knots), drift[:, axis]) for axis in (0, 1)], axis=1)


def _stroke(pen: ImageDraw.ImageDraw, line: Points, width: float, side: int) -> None:
    """Draw a black line with round ends."""
    flat, r = pixels(line, side), width * side / 4
    pen.line(flat, fill=0, width=round(2 * r), joint="curve")
    for x, y in (flat[:2], flat[-2:]):
        pen.ellipse((x - r, y - r, x + r, y + r), fill=0)


def sketch(parts: Sequence[Part], rng: np.random.Generator, side: int) -> Image.Image:
    """Draw thin repeated pencil lines and hatching on paper white."""
    large = OVERSAMPLE * side
    paper = 246
    canvas = Image.new("L", (large, large), paper)
    hatches = [_hatching(rng, large, paper, n) for n in (0, 1, 2)]
    shake = rng.uniform(0.006, 0.014)
    for part in parts:
        tone = 1 - float(np.dot(part.colour, (0.3, 0.59, 0.11)))
        dark = int(tone > 0.3) + int(tone > 0.6)
        if part.width == 0 or part.width >= THIN:
            canvas.paste(hatches[dark], mask=mask_of([part.area()], large))
        pen = ImageDraw.Draw(canvas)
        lines = part.rims() if part.width == 0 or part.width >= THIN else (part.points,)
        for line in lines:
            _pencil(pen, line, shake, 2 if part.role == "detail" else 3, rng, large)
    grain = 1 + 0.02 * rng.standard_normal((side, side), dtype=np.float32) + 0.012 * noise(rng, side, 3, 3)
    picture = unit(canvas.reduce(OVERSAMPLE)) * grain
    return to_image(picture[:, :, None] * rng.uniform(0.975, 1.0, 3).astype(np.float32))


def _pencil(
    pen: ImageDraw.ImageDraw, line: Points, shake: float, times: int, rng: np.random.Generator, side: int
) -> None:
    """Draw the same line several times, each a little off."""
    for _ in range(times):
        off = _wobbly(line, shake, rng) + rng.normal(0, 0.7 * shake, 2)
        pen.line(pixels(off, side), fill=int(rng.integers(40, 125)), width=max(round(0.011 * side), 1))


def _hatching(rng: np.random.Generator, side: int, paper: int, layers: int) -> Image.Image:
    """Return a sheet of paper covered with this many layers of parallel pencil lines."""
    sheet = Image.new("L", (side, side), paper)
    pen = ImageDraw.Draw(sheet)
    first = rng.uniform(20, 70) * rng.choice([-1, 1])
    for k in range(layers):
        angle = np.radians(first + 65 * k)
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        for at in np.arange(-1.4, 1.4, 0.095):
            ends = across * (at + rng.normal(0, 0.012)) + np.outer([-1.5, 1.5], along)
            pen.line(pixels(ends, side), fill=int(rng.integers(110, 175)), width=max(round(0.009 * side), 1))
    return sheet
