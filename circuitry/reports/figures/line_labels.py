"""Names at the right ends of lines, moved apart where the ends are close."""

import math
import re
from collections.abc import Sequence

import plotly.graph_objects as go


def label_ends(figure: go.Figure, ends: Sequence[tuple[float, str]], *, x: str, gap: float) -> None:
    """Write every label right of ``x`` at its value, at least ``gap`` from the next, and make room for it.

    Ends without a value (not a number) get no label.
    """
    ordered = sorted(end for end in ends if math.isfinite(end[0]))
    places = apart([value for value, _ in ordered], gap)
    for place, (_, label) in zip(places, ordered, strict=True):
        figure.add_annotation(x=x, y=place, text=label, xanchor="left", xshift=10, showarrow=False)
    if places and (span := figure.layout.yaxis.range) is not None:
        # plotly leaves out a label beyond the end of the axis
        figure.update_yaxes(range=[min(span[0], places[0] - gap / 2), max(span[1], places[-1] + gap / 2)])
    longest = max((len(re.sub("<[^>]*>", "", label)) for _, label in ordered), default=0)
    figure.update_layout(margin_r=30 + 7 * longest)


def apart(values: Sequence[float], gap: float) -> list[float]:
    """Ascending values moved as little as possible (least squares) until neighbours are ``gap`` apart.

    Subtracting ``i * gap`` turns the task into isotonic regression: pool neighbours that are out of order.

    Example:
        >>> apart([0.0, 0.5, 9.0], gap=1.0)
        [-0.25, 0.75, 9.0]
    """
    blocks: list[tuple[float, int]] = []
    for i, value in enumerate(values):
        mean, size = value - i * gap, 1
        while blocks and blocks[-1][0] > mean:
            before, count = blocks.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        blocks.append((mean, size))
    level = [mean for mean, size in blocks for _ in range(size)]
    return [mean + i * gap for i, mean in enumerate(level)]
