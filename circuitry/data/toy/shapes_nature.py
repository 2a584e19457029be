"""Parametric drawings of grown things (and a star, and ice cream): class -> parts, back to front. No torch."""

import numpy as np

from circuitry.data.toy.shapes_geometry import (
    Part,
    Points,
    ellipse,
    pick,
    polygon,
    shaded,
    smooth,
)


def butterfly(rng: np.random.Generator) -> list[Part]:
    """Four wings with spots, a thin body, two feelers."""
    wing = pick(rng, "e8862a", "3f7fc9", "d9b62c", "b5479b", "c9422f", "57a05a")
    lower = pick(rng, "e8b12a", "5fa3d9", "e3903c", "8b4fb0", "d96a4a", "8dbb4f")
    spot = pick(rng, "f7f0d8", "2b2320", "fbe38a")
    span, rise, drop = rng.uniform(0.8, 1.0), rng.uniform(0.65, 0.95), rng.uniform(0.55, 0.85)
    parts = []
    for side in (-1.0, 1.0):
        parts.append(
            Part(
                smooth(
                    (0.04 * side, 0.0),
                    (0.45 * side, 0.02),
                    (0.72 * span * side, 0.3 * drop),
                    (0.55 * span * side, 0.95 * drop),
                    (0.25 * side, 0.85 * drop),
                ),
                "accent",
                lower,
            )
        )
        parts.append(
            Part(
                smooth(
                    (0.04 * side, -0.02),
                    (0.3 * side, -0.6 * rise),
                    (0.85 * span * side, -rise),
                    (span * side, -0.5 * rise),
                    (0.75 * span * side, 0.05),
                    (0.3 * side, 0.1),
                ),
                "body",
                wing,
            )
        )
        r = rng.uniform(0.1, 0.17)
        parts.append(Part(ellipse(0.68 * span * side, -0.55 * rise, r, r, n=14), "detail", spot))
        parts.append(Part(ellipse(0.42 * span * side, 0.5 * drop, 0.7 * r, 0.7 * r, n=12), "detail", spot))
    dark = pick(rng, "2b2320", "4a3020")
    for side in (-1.0, 1.0):
        feeler = smooth((0.02 * side, -0.4), (0.1 * side, -0.7), (0.28 * side, -0.92), closed_curve=False, steps=4)
        parts.append(Part(feeler, "accent", dark, 0.045))
    parts.append(Part(ellipse(0, 0.03, 0.075, 0.5, n=18), "body", dark))
    return parts


def fish(rng: np.random.Generator) -> list[Part]:
    """A fish in profile looking left: tail, fins, eye, gill, perhaps stripes."""
    skin = pick(rng, "e8862a", "5f8fb0", "c9a23c", "7d9a6a", "c9543f", "8fa3ad")
    fin = shaded(skin, rng.uniform(0.6, 0.8))
    tall, tail = rng.uniform(0.36, 0.58), rng.uniform(0.34, 0.5)
    back, belly = tall * rng.uniform(0.9, 1.05), tall * rng.uniform(0.85, 1.05)
    parts = [
        Part(smooth((0.5, 0.0), (0.98, -tail), (0.84, 0.0), (0.98, tail)), "accent", fin),
        Part(smooth((-0.2, -0.8 * back), (0.1, -1.45 * back), (0.4, -0.6 * back)), "accent", fin),
        Part(smooth((-0.05, 0.8 * belly), (0.25, 1.4 * belly), (0.35, 0.5 * belly)), "accent", fin),
        Part(
            smooth(
                (-0.95, 0.02),
                (-0.6, -0.7 * back),
                (-0.1, -back),
                (0.62, -0.1),
                (0.62, 0.1),
                (-0.1, belly),
                (-0.6, 0.7 * belly),
            ),
            "body",
            skin,
        ),
    ]
    if rng.random() < 0.5:
        stripe = pick(rng, "f7f0e0", "33302e", "f2d64b")
        for x in (-0.12, 0.2):
            reach = 0.68 * tall * (1 - 0.9 * max(x, 0))
            arc = smooth((x, -reach), (x + 0.09, 0), (x, reach), closed_curve=False, steps=4)
            parts.append(Part(arc, "detail", stripe, 0.1))
    gill = smooth((-0.5, -0.45 * back), (-0.38, 0), (-0.5, 0.45 * belly), closed_curve=False, steps=4)
    parts.append(Part(gill, "detail", fin, 0.05))
    parts.append(Part(smooth((-0.1, 0.05), (0.18, -0.06), (0.2, 0.2)), "detail", fin))
    eye = rng.uniform(0.07, 0.11)
    parts.append(Part(ellipse(-0.66, -0.12, eye, eye, n=14), "accent", (0.97, 0.97, 0.93)))
    parts.append(Part(ellipse(-0.67, -0.12, eye / 2, eye / 2, n=10), "detail", (0.08, 0.08, 0.1)))
    return parts


def flower(rng: np.random.Generator) -> list[Part]:
    """Petals round a centre, a stem, one or two leaves."""
    petal = pick(rng, "d9435a", "f0f0ea", "e8b12a", "b05fc9", "e88ab0", "5f7fd9")
    heart = pick(rng, "f2c230", "8a5a2b", "e8862a")
    green = pick(rng, "3f8a3a", "5fa04a", "2f7040")
    n, radius, bend = int(rng.integers(5, 10)), rng.uniform(0.44, 0.56), rng.uniform(-0.2, 0.2)
    x, y = 0.0, -0.42
    stem = smooth((x, y), (bend, 0.3), (0.3 * bend, 1.0), closed_curve=False)
    parts = [Part(stem, "body", green, 0.085)]
    for side in (-1.0, 1.0)[: int(rng.integers(1, 3))]:
        low = rng.uniform(0.5, 0.75)
        leaf = smooth((0.6 * bend, low), (0.22 * side, low - 0.3), (0.6 * side, low - 0.32), (0.32 * side, low - 0.02))
        parts.append(Part(leaf, "accent", shaded(green, 0.9)))
    first, wide = rng.uniform(0, 360), rng.uniform(0.75, 1.0) * np.pi * radius * 0.68 / n
    petals = [_petal(x, y, radius, wide, first + 360 * k / n) for k in range(n)]
    parts += [Part(blade, "body", petal) for blade in petals]
    r = radius * rng.uniform(0.3, 0.42)
    parts.append(Part(ellipse(x, y, r, r, n=20), "accent", heart))
    return parts


def _petal(x: float, y: float, reach: float, wide: float, angle: float) -> Points:
    blade = ellipse(0.6 * reach, 0, 0.42 * reach, wide, n=18)
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turned: Points = blade @ np.array([[cos, sin], [-sin, cos]]) + np.array([x, y])
    return turned


def ice_cream(rng: np.random.Generator) -> list[Part]:
    """A waffle cone with one to three scoops, perhaps a cherry."""
    cone = pick(rng, "d9a35a", "c98a45", "e0b070")
    line = shaded(cone, 0.7)
    scoops, r = int(rng.integers(1, 4)), 0.42
    wide, deep = rng.uniform(0.36, 0.44), rng.uniform(0.95, 1.25)
    parts = [Part(polygon((-wide, 0.0), (wide, 0.0), (0.03, deep), (-0.03, deep)), "body", cone)]
    for t in (0.25, 0.55):
        for side in (-1.0, 1.0):
            start, end = (side * wide * 0.98 * (1 - t), deep * t), (-side * wide * (0.9 - t), 0.06)
            parts.append(Part(polygon(start, end), "detail", line, 0.045))
    spots = [(0.0, -0.2)]
    if scoops >= 2:
        spots = [(0.0, -0.12), (0.0, -0.62)] if rng.random() < 0.5 else [(-0.27, -0.14), (0.27, -0.14)]
    if scoops == 3:
        spots = [(-0.27, -0.14), (0.27, -0.14), (0.0, -0.58)]
    for k, (x, y) in enumerate(spots):
        taste = pick(rng, "f3a6bd", "7a4a2b", "f6ecc8", "a8d8a0", "b79be0", "e0605f")
        size = r * (0.92 if k else 1.0)
        parts.append(Part(_scoop(x, y, size, rng), "body" if k == 0 else "accent", taste))
    top = min(y for _, y in spots)
    if rng.random() < 0.5:
        parts.append(Part(ellipse(0.0, top - 0.45, 0.12, 0.12, n=16), "accent", pick(rng, "c9202f")))
    return parts


def _scoop(x: float, y: float, r: float, rng: np.random.Generator) -> Points:
    """A ball with a frilled lower edge."""
    dome = ellipse(x, y, r, r, 180, 360, n=14)
    right, frills = x + r, 4
    hem = []
    for k in range(frills):
        middle = right - (2 * k + 1) * r / frills
        hem.append(ellipse(middle, y + 0.12 * r, r / frills, r * rng.uniform(0.28, 0.42), 0, 180, n=6))
    return np.concatenate([dome, *hem])


def mushroom(rng: np.random.Generator) -> list[Part]:
    """A domed cap with spots on a stem."""
    cap = pick(rng, "c9302a", "9a5f35", "c9863f", "b04a3a", "d9b98a")
    stem = pick(rng, "efe4cc", "e3d3b0")
    high, hem, slim = rng.uniform(0.65, 1.0), rng.uniform(0.02, 0.16), rng.uniform(0.17, 0.27)
    foot = slim * rng.uniform(1.1, 1.6)
    parts = [
        Part(
            smooth(
                (-slim, -0.1),
                (slim, -0.1),
                (0.95 * slim, 0.4),
                (foot, 0.85),
                (0, 0.97),
                (-foot, 0.85),
                (-0.95 * slim, 0.4),
            ),
            "accent",
            stem,
        ),
        Part(ellipse(0, 0.0, 0.72, 0.12 + hem / 2, n=22), "detail", shaded(stem, 0.8)),
    ]
    dome = ellipse(0, 0, 0.9, high, 180, 360, n=20)
    under = ellipse(0, 0, 0.9, hem, 0, 180, n=12) if rng.random() < 0.5 else ellipse(0, 0, 0.9, -hem, 0, 180, n=12)
    parts.append(Part(np.concatenate([dome, under]), "body", cap))
    white = pick(rng, "f7f0e4")
    if rng.random() < 0.8:
        for x, y, r in (
            (-0.5, -0.3, 0.13),
            (0.02, -0.55, 0.16),
            (0.5, -0.28, 0.14),
            (-0.12, -0.2, 0.09),
            (0.26, -0.6, 0.07),
        ):
            dx, dy, grow = rng.normal(0, 0.04), rng.normal(0, 0.03), rng.uniform(0.7, 1.2)
            parts.append(Part(ellipse(x + dx, y * high + dy, r * grow, 0.85 * r * grow, n=14), "detail", white))
    return parts


def star(rng: np.random.Generator) -> list[Part]:
    """A five-pointed star, perhaps with facets or a smaller star inside."""
    colour = pick(rng, "f2c230", "e8b12a", "d9a03c", "c9404a", "b9bcc4", "4f8fd0")
    inner, kind = rng.uniform(0.4, 0.55), rng.random()
    tips = _star_points(1.0, inner)
    parts = [Part(tips, "body", colour)]
    if kind < 0.4:
        for k in range(5):
            facet = np.stack([np.zeros(2), tips[2 * k], tips[2 * k + 1]])
            parts.append(Part(facet, "detail", shaded(colour, 0.72)))
    elif kind < 0.7:
        parts.append(Part(_star_points(0.58, inner * 0.58), "detail", shaded(colour, 1.45)))
    return parts


def _star_points(outer: float, inner: float) -> Points:
    angle = np.radians(-90 + 36 * np.arange(10))
    radius = np.where(np.arange(10) % 2 == 0, outer, inner)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def tree(rng: np.random.Generator) -> list[Part]:
    """A leafy tree with a lobed crown or a fir of stacked triangles."""
    bark = pick(rng, "7a5230", "8a6340", "5f4530")
    leaf = pick(rng, "3f8a3a", "5fa03f", "2f6f3f", "7fa53a", "4f9050", "c9822f", spread=0.06)
    thick = rng.uniform(0.09, 0.15)
    trunk = polygon((-thick, 0.1), (thick, 0.1), (1.4 * thick, 1.0), (-1.4 * thick, 1.0))
    parts = [Part(trunk, "accent", bark)]
    if rng.random() < 0.4:
        tiers, wide = int(rng.integers(3, 5)), rng.uniform(0.55, 0.75)
        for k in range(tiers):
            base, w = 0.62 - 0.42 * k, wide * (1 - 0.22 * k)
            tier = polygon((0.0, base - 0.72), (w, base), (0.0, base - 0.06), (-w, base))
            parts.append(Part(tier, "body", shaded(leaf, 0.8 + 0.08 * k)))
        return parts
    wide, high = rng.uniform(0.62, 0.82), rng.uniform(0.52, 0.66)
    lobes = int(rng.integers(7, 10))
    angle = np.linspace(0, 2 * np.pi, lobes, endpoint=False) + rng.uniform(0, 1)
    knots = []
    for a, b in zip(angle, angle + np.pi / lobes, strict=True):
        reach = rng.uniform(0.92, 1.08)
        knots.append((reach * wide * np.cos(a), -0.32 + reach * high * np.sin(a)))
        knots.append((0.86 * wide * np.cos(b), -0.32 + 0.86 * high * np.sin(b)))
    parts.append(Part(smooth(*knots), "body", leaf))
    for x, y in ((-0.3, -0.3), (0.28, -0.5), (0.05, -0.12)):
        arc = ellipse(x + rng.normal(0, 0.05), y + rng.normal(0, 0.05), 0.15, 0.1, 190, 350, n=8)
        parts.append(Part(arc, "detail", shaded(leaf, 0.7), 0.05))
    return parts
