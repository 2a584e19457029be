"""Make a random, posed vector drawing of a class. Does not import torch.

``shapes.json`` describes every thing as a list of steps, from back to front:

- ``set`` gives values to names. The functions `uniform`, `normal`, `choice`, `integers`, `random` and `pick` draw
  random numbers and colours.
- ``for`` repeats the steps of ``do`` with the names set to each row of ``in``, or to the ``first`` rows alone.
- ``if`` takes the steps of ``then`` or of ``else``.
- ``piece`` draws a piece. It has a role, a ``colour``, a ``width`` if it is a stroke, and one curve: ``polygon`` or
  ``smooth`` through points, ``box``, ``ellipse`` (an arc if it has a start and stop in degrees) or ``join``, which puts
  curves together.

Values are expressions in Python. They may use names that are set and a few functions.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

from experiments.drawn.geometry import (
    DrawnPiece,
    Number,
    Outline,
    box,
    ellipse,
    pick,
    placed,
    polygon,
    shaded,
    smooth,
)

import numpy as np
from jaxtyping import Float

Steps = Sequence[Any]
Scope = Mapping[str, Any]
"""The names that expressions may use: numbers, colours, lists and functions."""

_FUNCTIONS: Mapping[str, Any] = {
    "abs": abs,
    # The k-th of n + 1 points from start to stop.
    "between": lambda start, stop, k, n: np.linspace(start, stop, n + 1)[k],
    "cos": np.cos,
    "max": max,
    "min": min,
    "pi": np.pi,
    "radians": np.radians,
    "range": range,
    "shaded": shaded,
    "sin": np.sin,
    # Roles are expressions, too, so that a condition can choose a role.
    "body": "body",
    "accent": "accent",
    "detail": "detail",
}


def evaluate(value: Any, scope: Scope) -> Any:
    """Return the value of an expression if ``value`` is a text, or else ``value`` itself."""
    if not isinstance(value, str):
        return value
    # Expressions come from the file beside this module alone, and see no builtins.
    return eval(_compiled(value), {"__builtins__": {}}, scope)


# A thing is drawn many times; to compile its expressions takes longer than to evaluate them.
@cache
def _compiled(text: str) -> CodeType:
    """Return the compiled expression."""
    return compile(text, "shapes.json", "eval")


@cache
def shapes() -> Mapping[str, Mapping[str, Any]]:
    """Return by class the steps that ``draw`` it, and its ``tilt``, the degrees by which it may be turned."""
    text = Path(__file__).with_name("shapes.json").read_text(encoding="utf-8")
    drawn: dict[str, Any] = json.loads(text)
    return drawn


def draw_pieces(class_name: str, rng: np.random.Generator) -> list[DrawnPiece]:
    """Draw a thing upright, with random proportions and colours. Return its pieces from back to front."""
    # Steps are never reordered: the order in which expressions take random numbers belongs to the drawing.
    scope: dict[str, Any] = {
        **_FUNCTIONS,
        "choice": lambda *values: rng.choice(values),
        "integers": lambda low, high: int(rng.integers(low, high)),
        "normal": rng.normal,
        "pick": lambda *palette, spread=0.05: pick(rng, *palette, spread=spread),
        "random": rng.random,
        "uniform": rng.uniform,
    }
    steps = _unrolled(shapes()[class_name]["draw"], scope)
    return [_piece(step, scope) for step in steps]


def _unrolled(steps: Steps, scope: dict[str, Any]) -> Iterator[Any]:
    """Yield the items of steps one by one, after loops and conditions are carried out.

    When an item is yielded, ``scope`` holds the values at that point. So an item must be used before the next item is
    taken.
    """
    for step in steps:
        match step:
            case {"set": values}:
                for name, value in values.items():
                    scope[name] = evaluate(value, scope)
            case {"for": names, "in": rows}:
                values = evaluate(rows, scope)
                # Without "first" this is None: all rows.
                first = evaluate(step.get("first"), scope)
                for row in values[:first]:
                    if not isinstance(row, list):
                        row = [row]
                    # All entries are evaluated before any name is set: an entry may use a name of the row before.
                    entries = [evaluate(value, scope) for value in row]
                    scope.update(zip(names.split(), entries, strict=True))
                    yield from _unrolled(step["do"], scope)
            case {"if": test}:
                branch = "then" if evaluate(test, scope) else "else"
                yield from _unrolled(step.get(branch, ()), scope)
            case _:
                yield step


def _piece(step: Mapping[str, Any], scope: dict[str, Any]) -> DrawnPiece:
    """Return the piece of a step."""
    # The curve first and the colour second: both may take random numbers, so their order must not change.
    points = _curve(step, scope)
    colour = evaluate(step["colour"], scope)
    return DrawnPiece(
        points,
        evaluate(step["piece"], scope),
        tuple(colour),
        float(evaluate(step.get("width", 0.0), scope)),
    )


def _curve(step: Mapping[str, Any], scope: dict[str, Any]) -> Outline:
    """Return the points of the curve of a step."""
    match step:
        case {"polygon": corners}:
            points = polygon(*_pairs(corners, scope))
        case {"smooth": knots}:
            closed = not step.get("open", False)
            points = smooth(
                *_pairs(knots, scope), closed_curve=closed, steps=step.get("steps", 6)
            )
        case {"box": edges}:
            points = box(*_values(edges, scope))
        case {"ellipse": numbers}:
            points = ellipse(*_values(numbers, scope), n=step.get("n", 28))
        case {"join": curves}:
            joined = [_curve(curve, scope) for curve in _unrolled(curves, scope)]
            points = np.concatenate(joined)
        case _:
            raise ValueError(f"{step} has no curve")
    if "turn" in step:
        # A curve that is turned is given round the origin, and is moved to its place after the turn.
        turn = _rotation(np.radians(evaluate(step["turn"], scope)))
        points = points @ turn + np.array(_values(step["at"], scope))
    return points[::-1] if step.get("reversed", False) else points


def _rotation(angle: Number) -> Float[np.ndarray, "2 2"]:
    """Return the matrix that turns points, which are rows, by an angle in radians; clockwise, as y points downwards."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _pairs(points: Steps, scope: dict[str, Any]) -> list[tuple[Number, Number]]:
    """Return the points [(x, y), ...] of a list that may contain loops and conditions."""
    return [
        (evaluate(x, scope), evaluate(y, scope)) for x, y in _unrolled(points, scope)
    ]


def _values(numbers: Sequence[Any], scope: Scope) -> list[Number]:
    """Return the values of expressions."""
    return [evaluate(number, scope) for number in numbers]


def posed_drawing(class_name: str, rng: np.random.Generator) -> tuple[DrawnPiece, ...]:
    """Return a random drawing of the class: mirrored, stretched, bent, turned, scaled and placed in the picture."""
    # The order of the random numbers below is fixed: another order would be another set of drawings.
    pieces = draw_pieces(class_name, rng)
    tilt = shapes()[class_name]["tilt"]
    angle = np.radians(rng.uniform(-tilt, tilt))
    mirror = rng.choice([-1.0, 1.0])
    stretch = rng.uniform(0.9, 1.12)
    shear = rng.normal(0, 0.04)
    # Stretched along x and shrunk along y by the same factor, so that the area stays.
    pose = np.array([[mirror * stretch, 0.0], [shear, 1 / stretch]])
    matrix = pose @ _rotation(angle)
    bend = rng.normal(0, 0.025, (2, 2))
    phase = rng.uniform(0, 2 * np.pi, (2, 2))
    pieces = [
        replace(piece, points=_bent(piece.points, bend, phase) @ matrix)
        for piece in pieces
    ]
    half = rng.uniform(0.6, 0.9)
    # A margin of 0.05 on each side is never drawn on.
    slack = 0.95 - half
    return placed(pieces, rng.uniform(-slack, slack), rng.uniform(-slack, slack), half)


def _bent(
    points: Outline, bend: Float[np.ndarray, "2 2"], phase: Float[np.ndarray, "2 2"]
) -> Outline:
    """Shift points along slow waves, so that no two drawings of a class are equal up to a pose.

    Args:
        bend: Amplitudes of two waves (rows) along x and y (columns).
        phase: Phases of the same waves, in radians.
    """
    # The first wave shifts x as y changes, and y as x changes; the second shifts each along itself.
    across: Outline = np.sin(2.2 * points[:, ::-1] + phase[0])
    along: Outline = np.sin(3.1 * points + phase[1])
    bent: Outline = points + across * bend[0] + along * bend[1]
    return bent
