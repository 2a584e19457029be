"""The two styles with light in them: a photo and a painting. No torch."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from experiments.drawn.geometry import Colour, DrawnPiece, closed, pick, shaded
from experiments.drawn.styles_raster import (
    OVERSAMPLE,
    Canvas,
    Picture,
    Plane,
    blurred,
    coverage,
    noise,
    to_image,
    unit,
)

import numpy as np
from PIL import Image, ImageFilter


def real(
    pieces: Sequence[DrawnPiece],
    rng: np.random.Generator,
    side: int,
    *,
    plain: bool = False,
) -> Image.Image:
    """Draw shaded volumes and a cast shadow on a textured natural ground, a little soft and noisy like a photo.

    With ``plain`` half of the grounds are white or grey, as in a catalogue, and surfaces darken towards their rims.
    """
    angle = rng.uniform(0, 2 * np.pi)
    light = (float(np.cos(angle)), -abs(float(np.sin(angle))))
    # The ground is drawn without looking at the class: it must not give the class away.
    grounds = (_meadow, _wood, _wall, _cloth, *[_paper] * 4 * plain)
    picture = grounds[int(rng.integers(len(grounds)))](rng, side)
    away = np.array(light) * -rng.uniform(0.06, 0.14)
    subject = coverage(pieces, side)
    shadow = blurred(
        coverage(
            [replace(piece, points=piece.points + away) for piece in pieces], side
        ),
        side / 40,
    )
    picture *= 1 - rng.uniform(0.45, 0.65) * shadow[:, :, None]
    roughness = rng.uniform(0.02, 0.06)
    shade: Plane = np.ones((side, side))
    for (role, colour, _), group in groupby(pieces, key=_surface):
        mask = coverage(list(group), side)
        # A detail is a mark on the surface below and shares its light.
        if role != "detail":
            shade = _relief(mask, light, side) * (
                1 + roughness * noise(rng, side, 20, 20)
            )
            shade = shade * _rim(mask, side) if plain else shade
        picture += mask[:, :, None] * (_lit(colour, shade) - picture)
    return _photographed(_set_apart(picture, subject, 0.15), rng, side)


def _surface(piece: DrawnPiece) -> tuple[str, Colour, int]:
    """Return a key that is equal for strokes that look like one thing, as the tubes of a frame do."""
    return piece.role, piece.colour, 0 if piece.width > 0 else id(piece)


def _relief(mask: Plane, light: tuple[float, float], side: int) -> Plane:
    """Return the brightness of a bulging piece: near its rim the surface turns towards or away from the light."""
    size = float(np.sqrt(mask.mean())) * side
    reach = max(0.22 * size, side / 64)
    height = blurred(mask, reach)
    down, across = np.gradient(height)
    towards = (across * light[0] + down * light[1]) * -reach
    shade: Plane = np.clip(0.86 + 1.25 * towards + 0.16 * height, 0.4, 1.4)
    return shade


def _rim(mask: Plane, side: int) -> Plane:
    """Return the brightness of a piece beside its rim, where less light falls."""
    inside = blurred(mask, side / 64)
    rim: Plane = 1 - 0.7 * np.clip(2 - 2 * inside, 0, 1)
    return rim


def _lit(colour: Colour, shade: Plane) -> Picture:
    """Return a surface of this colour under this light: things are duller than paint, and bright spots shine."""
    natural = np.array(colour, dtype=np.float32)
    natural = 0.82 * natural + 0.12 * natural.mean()
    shine = np.clip(shade - 1.1, 0, 1)
    lit: Picture = natural * shade[:, :, None] + 0.6 * shine[:, :, None]
    return lit


def _photographed(picture: Picture, rng: np.random.Generator, side: int) -> Image.Image:
    """Return the picture as a camera sees it: exposure, white balance, dark corners, a soft lens, a noisy sensor."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    corners = 1 - rng.uniform(0.1, 0.25) * (x**2 + y**2) / 2
    slope = 1 + 0.12 * (rng.uniform(-1, 1) * x + rng.uniform(-1, 1) * y)
    balance = rng.normal(1, 0.035, 3) * rng.uniform(0.85, 1.05)
    exposed = picture * (corners * slope)[:, :, None] * balance
    soft = to_image(exposed).filter(
        ImageFilter.GaussianBlur(rng.uniform(0.3, 0.6) * side / 64)
    )
    return to_image(
        unit(soft) + rng.normal(0, rng.uniform(0.008, 0.025), (side, side, 3))
    )


def _tinted(colour: Colour, brightness: Plane) -> Picture:
    return np.array(colour, dtype=np.float32) * brightness[:, :, None].astype(
        np.float32
    )


def _meadow(rng: np.random.Generator, side: int) -> Picture:
    """Draw grass or sand below a sky with clouds; the horizon is out of focus."""
    sky = _tinted(
        pick(rng, "7fb0de", "a8c4dc", "b9c2cc", "d9c0a8"), np.ones((side, side))
    )
    clouds = np.clip(
        0.5 * noise(rng, side, 3, 5) + 0.25 * noise(rng, side, 8, 10), 0, 1
    )
    sky += clouds[:, :, None] * (0.95 - sky)
    grass = pick(rng, "5f8a3f", "7a9a4a", "4f7040", "b8a070", "8a7f50")
    blades = 1 + 0.16 * noise(rng, side, 40, 18) + 0.12 * noise(rng, side, 6, 6)
    horizon = rng.uniform(-0.3, 0.5)
    rows = np.linspace(-1, 1, side, dtype=np.float32)[:, None] - 0.05 * noise(
        rng, side, 5, 1
    )
    ground = np.clip((rows - horizon) * side / 8 + 0.5, 0, 1)[:, :, None]
    return sky * (1 - ground) + _tinted(grass, blades) * ground


def _wood(rng: np.random.Generator, side: int) -> Picture:
    """Draw planks with grain along them."""
    wood = pick(rng, "a8794f", "8a5f3c", "c9a070", "6f4f38", "b08a68")
    planks = int(rng.integers(2, 6))
    at = np.linspace(0, planks, side, endpoint=False) + rng.uniform(0, 1)
    board = np.floor(at).astype(int)
    tone = 1 + 0.1 * rng.standard_normal(planks + 2)[board]
    gap = np.where(np.abs(at - np.round(at)) < 0.02 * planks, 0.55, 1.0)
    grain = 0.1 * noise(rng, side, 3, 40) + 0.06 * noise(rng, side, 6, 22)
    brightness = (tone * gap)[:, None] * (1 + grain)
    return _tinted(wood, brightness if rng.random() < 0.5 else brightness.T)


def _wall(rng: np.random.Generator, side: int) -> Picture:
    """Draw a plastered wall above a table or floor."""
    wall = _tinted(
        pick(rng, "b8b0a0", "a0a8b0", "c0a890", "90a090", "9a8f9f"),
        1 + 0.05 * noise(rng, side, 14, 14) + 0.06 * noise(rng, side, 3, 3),
    )
    table = _tinted(
        pick(rng, "7a5a42", "8f8880", "5f5f66", "a88a66"),
        1 + 0.08 * noise(rng, side, 4, 34),
    )
    edge = rng.uniform(0.1, 0.75)
    rows = np.linspace(-1, 1, side, dtype=np.float32)[:, None, None]
    below = np.clip((rows - edge) * side / 5 + 0.5, 0, 1)
    return wall * (1 - below) + table * below


def _paper(rng: np.random.Generator, side: int) -> Picture:
    """Draw the evenly lit ground of a catalogue's photograph."""
    return _tinted(
        pick(rng, "ffffff", "f4f4f2", "e6e8ea", spread=0.01),
        1 + 0.01 * noise(rng, side, 3, 3),
    )


def _cloth(rng: np.random.Generator, side: int) -> Picture:
    """Draw cloth, stone or leaves out of focus: patches of a colour and its neighbours."""
    base = pick(rng, "8f8f8a", "6f7f8f", "9f7f6f", "6f8a60", "b0a48f", "7f6f8a")
    other = pick(rng, "7f8a8f", "a09070", "5f6f55", "a8988a")
    mix = np.clip(0.5 + 0.35 * noise(rng, side, 5, 5), 0, 1)[:, :, None]
    fine = 1 + 0.09 * noise(rng, side, 30, 30) + 0.06 * noise(rng, side, 12, 12)
    flat = np.ones((side, side))
    return (_tinted(base, flat) * mix + _tinted(other, flat) * (1 - mix)) * fine[
        :, :, None
    ]


def painting(
    pieces: Sequence[DrawnPiece], rng: np.random.Generator, side: int
) -> Image.Image:
    """Draw many short oriented strokes of a broad and then a finer brush, over a painted ground."""
    subject = coverage(pieces, side)
    picture = _motif(pieces, subject, rng, side)
    canvas = Canvas(side, picture)
    down, across = np.gradient(blurred(picture.mean(axis=2), side / 64))
    contrast = np.hypot(down, across)
    swirl = rng.uniform(0, np.pi) + 0.8 * noise(rng, side, 2, 2)
    flow = np.where(contrast > 0.01 * 64 / side, np.arctan2(across, -down), swirl)
    edges = 0.15 * subject + np.minimum(contrast * side / 5, 1) * (subject > 0)
    _brush(
        canvas, picture, flow, _Brush(np.ones_like(subject), 150, 0.13, 0.3, 0.3), rng
    )
    _brush(canvas, picture, flow, _Brush(0.15 + subject, 200, 0.075, 0.16, 0.25), rng)
    _brush(canvas, picture, flow, _Brush(edges, 330, 0.04, 0.085, 0.12), rng)
    painted = unit(canvas.finished())
    weave = 1 + 0.025 * noise(rng, side, side // 2, side // 2)
    return to_image(painted * weave[:, :, None])


def _motif(
    pieces: Sequence[DrawnPiece], subject: Plane, rng: np.random.Generator, side: int
) -> Picture:
    """Draw what the painter sees: two broad areas of ground, and the drawing in lit flat colours."""
    above = pick(
        rng, "8fb0c9", "d9b88a", "b5a8c9", "7f9aa0", "d9c9a0", "55708f", spread=0.08
    )
    below = pick(
        rng, "7f8f5a", "a87a4f", "6a6f8f", "c9a25a", "5f7f70", "8a5f55", spread=0.08
    )
    border = rng.uniform(-0.2, 0.6)
    rows = np.linspace(-1, 1, side, dtype=np.float32)[:, None] + 0.12 * noise(
        rng, side, 3, 2
    )
    mix = np.clip(2.5 * (rows - border) + 0.5, 0, 1)[:, :, None]
    patches = 1 + 0.1 * noise(rng, side, 5, 5)
    ground = _tinted(above, patches) * (1 - mix) + _tinted(below, patches) * mix
    canvas = Canvas(side, ground)
    for piece in pieces:
        canvas.fill(piece.area(), piece.colour)
        if piece.role != "detail" and piece.width == 0:
            canvas.line(closed(piece.points), shaded(piece.colour, 0.55), 0.02)
    seen: Picture = unit(canvas.finished())
    lit = _relief(subject, (float(rng.choice([-0.7, 0.7])), -0.7), side)
    return _set_apart(seen * (1 + (lit - 1) * subject)[:, :, None], subject, 0.25)


def _set_apart(picture: Picture, subject: Plane, least: float) -> Picture:
    """Return the picture, its ground dimmed or lit where it is about as bright as the subject and would hide it."""
    brightness = picture.mean(axis=2)
    behind, before = (
        float(np.average(brightness, weights=where)) for where in (1 - subject, subject)
    )
    if abs(behind - before) >= least:
        return picture
    target = before + (least if before < 0.5 else -least)
    changed: Picture = picture * (1 + (target / behind - 1) * (1 - subject))[:, :, None]
    return changed


class _Brush(NamedTuple):
    where: Plane
    """Strokes lie at random places, in proportion to it."""
    strokes: int
    width: float
    """Unit coordinates, like the length."""
    length: float
    turn: float
    """Deviation of a stroke from the flow, radians."""


def _brush(
    canvas: Canvas,
    picture: Picture,
    flow: Plane,
    brush: _Brush,
    rng: np.random.Generator,
) -> None:
    """Draw strokes along ``flow`` (radians) in the picture's colours."""
    n, side = brush.strokes, len(picture)
    cumulative = np.cumsum(brush.where)
    at = np.searchsorted(cumulative, rng.uniform(0, cumulative[-1], n)).clip(
        0, side * side - 1
    )
    colours = picture.reshape(-1, 3)[at] * rng.normal(1, 0.07, (n, 1)) + rng.normal(
        0, 0.02, (n, 3)
    )
    angles = flow.ravel()[at] + rng.normal(0, brush.turn, n)
    middle = np.stack([at % side, at // side], axis=1) + rng.uniform(0, 1, (n, 2))
    half = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    half *= rng.uniform(0.6, 1.2, (n, 1)) * brush.length * side / 4
    ends = np.concatenate([middle - half, middle + half], axis=1) * OVERSAMPLE
    inks = (colours.clip(0, 1) * 255).astype(int).tolist()
    width = max(round(brush.width * canvas.side / 2), 1)
    for line, colour in zip(ends.tolist(), inks, strict=True):
        canvas.pen.line(line, fill=tuple(colour), width=width)
