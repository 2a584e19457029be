"""Curves over the size of a circuit as a small drawing for notebooks. No torch."""

import html

import numpy as np
import pandas as pd

LOOKS = {
    "kept": ("#1f5fa8", "", "circuit"),
    "complement": ("#c1571a", "5 3", "all but the circuit"),
    "random": ("#7a8aa0", "2 3", "random units"),
}
"""Colour, dashes and name of each line."""
_WIDE, _HIGH, _LEFT, _TOP = 420, 220, 40, 14


def sketch_curve(table: pd.DataFrame) -> str:
    """Return an SVG of one measure over the share of the units, from `FaithfulnessCurve.to_pandas`."""
    known = table.dropna(subset="value")
    if known.empty:
        return f"<p>{html.escape(str(table['reason'].iloc[0]))}</p>"
    low, high = min(0.0, float(known["value"].min())), max(1.0, float(known["value"].max()))
    sizes = np.log10(np.array(sorted(set(known["fraction"]))))
    span = float(sizes[-1] - sizes[0]) or 1.0

    def across(fraction: float) -> float:
        return _LEFT + _WIDE * float(np.log10(fraction) - sizes[0]) / span

    def down(value: float) -> float:
        return _TOP + _HIGH * (high - value) / (high - low)

    measure = html.escape(str(table["measure"].iloc[0]))
    wide, tall = _LEFT + _WIDE + 120, _TOP + _HIGH + 34
    parts = [f"<svg viewBox='0 0 {wide} {tall}' width='{wide}' role='img' aria-label='{measure}'>"]
    for value in (0.0, 1.0):
        y = down(value)
        parts.append(f"<path d='M{_LEFT} {y:.1f}h{_WIDE}' stroke='#ccc'/><text x='4' y='{y + 3:.1f}'>{value:g}</text>")
    for name, (colour, dashes, label) in LOOKS.items():
        rows = known[known["circuit"] == name].sort_values("fraction")
        points = [(across(x), down(y)) for x, y in zip(rows["fraction"], rows["value"], strict=True)]
        if points:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            parts.append(f"<path d='M{path}' fill='none' stroke='{colour}' stroke-dasharray='{dashes}'/>")
            parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='2' fill='{colour}'/>" for x, y in points]
        place = list(LOOKS).index(name)
        parts.append(f"<text x='{_LEFT + _WIDE + 8}' y='{_TOP + 14 * place}' style='fill:{colour}'>{label}</text>")
    for size in 10**sizes:
        parts.append(f"<text x='{across(size):.0f}' y='{_TOP + _HIGH + 14}' text-anchor='middle'>{100 * size:g}</text>")
    parts.append(f"<text x='{_LEFT}' y='{_TOP + _HIGH + 30}'>{measure} over units kept (%)</text></svg>")
    return "".join(parts)
