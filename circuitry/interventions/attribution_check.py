"""Attribution against patching: are the attributed scores what replacing the units really does?

1. per site, the units with the largest |score| and a random sample of all units (seeded);
2. the exact effect of each, by activation patching from the same baseline on the same images;
3. per site, correlation of attributed and exact: Pearson for the values, Spearman for the ranks. The random sample
   is an unbiased picture of a site; the top units are those a circuit is made of.
"""

import numpy as np
import pandas as pd

from circuitry.circuits.asked_alike import ANY_TEXTS, check_made_with
from circuitry.circuits.graph import Scores
from circuitry.circuits.nodes import nodes_of
from circuitry.encoder.task import Task
from circuitry.gates.patching import patch_effects
from circuitry.interventions.scores_beside_effects import AttributionCheck
from circuitry.runs.errors import InputError
from circuitry.runs.given import Natural, checked

TOP, RANDOM = 20, 20
"""Units of every site that are checked, by |score| and at random; all where a site has fewer."""


@checked
def check_attribution(
    task: Task, graph: Scores, *, top: Natural = TOP, random: Natural = RANDOM
) -> AttributionCheck:
    """Return the exact effects of a graph's top units and of a random sample beside their attributed scores.

    Args:
        task: The encoder, images, metric and baseline of the attribution; with other images the numbers also say how
            the two sets differ.
        top: Units with the largest absolute score of every site.

    Raises:
        InputError: for a graph of another encoder, metric, class or baseline, no units at all, and what `patch_effects`
            raises.

    Example:
        >>> check = check_attribution(Task(encoder, photos, metric), graph)
        >>> check.to_pandas().query("sample == 'random'")
    """
    if top + random == 0:
        raise InputError(
            f"A check needs some top or random units, but top={top} and random={random} were given."
        )
    check_made_with(task, [graph], (*ANY_TEXTS, "class_weights", "baseline"))
    rng = np.random.default_rng(0)
    scores = graph.node_scores
    drawn = {site: rng.permutation(len(scores[site]))[:random] for site in graph.sites}
    chosen = {
        site: np.union1d(_largest(scores[site], top), units)
        for site, units in drawn.items()
    }
    exact, parts = nodes_of(task.encoder, patch_effects(task, units=chosen).scores), []
    for site, sampled in drawn.items():
        units = np.arange(len(scores[site]))
        samples = {
            "top": np.isin(units, _largest(scores[site], top)),
            "random": np.isin(units, sampled),
        }
        values = {"attributed": scores[site], "exact": exact[site]}
        parts.append(pd.DataFrame({"site": site, "unit": units, **samples, **values}))
    points = pd.concat(parts)
    return AttributionCheck(
        points[points["top"] | points["random"]].reset_index(drop=True)
    )


def _largest(scores: np.ndarray, n: int) -> np.ndarray:
    return np.argsort(-np.abs(scores), kind="stable")[:n]
