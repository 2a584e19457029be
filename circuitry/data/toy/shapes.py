"""From a class name to one random, posed vector drawing of it. No torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from circuitry.data.toy import shapes_nature as nature
from circuitry.data.toy import shapes_things as things
from circuitry.data.toy import shapes_vehicles as vehicles
from circuitry.data.toy.shapes_geometry import Number, Part, Points, placed


@dataclass(frozen=True)
class Shape:
    """How to draw a class, and how far it may turn and stay itself."""

    parts: Callable[[np.random.Generator], list[Part]]
    """Random proportions and colours -> parts, back to front."""
    tilt: Number
    """Largest rotation to either side, degrees."""


SHAPES: Mapping[str, Shape] = {
    "bicycle": Shape(vehicles.bicycle, 8),
    "butterfly": Shape(nature.butterfly, 35),
    "car": Shape(vehicles.car, 8),
    "clock": Shape(things.clock, 10),
    "cup": Shape(things.cup, 10),
    "fish": Shape(nature.fish, 25),
    "flower": Shape(nature.flower, 20),
    "house": Shape(things.house, 5),
    "ice_cream": Shape(nature.ice_cream, 20),
    "key": Shape(things.key, 60),
    "ladder": Shape(things.ladder, 25),
    "mushroom": Shape(nature.mushroom, 15),
    "sailboat": Shape(vehicles.sailboat, 10),
    "star": Shape(nature.star, 30),
    "tree": Shape(nature.tree, 6),
    "umbrella": Shape(things.umbrella, 30),
}


def posed_drawing(class_name: str, rng: np.random.Generator) -> tuple[Part, ...]:
    """A random drawing of the class: mirrored, stretched, bent, turned, scaled and placed in the picture."""
    shape = SHAPES[class_name]
    parts = shape.parts(rng)
    angle = np.radians(rng.uniform(-shape.tilt, shape.tilt))
    mirror, stretch, shear = rng.choice([-1.0, 1.0]), rng.uniform(0.9, 1.12), rng.normal(0, 0.04)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = np.array([[mirror * stretch, 0.0], [shear, 1 / stretch]]) @ turn
    bend, phase = rng.normal(0, 0.025, (2, 2)), rng.uniform(0, 2 * np.pi, (2, 2))
    parts = [replace(part, points=_bent(part.points, bend, phase) @ matrix) for part in parts]
    half = rng.uniform(0.6, 0.9)
    slack = 0.95 - half
    return placed(parts, rng.uniform(-slack, slack), rng.uniform(-slack, slack), half)


def _bent(points: Points, bend: Float[np.ndarray, "2 2"], phase: Float[np.ndarray, "2 2"]) -> Points:
    """The points shifted along slow waves, so that no two drawings of a class are the same up to a pose."""
    across: Points = np.sin(2.2 * points[:, ::-1] + phase[0])
    along: Points = np.sin(3.1 * points + phase[1])
    bent: Points = points + across * bend[0] + along * bend[1]
    return bent
