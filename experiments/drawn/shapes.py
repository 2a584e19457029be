"""From a class name to one random, posed vector drawing of it. No torch.

``shapes.json`` describes every thing as a list of steps, back to front:

- ``set``: numbers and colours, by name; `uniform`, `normal`, `choice`, `integers`, `random` and `pick` are random;
- ``for`` names ``in`` rows (the ``first`` of them) ``do`` steps; ``if``, ``then``, ``else``;
- ``piece``: its role, its ``colour``, its ``width`` (of a stroke; an area has none), and one curve: ``polygon`` or
  ``smooth`` through points, ``box``, ``ellipse`` (or an arc, from and to degrees), or curves that are joined.

Values are Python's expressions of names that are set, and of a few functions.
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
"""Name -> number, colour, list, or function that expressions may call."""

_FUNCTIONS: Mapping[str, Any] = {
    "abs": abs,
    "between": lambda start, stop, k, n: np.linspace(start, stop, n + 1)[k],
    "cos": np.cos,
    "max": max,
    "min": min,
    "pi": np.pi,
    "radians": np.radians,
    "range": range,
    "shaded": shaded,
    "sin": np.sin,
    **{role: role for role in ("body", "accent", "detail")},
}


def evaluate(value: Any, scope: Scope) -> Any:
    """Return the value of an expression; what is no text stands for itself."""
    return (
        eval(_compiled(value), {"__builtins__": {}}, scope)
        if isinstance(value, str)
        else value
    )


@cache
def _compiled(text: str) -> CodeType:
    return compile(text, "shapes.json", "eval")


@cache
def shapes() -> Mapping[str, Mapping[str, Any]]:
    """Return every thing that can be drawn: its steps, and ``tilt``, the degrees it may turn and stay itself."""
    text = Path(__file__).with_name("shapes.json").read_text(encoding="utf-8")
    drawn: dict[str, Any] = json.loads(text)
    return drawn


def draw_pieces(class_name: str, rng: np.random.Generator) -> list[DrawnPiece]:
    """Draw a thing with random proportions and colours, upright: its pieces from back to front."""
    scope: dict[str, Any] = {
        **_FUNCTIONS,
        "choice": lambda *values: rng.choice(values),
        "integers": lambda low, high: int(rng.integers(low, high)),
        "normal": rng.normal,
        "pick": lambda *palette, spread=0.05: pick(rng, *palette, spread=spread),
        "random": rng.random,
        "uniform": rng.uniform,
    }
    return [
        _piece(step, scope) for step in _unrolled(shapes()[class_name]["draw"], scope)
    ]


def _unrolled(steps: Steps, scope: dict[str, Any]) -> Iterator[Any]:
    """Yield the items of steps one by one, while ``scope`` holds what was set before each."""
    for step in steps:
        match step:
            case {"set": values}:
                for name, value in values.items():
                    scope[name] = evaluate(value, scope)
            case {"for": names, "in": rows}:
                values, first = (
                    evaluate(rows, scope),
                    evaluate(step.get("first"), scope),
                )
                for row in values[:first]:
                    row = row if isinstance(row, list) else [row]
                    scope.update(
                        zip(
                            names.split(),
                            [evaluate(value, scope) for value in row],
                            strict=True,
                        )
                    )
                    yield from _unrolled(step["do"], scope)
            case {"if": test}:
                yield from _unrolled(
                    step["then"] if evaluate(test, scope) else step.get("else", ()),
                    scope,
                )
            case _:
                yield step


def _piece(step: Mapping[str, Any], scope: dict[str, Any]) -> DrawnPiece:
    points = _curve(step, scope)
    colour = evaluate(step["colour"], scope)
    return DrawnPiece(
        points,
        evaluate(step["piece"], scope),
        tuple(colour),
        float(evaluate(step.get("width", 0.0), scope)),
    )


def _curve(step: Mapping[str, Any], scope: dict[str, Any]) -> Outline:
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
            points = np.concatenate(
                [_curve(curve, scope) for curve in _unrolled(curves, scope)]
            )
        case _:
            raise ValueError(f"{step} has no curve")
    if "turn" in step:
        angle = np.radians(evaluate(step["turn"], scope))
        cos, sin = np.cos(angle), np.sin(angle)
        points = points @ np.array([[cos, sin], [-sin, cos]]) + np.array(
            _values(step["at"], scope)
        )
    return points[::-1] if step.get("reversed", False) else points


def _pairs(points: Steps, scope: dict[str, Any]) -> list[tuple[Number, Number]]:
    return [
        (evaluate(x, scope), evaluate(y, scope)) for x, y in _unrolled(points, scope)
    ]


def _values(numbers: Sequence[Any], scope: Scope) -> list[Number]:
    return [evaluate(number, scope) for number in numbers]


def posed_drawing(class_name: str, rng: np.random.Generator) -> tuple[DrawnPiece, ...]:
    """Return a random drawing of the class: mirrored, stretched, bent, turned, scaled and placed in the picture."""
    pieces, tilt = draw_pieces(class_name, rng), shapes()[class_name]["tilt"]
    angle = np.radians(rng.uniform(-tilt, tilt))
    mirror, stretch, shear = (
        rng.choice([-1.0, 1.0]),
        rng.uniform(0.9, 1.12),
        rng.normal(0, 0.04),
    )
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = np.array([[mirror * stretch, 0.0], [shear, 1 / stretch]]) @ turn
    bend, phase = rng.normal(0, 0.025, (2, 2)), rng.uniform(0, 2 * np.pi, (2, 2))
    pieces = [
        replace(piece, points=_bent(piece.points, bend, phase) @ matrix)
        for piece in pieces
    ]
    half = rng.uniform(0.6, 0.9)
    slack = 0.95 - half
    return placed(pieces, rng.uniform(-slack, slack), rng.uniform(-slack, slack), half)


def _bent(
    points: Outline, bend: Float[np.ndarray, "2 2"], phase: Float[np.ndarray, "2 2"]
) -> Outline:
    """Return the points shifted along slow waves, so that no two drawings of a class are the same up to a pose."""
    across: Outline = np.sin(2.2 * points[:, ::-1] + phase[0])
    along: Outline = np.sin(3.1 * points + phase[1])
    bent: Outline = points + across * bend[0] + along * bend[1]
    return bent
