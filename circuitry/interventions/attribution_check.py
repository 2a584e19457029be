"""Attribution against patching: are the attributed scores what replacing the units really does?

1. per site, the units with the largest |score| and a random sample of all units (seeded);
2. the exact effect of each, by activation patching from the same baseline on the same images;
3. per site, correlation of attributed and exact: Pearson for the values, Spearman for the ranks. The random sample
   is an unbiased picture of a site; the top units are those a circuit is made of.

This is how to decide which rule and baseline to trust.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.nodes import node_effects
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.interventions.effects import AttributionCheck
from circuitry.interventions.patching import patch_effects
from circuitry.models.baselines import AnyBaseline, as_baseline
from circuitry.models.batches import ImageBatches, Images, rows_that_fit
from circuitry.models.encoder import Encoder
from circuitry.models.metrics import Metric
from circuitry.models.task import Task
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work


@dataclass(frozen=True)
class UnitSample:
    """Which units of every site are patched to check their scores."""

    top: int = 20
    """Units with the largest |score|; all where a site has fewer."""
    random: int = 20
    """Random units; all where a site has fewer."""
    seed: int = 0
    """Seed of the random units."""

    def __post_init__(self) -> None:
        if self.top < 0 or self.random < 0 or self.top + self.random == 0:
            raise InputError(
                f"A check needs some top or random units, but {self.top} and {self.random} were asked for."
            )


def check_attribution(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    graph: AttributionGraph,
    *,
    baseline: AnyBaseline = "zero",
    sample: UnitSample = UnitSample(),
    work: Work = Work(),
) -> AttributionCheck:
    """Return the exact effects of a graph's top units and of a random sample beside their attributed scores.

    Args:
        encoder: As for metric and baseline, that of the attribution.
        images: The images that were attributed; on others the numbers also tell how the two sets differ.
        graph: From `attribute`.
        sample: How many units of each kind.
        work: Memory and progress.

    Raises:
        InputError: when the baseline is not the graph's, or what `patch_effects` raises.

    Example:
        >>> check = check_attribution(encoder, photos, metric, graph)
        >>> check.table().query("sample == 'random'")
    """
    ends = as_baseline(baseline)
    attributed_with = graph.settings.get("baseline", ends.name)
    if attributed_with != ends.name:
        raise InputError(
            f"Patching must go to the baseline of the attribution, {attributed_with!r}, but {ends.name!r} was "
            "given: pass that baseline."
        )
    rng = np.random.default_rng(sample.seed)
    scores = graph.node_scores
    drawn = {site: rng.permutation(len(scores[site]))[: sample.random] for site in graph.sites}
    chosen = {site: np.union1d(_largest(scores[site], sample.top), units) for site, units in drawn.items()}
    exact = patch_effects(encoder, images, metric, baseline=ends, sites=chosen, work=work)
    return _check(scores, exact.scores, sample.top, drawn)


def compare_rules(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    rules: Mapping[str, QuadratureRule],
    *,
    baseline: AnyBaseline = "zero",
    top: int = 20,
    sites: Sequence[str] | None = None,
    work: Work = Work(),
) -> pd.DataFrame:
    """Return how node scores by several rules correlate with exact patching, which is run once, for all units.

    Args:
        encoder: As for images, metric, sites, work and errors, see `patch_effects`.
        rules: Quadrature rules by the name to show.
        baseline: Of attribution and of patching.
        top: Units with the largest |score| by the rule that are correlated apart.

    Returns:
        Columns rule, site, sample (``all`` or ``top``), n_units, pearson, spearman; see `AttributionCheck.table`.

    Example:
        >>> rules = {"left 10": left_rule(10), "gradient x activation": left_rule(1)}
        >>> compare_rules(encoder, photos, metric, rules).groupby(["rule", "sample"])["spearman"].mean()
    """
    batches = ImageBatches(images, encoder, rows_that_fit(encoder, work.memory_gib))
    exact = patch_effects(encoder, batches, metric, baseline=baseline, sites=sites, work=work)
    tables = []
    for name, rule in rules.items():
        task = Task(encoder, batches, metric, baseline=baseline, sites=exact.sites, work=replace(work, progress=False))
        with task.running(gradients=True):
            found = node_effects(task, rule)
        everything = {site: np.arange(len(values)) for site, values in found.scores.items()}
        tables.append(_check(found.scores, exact.scores, top, everything).table().assign(rule=name))
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
