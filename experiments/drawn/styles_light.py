"""The two styles with light in them: a photo and a painting. Does not import torch.

The order in which a style takes random numbers must not change, because another order gives other pictures.
"""

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

    Args:
        plain: Whether half of the grounds are white or grey, as in a catalogue, and surfaces darken towards their rims.
    """
    angle = rng.uniform(0, 2 * np.pi)
    # Light comes from above: y points downwards, so it is never positive.
    light = (float(np.cos(angle)), -abs(float(np.sin(angle))))
    # The ground does not depend on the class, because it must not give the class away. With `plain`, four of eight
    # grounds are paper.
    grounds = (_meadow, _wood, _wall, _cloth, *[_paper] * 4 * plain)
    picture = grounds[int(rng.integers(len(grounds)))](rng, side)
    away = np.array(light) * -rng.uniform(0.06, 0.14)
    subject = coverage(pieces, side)
    # The shadow is the thing itself, moved away from the light and blurred.
    cast = [replace(piece, points=piece.points + away) for piece in pieces]
    shadow = blurred(coverage(cast, side), side / 40)
    picture *= 1 - rng.uniform(0.45, 0.65) * shadow[:, :, None]
    roughness = rng.uniform(0.02, 0.06)
    shade: Plane = np.ones((side, side))
    for (role, colour, _), group in groupby(pieces, key=_surface):
        mask = coverage(list(group), side)
        # A detail is a mark on the surface below and shares its light.
        if role != "detail":
            rough = 1 + roughness * noise(rng, side, 20, 20)
            shade = _relief(mask, light, side) * rough
            if plain:
                shade = shade * _rim(mask, side)
        # Pixels that the piece covers partly keep a share of the picture below.
        picture += mask[:, :, None] * (_lit(colour, shade) - picture)
    return _photographed(_set_apart(picture, subject, 0.15), rng, side)


def _surface(piece: DrawnPiece) -> tuple[str, Colour, int]:
    """Return a key that is equal for strokes of one role and colour: a bicycle's frame is shaded as a single thing."""
    # Areas are shaded one by one: each has an identity of its own.
    own = 0 if piece.width > 0 else id(piece)
    return piece.role, piece.colour, own


def _relief(mask: Plane, light: tuple[float, float], side: int) -> Plane:
    """Return the brightness of a bulging piece, whose surface near its rim turns towards the light or away from it.

    Args:
        light: The direction (x, y) from which light comes.
    """
    # The blurred mask serves as the height of the surface; larger pieces bulge over a longer distance.
    size = float(np.sqrt(mask.mean())) * side
    reach = max(0.22 * size, side / 64)
    height = blurred(mask, reach)
    down, across = np.gradient(height)
    # Where the height falls towards the light, the surface faces it.
    towards = (across * light[0] + down * light[1]) * -reach
    shade: Plane = np.clip(0.86 + 1.25 * towards + 0.16 * height, 0.4, 1.4)
    return shade


def _rim(mask: Plane, side: int) -> Plane:
    """Return the factor by which a piece is darker near its rim, where less light falls."""
    # From 0.5 at the rim to 1 inside.
    inside = blurred(mask, side / 64)
    rim: Plane = 1 - 0.7 * np.clip(2 - 2 * inside, 0, 1)
    return rim


def _lit(colour: Colour, shade: Plane) -> Picture:
    """Return the picture of a surface with this colour and brightness."""
    natural = np.array(colour, dtype=np.float32)
    # Things are duller than paint; where much light falls, they shine white.
    natural = 0.82 * natural + 0.12 * natural.mean()
    shine = np.clip(shade - 1.1, 0, 1)
    lit: Picture = natural * shade[:, :, None] + 0.6 * shine[:, :, None]
    return lit


def _photographed(picture: Picture, rng: np.random.Generator, side: int) -> Image.Image:
    """Return the picture as a camera takes it: exposure, white balance, dark corners, a soft lens, a noisy sensor."""
    # Unit coordinates of all pixels, [side, side] each.
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    corners = 1 - rng.uniform(0.1, 0.25) * (x**2 + y**2) / 2
    slope = 1 + 0.12 * (rng.uniform(-1, 1) * x + rng.uniform(-1, 1) * y)
    balance = rng.normal(1, 0.035, 3) * rng.uniform(0.85, 1.05)
    exposed = picture * (corners * slope)[:, :, None] * balance
    # In proportion to the side, so that a larger picture is the same photo.
    lens = ImageFilter.GaussianBlur(rng.uniform(0.3, 0.6) * side / 64)
    soft = to_image(exposed).filter(lens)
    grain = rng.normal(0, rng.uniform(0.008, 0.025), (side, side, 3))
    return to_image(unit(soft) + grain)


def _tinted(colour: Colour, brightness: Plane) -> Picture:
    """Return a picture of a single colour, brighter and darker from pixel to pixel."""
    values = brightness[:, :, None].astype(np.float32)
    return np.array(colour, dtype=np.float32) * values


def _meadow(rng: np.random.Generator, side: int) -> Picture:
    """Draw grass or sand below a sky with clouds; the horizon is out of focus."""
    blue = pick(rng, "7fb0de", "a8c4dc", "b9c2cc", "d9c0a8")
    sky = _tinted(blue, np.ones((side, side)))
    cover = 0.5 * noise(rng, side, 3, 5) + 0.25 * noise(rng, side, 8, 10)
    clouds = np.clip(cover, 0, 1)
    sky += clouds[:, :, None] * (0.95 - sky)
    grass = pick(rng, "5f8a3f", "7a9a4a", "4f7040", "b8a070", "8a7f50")
    blades = 1 + 0.16 * noise(rng, side, 40, 18) + 0.12 * noise(rng, side, 6, 6)
    horizon = rng.uniform(-0.3, 0.5)
    hills = 0.05 * noise(rng, side, 5, 1)
    rows = np.linspace(-1, 1, side, dtype=np.float32)[:, None] - hills
    # 0 in the sky and 1 on the ground; the horizon is blurred over four rows.
    ground = np.clip((rows - horizon) * side / 8 + 0.5, 0, 1)[:, :, None]
    return sky * (1 - ground) + _tinted(grass, blades) * ground


def _wood(rng: np.random.Generator, side: int) -> Picture:
    """Draw planks with grain along them."""
    wood = pick(rng, "a8794f", "8a5f3c", "c9a070", "6f4f38", "b08a68")
    planks = int(rng.integers(2, 6))
    # In planks, from a random place within the first one: whole numbers are gaps.
    at = np.linspace(0, planks, side, endpoint=False) + rng.uniform(0, 1)
    board = np.floor(at).astype(int)
    tone = 1 + 0.1 * rng.standard_normal(planks + 2)[board]
    gap = np.where(np.abs(at - np.round(at)) < 0.02 * planks, 0.55, 1.0)
    grain = 0.1 * noise(rng, side, 3, 40) + 0.06 * noise(rng, side, 6, 22)
    brightness = (tone * gap)[:, None] * (1 + grain)
    # Half of the grounds have upright planks.
    return _tinted(wood, brightness if rng.random() < 0.5 else brightness.T)


def _wall(rng: np.random.Generator, side: int) -> Picture:
    """Draw a plastered wall above a table or floor."""
    paint = pick(rng, "b8b0a0", "a0a8b0", "c0a890", "90a090", "9a8f9f")
    plaster = 1 + 0.05 * noise(rng, side, 14, 14) + 0.06 * noise(rng, side, 3, 3)
    wall = _tinted(paint, plaster)
    wood = pick(rng, "7a5a42", "8f8880", "5f5f66", "a88a66")
    table = _tinted(wood, 1 + 0.08 * noise(rng, side, 4, 34))
    edge = rng.uniform(0.1, 0.75)
    rows = np.linspace(-1, 1, side, dtype=np.float32)[:, None, None]
    below = np.clip((rows - edge) * side / 5 + 0.5, 0, 1)
    return wall * (1 - below) + table * below


def _paper(rng: np.random.Generator, side: int) -> Picture:
    """Draw the evenly lit ground of a photograph in a catalogue."""
    paper = pick(rng, "ffffff", "f4f4f2", "e6e8ea", spread=0.01)
    return _tinted(paper, 1 + 0.01 * noise(rng, side, 3, 3))


def _cloth(rng: np.random.Generator, side: int) -> Picture:
    """Draw patches of two colours, which look like cloth, stone or leaves out of focus."""
    base = pick(rng, "8f8f8a", "6f7f8f", "9f7f6f", "6f8a60", "b0a48f", "7f6f8a")
    other = pick(rng, "7f8a8f", "a09070", "5f6f55", "a8988a")
    mix = np.clip(0.5 + 0.35 * noise(rng, side, 5, 5), 0, 1)[:, :, None]
    fine = 1 + 0.09 * noise(rng, side, 30, 30) + 0.06 * noise(rng, side, 12, 12)
    flat = np.ones((side, side))
    patches = _tinted(base, flat) * mix + _tinted(other, flat) * (1 - mix)
    return patches * fine[:, :, None]


def painting(
    pieces: Sequence[DrawnPiece], rng: np.random.Generator, side: int
) -> Image.Image:
    """Draw many short strokes over a painted ground, with a broad brush first and then with finer brushes."""
    subject = coverage(pieces, side)
    picture = _motif(pieces, subject, rng, side)
    canvas = Canvas(side, picture)
    down, across = np.gradient(blurred(picture.mean(axis=2), side / 64))
    contrast = np.hypot(down, across)
    # Strokes follow edges, at right angles to the gradient; on even areas they swirl.
    swirl = rng.uniform(0, np.pi) + 0.8 * noise(rng, side, 2, 2)
    flow = np.where(contrast > 0.01 * 64 / side, np.arctan2(across, -down), swirl)
    # The finest brush goes where the thing has contrast, and elsewhere on the thing a little.
    edges = 0.15 * subject + np.minimum(contrast * side / 5, 1) * (subject > 0)
    broad = _Brush(np.ones_like(subject), 150, 0.13, 0.3, 0.3)
    medium = _Brush(0.15 + subject, 200, 0.075, 0.16, 0.25)
    fine = _Brush(edges, 330, 0.04, 0.085, 0.12)
    for brush in (broad, medium, fine):
        _brush(canvas, picture, flow, brush, rng)
    painted = unit(canvas.finished())
    # The weave of the canvas: noise of two pixels.
    weave = 1 + 0.025 * noise(rng, side, side // 2, side // 2)
    return to_image(painted * weave[:, :, None])


def _motif(
    pieces: Sequence[DrawnPiece], subject: Plane, rng: np.random.Generator, side: int
) -> Picture:
    """Draw the motif that is painted: two broad areas of ground, and the thing in lit flat colours."""
    above = pick(
        rng, "8fb0c9", "d9b88a", "b5a8c9", "7f9aa0", "d9c9a0", "55708f", spread=0.08
    )
    below = pick(
        rng, "7f8f5a", "a87a4f", "6a6f8f", "c9a25a", "5f7f70", "8a5f55", spread=0.08
    )
    border = rng.uniform(-0.2, 0.6)
    waves = 0.12 * noise(rng, side, 3, 2)
    rows = np.linspace(-1, 1, side, dtype=np.float32)[:, None] + waves
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
    """Return the picture with a darker or brighter ground, if the ground is nearly as bright as the subject.

    Args:
        least: The difference in brightness below which the ground would hide the subject.
    """
    brightness = picture.mean(axis=2)
    ground = 1 - subject
    behind = float(np.average(brightness, weights=ground))
    before = float(np.average(brightness, weights=subject))
    if abs(behind - before) >= least:
        return picture
    # Away from the subject's brightness, to the side with more room.
    target = before + (least if before < 0.5 else -least)
    changed: Picture = picture * (1 + (target / behind - 1) * ground)[:, :, None]
    return changed


class _Brush(NamedTuple):
    """A brush, and how often and where it is used."""

    where: Plane
    """The probability of a stroke at each pixel is proportional to this."""
    strokes: int
    """Number of strokes."""
    width: float
    """Width of a stroke in unit coordinates."""
    length: float
    """Length of a stroke in unit coordinates."""
    turn: float
    """Standard deviation of the angle between a stroke and the flow, in radians."""


def _brush(
    canvas: Canvas,
    picture: Picture,
    flow: Plane,
    brush: _Brush,
    rng: np.random.Generator,
) -> None:
    """Draw strokes along ``flow`` (the angle at each pixel, in radians) in the picture's colours."""
    n = brush.strokes
    side = len(picture)
    # Places are drawn through the inverse of the cumulative distribution over pixels.
    cumulative = np.cumsum(brush.where)
    at = np.searchsorted(cumulative, rng.uniform(0, cumulative[-1], n))
    # Rounding can put a number behind the last pixel.
    at = at.clip(0, side * side - 1)
    # Each stroke is a little brighter or darker than the motif, and a little off in hue.
    colours = picture.reshape(-1, 3)[at] * rng.normal(1, 0.07, (n, 1))
    colours = colours + rng.normal(0, 0.02, (n, 3))
    angles = flow.ravel()[at] + rng.normal(0, brush.turn, n)
    middle = np.stack([at % side, at // side], axis=1) + rng.uniform(0, 1, (n, 2))
    # From the middle to an end of each stroke, [n, 2] pixels.
    half = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    half *= rng.uniform(0.6, 1.2, (n, 1)) * brush.length * side / 4
    ends = np.concatenate([middle - half, middle + half], axis=1) * OVERSAMPLE
    inks = (colours.clip(0, 1) * 255).astype(int).tolist()
    width = max(round(brush.width * canvas.side / 2), 1)
    for line, colour in zip(ends.tolist(), inks, strict=True):
        canvas.pen.line(line, fill=tuple(colour), width=width)
