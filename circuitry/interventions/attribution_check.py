"""Attribution against patching: do attributed scores agree with the effects of replacing units?

1. At each site, take two samples of units. The units with the largest |score| represent what circuits keep. A random
   sample of all units represents the site.
2. Measure the exact effect of each of these units by activation patching, with the same baseline and the same images.
3. At each site, correlate attributed and exact effects: Pearson for the values, Spearman for the ranks.
"""

import numpy as np
import pandas as pd

from circuitry.circuits.asked_alike import ANY_TEXTS, check_made_with
from circuitry.circuits.graph import Scores
from circuitry.circuits.nodes import nodes_of
from circuitry.encoder.task import Task
from circuitry.gates.patching import patch_effects
from circuitry.interventions.scores_beside_effects import AttributionCheck
from circuitry.runs.arguments import Natural, checked
from circuitry.runs.errors import InputError

N_TOP = 20
"""The number of units with the largest |score| that are checked at every site. If a site has fewer units, all of its
units are checked."""
N_RANDOM = 20
"""The number of random units that are checked at every site. If a site has fewer units, all of its units are checked.
"""


@checked
def check_attribution(
    task: Task, graph: Scores, *, top: Natural = N_TOP, random: Natural = N_RANDOM
) -> AttributionCheck:
    """Return the exact effects of a graph's top units and of a random sample, next to their attributed scores.

    The exact effect of a unit is measured by a run in which the unit is replaced by its baseline.

    Args:
        task: The encoder, metric and baseline that were used to find the scores, and images. If these images are not
            the images of the attribution, scores and effects also differ because the images differ.
        graph: The graph whose scores are checked.
        top: The number of units of every site that are checked because their absolute scores are largest.
        random: The number of units of every site that are drawn at random.

    Raises:
        InputError: for a graph of another encoder, metric, class or baseline, if both ``top`` and ``random`` are 0, and
            the errors of `patch_effects`.

    Example:
        >>> task = circuitry.Task(encoder, images, metric, baseline="mean-position", others=others)
        >>> check = check_attribution(task, graph, top=3, random=3)
        >>> check.to_pandas()["sample"].unique().tolist()
        ['top', 'random']
    """
    if top + random == 0:
        raise InputError(
            f"A check needs some top or random units, but top={top} and random={random} were given."
        )
    check_made_with(task, [graph], (*ANY_TEXTS, "class_weights", "baseline"))
    rng = np.random.default_rng(0)
    tables = dict[str, pd.DataFrame]()
    chosen = dict[str, np.ndarray]()
    for site in graph.sites:
        scores = graph.node_scores[site]
        units = np.arange(len(scores))
        strongest = np.argsort(-np.abs(scores), kind="stable")[:top]
        drawn = rng.permutation(len(scores))[:random]
        columns = {
            "site": site,
            "unit": units,
            "top": np.isin(units, strongest),
            "random": np.isin(units, drawn),
            "attributed": scores,
        }
        table = pd.DataFrame(columns)
        # A unit that is in both samples is measured once.
        tables[site] = table[table["top"] | table["random"]]
        chosen[site] = tables[site]["unit"].to_numpy()
    exact = nodes_of(task.encoder, patch_effects(task, units=chosen).scores)
    checked = [t.assign(exact=exact[site][chosen[site]]) for site, t in tables.items()]
    return AttributionCheck(pd.concat(checked, ignore_index=True))
