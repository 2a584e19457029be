"""One class's circuit in two domains, drawn as one graph.

1. Count: every node and edge is shared, or only in A, or only in B. All counts are of the whole circuits.
2. Choose: where there are too many nodes to read, the same number of strongest units is kept at every site.
3. Place: one column per site; the shared units stack in a middle lane, those only in A above, only in B below,
   the strongest next to the middle. The lanes read like a bar chart of what is shared over depth.
4. Draw: one trace of lines and one of points per kind, so that the legend can hide either.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import networkx as nx
import plotly.graph_objects as go

from circuitry.errors import InputError
from circuitry.plot_style import FAINT, GREY, INK, Mark, marks_for, style, translucent

KINDS = ("a", "b", "shared")  # drawn in this order: what is shared lies on top


class _Node(NamedTuple):
    name: str
    site: str
    kind: str
    scores: tuple[float | None, float | None]

    @property
    def strength(self) -> float:
        return max(abs(score) for score in self.scores if score is not None)


def circuit_pair(
    circuit_a: nx.DiGraph,
    circuit_b: nx.DiGraph,
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
        circuit_a, circuit_b: nodes ``site/unit`` with the attribute ``score``, edges with ``weight``.
        sites: the columns, from the image to the embedding.
        name_a, name_b: the two domains, in the colours of ``marks``.
        title: heading of the figure.
        max_nodes: with more nodes than this, only the strongest units of every site are drawn, and a note
            says so; the numbers in the legend and under the sites always count the whole circuits.
        marks: the look of the domains; by default ``domain_marks`` of the two names.

    Raises:
        InputError: equal names, a node of no listed site, a node without score, an edge without weight.
    """
    if name_a == name_b:
        raise InputError(f'The two circuits need different names, both are "{name_a}".')
    looks = marks_for((name_a, name_b), marks)
    names = {"a": f"only {name_a}", "b": f"only {name_b}", "shared": "shared"}
    colours = {"a": looks[name_a].colour, "b": looks[name_b].colour, "shared": INK}
    nodes = _nodes(circuit_a, circuit_b, sites)
    edges = _edges(circuit_a, circuit_b)
    shown, per_site = _strongest(nodes, sites, max_nodes)
    places, lanes = _places(shown, sites)

    figure = go.Figure()
    size = max(4.0, min(11.0, 560 / (lanes["a"][1] - lanes["b"][0])))
    for kind in KINDS:
        own = [edge for edge, of in edges.items() if of == kind]
        count = sum(node.kind == kind for node in nodes)
        _draw_edges(figure, own, places, kind, colours[kind], (circuit_a, circuit_b), (name_a, name_b))
        _draw_nodes(
            figure,
            [node for node in shown if node.kind == kind],
            places,
            kind,
            f"{names[kind]}: {_counted(count, 'node')}, {_counted(len(own), 'edge')}",
            colours[kind],
            size,
            (name_a, name_b),
        )
    style(figure, title=title, height=760)
    _axes(figure, nodes, sites, lanes, names)
    if len(shown) < len(nodes):
        _note(figure, f"drawn: the {per_site} strongest units of every site, {len(shown)} of {len(nodes)} nodes")
    return figure


def _nodes(circuit_a: nx.DiGraph, circuit_b: nx.DiGraph, sites: Sequence[str]) -> list[_Node]:
    """All nodes of both circuits, strongest first."""
    known = set(sites)
    nodes = []
    for name in dict.fromkeys([*circuit_a, *circuit_b]):
        site = str(name).rpartition("/")[0]
        if site not in known:
            raise InputError(f'The node "{name}" is of no listed site; the sites are {", ".join(sites)}.')
        scores = (_score(circuit_a, name), _score(circuit_b, name))
        kind = "b" if scores[0] is None else "a" if scores[1] is None else "shared"
        nodes.append(_Node(name, site, kind, scores))
    if not nodes:
        raise InputError("Both circuits are empty; there is nothing to draw.")
    return sorted(nodes, key=lambda node: (-node.strength, node.name))


def _score(circuit: nx.DiGraph, name: str) -> float | None:
    if name not in circuit:
        return None
    if "score" not in circuit.nodes[name]:
        raise InputError(f'The node "{name}" has no attribute "score"; a circuit\'s nodes carry their scores.')
    return float(circuit.nodes[name]["score"])


def _edges(circuit_a: nx.DiGraph, circuit_b: nx.DiGraph) -> dict[tuple[str, str], str]:
    """Every edge of either circuit and its kind."""
    for circuit in (circuit_a, circuit_b):
        for upper, lower, weight in circuit.edges(data="weight"):
            if weight is None:
                raise InputError(f'The edge "{upper}" -> "{lower}" has no attribute "weight".')
    both = dict.fromkeys([*circuit_a.edges, *circuit_b.edges])
    return {
        edge: "b" if not circuit_a.has_edge(*edge) else "a" if not circuit_b.has_edge(*edge) else "shared"
        for edge in both
    }


def _strongest(nodes: list[_Node], sites: Sequence[str], most: int) -> tuple[list[_Node], int]:
    """The nodes to draw, and the cap per site: the largest one that leaves at most ``most`` nodes."""
    columns = [[node for node in nodes if node.site == site] for site in sites]
    cap = max(len(column) for column in columns)
    while cap > 1 and sum(min(cap, len(column)) for column in columns) > most:
        cap -= 1
    return [node for column in columns for node in column[:cap]], cap


Places = dict[str, tuple[float, float]]
Lanes = dict[str, tuple[float, float]]


def _places(shown: list[_Node], sites: Sequence[str]) -> tuple[Places, Lanes]:
    """Where every node lies (column, row), and the lowest and highest row of every lane."""
    stacks = {
        (site, kind): [n.name for n in shown if n.site == site and n.kind == kind] for site in sites for kind in KINDS
    }
    tallest = {kind: max(len(stacks[site, kind]) for site in sites) for kind in KINDS}
    middle = max(tallest["shared"] / 2, 1.0)
    gap = 0.03 * sum(tallest.values())
    lanes = {
        "shared": (-middle, middle),
        "a": (middle + gap, middle + gap + max(tallest["a"], 1)),
        "b": (-middle - gap - max(tallest["b"], 1), -middle - gap),
    }
    places = {}
    for (site, kind), names in stacks.items():
        for row, name in enumerate(names):
            above = {
                "shared": (len(names) - 1) / 2 - row,
                "a": lanes["a"][0] + 0.5 + row,
                "b": lanes["b"][1] - 0.5 - row,
            }[kind]
            places[name] = (float(sites.index(site)), above)
    return places, lanes


def _draw_edges(
    figure: go.Figure,
    edges: list[tuple[str, str]],
    places: Places,
    kind: str,
    colour: str,
    circuits: tuple[nx.DiGraph, nx.DiGraph],
    names: tuple[str, str],
) -> None:
    """Curves that leave and reach the nodes level, broken by None; the inner points carry the hover text."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    texts: list[str | None] = []
    for edge in edges:
        if edge[0] not in places or edge[1] not in places:
            continue
        (x0, y0), (x1, y1) = places[edge[0]], places[edge[1]]
        steps = [i / 10 for i in range(11)]
        xs += [x0 + (x1 - x0) * t for t in steps] + [None]
        ys += [y0 + (y1 - y0) * t * t * (3 - 2 * t) for t in steps] + [None]
        weights = [
            f"weight {circuit.edges[edge]['weight']:.3g} in {name}"
            for circuit, name in zip(circuits, names, strict=True)
            if circuit.has_edge(*edge)
        ]
        text = "<br>".join([f"{edge[0]} → {edge[1]}", *weights])
        texts += [None, *[text] * 9, None, None]
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="lines",
        legendgroup=kind,
        showlegend=False,
        line={"color": translucent(colour, 0.75 if kind == "shared" else 0.3), "width": 1.6 if kind == "shared" else 1},
        text=texts,
        hovertemplate="%{text}<extra></extra>",
    )


def _draw_nodes(
    figure: go.Figure,
    nodes: list[_Node],
    places: Places,
    kind: str,
    label: str,
    colour: str,
    size: float,
    names: tuple[str, str],
) -> None:
    """Points whose area grows with the score, relative to the strongest unit of their site."""
    texts = [
        "<br>".join(
            [f"<b>{node.name}</b>"]
            + [f"score {s:.3g} in {name}" for s, name in zip(node.scores, names, strict=True) if s is not None]
        )
        for node in nodes
    ]
    figure.add_scatter(
        name=label,
        x=[places[node.name][0] for node in nodes],
        y=[places[node.name][1] for node in nodes],
        mode="markers",
        legendgroup=kind,
        showlegend=True,
        marker={"color": colour, "size": size, "line": {"color": "white", "width": 0.5}},
        text=texts,
        hovertemplate="%{text}<extra></extra>",
    )


def _axes(
    figure: go.Figure, nodes: list[_Node], sites: Sequence[str], lanes: Lanes, names: dict[str, str]
) -> None:
    ticks = []
    for site in sites:
        column = [node.kind for node in nodes if node.site == site]
        ticks.append(f'{site}<br><span style="color:{GREY};font-size:11px">{column.count("shared")} / {len(column)}</span>')
    figure.update_xaxes(
        title_text="site, from the image to the embedding (shared / all units of the two circuits)",
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
    low, high = lanes["shared"]
    figure.add_hrect(y0=low, y1=high, fillcolor=FAINT, opacity=0.6, line_width=0, layer="below")
    figure.update_layout(
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "traceorder": "normal"}, margin_t=90,
        hovermode="closest",
    )


def _note(figure: go.Figure, text: str) -> None:
    figure.add_annotation(
        text=text, x=1, y=0, xref="paper", yref="paper", xanchor="right", yanchor="bottom", showarrow=False,
        font={"size": 12, "color": GREY}, bgcolor="rgba(255,255,255,0.8)",
    )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
