"""A graph that keeps the positions of an image apart, so that an edge says from where to where.

Nodes are a component at a position: at the sites of `score_edges` with ports apart, unit ``head * positions +
position``. An edge of the residual stream goes from a writer to a reader at one position, with the effect that
`edges_by_position` finds there; within a head its keys and values lead from where they stand to where the query stands,
as `moves_between_positions` finds, and queries to their own place. Over positions edges sum to those of `score_edges`.

There are positions squared times as many pairs as edges: so edges are chosen first, such as the strongest of
`score_edges`.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from circuitry.circuits.graph import BETWEEN_POSITIONS, AttributionGraph
from circuitry.circuits.position_moves import edges_by_position, moves_between_positions
from circuitry.circuits.quadrature import AnyRule, as_rule
from circuitry.circuits.stream_edges import PLAIN, stream_of
from circuitry.circuits.stream_graph import order_of_site
from circuitry.models.stream_parts import PORTS, Component
from circuitry.models.task import Task
from circuitry.runs.given import DISTINCT, SOME, checked

_Pair = tuple[str, str]


@checked
def position_graph(
    task: Task, edges: Annotated[Sequence[tuple[str, str]], DISTINCT, SOME], *, rule: AnyRule = PLAIN
) -> AttributionGraph:
    """Return some edges between components with all positions apart, as means over images.

    Args:
        task: As for `score_edges`.
        edges: Names of (writer, reader), each once.
        rule: Points of the path.

    Returns:
        The node of a component at a position is the sum of its edges onward, or without any the sum of those into it.
        All units with an effect are kept.

    Raises:
        InputError: for an unknown edge, and as `score_edges`.

    Example:
        >>> edges = [("embed", "blocks.3.attn.0.v"), ("blocks.3.attn.0", "embedding")]
        >>> position_graph(task, edges).circuit(3).graph
    """
    rule = as_rule(rule)
    at = edges_by_position(task, edges, rule=rule)
    stream, task = stream_of(task)
    places = [stream.edge(*edge) for edge in edges]
    ends = [(stream.writers[column], stream.readers[row]) for row, column in places]
    into_heads = [i for i, (_, reader) in enumerate(ends) if reader.kind in PORTS]
    movers = [edges[i] for i in into_heads]
    moves = moves_between_positions(task, movers, rule=rule)
    n = at.shape[2]
    nodes = (*stream.writers, *stream.readers)
    units = {_site(one): stream.blocks[one.block].n_heads * n if one.head >= 0 else n for one in nodes}
    found: dict[_Pair, np.ndarray] = defaultdict(lambda: np.zeros((0, 3)))
    for (writer, reader), effects in zip(ends, at.mean(0), strict=True):
        here = np.arange(n)
        _add(found, (_site(writer), _site(reader)), _first(reader, n) + here, _first(writer, n) + here, effects)
    for place, effects in zip(into_heads, moves.mean(0), strict=True):
        port, first = ends[place][1], _first(ends[place][1], n)
        to, source = (one.ravel() for one in np.indices((n, n)))
        reads = to if port.kind == "q" else source
        _add(found, (_site(port), _site(port._replace(kind="head"))), first + to, first + reads, effects.ravel())
    made = task.made_with | {"edge_rule": rule.name, "edges": BETWEEN_POSITIONS, "positions": n}
    return _as_graph(units, found, len(at), made)


def _site(one: Component) -> str:
    return str(one).replace(f".attn.{one.head}", ".attn")


def _first(one: Component, n_positions: int) -> int:
    """Return the unit of a component at the first position."""
    return max(one.head, 0) * n_positions


def _add(found: dict[_Pair, np.ndarray], pair: _Pair, down: np.ndarray, up: np.ndarray, effects: np.ndarray) -> None:
    """Add rows (unit downstream, unit upstream, effect)."""
    found[pair] = np.concatenate([found[pair], np.stack([down, up, effects], 1)])


def _as_graph(
    units: dict[str, int], found: dict[_Pair, np.ndarray], n_images: int, settings: dict[str, object]
) -> AttributionGraph:
    """Return a graph of lists of edges; those named several times add up."""
    sites = tuple(sorted(units, key=order_of_site))
    onward, into = ({site: np.zeros(size) for site, size in units.items()} for _ in range(2))
    goes_on = {site: np.zeros(size, bool) for site, size in units.items()}
    for (up_site, down_site), (down, up, effects) in _columns(found):
        np.add.at(into[down_site], down, effects)
        np.add.at(onward[up_site], up, effects)
        goes_on[up_site][up] = True
    nodes = {site: np.where(goes_on[site], onward[site], into[site]) for site in sites}
    kept = {
        site: np.argsort(-np.abs(scores), kind="stable")[: np.count_nonzero(scores)] for site, scores in nodes.items()
    }
    edges = {}
    for (up_site, down_site), (down, up, effects) in _columns(found):
        scores = np.zeros((len(kept[down_site]), len(kept[up_site])))
        rows, columns = (_places(kept[site], units[site])[one] for site, one in ((down_site, down), (up_site, up)))
        there = (rows >= 0) & (columns >= 0)
        np.add.at(scores, (rows[there], columns[there]), effects[there])
        edges[up_site, down_site] = scores
    return AttributionGraph(sites, nodes, kept, edges, {}, n_images, settings=settings)


def _columns(found: dict[_Pair, np.ndarray]) -> list[tuple[_Pair, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    return [(pair, (rows[:, 0].astype(int), rows[:, 1].astype(int), rows[:, 2])) for pair, rows in found.items()]


def _places(kept: np.ndarray, n_units: int) -> np.ndarray:
    """Return the place of each unit among the kept ones, or -1."""
    places = np.full(n_units, -1)
    places[kept] = np.arange(len(kept))
    return places
