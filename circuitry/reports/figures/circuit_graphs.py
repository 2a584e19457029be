"""Circuits drawn as graphs over depth: one circuit, or one class's circuits in two domains on top of each other.

1. Count: every node and edge has a kind. In a pair it is shared, or only in A, or only in B; in a single circuit it
   works for the metric or against it. All counts are of the whole circuits.
2. Choose: where there are too many nodes to read, the same number of strongest units is kept at every site.
3. Place: one column per site and a lane per kind, the strongest next to the middle. The lanes read like a bar chart
   over depth.
4. Draw: one trace of lines and one of points per kind, so that the legend can hide either.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import networkx as nx
import plotly.graph_objects as go

from circuitry.circuits.graph import Circuit
from circuitry.reports.figures.style import (
    FAINT,
    INK,
    NEGATIVE,
    POSITIVE,
    Mark,
    faint,
    marks_for,
    style,
    translucent,
)
from circuitry.runs.errors import InputError

ABOVE, BELOW, MIDDLE = "a", "b", "shared"
KINDS = (ABOVE, BELOW, MIDDLE)
"""Lanes, in the order of drawing: what lies in the middle lies on top."""

Circuits = Mapping[str, nx.DiGraph]
"""Circuits by name."""


class _Look(NamedTuple):
    name: str
    colour: str


class _Node(NamedTuple):
    name: str
    site: str
    kind: str
    scores: dict[str, float]
    """By circuit."""


class _Layout(NamedTuple):
    places: dict[str, tuple[float, float]]
    """Column and row of every node drawn."""
    lanes: dict[str, tuple[float, float]]
    """Lowest and highest row of every kind."""


def circuit_pair(
    circuit_a: Circuit | nx.DiGraph,
    circuit_b: Circuit | nx.DiGraph,
    sites: Sequence[str],
    *,
    name_a: str,
    name_b: str,
    title: str,
    max_nodes: int = 300,
    marks: Mapping[str, Mark] | None = None,
) -> go.Figure:
    """Draw the circuits of one class in two domains on top of each other: what is shared, what is not.

    Args:
        circuit_a, circuit_b: Circuits, or graphs with nodes ``site/unit`` with the attribute ``score``, edges with
            ``weight``.
        sites: The columns, from the image to the embedding.
        name_a, name_b: The two domains, in the colours of ``marks``.
        title: Heading.
        max_nodes: With more nodes than this, only the strongest units of every site are drawn, and a line under the
            heading says so; legend and axis always count the whole circuits.
        marks: Look of the domains; default: `domain_marks` of the two names.

    Raises:
        InputError: for equal names, a node of no listed site, a node without score, or an edge without weight.
    """
    if name_a == name_b:
        raise InputError(f'The two circuits need different names, both are "{name_a}".')
    looks = marks_for((name_a, name_b), marks)
    circuits = {name_a: _graph(circuit_a), name_b: _graph(circuit_b)}
    kinds = {
        ABOVE: _Look(f"only {name_a}", looks[name_a].colour),
        BELOW: _Look(f"only {name_b}", looks[name_b].colour),
        MIDDLE: _Look("shared", INK),
    }

    def kind(values: Mapping[str, float]) -> str:
        return MIDDLE if len(values) == 2 else ABOVE if name_a in values else BELOW

    figure = _draw(circuits, sites, kinds, kind, lambda _, weights: kind(weights), title, max_nodes)
    return figure.update_xaxes(title_text="site (shared / all units of the two circuits)")


def circuit_drawing(
    circuit: Circuit | nx.DiGraph, sites: Sequence[str], *, title: str, name: str = "the circuit", max_nodes: int = 300
) -> go.Figure:
    """Draw one circuit: units that work for the metric above, those that work against it below.

    A negative score means that the metric falls without the unit, so the unit works for it. Edges have the colour of
    the unit into which they lead.

    Args:
        circuit: A circuit, or a graph with nodes ``site/unit`` with the attribute ``score``, edges with ``weight``.
        sites: The columns, from the image to the embedding.
        title: Heading.
        name: What the circuit is called where scores are told.
        max_nodes: With more nodes than this, only the strongest units of every site are drawn, and a line under the
            heading says so; legend and axis always count the whole circuit.

    Raises:
        InputError: for a node of no listed site, a node without score, or an edge without weight.
    """
    kinds = {ABOVE: _Look("for the metric", POSITIVE), BELOW: _Look("against it", NEGATIVE)}

    graph = _graph(circuit)

    def kind(scores: Mapping[str, float]) -> str:
        return ABOVE if scores[name] <= 0 else BELOW

    def edge_kind(edge: tuple[str, str], _: Mapping[str, float]) -> str:
        return kind({name: _score(graph, edge[1])})

    figure = _draw({name: graph}, sites, kinds, kind, edge_kind, title, max_nodes)
    return figure.update_xaxes(title_text="site (units for the metric / all units of the circuit)")


def _graph(circuit: Circuit | nx.DiGraph) -> nx.DiGraph:
    return circuit.graph if isinstance(circuit, Circuit) else circuit


def _draw(
    circuits: Circuits,
    sites: Sequence[str],
    kinds: Mapping[str, _Look],
    kind: Callable[[Mapping[str, float]], str],
    edge_kind: Callable[[tuple[str, str], Mapping[str, float]], str],
    title: str,
    max_nodes: int,
) -> go.Figure:
    """Draw the circuits; the functions tell kinds from a node's scores and an edge's weights, by circuit."""
    nodes = _nodes(circuits, sites, kind)
    edges = {edge: (edge_kind(edge, weights), weights) for edge, weights in _weights(circuits).items()}
    shown, per_site = _strongest(nodes, sites, max_nodes)
    layout = _layout(shown, sites, list(kinds))
    size = max(4.0, min(10.0, 520 / _rows(layout)))
    figure = go.Figure()
    for name, look in kinds.items():
        own = {edge: weights for edge, (of, weights) in edges.items() if of == name}
        count = sum(node.kind == name for node in nodes)
        label = f"{look.name}: {_counted(count, 'node')}, {_counted(len(own), 'edge')}"
        _draw_edges(figure, own, layout, name, look.colour)
        points = [node for node in shown if node.kind == name]
        _draw_nodes(figure, points, layout, {"name": label, "legendgroup": name}, {"color": look.colour, "size": size})
    left_out = f"drawn: the {per_site} strongest units of every site, {len(shown):,} of {len(nodes):,} nodes"
    style(figure, title=title, subtitle=left_out if len(shown) < len(nodes) else None, height=760, legend=True)
    _axes(figure, nodes, sites, layout, kinds)
    return figure


def _nodes(circuits: Circuits, sites: Sequence[str], kind: Callable[[Mapping[str, float]], str]) -> list[_Node]:
    """Return all nodes of the circuits, strongest first."""
    known = set(sites)
    nodes = []
    for name in dict.fromkeys(node for circuit in circuits.values() for node in circuit):
        site = str(name).rpartition("/")[0]
        if site not in known:
            raise InputError(f'The node "{name}" is of no listed site; the sites are {", ".join(sites)}.')
        scores = {of: _score(circuit, name) for of, circuit in circuits.items() if name in circuit}
        nodes.append(_Node(name, site, kind(scores), scores))
    if not nodes:
        what = "Both circuits are empty" if len(circuits) > 1 else "The circuit is empty"
        raise InputError(f"{what}; there is nothing to draw.")
    return sorted(nodes, key=lambda node: (-max(map(abs, node.scores.values())), node.name))


def _score(circuit: nx.DiGraph, name: str) -> float:
    if "score" not in circuit.nodes[name]:
        raise InputError(f'The node "{name}" has no attribute "score"; the nodes of a circuit carry their scores.')
    return float(circuit.nodes[name]["score"])


def _weights(circuits: Circuits) -> dict[tuple[str, str], dict[str, float]]:
    """Return the weights of every edge, by circuit."""
    weights: dict[tuple[str, str], dict[str, float]] = {}
    for name, circuit in circuits.items():
        for upper, lower, weight in circuit.edges(data="weight"):
            if weight is None:
                raise InputError(
                    f'The edge "{upper}" -> "{lower}" has no attribute "weight"; the edges of a circuit carry one.'
                )
            weights.setdefault((upper, lower), {})[name] = float(weight)
    return weights


def _strongest(nodes: list[_Node], sites: Sequence[str], most: int) -> tuple[list[_Node], int]:
    """Return the nodes to draw, and how many at most per site: the largest number that leaves ``most`` or fewer."""
    columns = [[node for node in nodes if node.site == site] for site in sites]
    cap = max(len(column) for column in columns)
    while cap > 1 and sum(min(cap, len(column)) for column in columns) > most:
        cap -= 1
    return [node for column in columns for node in column[:cap]], cap


def _layout(shown: list[_Node], sites: Sequence[str], kinds: Sequence[str]) -> _Layout:
    """Stack the nodes of every site within the lane of their kind, strongest first from the middle outwards."""
    stacks = {(site, kind): list[str]() for site in sites for kind in KINDS}
    for node in shown:
        stacks[node.site, node.kind].append(node.name)
    tallest = {kind: max(len(stacks[site, kind]) for site in sites) for kind in KINDS}
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
        places |= {name: (float(sites.index(site)), start + step * row) for row, name in enumerate(names)}
    return _Layout(places, {kind: lanes[kind] for kind in kinds})


def _rows(layout: _Layout) -> float:
    return layout.lanes[ABOVE][1] - layout.lanes[BELOW][0]


def _draw_edges(
    figure: go.Figure,
    edges: Mapping[tuple[str, str], Mapping[str, float]],
    layout: _Layout,
    kind: str,
    colour: str,
) -> None:
    """Draw curves that leave and reach the nodes level, broken by None; their inner points carry the hover text."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    texts: list[str | None] = []
    steps = [i / 10 for i in range(11)]
    for (upper, lower), weights in edges.items():
        if upper not in layout.places or lower not in layout.places:
            continue
        (x0, y0), (x1, y1) = layout.places[upper], layout.places[lower]
        xs += [*(x0 + (x1 - x0) * t for t in steps), None]
        ys += [*(y0 + (y1 - y0) * t * t * (3 - 2 * t) for t in steps), None]
        told = [f"weight {weight:.3g} in {name}" for name, weight in weights.items()]
        texts += [None, *["<br>".join([f"{upper} → {lower}", *told])] * (len(steps) - 2), None, None]
    opacity, width = (0.75, 1.6) if kind == MIDDLE else (0.3, 1.0)
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="lines",
        legendgroup=kind,
        showlegend=False,
        line={"color": translucent(colour, opacity), "width": width},
        text=texts,
        hoverinfo="text",
    )


def _draw_nodes(
    figure: go.Figure, nodes: list[_Node], layout: _Layout, entry: dict[str, str], marker: dict[str, object]
) -> None:
    # One empty point stands for none: a trace without any would take its count out of the legend.
    points: list[tuple[float, float] | tuple[None, None]] = [layout.places[node.name] for node in nodes]
    points = points or [(None, None)]
    figure.add_scatter(
        **entry,
        x=[column for column, _ in points],
        y=[row for _, row in points],
        mode="markers",
        showlegend=True,
        marker={**marker, "line": {"color": "white", "width": 0.5}},
        text=[
            "<br>".join([f"<b>{node.name}</b>", *(f"score {score:.3g} in {of}" for of, score in node.scores.items())])
            for node in nodes
        ],
        hoverinfo="text",
    )


def _axes(
    figure: go.Figure, nodes: list[_Node], sites: Sequence[str], layout: _Layout, looks: Mapping[str, _Look]
) -> None:
    lanes = layout.lanes
    counted = MIDDLE if MIDDLE in looks else ABOVE
    ticks = []
    for site in sites:
        kinds = [node.kind for node in nodes if node.site == site]
        ticks.append(f"{site}<br>{faint(f'{kinds.count(counted)} / {len(kinds)}')}")
    figure.update_xaxes(
        tickvals=list(range(len(sites))),
        ticktext=ticks,
        range=[-0.4, len(sites) - 0.6],
        showgrid=False,
    )
    figure.update_yaxes(
        tickvals=[sum(lanes[kind]) / 2 for kind in looks],
        ticktext=[look.name.replace(" ", "<br>", 1) for look in looks.values()],
        range=[lanes[BELOW][0] - 0.5, lanes[ABOVE][1] + 0.5],
        showgrid=False,
    )
    if MIDDLE in lanes:
        low, high = lanes[MIDDLE]
        figure.add_hrect(y0=low, y1=high, fillcolor=FAINT, opacity=0.6, line_width=0, layer="below")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
