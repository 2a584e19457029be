"""A comparison for notebooks: the matrix, and how much of the ceiling domains share. No torch."""

import html

import numpy as np
import pandas as pd


def sketch_matrix(matrix: pd.DataFrame, *, alike: bool) -> str:
    """Return the matrix as a table whose cells are darker where domains are more alike."""
    values = matrix.to_numpy(float)
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    heads = "".join(f"<th>{html.escape(str(name))}</th>" for name in matrix.columns)
    rows = []
    for name, row in zip(matrix.index, values, strict=True):
        cells = []
        for value in row:
            share = (value - low) / (high - low) if high > low else 0.0 if alike else 1.0
            shade = 0.5 * (share if alike else 1 - share) if np.isfinite(value) else 0.0
            text = "–" if np.isnan(value) else f"{value:.3f}"
            cells.append(f"<td style='background:rgba(31,95,168,{shade:.2f})'>{text}</td>")
        rows.append(f"<tr><th>{html.escape(str(name))}</th>{''.join(cells)}</tr>")
    return f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def sketch_ratios(ratios: pd.DataFrame) -> str:
    """Return the ratios to the ceiling, with their intervals, as a table; the most different pair first."""
    known = ratios.dropna(subset=["value"]).sort_values("value", kind="stable")
    rows = [
        f"<tr><th>{html.escape(f'{row.domain_a}, {row.domain_b}')}</th><td>{row.value:.2f}</td>"
        f"<td>{row.low:.2f} to {row.high:.2f}</td><td>{row.n_classes}</td></tr>"
        for row in known.itertuples()
    ]
    caption = "Share of the ceiling, which two parts of the images of one domain reach"
    return (
        f"<table><caption>{caption}</caption><thead><tr><th></th><th>ratio</th><th>95 % interval</th><th>classes</th>"
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
