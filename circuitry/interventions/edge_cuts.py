"""The exact effect of each edge: it alone is cut, so that its downstream unit gets the upstream unit's baseline."""

from dataclasses import replace
from itertools import chain

import numpy as np
from jaxtyping import Float

from circuitry.interventions.edge_sets import EdgeSet, Pair, without_each_edge
from circuitry.interventions.faithfulness import measure_each
from circuitry.models.task import Task
from circuitry.runs.given import check_kinds


def cut_effects(task: Task, edges: EdgeSet) -> dict[Pair, Float[np.ndarray, "down up"]]:
    """Return the exact effect on the metric of cutting each of some edges, of a chain or across sites.

    Every edge takes a run of its own, from the first site of all on.

    Args:
        task: Images, metric, and the baseline that a cut edge carries.
        edges: Edges to cut in turn, while all others between the same sites are kept.

    Returns:
        metric(clean) - metric(edge cut), mean over images [down, up], by pair of sites: positive where the edge helps;
        NaN for other edges.

    Example:
        >>> exact = cut_effects(Task(stream.components, photos, metric), edges_among(graph))
        >>> exact["layer3.0", "layer4.0"]    # beside graph.edge_scores["layer3.0", "layer4.0"]
    """
    check_kinds(task=(task, Task))
    whole = {pair: np.ones_like(mask) for pair, mask in edges.items()}
    own = replace(task, others=None)
    values = measure_each(own, chain([whole], without_each_edge(whole, edges))).mean(1)
    effects, place = {}, 1
    for pair, mask in edges.items():
        n = int(mask.sum())
        effects[pair] = np.full(mask.shape, np.nan)
        effects[pair][mask] = values[0] - values[place : place + n]
        place += n
    return effects
