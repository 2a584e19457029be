"""Edge scores of a residual stream as an `AttributionGraph`: heads, whole MLPs, and all edges between them. No model.

Sites are the layers: ``embed``, of each block ``blocks.i.attn`` (its heads) and ``blocks.i.mlp`` (one unit), and
``embedding``. With ports apart a head has three units before it, at ``blocks.i.attn.q``, ``.k`` and ``.v``, which read,
and one edge from each.

    node of a writer = effect of cutting all its edges;  node of what reads alone = effect of cutting all edges into it

which to first order are the sums of those edges.
"""

import numpy as np

from circuitry.circuits.graph import IN_STREAM, AttributionGraph
from circuitry.circuits.stream_edges import EdgeScores
from circuitry.runs.errors import InputError
from circuitry.runs.given import check_kinds


def stream_graph(found: EdgeScores, *, ports: bool = False) -> AttributionGraph:
    """Return all heads and MLPs with the edges between them.

    Args:
        found: From `score_edges`.
        ports: Whether the query, key and value of a head are nodes of their own; else what a head reads is one.

    Raises:
        InputError: for scores in which neurons are apart.

    Example:
        >>> a, b = (stream_graph(score_edges(stream, photos, metric)) for photos in (cats, drawn_cats))
        >>> edge_jaccard(a.circuit(3), b.circuit(3))
    """
    check_kinds(found=(found, EdgeScores))
    if apart := [name for name in found.writers if ".mlp." in name]:
        raise InputError(
            f"A graph is one of heads and whole MLPs, but in these scores some neurons are apart, such as {apart[0]}: "
            "score a stream without them, or take the table of these (to_pandas)."
        )
    scores = np.nan_to_num(found.scores)
    reads, writes = _by_site(found.readers, ports), _by_site(found.writers, False)
    sites = sorted({*reads, *writes}, key=order_of_site)
    into = {site: np.stack([scores[rows].sum(0) for rows in units]) for site, units in reads.items()}
    own = {site: found.into[np.concatenate(units)] for site, units in reads.items() if site not in writes}
    nodes = own | {site: found.out_of[np.concatenate(units)] for site, units in writes.items()}
    nodes = {site: nodes[site] for site in sites}
    kept = {site: np.argsort(-np.abs(of_site), kind="stable") for site, of_site in nodes.items()}
    edges = {
        (up, down): into[down][:, np.concatenate(writes[up])]
        for down in sites
        for up in writes
        if down in into and order_of_site(up) < order_of_site(down)
    }
    if ports:
        heads = [site for site in writes if site.endswith(".attn")]
        edges |= {(f"{site}.{port}", site): np.diag(nodes[f"{site}.{port}"]) for site in heads for port in "qkv"}
    settings = found.settings | {"edges": IN_STREAM}
    ordered = {(up, down): of_pair[kept[down]][:, kept[up]] for (up, down), of_pair in edges.items()}
    return AttributionGraph(tuple(sites), nodes, kept, ordered, {}, found.n_images, settings=settings)


def _by_site(names: tuple[str, ...], ports: bool) -> dict[str, list[list[int]]]:
    """Return the places of each unit's rows by site, units in order."""
    found: dict[str, dict[int, list[int]]] = {}
    for place, name in enumerate(names):
        parts = name.split(".")
        unit = int(parts[3]) if len(parts) > 3 else 0
        site = ".".join([*parts[:3], *parts[4:][: int(ports)]])
        found.setdefault(site, {}).setdefault(unit, []).append(place)
    return {site: [units[unit] for unit in sorted(units)] for site, units in found.items()}


def order_of_site(site: str) -> tuple[int, int]:
    """Return where a site stands: block, and port, heads or MLP within it."""
    if not site.startswith("blocks."):
        return (-1, 0) if site == "embed" else (10**9, 0)
    _, block, kind = site.split(".", 2)
    return int(block), ("attn.q", "attn.k", "attn.v", "attn", "mlp").index(kind)
