"""Which measures of similarity separate circuits that are known to differ?

Takes the circuits of a finished `circuitry compare` (or `extract`), makes cases with a known answer, and scores every
measure on them, after the benchmark ReSi (arXiv 2408.00531):

- fresh images: two folds of the images of a class in a domain against folds of two classes, scored by the area under
  the precision-recall curve; another domain: the same, with the two folds in two domains;
- units permuted: a growing share of a circuit's units changes places within its site; noise: the scores of all units
  get growing noise, in standard deviations of the site. Both are scored by the rate at which a more changed circuit
  comes out as more similar to the original.

A measure is refuted if it is no better than guessing, or violates orders as often as a coin. Depth bias enters as minus
the distance of two circuits' biases.

    python experiments/validate_measures.py --circuits runs/domainnet/circuits --results experiments/results/measures
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import isclose
from pathlib import Path

from circuitry.runs import InputError, run_script
from circuitry import AttributionGraph, GraphFolder
from circuitry.circuits import Measure, ReadingSettings, depth_bias
from circuitry.circuits.graph_folder import Key
from circuitry.circuits.measures import MEASURES, similarity_matrices
from circuitry.circuits.similarities_of_classes import SiteMarks
from experiments.kept_tables import KeepSettings

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

LEVELS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of permuted units, and sizes of the noise."""
DEPTH_BIAS = "depth_bias"
N_NEGATIVES = 6
"""Pairs of two classes for each fold of a class in a domain."""


@dataclass(frozen=True)
class Config(KeepSettings):
    """Settings of the validation."""

    circuits: Path = Path("runs/quickstart/circuits")
    """Folder of graphs with folds."""
    n_circuits: int = 12
    """Circuits that are permuted and made noisy, spread over classes and domains."""


def main(config: Config) -> None:
    """Judge every measure, print and write the table."""
    graphs = GraphFolder(config.circuits)
    folds = {key: list(graphs.folds(*key).values())[:2] for key in graphs}
    folds = {key: both for key, both in folds.items() if len(both) == 2}
    if len({name for name, _ in folds}) < 2 or len({domain for _, domain in folds}) < 2:
        raise InputError(
            f"{config.circuits} needs two classes and two domains with two folds: extract more circuits."
        )
    marks = SiteMarks()
    for both in folds.values():
        for graph in both:
            marks.add(graph)
    # A site counts for all graphs or for none, so that means are over the same sites.
    judge = partial(similarities, marks.left_out())
    rng = np.random.default_rng(0)
    rows = precision_of_pairs(judge, folds, rng)
    keys = list(folds)
    step = max(1, len(keys) // config.n_circuits)
    chosen = [graphs[key] for key in keys[::step][: config.n_circuits]]
    rows += in_order(judge, chosen, "units permuted", permuted_share, rng)
    rows += in_order(judge, chosen, "noise", with_noise, rng)
    table = pd.DataFrame(
        rows, columns=["measure", "case", "statistic", "value", "guessing", "n"]
    )
    config.keep(
        {"measures": table},
        **{name: graphs.settings[name] for name in ("model", "weights")},
    )


def similarities(
    left_out: Collection[str], graphs: Sequence[AttributionGraph]
) -> dict[str, np.ndarray]:
    """Return the matrix of similarities by measure, means over the sites that count."""
    means = dict[str, np.ndarray]()
    measures = [Measure(name) for name in MEASURES]
    matrices = similarity_matrices(graphs, measures, ReadingSettings.edges_per_node)
    for measure, by_site in matrices.items():
        counted = [by_site[site] for site in by_site if site not in left_out]
        means[measure.label] = np.mean(counted, axis=0)
    # Minus the distance, so that large means alike, as for all measures.
    biases = np.array([depth_bias(graph) for graph in graphs])
    means[DEPTH_BIAS] = -np.abs(biases - biases[:, None])
    return means


Row = tuple[str, str, str, float, float, int]
Judge = Callable[[Sequence[AttributionGraph]], dict[str, np.ndarray]]


def precision_of_pairs(
    judge: Judge, folds: dict[Key, list[AttributionGraph]], rng: np.random.Generator
) -> list[Row]:
    """Return how well each measure separates pairs of one class from pairs of two, within and across domains."""
    keys = list(folds)
    matrices = judge([graph for key in keys for graph in folds[key]])
    rows = []
    for case, across in (("fresh images", False), ("another domain", True)):
        pairs = []
        for i, (name, domain) in enumerate(keys):
            same = list[int]()
            different = list[int]()
            for j, (other_name, other_domain) in enumerate(keys):
                if (other_domain != domain) == across:
                    (same if other_name == name else different).append(j)
            # Pairs of two classes are many more, and would hide the few of one class.
            n_drawn = min(N_NEGATIVES, len(different))
            drawn = rng.choice(different, n_drawn, replace=False)
            # The two folds of key i are graphs 2 i and 2 i + 1: no pair shares images.
            pairs += [(2 * i, 2 * j + 1, True) for j in same]
            pairs += [(2 * i, 2 * j + 1, False) for j in drawn]
        a, b, truth = (np.array(column) for column in zip(*pairs, strict=True))
        for measure, matrix in matrices.items():
            known = ~np.isnan(matrix[a, b])
            area = average_precision_score(truth[known], matrix[a, b][known])
            guessing = float(truth.mean())  # the area of scores at random
            statistic = "area under precision-recall"
            rows.append((measure, case, statistic, area, guessing, int(known.sum())))
    return rows


def in_order(
    judge: Judge,
    graphs: Sequence[AttributionGraph],
    case: str,
    changed: Callable[[AttributionGraph, float, np.random.Generator], AttributionGraph],
    rng: np.random.Generator,
) -> list[Row]:
    """Return how often a more changed circuit comes out as more like the first than a less changed one; ties half."""
    violated: dict[str, list[float]] = {}
    for graph in graphs:
        matrices = judge([graph, *(changed(graph, level, rng) for level in LEVELS)])
        for measure, matrix in matrices.items():
            steps = violated.setdefault(measure, [])
            # The first row holds the similarities of the original to ever more changed ones.
            for less, more in pairwise(matrix[0, 1:]):
                if np.isnan(less) or np.isnan(more):
                    continue
                tie = isclose(less, more, abs_tol=1e-9)
                steps.append(0.5 if tie else float(less < more))
    return [
        (name, case, "violated orders", float(np.mean(steps)), 0.5, len(steps))
        for name, steps in violated.items()
    ]


def permuted_share(
    graph: AttributionGraph, share: float, rng: np.random.Generator
) -> AttributionGraph:
    """Return a graph in which a share of the units of each site has changed places at random."""
    scores = {}
    kept = {}
    for site, values in graph.node_scores.items():
        places = np.arange(len(values))
        chosen = rng.permutation(len(values))[: round(share * len(values))]
        places[chosen] = np.roll(chosen, 1)  # each goes to the place of another
        scores[site] = values[np.argsort(places)]
        kept[site] = places[graph.kept_units[site]]
    return replace(graph, node_scores=scores, kept_units=kept)


def with_noise(
    graph: AttributionGraph, size: float, rng: np.random.Generator
) -> AttributionGraph:
    """Return a graph whose scores have noise, in standard deviations, and that keeps the units that lead then."""
    scores = dict[str, np.ndarray]()
    kept = dict[str, np.ndarray]()
    places = dict[str, np.ndarray]()
    for site, values in graph.node_scores.items():
        noisy = values + size * values.std() * rng.normal(size=len(values))
        units = graph.kept_units[site]
        scores[site] = noisy
        kept[site] = np.argsort(-np.abs(noisy), kind="stable")[: len(units)]
        # Where each unit's edges stand in the matrices of the graph; -1 for units that it has not kept.
        place = np.full(len(values), -1)
        place[units] = np.arange(len(units))
        places[site] = place[kept[site]]
    edges = {}
    for (up, down), values in graph.edge_scores.items():
        # Edges of units that are kept anew are unknown: they get scores of other edges.
        made = rng.choice(values.ravel(), values.shape)
        rows = places[down]
        columns = places[up]
        known = np.ix_(rows >= 0, columns >= 0)
        made[known] = values[np.ix_(rows[rows >= 0], columns[columns >= 0])]
        edges[up, down] = made + size * values.std() * rng.normal(size=values.shape)
    return replace(graph, node_scores=scores, kept_units=kept, edge_scores=edges)


if __name__ == "__main__":
    run_script(Config, main, __doc__)
