"""The styles without light: a clipart, an infographic with an icon, a hasty doodle and a pencil sketch.

The order in which a style takes random numbers must not change, because another order gives other pictures.

Does not import torch.
"""

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
    ground = rgb("ffffff")
    if rng.random() >= 0.6:
        ground = pick(rng, "eaf4fb", "fdf3d8", "f7e6ec", "e6f5e3", spread=0.02)
    canvas = Canvas(side, ground)
    outline = rng.uniform(0.035, 0.055)
    dark = pick(rng, _INK, "2b2018", "1f2a3a", spread=0.02)
    # A quarter of the cliparts have a pale disc behind the thing.
    if rng.random() < 0.25:
        disc = shaded(pick(rng, "f2d64b", "8fc9e8", "f3a6bd", "a8d8a0"), 1.45)
        x = rng.uniform(-0.1, 0.1)
        y = rng.uniform(-0.1, 0.1)
        canvas.fill(ellipse(x, y, 0.88, 0.88), disc)
    for piece in pieces:
        colour = _saturated(piece.colour)
        detail = piece.role == "detail"
        thin = 0.6 * outline if detail else outline
        if piece.width == 0:
            canvas.fill(piece.points, colour)
            _outline(canvas, piece.points, thin, dark)
        elif detail:
            # A thin stroke without an outline must be wide enough to see.
            canvas.fill(band(piece.points, max(piece.width, thin)), colour)
        else:
            # A wider dark stroke below shows on both sides as the outline.
            canvas.fill(band(piece.points, piece.width + 1.2 * outline), dark)
            canvas.fill(band(piece.points, piece.width), colour)
    return canvas.finished()


def _outline(canvas: Canvas, area: Outline, width: float, colour: Colour) -> None:
    """Draw a line of this width along the rim of an area."""
    ring = closed(area)
    # A segment without length has no direction: `band` would give the line no width there.
    moves = np.hypot(*np.diff(ring, axis=0).T) > 1e-6
    canvas.fill(band(ring[np.append(True, moves)], width), colour)


def _saturated(colour: Colour) -> Colour:
    """Return a fuller and brighter colour, as a paint program would offer it; a grey stays as it is."""
    hue, saturation, value = colorsys.rgb_to_hsv(*colour)
    # The hue of a grey is chance: saturation would turn it into a colour.
    if saturation < 0.15:
        return colour
    fuller = min(1.35 * saturation + 0.1, 1.0)
    return colorsys.hsv_to_rgb(hue, fuller, min(0.8 * value + 0.25, 1.0))


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
    ground = shaded(theme, 1.75)
    if rng.random() < 0.7:
        ground = pick(rng, *_PAPER, spread=0.01)
    canvas = Canvas(side, ground)
    # A bar with a title.
    canvas.fill(box(-1, -1, 1, -0.78), theme)
    title = (-0.9, -0.93, rng.uniform(0.9, 1.5))
    _text(canvas, rng, title, 1, shaded(theme, 1.85), height=0.09)
    right = rng.random() < 0.5
    low = rng.random() < 0.35
    # The icon is at the centre (x, y); each of the two slots (left, top) is for a chart or text.
    if low:
        # Both slots lie below the icon.
        x = rng.uniform(-0.35, 0.35)
        y = -0.17
        half = 0.5
        slots = [(-0.92, 0.45), (0.04, 0.45)]
    else:
        # The slots lie one above the other, on the left of an icon on the right or the other way round.
        x = 0.36 if right else -0.36
        edge = -0.94 if right else 0.28
        y = rng.uniform(-0.12, 0.3)
        half = 0.54
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
    """Draw the panel of the icon: a disc, a framed box or nothing.

    Args:
        kind: A random number from 0 to 1 that decides which panel is drawn.
        place: Centre x and y of the panel, and the distance of its rim from the centre.
    """
    x, y, half = place
    if kind < 0.4:
        canvas.fill(ellipse(x, y, half, half), shaded(theme, 1.72))
    elif kind < 0.75:
        # The frame is the rim of a larger box that shows round a smaller one.
        inner = half - 0.04
        canvas.fill(box(x - half, y - half, x + half, y + half), shaded(theme, 1.5))
        ink = shaded(ground, 1.6)
        canvas.fill(box(x - inner, y - inner, x + inner, y + inner), ink)


def _icon(
    canvas: Canvas, pieces: Sequence[DrawnPiece], theme: Colour, second: Colour
) -> None:
    """Draw the thing in five tones of the chart's colours. Each natural colour becomes the nearest free tone."""
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
            # The brightness that the eye sees (weights of ITU-R BT.601), as one of five levels.
            level = min(int(5 * float(np.dot(piece.colour, (0.3, 0.59, 0.11)))), 4)
            # Two natural colours stay different as long as there are tones left.
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
    """Draw lines of text that are too small to read: words are short bars.

    Args:
        place: Left and top of the text, and the width of its longest possible line.
    """
    left, top, wide = place
    for k in range(lines):
        x = left
        y = top + 2 * k * height
        end = left + wide * rng.uniform(0.7, 1.0)
        # A word that would be shorter than a letter is not begun.
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
    # The axis.
    canvas.fill(box(left, top + 0.46, left + 0.66, top + 0.49), (0.45, 0.45, 0.5))


def _pie(
    canvas: Canvas,
    rng: np.random.Generator,
    left: float,
    top: float,
    colours: Sequence[Colour],
) -> None:
    """Draw a small pie chart, or with probability one half a ring."""
    x = left + 0.33
    y = top + 0.25
    start = rng.uniform(0, 360)
    # A full circle, and two slices over it that begin at the same angle: the smaller one covers the larger one.
    shares = (360.0, rng.uniform(150, 260), rng.uniform(40, 120))
    inks = (*colours, shaded(colours[0], 1.5))
    for share, ink in zip(shares, inks, strict=True):
        arc = ellipse(x, y, 0.25, 0.25, start, start + share)
        canvas.fill(np.concatenate([[[x, y]], arc]), ink)
    # A white hole makes a ring.
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
"""A stroke that is thinner than this is drawn as one pencil line. Of a wider stroke, both rims are drawn."""


def quickdraw(
    pieces: Sequence[DrawnPiece],
    rng: np.random.Generator,
    side: int,
    *,
    sparse: bool = False,
) -> Image.Image:
    """Draw a few wobbly thick black strokes on white. Some details are missing, and the ends of outlines do not meet.

    Args:
        sparse: Whether to draw thinner strokes, and to leave out 15 to 40 % of each outline.
    """
    canvas = Canvas(side, 255)
    width = rng.uniform(0.05, 0.08)
    if sparse:
        width *= 0.7
    shake = rng.uniform(0.008, 0.022)
    # The probability that a detail is drawn.
    patience = rng.uniform(0.2, 0.7)
    for piece in pieces:
        if piece.role == "detail" and rng.random() > patience:
            continue
        line = piece.points
        if piece.width == 0:
            # An area hides the pieces behind it, although only its outline is drawn.
            canvas.fill(piece.points, 255)
            line = _reopened(piece.points, rng)
        line = _wobbly(line, shake, rng)
        strokes = _broken(line, rng) if sparse else [line]
        for stroke in strokes:
            _stroke(canvas, stroke, width)
    return canvas.finished().convert("RGB")


def _broken(line: Outline, rng: np.random.Generator) -> list[Outline]:
    """Return one or two strokes along a line, with a gap after each, as a hasty hand draws it."""
    # Enough points that a gap can be a share of a stroke.
    dense = resample(line, max(len(line), 12))
    pieces = np.array_split(dense, int(rng.integers(1, 3)))
    return [
        piece[: max(2, round(len(piece) * rng.uniform(0.6, 0.85)))] for piece in pieces
    ]


def _reopened(points: Outline, rng: np.random.Generator) -> Outline:
    """Return the outline as a stroke from a random start, which ends shortly before its start or runs past it."""
    start = int(rng.integers(len(points)))
    n = max(int(length(closed(points)) / 0.06), 12)
    dense = resample(closed(np.roll(points, -start, axis=0)), n)
    # Below zero, the stroke runs past its start by so many points.
    missing = round(n * rng.uniform(-0.05, 0.09))
    if missing > 0:
        return dense[:-missing]
    # The last point equals the first one, so the second point follows.
    return np.concatenate([dense, dense[1 : 1 - missing]])


def _wobbly(points: Outline, shake: float, rng: np.random.Generator) -> Outline:
    """Return the line as an unsteady hand redraws it; its corners become a little round, too."""
    reach = length(points)
    line = resample(points, max(int(reach / 0.09), 4))
    knots = max(int(reach / 0.35), 2)
    # The hand drifts slowly: its error is random at a few knots, and interpolated between them.
    drift = rng.normal(0, shake, (knots, 2))
    at = np.linspace(0, knots - 1, len(line))
    dx = np.interp(at, np.arange(knots), drift[:, 0])
    dy = np.interp(at, np.arange(knots), drift[:, 1])
    return line + np.stack([dx, dy], axis=1)


def _stroke(canvas: Canvas, line: Outline, width: float) -> None:
    """Draw a black line with round corners and ends."""
    flat = pixels(line, canvas.side)
    # A unit of the coordinates is half a side, and the radius half the width.
    r = width * canvas.side / 4
    canvas.pen.line(flat, fill=0, width=round(2 * r), joint="curve")
    # Pillow ends lines squarely: discs at both ends round them.
    for x, y in (flat[:2], flat[-2:]):
        canvas.pen.ellipse((x - r, y - r, x + r, y + r), fill=0)


def sketch(
    pieces: Sequence[DrawnPiece], rng: np.random.Generator, side: int
) -> Image.Image:
    """Draw thin repeated pencil lines and hatching on paper white."""
    canvas = Canvas(side, _WHITE)
    # Sheets without, with one and with two layers of lines: darker pieces show a denser sheet.
    hatches = [_hatching(rng, side, n) for n in (0, 1, 2)]
    shake = rng.uniform(0.006, 0.014)
    for piece in pieces:
        tone = 1 - float(np.dot(piece.colour, (0.3, 0.59, 0.11)))
        dark = int(tone > 0.3) + int(tone > 0.6)
        wide = piece.width == 0 or piece.width >= THIN
        if wide:
            canvas.image.paste(hatches[dark], mask=mask_of([piece], side).image)
        lines = piece.rims() if wide else (piece.points,)
        n_times = 2 if piece.role == "detail" else 3
        for line in lines:
            # The same line again and again, a little off each time.
            for _ in range(n_times):
                off = _wobbly(line, shake, rng) + rng.normal(0, 0.7 * shake, 2)
                canvas.line(off, int(rng.integers(40, 125)), 0.011)
    # The grain of the paper: fine noise, and a few large clouds.
    fine = rng.standard_normal((side, side), dtype=np.float32)
    grain = 1 + 0.02 * fine + 0.012 * noise(rng, side, 3, 3)
    picture = unit(canvas.finished()) * grain
    # Each channel is dimmed on its own: paper has a tint.
    return to_image(picture[:, :, None] * rng.uniform(0.975, 1.0, 3).astype(np.float32))


def _hatching(rng: np.random.Generator, side: int, layers: int) -> Image.Image:
    """Return a sheet of paper with ``layers`` layers of parallel pencil lines, which cross each other."""
    sheet = Canvas(side, _WHITE)
    first = rng.uniform(20, 70) * rng.choice([-1, 1])
    for k in range(layers):
        angle = np.radians(first + 65 * k)
        along = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-np.sin(angle), np.cos(angle)])
        # From corner to corner the picture reaches from -1.41 to 1.41, whatever the angle.
        for at in np.arange(-1.4, 1.4, 0.095):
            ends = across * (at + rng.normal(0, 0.012)) + np.outer([-1.5, 1.5], along)
            sheet.line(ends, int(rng.integers(110, 175)), 0.009)
    return sheet.image
