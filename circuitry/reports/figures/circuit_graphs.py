"""Circuits drawn as graphs over depth: one circuit, or one class's circuits in two domains on top of each other.

Every node and edge has a kind, and so a lane: in a pair it is shared, only in A, or only in B; in a single circuit it
works for the metric or against it. All counts are of the whole circuits.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import networkx as nx
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb

from circuitry.circuits.graph import Circuit
from circuitry.reports.figures import style
from circuitry.runs.errors import InputError, number_of
from circuitry.runs.given import Names

MOST_OF_PAIR, MOST_ALONE = 300, 30
"""With more nodes only the strongest are drawn, and a line under the heading says so."""

ABOVE, BELOW, MIDDLE = "a", "b", "shared"
LANES = (ABOVE, BELOW, MIDDLE)
"""In the order of drawing: the middle lies on top."""

HEADS = re.compile(r"\.attn(\.[qkv])?$")
"""Sites whose units are attention heads, or what a head reads; they are squares."""

_Edges = Mapping[tuple[str, str], dict[str, float]]
"""Weights of every edge, by circuit."""


class _Node(NamedTuple):
    name: str
    site: str
    kind: str
    scores: dict[str, float]
    """By circuit."""


_Two = dict[str, tuple[float, float]]
"""Column and row of every node drawn, by its name; or the lowest and the highest row of a lane, by its kind."""
_Looks = Mapping[str, tuple[str, str]]
"""Name and colour of every kind."""


def circuit_pair(
    circuit_a: Circuit,
    circuit_b: Circuit,
    sites: Names,
    *,
    name_a: str,
    name_b: str,
    title: str,
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw the circuits of one class in two domains on top of each other: what is shared, what is not.

    Args:
        sites: The columns, from the image to the embedding.
        name_a, name_b: The two domains, in the colours of ``marks``.
    """
    if name_a == name_b:
        raise InputError(f'The two circuits need different names, both are "{name_a}".')
    looks = style.marks_for((name_a, name_b), marks)
    kinds = {
        ABOVE: (f"only {name_a}", looks[name_a].colour),
        BELOW: (f"only {name_b}", looks[name_b].colour),
        MIDDLE: ("shared", style.INK),
    }
    figure = _draw({name_a: circuit_a, name_b: circuit_b}, sites, kinds, title)
    return figure.update_xaxes(title_text="site (shared units / all)")


def circuit_drawing(
    circuit: Circuit, sites: Names | None = None, *, title: str = "Circuit"
) -> go.Figure:
    """Draw one circuit: units for the metric above, units against it below.

    A positive score means that the unit helps: the metric falls without it. An edge has the colour of the unit at its
    end.

    ``sites`` are the columns, from the image to the embedding (default: those of the circuit).
    """
    kinds = {
        ABOVE: ("for the metric", style.POSITIVE),
        BELOW: ("against it", style.NEGATIVE),
    }
    figure = _draw(
        {"the circuit": circuit},
        list(circuit.units) if sites is None else sites,
        kinds,
        title,
    )
    return figure.update_xaxes(title_text="site (units for the metric / all)")


def _draw(
    circuits: Mapping[str, Circuit], sites: Sequence[str], kinds: _Looks, title: str
) -> go.Figure:
    graphs = {name: one.graph for name, one in circuits.items()}
    nodes = _nodes(graphs, sites)
    edges = _edges(graphs)
    kind_of = {node.name: node.kind for node in nodes}
    kind_of_edge = {
        edge: _kind(weights, list(graphs)) if MIDDLE in kinds else kind_of[edge[1]]
        for edge, weights in edges.items()
    }
    shown = nodes[: MOST_OF_PAIR if MIDDLE in kinds else MOST_ALONE]
    places, lanes = _layout(shown, sites, list(kinds))
    size = max(4.0, min(10.0, 520 / (lanes[ABOVE][1] - lanes[BELOW][0])))
    largest = max(max(map(abs, node.scores.values())) for node in shown) or 1.0
    figure = go.Figure()
    for kind, (name, colour) in kinds.items():
        own = {
            edge: weights
            for edge, weights in edges.items()
            if kind_of_edge[edge] == kind
        }
        label = f"{name}: {number_of(list(kind_of.values()).count(kind), 'node')}, {number_of(len(own), 'edge')}"
        _draw_edges(figure, own, places, kind, colour)
        points = [node for node in shown if node.kind == kind]
        sizes = (
            [6 + 14 * abs(*node.scores.values()) / largest for node in points]
            if MIDDLE not in kinds
            else size
        )
        marker = {
            "color": colour,
            "size": sizes,
            "line": {"color": "white", "width": 0.5},
        }
        _draw_nodes(figure, points, places, name=label, legendgroup=kind, marker=marker)
    doubtful = {
        site: why
        for one in circuits.values()
        for site, why in one.source.doubtful_sites.items()
    }
    remarks = (
        [f"drawn: the {len(shown):,} strongest of {len(nodes):,} units"]
        if len(shown) < len(nodes)
        else []
    )
    remarks += (
        ["!: scores do not add up to the metric's change, or repeat the site before"]
        if doubtful
        else []
    )
    style.lay_out(
        figure,
        title=title,
        subtitle="; ".join(remarks) or None,
        height=760,
        legend=True,
    )
    _axes(figure, nodes, sites, lanes, kinds, doubtful)
    return figure


def _kind(values: Mapping[str, float], names: Sequence[str]) -> str:
    """Return the kind of a node or edge with these values by circuit, of all circuits of these names."""
    if len(names) == 1:
        return ABOVE if values[names[0]] >= 0 else BELOW
    return MIDDLE if len(values) == 2 else ABOVE if names[0] in values else BELOW


def _nodes(circuits: Mapping[str, nx.DiGraph], sites: Sequence[str]) -> list[_Node]:
    """Return all nodes of the circuits, strongest first."""
    nodes = []
    for name in dict.fromkeys(
        node for circuit in circuits.values() for node in circuit
    ):
        site = str(name).rpartition("/")[0]
        if site not in sites:
            raise InputError(
                f'The node "{name}" is of no listed site; the sites are {", ".join(sites)}.'
            )
        scores = {
            of: circuit.nodes[name]["score"]
            for of, circuit in circuits.items()
            if name in circuit
        }
        nodes.append(_Node(name, site, _kind(scores, list(circuits)), scores))
    if not nodes:
        what = (
            "Both circuits are empty" if len(circuits) > 1 else "The circuit is empty"
        )
        raise InputError(f"{what}; there is nothing to draw.")
    return sorted(
        nodes, key=lambda node: (-max(map(abs, node.scores.values())), node.name)
    )


def _edges(circuits: Mapping[str, nx.DiGraph]) -> _Edges:
    edges: dict[tuple[str, str], dict[str, float]] = {}
    for name, circuit in circuits.items():
        for upper, lower, weight in circuit.edges(data="weight"):
            edges.setdefault((upper, lower), {})[name] = float(weight)
    return edges


def _layout(
    shown: list[_Node], sites: Sequence[str], kinds: Sequence[str]
) -> tuple[_Two, _Two]:
    """Stack the nodes of every site within the lane of their kind, strongest first from the middle outwards."""
    stacks = {
        (site, kind): [
            node.name for node in shown if (node.site, node.kind) == (site, kind)
        ]
        for site in sites
        for kind in LANES
    }
    tallest = {kind: max(len(stacks[site, kind]) for site in sites) for kind in LANES}
    middle = max(tallest[MIDDLE] / 2, 1.0) if MIDDLE in kinds else 0.0
    gap = 0.03 * sum(tallest.values())
    lanes = {
        MIDDLE: (-middle, middle),
        ABOVE: (middle + gap, middle + gap + max(tallest[ABOVE], 1)),
        BELOW: (-middle - gap - max(tallest[BELOW], 1), -middle - gap),
    }
    places: dict[str, tuple[float, float]] = {}
    for (site, kind), names in stacks.items():
        start, step = {
            ABOVE: (lanes[ABOVE][0] + 0.5, 1),
            BELOW: (lanes[BELOW][1] - 0.5, -1),
            MIDDLE: ((len(names) - 1) / 2, -1),
        }[kind]
        places |= {
            name: (float(sites.index(site)), start + step * row)
            for row, name in enumerate(names)
        }
    return places, {kind: lanes[kind] for kind in kinds}


def _draw_edges(
    figure: go.Figure, edges: _Edges, places: _Two, kind: str, colour: str
) -> None:
    """Draw curves that leave and reach the nodes level, broken by None; their inner points carry the hover text."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    texts: list[str | None] = []
    steps = [i / 10 for i in range(11)]
    for (upper, lower), weights in edges.items():
        if upper not in places or lower not in places:
            continue
        (x0, y0), (x1, y1) = places[upper], places[lower]
        xs += [*(x0 + (x1 - x0) * t for t in steps), None]
        ys += [*(y0 + (y1 - y0) * t * t * (3 - 2 * t) for t in steps), None]
        weights_of = [
            f"weight {weight:.3g} in {name}" for name, weight in weights.items()
        ]
        texts += [
            None,
            *["<br>".join([f"{upper} → {lower}", *weights_of])] * (len(steps) - 2),
            None,
            None,
        ]
    opacity, width = (0.75, 1.6) if kind == MIDDLE else (0.3, 1.0)
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="lines",
        legendgroup=kind,
        showlegend=False,
        line={"color": f"rgba{(*hex_to_rgb(colour), opacity)}", "width": width},
        text=texts,
        hoverinfo="text",
    )


def _draw_nodes(
    figure: go.Figure, nodes: list[_Node], places: _Two, **looks: Any
) -> None:
    texts = [
        "<br>".join(
            [
                f"<b>{node.name}</b>",
                *(f"score {score:.3g} in {of}" for of, score in node.scores.items()),
            ]
        )
        for node in nodes
    ]
    # A lane without points draws one empty point, so that the legend keeps its count.
    columns, rows = (
        zip(*[places[node.name] for node in nodes], strict=True)
        if nodes
        else ([None], [None])
    )
    symbols = ["square" if HEADS.search(node.site) else "circle" for node in nodes] or [
        "circle"
    ]
    looks["marker"] = {**looks["marker"], "symbol": symbols}
    figure.add_scatter(
        x=columns,
        y=rows,
        mode="markers",
        showlegend=True,
        text=texts,
        hoverinfo="text",
        **looks,
    )


def _axes(
    figure: go.Figure,
    nodes: list[_Node],
    sites: Sequence[str],
    lanes: _Two,
    looks: _Looks,
    doubtful: Mapping[str, str],
) -> None:
    counted = MIDDLE if MIDDLE in looks else ABOVE
    ticks = []
    for site in sites:
        kinds = [node.kind for node in nodes if node.site == site]
        mark = "!" if site in doubtful else ""
        ticks.append(
            f"{site}{mark} {style.faint(f'{kinds.count(counted)} / {len(kinds)}')}"
        )
    columns = {"tickvals": list(range(len(sites))), "range": [-0.4, len(sites) - 0.6]}
    # Labels lean to the left: plotly turns crowded ones to the right and hides the last, which leaves the picture.
    figure.update_xaxes(
        **columns, ticktext=ticks, showgrid=False, autotickangles=[0, -30, -60, -90]
    )
    figure.update_yaxes(
        tickvals=[sum(lanes[kind]) / 2 for kind in looks],
        ticktext=[name.replace(" ", "<br>", 1) for name, _ in looks.values()],
        range=[lanes[BELOW][0] - 0.5, lanes[ABOVE][1] + 0.5],
        showgrid=False,
    )
    if MIDDLE in lanes:
        low, high = lanes[MIDDLE]
        figure.add_hrect(
            y0=low,
            y1=high,
            fillcolor=style.FAINT,
            opacity=0.6,
            line_width=0,
            layer="below",
        )
