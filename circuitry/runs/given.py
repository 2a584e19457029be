"""What is given to a public function, checked at its door where objects are easily taken for one another. No torch."""

from collections.abc import Iterable, Mapping

from circuitry.runs.errors import InputError

HOW = {
    "AblationSettings": "give AblationSettings(...)",
    "AttributionGraph": "give the graph of what find_circuit returns (found.graph), the source of a circuit "
    "(circuit.source), or one of a folder (graphs[class, domain])",
    "Circuit": "cut one out of a graph with graph.circuit(3)",
    "Clip": "make one with load_clip(name, ...)",
    "Comparison": "give one measure of what compare_domains returns, e.g. found['edge_jaccard']",
    "DomainFolder": "make one with DomainFolder(path)",
    "EdgeScores": "make them with score_edges(ResidualStream.of(clip.encoder), ...)",
    "Encoder": "give clip.encoder of a Clip, or stream.components of a ResidualStream",
    "GraphFolder": "open one with GraphFolder(path)",
    "Integral": "give a whole number such as 3",
    "Mapping": "make a set of edges with take_edges(circuit) or edges_among(graph)",
    "Task": "make one with Task(clip.encoder, images, metric)",
    "QuadratureRule": "a rule is made by left_rule(10) and its like, or parse_rule('left-10')",
    "ResidualStream": "make one with ResidualStream.of(clip.encoder)",
}
"""How to get what is meant, by the name of its class."""


def check_kinds(**given: tuple[object, type]) -> None:
    """Refuse an argument, by name, that is not of the class beside it.

    Raises:
        InputError: which says how to get what is meant.

    Example:
        >>> check_kinds(graph=(graph, AttributionGraph), stream=(stream, ResidualStream))
    """
    for name, (value, kind) in given.items():
        if not isinstance(value, kind):
            wanted = f"{'an' if kind.__name__[0] in 'AEI' else 'a'} {kind.__name__}"
            raise InputError(
                f"Expected {wanted} as {name}, but {type(value).__name__} was given: {HOW[kind.__name__]}."
            )


def check_lists(**given: object) -> None:
    """Refuse an argument, by name, that is one thing where a list of them is wanted; None stands for the default.

    Raises:
        InputError: which says how to write it.

    Example:
        >>> check_lists(classes=classes, sites=sites)
    """
    for name, value in given.items():
        if value is not None and (isinstance(value, str | Mapping) or not isinstance(value, Iterable)):
            write = f"[{value!r}]" if isinstance(value, str | int | float) else f"[{name}]"
            raise InputError(f"Expected a list of {name}, but {shown(value)} was given: write {write}.")


def shown(value: object) -> str:
    """Return a text or a number as it is, of anything else what it is."""
    if isinstance(value, str):
        return f"the string {value!r}"
    return repr(value) if isinstance(value, int | float) else type(value).__name__
