"""Attribution against patching: are the attributed scores what replacing the units really does?

1. per site, the units with the largest |score| and a random sample of all units (seeded);
2. the exact effect of each, by activation patching from the same baseline on the same images;
3. per site, correlation of attributed and exact: Pearson for the values, Spearman for the ranks. The random sample
   is an unbiased picture of a site; the top units are those a circuit is made of.

This is how to decide which rule and baseline to trust.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import numpy as np
import pandas as pd

from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.nodes import node_effects, nodes_of
from circuitry.circuits.quadrature import QuadratureRule, gauss_radau_rule, left_rule, midpoint_rule
from circuitry.encoder.task import Task
from circuitry.interventions.effects import AttributionCheck
from circuitry.interventions.made_with import ANY_TEXTS, check_made_with
from circuitry.interventions.patching import patch_effects
from circuitry.runs.errors import InputError
from circuitry.runs.given import SOME, Natural, checked

RULES = {
    "left 10": left_rule(10),
    "Gauss-Radau 5": gauss_radau_rule(5),
    "midpoint 10": midpoint_rule(10),
    "gradient x activation": left_rule(1),
}
"""One left point gives zero for edges: the squared movement has no gradient at the clean activation."""
TOP, RANDOM = 20, 20
"""Units of every site that are checked, by |score| and at random; all where a site has fewer."""


@checked
def check_attribution(
    task: Task, graph: AttributionGraph, *, top: Natural = TOP, random: Natural = RANDOM
) -> AttributionCheck:
    """Return the exact effects of a graph's top units and of a random sample beside their attributed scores.

    Args:
        task: The encoder, images, metric and baseline of the attribution; with other images the numbers also say how
            the two sets differ.
        graph: From `attribute`.
        top: Units with the largest absolute score of every site.
        random: Random units of every site.

    Raises:
        InputError: for a graph of another encoder, metric, class or baseline, no units at all, and what `patch_effects`
            raises.

    Example:
        >>> check = check_attribution(Task(encoder, photos, metric), graph)
        >>> check.to_pandas().query("sample == 'random'")
    """
    if top + random == 0:
        raise InputError(f"A check needs some top or random units, but top={top} and random={random} were given.")
    check_made_with(task, [graph], (*ANY_TEXTS, "class_weights", "baseline"))
    rng = np.random.default_rng(0)
    scores = graph.node_scores
    drawn = {site: rng.permutation(len(scores[site]))[:random] for site in graph.sites}
    chosen = {site: np.union1d(_largest(scores[site], top), units) for site, units in drawn.items()}
    exact = patch_effects(task, units=chosen).scores
    return _check(scores, nodes_of(task.encoder, exact), top, drawn)


@checked
def compare_rules(task: Task, rules: Annotated[Mapping[str, QuadratureRule], SOME]) -> pd.DataFrame:
    """Return how node scores by several rules correlate with exact patching, which is run once, for all nodes.

    Args:
        task: See `patch_effects`.
        rules: Quadrature rules by the name to show.

    Returns:
        Columns rule, site, sample (``all``, or ``top``: the 20 units with the largest absolute score by the rule),
        n_units, pearson, spearman; see `AttributionCheck.to_pandas`.

    Example:
        >>> rules = {"left 10": left_rule(10), "gradient x activation": left_rule(1)}
        >>> compare_rules(Task(encoder, photos, metric), rules).groupby(["rule", "sample"])["spearman"].mean()
    """
    exact = nodes_of(task.encoder, patch_effects(task).scores)
    quiet, tables = replace(task, work=replace(task.work, progress=False)), []
    for name, rule in rules.items():
        with quiet.running(gradients=True):
            found = nodes_of(task.encoder, node_effects(quiet, rule).scores)
        everything = {site: np.arange(len(values)) for site, values in found.items()}
        tables.append(_check(found, exact, TOP, everything).to_pandas().assign(rule=name))
    together = pd.concat(tables, ignore_index=True).replace({"sample": {"random": "all"}})
    return together[["rule", "site", "sample", "n_units", "pearson", "spearman"]]


def _check(
    attributed: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray], top: int, drawn: Mapping[str, np.ndarray]
) -> AttributionCheck:
    """Return the scores of the top units and of those that were drawn, site by site."""
    parts = []
    for site, random in drawn.items():
        scores = attributed[site]
        units = np.arange(len(scores))
        samples = {"top": np.isin(units, _largest(scores, top)), "random": np.isin(units, random)}
        parts.append(pd.DataFrame({"site": site, "unit": units, **samples, "attributed": scores, "exact": exact[site]}))
    points = pd.concat(parts)
    return AttributionCheck(points[points["top"] | points["random"]].reset_index(drop=True))


def _largest(scores: np.ndarray, n: int) -> np.ndarray:
    return np.argsort(-np.abs(scores), kind="stable")[:n]
