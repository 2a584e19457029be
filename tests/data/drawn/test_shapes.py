"""The shapes: drawings that never change, and the small language that describes them."""

import zlib
from typing import Any

import numpy as np
import pytest

from circuitry.data.drawn.shapes import evaluate, posed_drawing, shapes

# Class -> numbers of parts and points, and a checksum of the points, over the seeds 0 to 4.
DRAWN: dict[str, tuple[int, int, float]] = {
    "bicycle": (90, 595, 379.13844172826657),
    "butterfly": (55, 1100, 474.0976964920482),
    "car": (55, 690, 355.9829571454634),
    "clock": (73, 542, -109.00187861542037),
    "cup": (26, 537, -186.73093408720575),
    "fish": (42, 783, 107.57068877725307),
    "flower": (54, 999, -652.9144164452268),
    "house": (52, 200, 212.39942469287234),
    "ice_cream": (37, 494, -450.069521657667),
    "key": (30, 272, -108.18400555927883),
    "ladder": (41, 82, 40.60560909652428),
    "mushroom": (25, 620, -15.80195704271123),
    "sailboat": (29, 294, 252.60125518475044),
    "star": (13, 95, -15.88393654346536),
    "tree": (24, 536, -540.3926399783135),
    "umbrella": (22, 668, -763.5400493643809),
}


def drawn(class_name: str) -> tuple[int, int, float]:
    parts = [
        part
        for seed in range(5)
        for part in posed_drawing(class_name, np.random.default_rng([seed, zlib.crc32(class_name.encode())]))
    ]
    points = np.concatenate([part.points for part in parts])
    weights = 1 + np.arange(points.size).reshape(points.shape) % 7
    colours = np.array([part.colour for part in parts]).sum() + sum(part.width for part in parts)
    return len(parts), len(points), float((points * weights).sum() + colours)


@pytest.mark.parametrize("class_name", sorted(DRAWN))
def test_drawings_are_fixed_for_all_time(class_name: str) -> None:
    """Models are published that were trained on them; whoever changes one raises DRAWINGS_VERSION."""
    parts, points, checksum = DRAWN[class_name]
    found = drawn(class_name)
    assert found[:2] == (parts, points)
    assert found[2] == pytest.approx(checksum, abs=1e-9)


def test_every_shape_is_checked() -> None:
    assert set(DRAWN) == set(shapes())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-2 * x + 1", -5.0),
        ("x / 2 - 4 % 3", 0.5),
        ("(x + 1) * 2 <= 8", True),
        ("'yes' if x == 3 else missing", "yes"),
        ("twice(x, plus=1)", 7.0),
        (0.25, 0.25),
        ([1, "x"], [1, "x"]),
    ],
)
def test_expressions_are_pythons(text: Any, value: object) -> None:
    assert evaluate(text, {"x": 3.0, "twice": lambda x, plus: 2 * x + plus}) == value


@pytest.mark.parametrize("text", ["x.real", "[x]", "lambda: x", "x[0]", "(lambda: 1)()", "x < y < z", "x ** 2"])
def test_there_are_no_other_expressions(text: str) -> None:
    with pytest.raises((ValueError, KeyError), match=r"none of the expressions|Pow"):
        evaluate(text, {"x": 1.0})
