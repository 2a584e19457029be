"""Parts of a card for notebooks: images, histograms and effects as HTML. No torch."""

import base64
import html
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

SHOWN_EFFECTS, SHOWN_IMAGES = 12, 6


def sketch_images(images: Mapping[str, Sequence[str]], thumbnail: Callable[[str], bytes]) -> str:
    """Return the top images of each domain, with the strongest first."""
    parts = []
    for domain, ids in images.items():
        shown = [base64.b64encode(thumbnail(one)).decode("ascii") for one in ids[:SHOWN_IMAGES]]
        tags = "".join(
            f"<img alt='image {i + 1} of {html.escape(domain)}' src='data:image/webp;base64,{content}'>"
            for i, content in enumerate(shown)
        )
        parts.append(f"<div><p>{html.escape(domain)}</p>{tags or '–'}</div>")
    return f"<h4>Images by activation</h4><div class='images'>{''.join(parts)}</div>"


def sketch_histograms(
    domains: Sequence[str], counts: Int[np.ndarray, "domains bins"], edges: Float[np.ndarray, " edges"]
) -> str:
    """Return the histograms of the activation, one row for each domain, on one axis."""
    heights = np.log1p(counts) / max(1e-9, float(np.log1p(counts).max(initial=0)))
    step, parts = 200 / counts.shape[1], list[str]()
    for row, domain in enumerate(domains):
        bottom = 22 * (row + 1)
        parts.append(f"<text x='96' y='{bottom}' text-anchor='end'>{html.escape(domain[:16])}</text>")
        for k, height in enumerate(heights[row]):
            if height > 0:
                place = f"x='{100 + k * step:.1f}' y='{bottom - 18 * height:.1f}' height='{18 * height:.1f}'"
                title = f"<title>{edges[k]:.3g} to {edges[k + 1]:.3g}: {counts[row, k]} images</title>"
                parts.append(f"<rect {place} width='{max(0.5, step - 0.5):.1f}' fill='#1f5fa8'>{title}</rect>")
    bottom = 22 * len(domains) + 12
    parts.append(f"<text x='100' y='{bottom}'>{edges[0]:.2g}</text>")
    parts.append(f"<text x='300' y='{bottom}' text-anchor='end'>{edges[-1]:.2g}</text>")
    drawn = f"<svg viewBox='0 0 304 {bottom + 4}' width='380' role='img' aria-label='histograms'>{''.join(parts)}</svg>"
    return f"<h4>Activations, logarithmic counts</h4>{drawn}"


def sketch_effects(
    cells: tuple[Sequence[str], Sequence[str]],
    effects: Float[np.ndarray, "classes domains"],
    kept: Bool[np.ndarray, "classes domains"],
    exact: Mapping[str, Float[np.ndarray, "classes domains"]],
    attributed_like: str,
) -> str:
    """Return the largest effects as a table: attributed, and exact by what replaces the unit."""
    order = np.argsort(-np.nan_to_num(np.abs(effects.ravel()), nan=-1.0), kind="stable")[:SHOWN_EFFECTS]
    rows = []
    for i, j in zip(*np.unravel_index(order, effects.shape), strict=True):
        if np.isnan(effects[i, j]):
            continue
        values = [effects[i, j], *(found[i, j] for found in exact.values())]
        marks = ["", *(" ≠" if value * effects[i, j] < 0 else "" for value in values[1:])]
        shown = "".join(
            f"<td>{'–' if np.isnan(value) else f'{value:.3g}'}{mark}</td>"
            for value, mark in zip(values, marks, strict=True)
        )
        name = html.escape(f"{cells[0][i]} in {cells[1][j]}")
        rows.append(f"<tr><th>{name}</th><td>{'yes' if kept[i, j] else ''}</td>{shown}</tr>")
    heads = "".join(f"<th>{html.escape(kind)}</th>" for kind in exact)
    caption = f"Effect on the class's metric, attributed with baseline {attributed_like}, and exact; ≠: another sign"
    return (
        f"<table><caption>{html.escape(caption)}</caption><thead><tr><th></th><th>in the circuit</th>"
        f"<th>attributed</th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
