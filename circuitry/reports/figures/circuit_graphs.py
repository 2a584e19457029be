"""Circuits drawn as graphs over depth: a single circuit, or a pair of circuits of one class in two domains.

The two circuits of a pair are drawn on top of each other. Nodes are units. Every node and edge has a kind, shown by the
colour. In a pair, the kinds are: in both circuits, only in the first, only in the second. In a single circuit, a node
raises the metric or lowers the metric, and an edge has the kind of the unit that it leads into. The nodes of each kind
lie in a horizontal band, called a lane in the code. The numbers of nodes and edges in the legend include nodes and
edges that are not drawn.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb

from circuitry.circuits.graph import Circuit
from circuitry.reports.figures import style
from circuitry.runs.arguments import Names
from circuitry.runs.errors import InputError, number_of

MOST_OF_PAIR = 300
"""Largest number of nodes in the drawing of a pair. If the circuits have more nodes, only the strongest are drawn."""
MOST_ALONE = 30
"""Largest number of nodes in the drawing of a single circuit. It is smaller because these nodes are larger."""

# Kinds of nodes and edges, by the place of the lane in which the nodes are drawn.
ABOVE = "a"
BELOW = "b"
MIDDLE = "shared"

HEADS = re.compile(r"\.attn(?:\.[qkv])?$")
"""Sites whose units are attention heads, or the queries, keys or values of heads. These units are drawn as squares."""

Kinds = Mapping[str, tuple[str, str]]
"""Name and colour of every kind of node and edge, in the order of drawing. The shared kind comes last, on top."""


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
    """Draw the circuits of one class in two domains on top of each other.

    Shared units are drawn in the middle, units of the first circuit alone above them, and units of the second circuit
    alone below them. Units and edges of one circuit alone have the colour of the domain of this circuit.

    Args:
        sites: The columns of the drawing, from the image to the embedding.
        name_a, name_b: Names of the two domains.
        marks: Colours and symbols by the name of the domain.

    Example:
        >>> a, b = graphs["clock", "real"].circuit(), graphs["clock", "sketch"].circuit()
        >>> drawn = circuit_pair(a, b, list(a.units), name_a="real", name_b="sketch", title="clock")
        >>> drawn.layout.title.text
        'clock'
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
    """Draw one circuit: units that raise the metric above, and units that lower the metric below.

    A unit with a positive score raises the metric: the metric falls if the unit is removed. An edge has the colour of
    the unit that it leads into.

    Args:
        sites: The columns of the drawing, from the image to the embedding (default: the sites of the circuit).

    Example:
        >>> circuit_drawing(circuit, title="clock").layout.title.text
        'clock'
    """
    kinds = {
        ABOVE: ("for the metric", style.POSITIVE),
        BELOW: ("against it", style.NEGATIVE),
    }
    if sites is None:
        sites = list(circuit.units)
    figure = _draw({"the circuit": circuit}, sites, kinds, title)
    return figure.update_xaxes(title_text="site (units for the metric / all)")


def _draw(
    circuits: Mapping[str, Circuit], sites: Sequence[str], kinds: Kinds, title: str
) -> go.Figure:
    is_pair = MIDDLE in kinds
    nodes, edges = _nodes_and_edges(circuits)
    unknown = nodes.loc[~nodes["site"].isin(sites), "name"]
    if len(unknown):
        raise InputError(
            f'The node "{unknown.iloc[0]}" is of no listed site; the sites are {", ".join(sites)}.'
        )
    if nodes.empty:
        raise InputError("There is nothing to draw: each circuit is empty.")
    # Nodes are sorted by strength, so the first are the strongest.
    most = MOST_OF_PAIR if is_pair else MOST_ALONE
    shown, lanes = _placed(nodes.head(most), sites, is_pair)
    # Pixels: the more rows, the smaller the points.
    size: Any = max(4.0, min(10.0, 520 / (lanes[ABOVE][1] - lanes[BELOW][0])))
    places = shown.set_index("name")[["x", "y"]]
    figure = go.Figure()
    for kind, (name, colour) in kinds.items():
        # The legend counts all nodes and edges, also those that are not drawn.
        own = edges[edges["kind"] == kind]
        n_nodes = number_of(int((nodes["kind"] == kind).sum()), "node")
        _draw_edges(figure, own, places, kind, colour)
        points = shown[shown["kind"] == kind]
        # A single circuit shows strengths as sizes; a pair has two scores for a node.
        if not is_pair:
            size = 6 + 14 * points["strength"] / (shown["strength"].max() or 1.0)
        is_head = points["site"].str.contains(HEADS)
        marker = {
            "color": colour,
            "size": size,
            "line": {"color": "white", "width": 0.5},
            "symbol": np.where(is_head, "square", "circle"),
        }
        # A lane without points draws one empty point, so that the legend keeps its count.
        figure.add_scatter(
            x=points["x"] if len(points) else [None],
            y=points["y"] if len(points) else [None],
            mode="markers",
            name=f"{name}: {n_nodes}, {number_of(len(own), 'edge')}",
            legendgroup=kind,
            showlegend=True,
            text=list(points["text"]),
            hoverinfo="text",
            marker=marker,
        )
    doubtful = set[str]()
    for circuit in circuits.values():
        doubtful.update(circuit.source.doubtful_sites)
    remarks = []
    if len(shown) < len(nodes):
        remarks.append(f"drawn: the {len(shown):,} strongest of {len(nodes):,} units")
    if doubtful:
        remarks.append(
            "!: scores do not add up to the metric's change, or repeat the site before"
        )
    subtitle = "; ".join(remarks) or None
    style.lay_out(figure, title=title, subtitle=subtitle, height=760, legend=True)
    n_all = nodes["site"].value_counts()
    counted = MIDDLE if is_pair else ABOVE
    n_counted = nodes.loc[nodes["kind"] == counted, "site"].value_counts()
    ticks = []
    for site in sites:
        label = f"{site}!" if site in doubtful else site
        share = f"{n_counted.get(site, 0)} / {n_all.get(site, 0)}"
        ticks.append(f"{label} {style.faint(share)}")
    _draw_axes(figure, ticks, lanes, kinds)
    return figure


def _nodes_and_edges(
    circuits: Mapping[str, Circuit],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the nodes and the edges of all circuits as two tables. Nodes with large absolute scores come first.

    Returns:
        The table of nodes has the columns name, site, kind, strength (the absolute score; in two circuits the larger
        one) and text (hover text). The table of edges has the columns upper, lower (names of the two units, in the
        direction of the edge), kind and text.
    """
    # Values by node or edge, and then by circuit. A node or edge with two values is shared.
    scores: dict[str, dict[str, float]] = {}
    weights: dict[tuple[str, str], dict[str, float]] = {}
    for name, circuit in circuits.items():
        graph = circuit.graph
        for node, score in graph.nodes(data="score"):
            scores.setdefault(str(node), {})[name] = score
        for upper, lower, weight in graph.edges(data="weight"):
            weights.setdefault((upper, lower), {})[name] = float(weight)
    first = next(iter(circuits))
    is_pair = len(circuits) > 1

    def kind(values: Mapping[str, float]) -> str:
        if len(values) == 2:
            return MIDDLE
        is_above = first in values if is_pair else values[first] >= 0
        return ABOVE if is_above else BELOW

    rows = []
    for node, values in scores.items():
        site = node.rpartition("/")[0]
        strength = max(map(abs, values.values()))
        text = _hover_text(f"<b>{node}</b>", "score", values)
        rows.append((node, site, kind(values), strength, text))
    nodes = pd.DataFrame(rows, columns=["name", "site", "kind", "strength", "text"])
    # Names break ties, so that a figure is the same each time.
    nodes = nodes.sort_values(["strength", "name"], ascending=[False, True])
    lines = []
    for (upper, lower), values in weights.items():
        # An edge of a single circuit has the kind of the unit at its end.
        of_kind = values if is_pair else scores[lower]
        text = _hover_text(f"{upper} → {lower}", "weight", values)
        lines.append((upper, lower, kind(of_kind), text))
    return nodes, pd.DataFrame(lines, columns=["upper", "lower", "kind", "text"])


def _hover_text(heading: str, what: str, values: Mapping[str, float]) -> str:
    """Return the hover text of a node or an edge: a heading, and the value in each circuit that has the node or edge.

    Args:
        heading: Name of the node or edge.
        what: Name of the values, such as "score".
        values: Values by the name of the circuit.
    """
    lines = [f"{what} {value:.3g} in {name}" for name, value in values.items()]
    return "<br>".join([heading, *lines])


def _placed(
    nodes: pd.DataFrame, sites: Sequence[str], is_pair: bool
) -> tuple[pd.DataFrame, dict[str, tuple[float, float]]]:
    """Compute where nodes are drawn: stacked by site and kind, with the strongest nodes nearest to the middle.

    The nodes of one kind lie in a horizontal band (a lane).

    Args:
        nodes: From `_nodes_and_edges`, strongest nodes first.
        sites: The columns of the drawing.
        is_pair: Whether the nodes are of two circuits. Then there is a lane for shared nodes in the middle.

    Returns:
        The table of nodes with the further columns ``x`` and ``y``, and a dictionary from each kind to the lowest and
        the highest ``y`` of its lane.
    """
    stacks = nodes.groupby(["site", "kind"])["name"]
    height = stacks.transform("size")
    tallest = height.groupby(nodes["kind"]).max()
    above = int(tallest.get(ABOVE, 0))
    below = int(tallest.get(BELOW, 0))
    middle = int(tallest.get(MIDDLE, 0))
    # The middle lane reaches as far above zero as below; a single circuit has none.
    near = max(middle / 2, 1.0) if is_pair else 0.0
    gap = 0.03 * (above + below + middle)
    lanes = {
        ABOVE: (near + gap, near + gap + max(above, 1)),
        BELOW: (-near - gap - max(below, 1), -near - gap),
    }
    if is_pair:
        lanes[MIDDLE] = (-near, near)
    # The first row of a stack; one in the middle lane is centred on zero.
    start = nodes["kind"].map({ABOVE: near + gap + 0.5, BELOW: -near - gap - 0.5})
    start = start.fillna((height - 1) / 2)
    step = np.where(nodes["kind"] == ABOVE, 1, -1)
    column = nodes["site"].map(list(sites).index).astype(float)
    return nodes.assign(x=column, y=start + step * stacks.cumcount()), lanes


def _draw_edges(
    figure: go.Figure, edges: pd.DataFrame, places: pd.DataFrame, kind: str, colour: str
) -> None:
    """Draw every edge of one kind as a curve between its two nodes. Each curve is horizontal at both ends.

    All curves of a kind are a single plotly trace, in which a None separates each curve from the next curve. The hover
    text of an edge is attached to the points between the two ends. Edges of nodes that are not drawn are left out.
    """
    xs: list[float | None] = []
    ys: list[float | None] = []
    texts: list[str | None] = []
    # Points along a curve, from 0 to 1.
    at = np.arange(11) / 10
    # 3 t^2 - 2 t^3 goes from 0 to 1 and is level at both ends.
    rise = at * at * (3 - 2 * at)
    # Edges of nodes that are not drawn have no place.
    uppers = edges.join(places.add_prefix("upper_"), "upper")
    ends = uppers.join(places.add_prefix("lower_"), "lower")
    columns = ["upper_x", "upper_y", "lower_x", "lower_y", "text"]
    for x0, y0, x1, y1, text in ends[columns].dropna().to_numpy():
        xs += [*(x0 + (x1 - x0) * at), None]
        ys += [*(y0 + (y1 - y0) * rise), None]
        texts += [None, *[text] * (len(at) - 2), None, None]
    # Shared edges are the result, and stand out.
    opacity = 0.3
    width = 1.0
    if kind == MIDDLE:
        opacity = 0.75
        width = 1.6
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


def _draw_axes(
    figure: go.Figure,
    ticks: Sequence[str],
    lanes: Mapping[str, tuple[float, float]],
    kinds: Kinds,
) -> None:
    # Crowded labels lean to the left. By default plotly turns them to the right, and hides the last label, because it
    # would not fit into the figure.
    figure.update_xaxes(
        tickvals=list(range(len(ticks))),
        ticktext=ticks,
        range=[-0.4, len(ticks) - 0.6],
        showgrid=False,
        autotickangles=[0, -30, -60, -90],
    )
    figure.update_yaxes(
        tickvals=[sum(lanes[kind]) / 2 for kind in kinds],
        ticktext=[name.replace(" ", "<br>", 1) for name, _ in kinds.values()],
        range=[lanes[BELOW][0] - 0.5, lanes[ABOVE][1] + 0.5],
        showgrid=False,
    )
    if MIDDLE in lanes:
        low, high = lanes[MIDDLE]
        figure.add_hrect(
            low, high, fillcolor=style.FAINT, opacity=0.6, line_width=0, layer="below"
        )
