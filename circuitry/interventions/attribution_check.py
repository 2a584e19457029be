"""Attribution against patching: are the attributed scores what replacing the units really does?

1. per site, the units with the largest |score| and a random sample of all units (seeded);
2. the exact effect of each, by activation patching from the same baseline on the same images;
3. per site, correlation of attributed and exact: Pearson for the values, Spearman for the ranks. The random sample
   is an unbiased picture of a site; the top units are those a circuit is made of.

This is how to decide which rule and baseline to trust.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.nodes import node_effects
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.interventions.effects import AttributionCheck
from circuitry.interventions.patching import patch_effects
from circuitry.models.baselines import ZERO, Baseline
from circuitry.models.batches import ImageBatches, Images, rows_that_fit
from circuitry.models.encoder import Encoder
from circuitry.models.metrics import Metric
from circuitry.runs.errors import InputError


def check_attribution(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    graph: AttributionGraph,
    *,
    baseline: Baseline = ZERO,
    top: int = 20,
    random: int = 20,
    seed: int = 0,
    memory_gib: float = 1.0,
    progress: bool = True,
) -> AttributionCheck:
    """Return the exact effects of a graph's top units and of a random sample beside their attributed scores.

    Args:
        encoder: The encoder that was attributed.
        images: The images that were attributed; on others the numbers also tell how the two sets differ.
        metric: The metric that was attributed.
        graph: From `attribute`.
        baseline: The baseline of the attribution.
        top: Units with the largest |score| per site; all where a site has fewer.
        random: Random units per site; all where a site has fewer.
        seed: Seed of the random sample.
        memory_gib: Budget for the stacked activations, in GiB.
        progress: Show a bar.

    Raises:
        InputError: when the baseline is not the graph's, no unit is asked for, or what `patch_effects` raises.

    Example:
        >>> check = check_attribution(encoder, photos, metric, graph)
        >>> check.table().query("sample == 'random'")
    """
    attributed_with = graph.settings.get("baseline", baseline.name)
    if attributed_with != baseline.name:
        raise InputError(
            f"Patching must go to the baseline of the attribution, {attributed_with!r}, but {baseline.name!r} was "
            "given: pass that baseline."
        )
    if top < 0 or random < 0 or top + random == 0:
        raise InputError(f"A check needs some top or random units, but {top} and {random} were asked for.")
    rng = np.random.default_rng(seed)
    tops, randoms = {}, {}
    for site in graph.sites:
        scores = graph.node_scores[site]
        tops[site] = set(_largest(scores, top).tolist())
        randoms[site] = set(rng.permutation(len(scores))[:random].tolist())
    units = {site: sorted(tops[site] | randoms[site]) for site in graph.sites}
    exact = patch_effects(
        encoder,
        images,
        metric,
        source=baseline,
        sites=graph.sites,
        units=units,
        memory_gib=memory_gib,
        progress=progress,
    )
    rows = [
        (
            site,
            unit,
            unit in tops[site],
            unit in randoms[site],
            float(graph.node_scores[site][unit]),
            float(exact.scores[site][unit]),
        )
        for site in graph.sites
        for unit in units[site]
    ]
    return AttributionCheck(pd.DataFrame(rows, columns=["site", "unit", "top", "random", "attributed", "exact"]))


def compare_rules(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    rules: Mapping[str, QuadratureRule],
    *,
    baseline: Baseline = ZERO,
    top: int = 20,
    sites: Sequence[str] | None = None,
    memory_gib: float = 1.0,
    progress: bool = True,
) -> pd.DataFrame:
    """Return how node scores by several rules correlate with exact patching, which is run once, for all units.

    Args:
        encoder: The encoder under study.
        images: A tensor [B, 3, H, W] or an iterable of such batches.
        metric: Embeddings [B, D] -> one number per image.
        rules: Quadrature rules by the name to show.
        baseline: Of attribution and of patching.
        top: Units with the largest |score| by the rule that are correlated apart.
        sites: Sites to look at, all unless told.
        memory_gib: Budget for the stacked activations, in GiB.
        progress: Show a bar.

    Returns:
        Columns rule, site, sample (``all`` or ``top``), n_units, pearson, spearman; see `AttributionCheck.table`.

    Example:
        >>> rules = {"left 10": left_rule(10), "gradient x activation": left_rule(1)}
        >>> compare_rules(encoder, photos, metric, rules).groupby(["rule", "sample"])["spearman"].mean()
    """
    rows = rows_that_fit(encoder, memory_gib)
    batches = ImageBatches(images, encoder, rows)
    settings: dict[str, Any] = {"memory_gib": memory_gib, "progress": progress}
    exact = patch_effects(encoder, batches, metric, source=baseline, sites=sites, **settings)
    tables = []
    for name, rule in rules.items():
        scores = node_effects(
            encoder, batches, metric, rule=rule, baseline=baseline, sites=exact.sites, rows=rows
        ).scores
        points = [
            pd.DataFrame(
                {"site": site, "unit": range(len(v)), "top": np.isin(range(len(v)), _largest(v, top)), "random": True}
                | {"attributed": v, "exact": exact.scores[site]}
            )
            for site, v in scores.items()
        ]
        tables.append(AttributionCheck(pd.concat(points, ignore_index=True)).table().assign(rule=name))
    found = pd.concat(tables, ignore_index=True).replace({"sample": {"random": "all"}})
    return found[["rule", "site", "sample", "n_units", "pearson", "spearman"]]


def _largest(scores: np.ndarray, n: int) -> np.ndarray:
    return np.argsort(-np.abs(scores), kind="stable")[:n]
