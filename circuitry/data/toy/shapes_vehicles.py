"""Parametric drawings of what one travels in: class -> parts, back to front. No torch."""

import numpy as np

from circuitry.data.toy.shapes_geometry import (
    GLASS,
    STEEL,
    Part,
    Points,
    box,
    ellipse,
    pick,
    polygon,
    shaded,
    smooth,
)


def bicycle(rng: np.random.Generator) -> list[Part]:
    """Two spoked wheels, a diamond frame, handlebar and saddle."""
    paint = pick(rng, "c9302a", "2f62b5", "2f8a57", "d9902a", "4a4a55", "7a3f9a")
    tyre, steel = pick(rng, "2a2a2c", "3a3430"), pick(rng, *STEEL)
    r = rng.uniform(0.38, 0.44)
    back, front = (-0.56, 0.3), (0.56, 0.3)
    parts = []
    for x, y in (back, front):
        turn = rng.uniform(0, 60)
        for k in range(3):
            a = np.radians(turn + 60 * k)
            dx, dy = float(r * np.cos(a)), float(r * np.sin(a))
            parts.append(Part(polygon((x - dx, y - dy), (x + dx, y + dy)), "detail", steel, 0.022))
        parts.append(Part(ellipse(x, y, r, r, n=28), "body", tyre, 0.075))
    crank, seat, head = (
        (-0.05, 0.32),
        (-0.2, -0.28 + rng.normal(0, 0.03)),
        (0.42, -0.26 + rng.normal(0, 0.03)),
    )
    for a, b in ((back, crank), (crank, head), (seat, crank), (back, seat), (seat, head), (front, head)):
        parts.append(Part(polygon(a, b), "accent", paint, 0.075))
    rise = rng.uniform(0.14, 0.26)
    bar = smooth(
        head,
        (head[0] - 0.05, head[1] - rise),
        (head[0] + 0.12, head[1] - rise - 0.06),
        closed_curve=False,
        steps=4,
    )
    parts.append(Part(bar, "accent", tyre, 0.07))
    parts.append(Part(polygon(seat, (seat[0] - 0.05, seat[1] - 0.14)), "accent", tyre, 0.06))
    parts.append(Part(ellipse(seat[0] - 0.06, seat[1] - 0.16, 0.2, 0.06, n=14), "accent", tyre))
    parts.append(Part(ellipse(*crank, 0.09, 0.09, n=14), "detail", steel))
    return parts


def car(rng: np.random.Generator) -> list[Part]:
    """A car from the side: body, cabin with two windows, two wheels, a lamp."""
    paint = pick(rng, "c9302a", "2f62b5", "e0b52a", "3f8a57", "b9bcc4", "d9702a", "4a5a70")
    tyre, hub, glass = pick(rng, "232325"), pick(rng, *STEEL), pick(rng, *GLASS)
    roof, left, right = rng.uniform(-0.5, -0.38), rng.uniform(-0.62, -0.45), rng.uniform(0.22, 0.4)
    slope, r = rng.uniform(0.1, 0.28), rng.uniform(0.19, 0.24)
    cabin = polygon(
        (left - 0.6 * slope, 0.0),
        (left + 0.4 * slope, roof),
        (right - 0.4 * slope, roof),
        (right + slope, 0.0),
    )
    nose = rng.uniform(-0.02, 0.1)
    hull = smooth(
        (-0.95, 0.02),
        (-0.5, -0.05),
        (0.4, -0.05),
        (0.88, nose),
        (0.97, 0.3),
        (0.5, 0.4),
        (-0.5, 0.4),
        (-0.97, 0.32),
        steps=4,
    )
    parts = [Part(cabin, "accent", paint)]
    middle, top = (left + right) / 2, roof + 0.08
    parts.append(
        Part(
            polygon(
                (left - 0.25 * slope + 0.05, -0.03),
                (left + 0.4 * slope + 0.06, top),
                (middle - 0.035, top),
                (middle - 0.035, -0.03),
            ),
            "accent",
            glass,
        )
    )
    parts.append(
        Part(
            polygon(
                (middle + 0.035, -0.03),
                (middle + 0.035, top),
                (right - 0.4 * slope - 0.06, top),
                (right + 0.6 * slope - 0.03, -0.03),
            ),
            "accent",
            glass,
        )
    )
    parts.append(Part(hull, "body", paint))
    parts.append(Part(polygon((middle, 0.02), (middle, 0.33)), "detail", shaded(paint, 0.6), 0.03))
    parts.append(Part(box(middle - 0.17, 0.08, middle - 0.06, 0.12), "detail", shaded(paint, 0.5)))
    parts.append(Part(ellipse(0.86, nose + 0.1, 0.075, 0.06, n=12), "detail", (0.98, 0.93, 0.65)))
    for x in (-0.54, 0.54):
        parts.append(Part(ellipse(x, 0.38, r, r, n=24), "body", tyre))
        parts.append(Part(ellipse(x, 0.38, 0.45 * r, 0.45 * r, n=14), "detail", hub))
    return parts


def sailboat(rng: np.random.Generator) -> list[Part]:
    """A hull, a mast with mainsail and jib, perhaps a pennant and waves."""
    hull = pick(rng, "8a4a2b", "c9302a", "2f4f8a", "e8e4d8", "3f7a6a")
    sail = pick(rng, "f5f2ea", "f0e0b8", "e0704a", "e8c24a", "a8c9e0")
    top, deck, wide = -0.98, rng.uniform(0.42, 0.52), rng.uniform(0.72, 0.9)
    reach = rng.uniform(0.55, 0.75)
    parts = [
        Part(_sail(0.05, top + 0.06, reach, deck - 0.1, 0.12), "accent", sail),
        Part(
            _sail(-0.05, top + rng.uniform(0.15, 0.4), -rng.uniform(0.45, 0.62), deck - 0.1, 0.08),
            "accent",
            shaded(sail, 0.86),
        ),
        Part(polygon((0.0, top), (0.0, deck)), "body", pick(rng, "6a4a30", "8a6a4a"), 0.06),
        Part(
            smooth(
                (-wide, deck),
                (0, deck + 0.03),
                (wide + 0.08, deck - 0.04),
                (0.62 * wide, 0.93),
                (-0.6 * wide, 0.93),
                steps=4,
            ),
            "body",
            hull,
        ),
        Part(polygon((-0.85 * wide, deck + 0.12), (0.88 * wide, deck + 0.1)), "detail", shaded(hull, 1.6), 0.05),
    ]
    if rng.random() < 0.5:
        parts.append(
            Part(
                polygon((0, top), (0.24, top + 0.07), (0, top + 0.15)),
                "detail",
                pick(rng, "d9302a", "2f62b5"),
            )
        )
    if rng.random() < 0.5:
        sea = pick(rng, "3f7fb0", "5fa3c9")
        wave = np.stack([np.linspace(-1, 1, 25), 0.97 + 0.05 * np.sin(np.linspace(0, 18, 25))], axis=1)
        parts.append(Part(wave, "accent", sea, 0.09))
    return parts


def _sail(x: float, top: float, reach: float, foot: float, belly: float) -> Points:
    """A triangle whose free edge bulges by ``belly``."""
    side = float(np.sign(reach))
    leech = smooth(
        (x, top), (x + 0.6 * reach + belly * side, 0.45 * (top + foot)), (x + reach, foot), closed_curve=False
    )
    return np.concatenate([leech, polygon((x, foot))])
