"""Parametric drawings of things at home: class -> parts, back to front. No torch."""

from itertools import pairwise

import numpy as np

from circuitry.data.toy.shapes_geometry import (
    GLASS,
    Part,
    Points,
    box,
    ellipse,
    pick,
    polygon,
    shaded,
    smooth,
)


def clock(rng: np.random.Generator) -> list[Part]:
    """A round or square dial with ticks and two hands; half of them alarm clocks with bells and feet."""
    case = pick(rng, "8a5a2b", "c9302a", "2f62b5", "3a3a40", "d9a02a", "3f8a70")
    face, ink = pick(rng, "f7f3e6", "ffffff", "efe2c0"), pick(rng, "232325", "3a2a20")
    parts = []
    alarm = rng.random() < 0.4
    if alarm:
        for side in (-1.0, 1.0):
            parts.append(Part(polygon((0.4 * side, 0.6), (0.62 * side, 0.98)), "accent", shaded(case, 0.7), 0.14))
            parts.append(Part(ellipse(0.48 * side, -0.72, 0.26, 0.22, n=18), "accent", case))
    if not alarm and rng.random() < 0.3:
        parts += [
            Part(box(-0.85, -0.85, 0.85, 0.85), "body", case),
            Part(box(-0.7, -0.7, 0.7, 0.7), "accent", face),
        ]
    else:
        parts += [
            Part(ellipse(0, 0, 0.85, 0.85), "body", case),
            Part(ellipse(0, 0, 0.7, 0.7), "accent", face),
        ]
    for k in range(12):
        a, inner = np.radians(30 * k), 0.5 if k % 3 == 0 else 0.56
        tick = polygon((inner * np.cos(a), inner * np.sin(a)), (0.64 * np.cos(a), 0.64 * np.sin(a)))
        if k % 3 == 0 or not alarm:
            parts.append(Part(tick, "detail", ink, 0.07 if k % 3 == 0 else 0.035))
    hour = rng.uniform(0, 12)
    for turns, reach, width in ((hour / 12, 0.34, 0.1), (hour % 1, 0.54, 0.07)):
        a = 2 * np.pi * turns - np.pi / 2
        parts.append(Part(polygon((0, 0), (reach * np.cos(a), reach * np.sin(a))), "accent", ink, width))
    parts.append(Part(ellipse(0, 0, 0.07, 0.07, n=10), "detail", ink))
    return parts


def cup(rng: np.random.Generator) -> list[Part]:
    """A mug or tea cup with a handle, an open rim and perhaps a band, a saucer or steam."""
    glaze = pick(rng, "d9d4c8", "c9404a", "3f6fb5", "e0b04a", "5f9a7a", "a86fb0", "e8e8ea")
    top, foot, high = rng.uniform(0.52, 0.66), rng.uniform(0.32, 0.58), rng.uniform(0.42, 0.62)
    foot, tea = min(foot, top), pick(rng, "6a3f20", "8a5a2b", "b5763a")
    parts = []
    if rng.random() < 0.35:
        parts.append(Part(ellipse(0, high, 0.95, 0.14), "accent", shaded(glaze, 0.85)))
    r = rng.uniform(0.22, 0.3)
    loop = ellipse(top - 0.06, 0.0, r + 0.08, r + 0.02, -80, 80, n=14)
    parts.append(Part(loop, "accent", shaded(glaze, 0.9), rng.uniform(0.1, 0.14)))
    wall = np.concatenate(
        [
            polygon((-top, -high), (top, -high)),
            smooth((top * 0.98, 0.1), (foot, high), closed_curve=False, steps=3),
            ellipse(0, high, foot, 0.1, 0, 180, n=10),
            smooth((-foot, high), (-top * 0.98, 0.1), closed_curve=False, steps=3),
        ]
    )
    parts.append(Part(wall, "body", glaze))
    if rng.random() < 0.5:
        stripe = pick(rng, "f5f2ea", "c9302a", "2f4f8a", "e8b12a")
        y = rng.uniform(0.0, 0.15)
        parts.append(
            Part(
                smooth((-0.93 * top, y), (0, y + 0.08), (0.93 * top, y), closed_curve=False, steps=5),
                "detail",
                stripe,
                0.12,
            )
        )
    parts.append(Part(ellipse(0, -high, top, 0.15), "accent", shaded(glaze, 0.8)))
    parts.append(Part(ellipse(0, -high + 0.02, top - 0.08, 0.095), "accent", tea))
    if rng.random() < 0.35:
        for x in (-0.2, 0.15):
            curl = smooth(
                (x, -high - 0.18),
                (x + 0.08, -high - 0.3),
                (x - 0.06, -high - 0.42),
                (x + 0.04, -high - 0.56),
                closed_curve=False,
                steps=4,
            )
            parts.append(Part(curl, "detail", (0.72, 0.72, 0.74), 0.05))
    return parts


def house(rng: np.random.Generator) -> list[Part]:
    """Walls, a gable or hip roof, a door, windows, perhaps a chimney."""
    wall = pick(rng, "e8d8b0", "c98a6a", "d9d4c8", "e0c25a", "a8bfc9", "d9a8a0")
    roof = pick(rng, "a83a2f", "7a4a35", "55606f", "8a3f3a", "4f6f5a")
    door, glass = pick(rng, "7a4a2b", "3f5f8a", "8a2f2f", "2f6f4f"), pick(rng, *GLASS)
    wide, eaves, peak = rng.uniform(0.62, 0.82), rng.uniform(-0.2, 0.0), rng.uniform(-0.95, -0.75)
    over, ridge = rng.uniform(0.1, 0.18), rng.choice([0.0, 0.0, 0.35])
    parts = []
    if rng.random() < 0.6:
        x = rng.choice([-0.45, 0.4])
        parts.append(Part(box(x - 0.09, -0.9, x + 0.09, -0.3), "accent", shaded(roof, 0.85)))
    parts.append(Part(box(-wide, eaves - 0.05, wide, 0.85), "body", wall))
    parts.append(
        Part(
            polygon((-wide - over, eaves), (-ridge, peak), (ridge + 1e-3, peak), (wide + over, eaves)),
            "accent",
            roof,
        )
    )
    at = rng.choice([-0.4, 0.0, 0.4]) * wide
    parts.append(Part(box(at - 0.14, 0.3, at + 0.14, 0.85), "accent", door))
    parts.append(Part(ellipse(at + 0.08, 0.6, 0.03, 0.03, n=8), "detail", (0.95, 0.8, 0.35)))
    for x in (-0.55 * wide, 0.55 * wide):
        if abs(x - at) < 0.3:
            continue
        y = 0.28 + rng.normal(0, 0.02)
        parts.append(Part(box(x - 0.15, y - 0.14, x + 0.15, y + 0.14), "accent", (0.95, 0.95, 0.92)))
        parts.append(Part(box(x - 0.115, y - 0.105, x + 0.115, y + 0.105), "detail", glass))
        parts.append(Part(polygon((x, y - 0.14), (x, y + 0.14)), "detail", (0.95, 0.95, 0.92), 0.035))
        parts.append(Part(polygon((x - 0.15, y), (x + 0.15, y)), "detail", (0.95, 0.95, 0.92), 0.035))
    return parts


def key(rng: np.random.Generator) -> list[Part]:
    """A key: a ring or clover bow, a shaft, two or three teeth."""
    metal = pick(rng, "d9a83a", "b9bcc4", "a8782f", "c9b070", "8f7a5f")
    r, thick, shaft = rng.uniform(0.26, 0.34), rng.uniform(0.11, 0.15), rng.uniform(0.1, 0.14)
    x = -0.62
    parts = [Part(polygon((x + r, 0.0), (0.95, 0.0)), "body", metal, shaft)]
    parts += [
        Part(box(at - 0.055, 0.0, at + 0.055, rng.uniform(0.2, 0.36)), "accent", metal)
        for at in (0.86, 0.68, 0.5)[: int(rng.integers(2, 4))]
    ]
    if rng.random() < 0.35:
        for a in (90.0, 270.0, 180.0):
            cx, cy = x + 0.75 * r * np.cos(np.radians(a)), 0.75 * r * np.sin(np.radians(a))
            parts.append(Part(ellipse(cx, cy, 0.62 * r, 0.62 * r, n=20), "body", metal, thick))
    else:
        parts.append(Part(ellipse(x, 0.0, r, r * rng.uniform(0.95, 1.2), n=26), "body", metal, 1.15 * thick))
    parts.append(Part(box(x + r + 0.04, -0.12, x + r + 0.12, 0.12), "detail", shaded(metal, 0.8)))
    return parts


def ladder(rng: np.random.Generator) -> list[Part]:
    """Two rails and their rungs, wider at the foot."""
    wood = pick(rng, "b07a45", "c99a5f", "8a5f35", "a8adb5", "d9a03c")
    n, foot, top = int(rng.integers(5, 8)), rng.uniform(0.36, 0.48), rng.uniform(0.26, 0.34)
    thick = rng.uniform(0.085, 0.12)
    parts = []
    for k in range(n):
        t = (k + 0.6) / n
        half = top + (foot - top) * t
        y = -1 + 2 * t
        parts.append(Part(polygon((-half, y), (half, y)), "accent", shaded(wood, 0.88), 0.85 * thick))
    rails = [polygon((top * side, -1.0), (foot * side, 1.0)) for side in (-1.0, 1.0)]
    return parts + [Part(rail, "body", wood, thick) for rail in rails]


def umbrella(rng: np.random.Generator) -> list[Part]:
    """An open umbrella from the side: scalloped canopy, panels, shaft, hooked handle."""
    cloth = pick(rng, "c9302a", "2f62b5", "e0b52a", "3f8a57", "8a4fb0", "d9609a", "3a3f55")
    second = pick(rng, "f5f2ea", "e8c24a", "3a3f55") if rng.random() < 0.4 else shaded(cloth, 0.75)
    wood, high, n = pick(rng, "6a4327", "3a3430", "8a6a4a"), rng.uniform(0.62, 0.85), int(rng.integers(4, 7))
    hook = rng.uniform(0.12, 0.18) * rng.choice([-1, 1])
    stick = np.concatenate([polygon((0.0, -0.98), (0.0, 0.72)), ellipse(hook, 0.72, -hook, 0.2, 0, 180, n=10)])
    parts = [Part(stick, "body", wood, 0.075)]
    edges = np.linspace(-0.95, 0.95, n + 1)
    hem = [ellipse(float(a + b) / 2, 0.0, float(b - a) / 2, 0.12, 0, -180, n=8) for a, b in pairwise(edges)]
    dome = ellipse(0, 0, 0.95, high, 180, 360, n=24)
    parts.append(Part(np.concatenate([dome, *hem[::-1]]), "body", cloth))
    sides = [float(edge) for edge in edges]
    panels = [_panel(sides[k], sides[k + 1], high, hem[k]) for k in range(1, n, 2)]
    return parts + [Part(panel, "detail", second) for panel in panels]


def _panel(left: float, right: float, high: float, hem: Points) -> Points:
    """One gore of the canopy: two meridians from the top down to the hem."""
    angle = np.linspace(0, np.pi / 2, 8)
    rise = np.stack([np.sin(angle), -high * np.cos(angle)], axis=1)
    return np.concatenate([rise * [left, 1.0], hem[::-1], rise[::-1] * [right, 1.0]])
