"""A circuit as a small drawing for notebooks: sites are columns, units marks, edges lines. No torch."""

import html
from collections.abc import Sequence

import networkx as nx

MOST_EDGES, MOST_UNITS = 1500, 2500
"""The strongest edges and units are drawn, so many at most; the drawing says how many there are."""
_COLUMN, _HIGH, _TOP = 76, 300, 26


def sketch_circuit(graph: nx.DiGraph, sites: Sequence[str]) -> str:
    """Return an SVG of a circuit; its units are circles where they help, and squares where they hinder.

    Args:
        graph: Nodes with site, unit, score; edges with weight.
        sites: The columns, in order.
    """
    units = sorted(graph.nodes(data=True), key=lambda node: -abs(node[1]["score"]))[:MOST_UNITS]
    drawn = {name for name, _ in units}
    between = (edge for edge in graph.edges(data="weight") if edge[0] in drawn and edge[1] in drawn)
    edges = sorted(between, key=lambda edge: -abs(edge[2]))[:MOST_EDGES]
    by_site: dict[str, list[str]] = {site: [] for site in sites}
    for name, node in units:
        by_site[node["site"]].append(name)
    spots = {
        name: (40.0 + column * _COLUMN, _TOP + (row + 0.5) * _HIGH / len(names))
        for column, names in enumerate(by_site.values())
        for row, name in enumerate(names)
    }
    wide = 80 + _COLUMN * max(0, len(sites) - 1)
    most = max((abs(node["score"]) for _, node in units), default=0) or 1
    heaviest = max((abs(weight) for *_, weight in edges), default=0) or 1
    parts = [f"<svg viewBox='0 0 {wide} {_TOP + _HIGH}' width='{wide}' role='img' aria-label='circuit'>"]
    parts.append("<g stroke='#7a8aa0' stroke-opacity='.45'>")
    for up, down, weight in edges:
        (x0, y0), (x1, y1) = spots[up], spots[down]
        thick = 0.3 + 1.7 * abs(weight) / heaviest
        parts.append(f"<path d='M{x0:.0f} {y0:.1f}L{x1:.0f} {y1:.1f}' stroke-width='{thick:.1f}'/>")
    parts.append("</g>")
    for name, node in units:
        parts.append(_mark(*spots[name], name, node["score"], node["score"] / most))
    for column, site in enumerate(sites):
        shown = html.escape(site if len(site) <= 12 else f"…{site[-11:]}")
        parts.append(
            f"<text x='{40 + column * _COLUMN}' y='{8 + 10 * (column % 2)}' text-anchor='middle'>{shown}</text>"
        )
    left_out = [
        f"the strongest {len(shown)} of {total} {what} are drawn"
        for shown, total, what in ((units, len(graph), "units"), (edges, graph.number_of_edges(), "edges"))
        if len(shown) < total
    ]
    remark = f"<p>{', '.join(left_out)}</p>" if left_out else ""
    return f"{''.join(parts)}</svg>{remark}"


def _mark(x: float, y: float, name: str, score: float, share: float) -> str:
    size = 1.5 + 3 * abs(share) ** 0.5
    title = f"<title>{html.escape(name)}: {score:.3g}</title>"
    if score >= 0:
        return f"<circle cx='{x:.0f}' cy='{y:.1f}' r='{size:.1f}' fill='#1f5fa8'>{title}</circle>"
    corner = f"x='{x - size:.1f}' y='{y - size:.1f}' width='{2 * size:.1f}' height='{2 * size:.1f}'"
    return f"<rect {corner} fill='#c1571a'>{title}</rect>"
