"""The styles without light: a clipart, an infographic with an icon, a hasty doodle, a pencil sketch. No torch."""

import colorsys
from collections.abc import Sequence

from experiments.drawn.geometry import (
    Colour,
    DrawnPiece,
    Outline,
    band,
    box,
    closed,
    ellipse,
    length,
    pick,
    placed,
    resample,
    rgb,
    shaded,
)
from experiments.drawn.styles_raster import (
    Canvas,
    mask_of,
    noise,
    pixels,
    to_image,
    unit,
)

import numpy as np
from PIL import Image

_PAPER = ("ffffff", "f7f7f4", "eef3f7", "fbf4e4")
_INK = "23232b"


def clipart(
    pieces: Sequence[DrawnPiece], rng: np.random.Generator, side: int
) -> Image.Image:
    """Draw flat saturated colours with a dark outline on a white or light ground."""
    ground = (
        rgb("ffffff")
        if rng.random() < 0.6
        else pick(rng, "eaf4fb", "fdf3d8", "f7e6ec", "e6f5e3", spread=0.02)
    )
    canvas = Canvas(side, ground)
    outline, dark = (
        rng.uniform(0.035, 0.055),
        pick(rng, _INK, "2b2018", "1f2a3a", spread=0.02),
    )
    if rng.random() < 0.25:
        disc = shaded(pick(rng, "f2d64b", "8fc9e8", "f3a6bd", "a8d8a0"), 1.45)
        canvas.fill(
            ellipse(rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1), 0.88, 0.88), disc
        )
    for piece in pieces:
        detail = piece.role == "detail"
        thin = 0.6 * outline if detail else outline
        colour = _saturated(piece.colour)
        if piece.width > 0:
            if not detail:
                canvas.fill(band(piece.points, piece.width + 1.2 * outline), dark)
            canvas.fill(
                band(piece.points, max(piece.width, thin) if detail else piece.width),
                colour,
            )
        else:
            canvas.fill(piece.points, colour)
            _outline(canvas, piece.points, thin, dark)
    return canvas.finished()


def _outline(canvas: Canvas, area: Outline, width: float, colour: Colour) -> None:
    ring = closed(area)
    canvas.fill(
        band(ring[np.append(True, np.hypot(*np.diff(ring, axis=0).T) > 1e-6)], width),
        colour,
    )


def _saturated(colour: Colour) -> Colour:
    """Return the colour as a paint program would offer it: fuller and brighter, greys left grey."""
    hue, saturation, value = colorsys.rgb_to_hsv(*colour)
    if saturation < 0.15:
        return colour
    return colorsys.hsv_to_rgb(
        hue, min(1.35 * saturation + 0.1, 1.0), min(0.8 * value + 0.25, 1.0)
    )


def infograph(
    pieces: Sequence[DrawnPiece], rng: np.random.Generator, side: int
) -> Image.Image:
    """Draw a flat icon of few colours on a panel, among bars, charts and lines of text."""
    theme = pick(
        rng,
        "2f7fb5",
        "e0702a",
        "3fa07a",
        "b5475f",
        "6a5fb0",
        "e0a82a",
        "3a4a5f",
        spread=0.03,
    )
    second = pick(
        rng, "f2c230", "e0605f", "5fc0c9", "8dbb4f", "f08a3c", "5a6f8f", spread=0.03
    )
    ground = (
        pick(rng, *_PAPER, spread=0.01) if rng.random() < 0.7 else shaded(theme, 1.75)
    )
    canvas = Canvas(side, ground)
    canvas.fill(box(-1, -1, 1, -0.78), theme)
    _text(
        canvas,
        rng,
        (-0.9, -0.93, rng.uniform(0.9, 1.5)),
        1,
        shaded(theme, 1.85),
        height=0.09,
    )
    right, low = rng.random() < 0.5, rng.random() < 0.35
    if low:
        x, y, half = rng.uniform(-0.35, 0.35), -0.17, 0.5
        slots = [(-0.92, 0.45), (0.04, 0.45)]
    else:
        x, y, half = (0.36 if right else -0.36), rng.uniform(-0.12, 0.3), 0.54
        edge = -0.94 if right else 0.28
        slots = [(edge, -0.62), (edge, 0.16)]
    _panel(canvas, rng.random(), (x, y, half + 0.08), ground, theme)
    _icon(canvas, placed(pieces, x, y, half), theme, second)
    for left, top in slots:
        block = (_bars, _pie, _column)[int(rng.integers(3))]
        block(canvas, rng, left, top, (theme, second))
    if not low:
        _text(canvas, rng, (-0.9, 0.9, 1.7), 1, (0.72, 0.72, 0.74))
    return canvas.finished()


def _panel(
    canvas: Canvas,
    kind: float,
    place: tuple[float, float, float],
    ground: Colour,
    theme: Colour,
) -> None:
    """Draw what the icon stands on, a disc, a framed box or nothing, round a place and this far from it."""
    x, y, half = place
    if kind < 0.4:
        canvas.fill(ellipse(x, y, half, half), shaded(theme, 1.72))
    elif kind < 0.75:
        for reach, colour in (
            (half, shaded(theme, 1.5)),
            (half - 0.04, shaded(ground, 1.6)),
        ):
            canvas.fill(box(x - reach, y - reach, x + reach, y + reach), colour)


def _icon(
    canvas: Canvas, pieces: Sequence[DrawnPiece], theme: Colour, second: Colour
) -> None:
    """Draw the thing in the colours of the chart: each natural tone takes the nearest of five."""
    tones = (
        shaded(theme, 0.45),
        shaded(theme, 0.8),
        second,
        shaded(theme, 1.4),
        (1.0, 1.0, 1.0),
    )
    used: dict[Colour, Colour] = {}
    for piece in pieces:
        if piece.colour not in used:
            level = min(int(5 * float(np.dot(piece.colour, (0.3, 0.59, 0.11)))), 4)
            free = [tone for tone in tones if tone not in used.values()] or list(tones)
            used[piece.colour] = min(
                free, key=lambda tone: abs(tones.index(tone) - level)
            )
        canvas.fill(piece.area(), used[piece.colour])
        # White on a white panel needs a line round it.
        if used[piece.colour] == tones[-1] and piece.role != "detail":
            _outline(canvas, piece.area(), 0.03, tones[0])


def _text(
    canvas: Canvas,
    rng: np.random.Generator,
    place: tuple[float, float, float],
    lines: int,
    colour: Colour,
    height: float = 0.05,
) -> None:
    """Draw lines of text too small to read, words as short bars, from left and top in this width."""
    left, top, wide = place
    for k in range(lines):
        x, y, end = left, top + 2 * k * height, left + wide * rng.uniform(0.7, 1.0)
        while x < end - 0.05:
            word = min(rng.uniform(0.08, 0.26), end - x)
            canvas.fill(box(x, y, x + word, y + height), colour)
            x += word + 0.045


def _bars(
    canvas: Canvas,
    rng: np.random.Generator,
    left: float,
    top: float,
    colours: Sequence[Colour],
) -> None:
    """Draw a small bar chart, 0.66 x 0.5."""
    n = int(rng.integers(3, 6))
    step = 0.62 / n
    for k in range(n):
        high = rng.uniform(0.12, 0.44)
        x = left + 0.02 + k * step
        canvas.fill(
            box(x, top + 0.46 - high, x + 0.7 * step, top + 0.46),
            colours[int(rng.integers(2))],
        )
    canvas.fill(box(left, top + 0.46, left + 0.66, top + 0.49), (0.45, 0.45, 0.5))


def _pie(
    canvas: Canvas,
    rng: np.random.Generator,
    left: float,
    top: float,
    colours: Sequence[Colour],
) -> None:
    """Draw a small pie chart, half of them rings."""
    x, y, start = left + 0.33, top + 0.25, rng.uniform(0, 360)
    for k, share in enumerate((360.0, rng.uniform(150, 260), rng.uniform(40, 120))):
        slice_ = np.concatenate(
            [[[x, y]], ellipse(x, y, 0.25, 0.25, start, start + share)]
        )
        canvas.fill(slice_, (*colours, shaded(colours[0], 1.5))[k])
    if rng.random() < 0.5:
        canvas.fill(ellipse(x, y, 0.12, 0.12), (1.0, 1.0, 1.0))


def _column(
    canvas: Canvas,
    rng: np.random.Generator,
    left: float,
    top: float,
    colours: Sequence[Colour],
) -> None:
    """Draw a heading and a few lines of text."""
    _text(canvas, rng, (left, top + 0.02, 0.5), 1, colours[0], height=0.08)
    _text(
        canvas, rng, (left, top + 0.17, 0.66), int(rng.integers(3, 5)), (0.6, 0.6, 0.64)
    )


_WHITE = 246
"""Grey value of paper white."""
THIN = 0.085
"""A stroke thinner than this is one line of the pencil, a wider one shows both its rims."""


def quickdraw(
    pieces: Sequence[DrawnPiece],
    rng: np.random.Generator,
    side: int,
    *,
    sparse: bool = False,
) -> Image.Image:
    """Draw a few wobbly thick black strokes on white: details missing, ends that do not meet.

    With ``sparse`` strokes are thinner, and a sixth to two fifths of each outline is missing.
    """
    canvas = Canvas(side, 255)
    width, shake, patience = (
        rng.uniform(0.05, 0.08),
        rng.uniform(0.008, 0.022),
        rng.uniform(0.2, 0.7),
    )
    for piece in pieces:
        if piece.role == "detail" and rng.random() > patience:
            continue
        if piece.width == 0:
            canvas.fill(piece.points, 255)
        line = piece.points if piece.width > 0 else _reopened(piece.points, rng)
        line = _wobbly(line, shake, rng)
        for stroke in _broken(line, rng) if sparse else (line,):
            _stroke(canvas, stroke, 0.7 * width if sparse else width)
    return canvas.finished().convert("RGB")


def _broken(line: Outline, rng: np.random.Generator) -> list[Outline]:
    """Return the pieces of a line that a hasty hand draws: one or two, with a gap after each."""
    dense = resample(line, max(len(line), 12))
    pieces = np.array_split(dense, int(rng.integers(1, 3)))
    return [
        piece[: max(2, round(len(piece) * rng.uniform(0.6, 0.85)))] for piece in pieces
    ]


def _reopened(points: Outline, rng: np.random.Generator) -> Outline:
    """Return the outline from a random start, stopping short of it or running past it."""
    start = int(rng.integers(len(points)))
    n = max(int(length(closed(points)) / 0.06), 12)
    dense = resample(closed(np.roll(points, -start, axis=0)), n)
    missing = round(n * rng.uniform(-0.05, 0.09))
    return (
        dense[:-missing]
        if missing > 0
        else np.concatenate([dense, dense[1 : 1 - missing]])
    )


def _wobbly(points: Outline, shake: float, rng: np.random.Generator) -> Outline:
    """Return the line redrawn by an unsteady hand, which also rounds its corners a little."""
    reach = length(points)
    line = resample(points, max(int(reach / 0.09), 4))
    knots = max(int(reach / 0.35), 2)
    drift = rng.normal(0, shake, (knots, 2))
    at = np.linspace(0, knots - 1, len(line))
    return line + np.stack(
        [np.interp(at, np.arange(knots), drift[:, axis]) for axis in (0, 1)], axis=1
    )


def _stroke(canvas: Canvas, line: Outline, width: float) -> None:
    """Draw a black line with round corners and ends."""
    flat, r = pixels(line, canvas.side), width * canvas.side / 4
    canvas.pen.line(flat, fill=0, width=round(2 * r), joint="curve")
    for x, y in (flat[:2], flat[-2:]):
        canvas.pen.ellipse((x - r, y - r, x + r, y + r), fill=0)


def sketch(
    pieces: Sequence[DrawnPiece], rng: np.random.Generator, side: int
) -> Image.Image:
    """Draw thin repeated pencil lines and hatching on paper white."""
    canvas = Canvas(side, _WHITE)
    hatches = [_hatching(rng, side, n) for n in (0, 1, 2)]
    shake = rng.uniform(0.006, 0.014)
    for piece in pieces:
        tone = 1 - float(np.dot(piece.colour, (0.3, 0.59, 0.11)))
        dark = int(tone > 0.3) + int(tone > 0.6)
        wide = piece.width == 0 or piece.width >= THIN
        if wide:
            canvas.image.paste(hatches[dark], mask=mask_of([piece], side).image)
        for line in piece.rims() if wide else (piece.points,):
            for _ in range(
                2 if piece.role == "detail" else 3
            ):  # the same line again, a little off
                off = _wobbly(line, shake, rng) + rng.normal(0, 0.7 * shake, 2)
                canvas.line(off, int(rng.integers(40, 125)), 0.011)
    grain = (
        1
        + 0.02 * rng.standard_normal((side, side), dtype=np.float32)
        + 0.012 * noise(rng, side, 3, 3)
    )
    picture = unit(canvas.finished()) * grain
    return to_image(picture[:, :, None] * rng.uniform(0.975, 1.0, 3).astype(np.float32))


def _hatching(rng: np.random.Generator, side: int, layers: int) -> Image.Image:
    """Return a sheet of paper covered with this many layers of parallel pencil lines."""
    sheet = Canvas(side, _WHITE)
    first = rng.uniform(20, 70) * rng.choice([-1, 1])
    for k in range(layers):
        angle = np.radians(first + 65 * k)
        along, across = (
            np.array([np.cos(angle), np.sin(angle)]),
            np.array([-np.sin(angle), np.cos(angle)]),
        )
        for at in np.arange(-1.4, 1.4, 0.095):
            ends = across * (at + rng.normal(0, 0.012)) + np.outer([-1.5, 1.5], along)
            sheet.line(ends, int(rng.integers(110, 175)), 0.009)
    return sheet.image
