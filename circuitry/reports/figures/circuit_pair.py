"""One class's circuit in two domains, drawn as one graph.

1. Count: every node and edge is shared, or only in A, or only in B. All counts are of the whole circuits.
2. Choose: where there are too many nodes to read, the same number of strongest units is kept at every site.
3. Place: one column per site; the shared units stack in a middle lane, those only in A above, only in B below,
   the strongest next to the middle. The lanes read like a bar chart of what is shared over depth.
4. Draw: one trace of lines and one of points per kind, so that the legend can hide either.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import networkx as nx
import plotly.graph_objects as go

from circuitry.circuits.graph import Circuit
from circuitry.reports.figures.style import FAINT, INK, Mark, faint, marks_for, style, translucent
from circuitry.runs.errors import InputError

SHARED = "shared"
KINDS = ("a", "b", SHARED)  # drawn in this order: what is shared lies on top

Circuits = Mapping[str, nx.DiGraph]
"""The two circuits by the names of their domains, A first."""


class _Node(NamedTuple):
    name: str
    site: str
    kind: str
    scores: dict[str, float]
    """By domain."""


class _Layout(NamedTuple):
    places: dict[str, tuple[float, float]]
    """Column and row of every node drawn."""
    lanes: dict[str, tuple[float, float]]
    """Lowest and highest row of every kind."""


def circuit_pair(
    circuit_a: nx.DiGraph | Circuit,
    circuit_b: nx.DiGraph | Circuit,
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
        circuit_a, circuit_b: a `Circuit`, or its graph: nodes ``site/unit`` with the attribute ``score``, edges with
            ``weight``.
        sites: the columns, from the image to the embedding.
        name_a, name_b: the two domains, in the colours of ``marks``.
        title: heading of the figure.
        max_nodes: with more nodes than this, only the strongest units of every site are drawn, and a line
            under the title says so; legend and axis always count the whole circuits.
        marks: the look of the domains; by default ``domain_marks`` of the two names.

    Raises:
        InputError: equal names, a node of no listed site, a node without score, an edge without weight.
    """
    if name_a == name_b:
        raise InputError(f'The two circuits need different names, both are "{name_a}".')
    looks = marks_for((name_a, name_b), marks)
    circuits = {
        name: circuit.graph if isinstance(circuit, Circuit) else circuit
        for name, circuit in ((name_a, circuit_a), (name_b, circuit_b))
    }
    names = {"a": f"only {name_a}", "b": f"only {name_b}", SHARED: "shared"}
    colours = {"a": looks[name_a].colour, "b": looks[name_b].colour, SHARED: INK}
    nodes = _nodes(circuits, sites)
    edges = _edges(circuits)
    shown, per_site = _strongest(nodes, sites, max_nodes)
    layout = _layout(shown, sites)

    figure = go.Figure()
    rows = layout.lanes["a"][1] - layout.lanes["b"][0]
    for kind in KINDS:
        own = [edge for edge, of in edges.items() if of == kind]
        count = sum(node.kind == kind for node in nodes)
        label = f"{names[kind]}: {_counted(count, 'node')}, {_counted(len(own), 'edge')}"
        drawn = [edge for edge in own if edge[0] in layout.places and edge[1] in layout.places]
        _draw_edges(figure, drawn, layout, circuits, legendgroup=kind, colour=colours[kind], strong=kind == SHARED)
        _draw_nodes(
            figure,
            [node for node in shown if node.kind == kind],
            layout,
            {"name": label, "legendgroup": kind},
            {"color": colours[kind], "size": max(4.0, min(10.0, 520 / rows))},
        )
    left_out = f"drawn: the {per_site} strongest units of every site, {len(shown):,} of {len(nodes):,} nodes"
    style(figure, title=title, subtitle=left_out if len(shown) < len(nodes) else None, height=760)
    _axes(figure, nodes, sites, layout, names)
    return figure


def _nodes(circuits: Circuits, sites: Sequence[str]) -> list[_Node]:
    """All nodes of both circuits, strongest first."""
    known = set(sites)
    nodes = []
    for name in dict.fromkeys(node for circuit in circuits.values() for node in circuit):
        site = str(name).rpartition("/")[0]
        if site not in known:
            raise InputError(f'The node "{name}" is of no listed site; the sites are {", ".join(sites)}.')
        scores = {domain: _score(circuit, name) for domain, circuit in circuits.items() if name in circuit}
        nodes.append(_Node(name, site, _kind(circuit.has_node(name) for circuit in circuits.values()), scores))
    if not nodes:
        raise InputError("Both circuits are empty; there is nothing to draw.")
    return sorted(nodes, key=lambda node: (-max(map(abs, node.scores.values())), node.name))


def _score(circuit: nx.DiGraph, name: str) -> float:
    if "score" not in circuit.nodes[name]:
        raise InputError(f'The node "{name}" has no attribute "score"; the nodes of a circuit carry their scores.')
    return float(circuit.nodes[name]["score"])


def _kind(present: Iterable[bool]) -> str:
    in_a, in_b = present
    return SHARED if in_a and in_b else "a" if in_a else "b"


def _edges(circuits: Circuits) -> dict[tuple[str, str], str]:
    """Every edge of either circuit and its kind."""
    for circuit in circuits.values():
        for upper, lower, weight in circuit.edges(data="weight"):
            if weight is None:
                raise InputError(
                    f'The edge "{upper}" -> "{lower}" has no attribute "weight"; the edges of a circuit carry one.'
                )
    every = dict.fromkeys(edge for circuit in circuits.values() for edge in circuit.edges)
    return {edge: _kind(circuit.has_edge(*edge) for circuit in circuits.values()) for edge in every}


def _strongest(nodes: list[_Node], sites: Sequence[str], most: int) -> tuple[list[_Node], int]:
    """The nodes to draw, and how many at most per site: the largest number that leaves ``most`` or fewer."""
    columns = [[node for node in nodes if node.site == site] for site in sites]
    cap = max(len(column) for column in columns)
    while cap > 1 and sum(min(cap, len(column)) for column in columns) > most:
        cap -= 1
    return [node for column in columns for node in column[:cap]], cap


def _layout(shown: list[_Node], sites: Sequence[str]) -> _Layout:
    """Stack the nodes of every site within the lane of their kind, strongest first from the middle outwards."""
    stacks = {(site, kind): list[str]() for site in sites for kind in KINDS}
    for node in shown:
        stacks[node.site, node.kind].append(node.name)
    tallest = {kind: max(len(stacks[site, kind]) for site in sites) for kind in KINDS}
    middle = max(tallest[SHARED] / 2, 1.0)
    gap = 0.03 * sum(tallest.values())
    lanes = {
        SHARED: (-middle, middle),
        "a": (middle + gap, middle + gap + max(tallest["a"], 1)),
        "b": (-middle - gap - max(tallest["b"], 1), -middle - gap),
    }
    places: dict[str, tuple[float, float]] = {}
    for (site, kind), names in stacks.items():
        start, step = {
            "a": (lanes["a"][0] + 0.5, 1),
            "b": (lanes["b"][1] - 0.5, -1),
            SHARED: ((len(names) - 1) / 2, -1),
        }[kind]
        places |= {name: (float(sites.index(site)), start + step * row) for row, name in enumerate(names)}
    return _Layout(places, lanes)


def _draw_edges(
    figure: go.Figure,
    edges: list[tuple[str, str]],
    layout: _Layout,
    circuits: Circuits,
    *,
    legendgroup: str,
    colour: str,
    strong: bool,
) -> None:
    """Curves that leave and reach the nodes level, broken by None; their inner points carry the hover text."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    texts: list[str | None] = []
    steps = [i / 10 for i in range(11)]
    for edge in edges:
        (x0, y0), (x1, y1) = layout.places[edge[0]], layout.places[edge[1]]
        xs += [*(x0 + (x1 - x0) * t for t in steps), None]
        ys += [*(y0 + (y1 - y0) * t * t * (3 - 2 * t) for t in steps), None]
        weights = [
            f"weight {circuit.edges[edge]['weight']:.3g} in {domain}"
            for domain, circuit in circuits.items()
            if circuit.has_edge(*edge)
        ]
        text = "<br>".join([f"{edge[0]} → {edge[1]}", *weights])
        texts += [None, *[text] * (len(steps) - 2), None, None]
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="lines",
        legendgroup=legendgroup,
        showlegend=False,
        line={"color": translucent(colour, 0.75 if strong else 0.3), "width": 1.6 if strong else 1.0},
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
            "<br>".join(
                [f"<b>{node.name}</b>", *(f"score {score:.3g} in {domain}" for domain, score in node.scores.items())]
            )
            for node in nodes
        ],
        hoverinfo="text",
    )


def _axes(figure: go.Figure, nodes: list[_Node], sites: Sequence[str], layout: _Layout, names: dict[str, str]) -> None:
    ticks = []
    for site in sites:
        kinds = [node.kind for node in nodes if node.site == site]
        ticks.append(f"{site}<br>{faint(f'{kinds.count(SHARED)} / {len(kinds)}')}")
    lanes = layout.lanes
    figure.update_xaxes(
        title_text="site (shared / all units of the two circuits)",
        tickvals=list(range(len(sites))),
        ticktext=ticks,
        range=[-0.4, len(sites) - 0.6],
        showgrid=False,
    )
    figure.update_yaxes(
        tickvals=[sum(lanes[kind]) / 2 for kind in KINDS],
        ticktext=[names[kind].replace(" ", "<br>", 1) for kind in KINDS],
        range=[lanes["b"][0] - 0.5, lanes["a"][1] + 0.5],
        showgrid=False,
    )
    low, high = lanes[SHARED]
    figure.add_hrect(y0=low, y1=high, fillcolor=FAINT, opacity=0.6, line_width=0, layer="below")
    figure.update_layout(
        legend={"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top", "traceorder": "normal"},
        hovermode="closest",
    )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
