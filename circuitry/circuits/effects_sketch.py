"""Direct effects of heads and MLPs as a small table for notebooks: a row per block. No torch."""

import html
from collections.abc import Mapping


def sketch_components(effects: Mapping[str, float]) -> str:
    """Return a table of effects by the names of writers: blue cells help, orange ones hinder."""
    most = max(map(abs, effects.values()), default=0) or 1
    rows: dict[str, list[str]] = {}
    for name, effect in effects.items():
        block = name.partition(".attn.")[0].removesuffix(".mlp")
        colour = "31,95,168" if effect >= 0 else "193,87,26"
        shade = f"background:rgba({colour},{0.6 * abs(effect) / most:.2f})"
        cell = f"<td title='{html.escape(name, quote=True)}' style='{shade}'>{effect:.2g}</td>"
        rows.setdefault(block, []).append(cell)
    body = "".join(f"<tr><th>{html.escape(block)}</th>{''.join(cells)}</tr>" for block, cells in rows.items())
    return f"<table><caption>Mean direct effect; of a block its heads, then its MLP</caption>{body}</table>"
