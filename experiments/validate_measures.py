"""Which measures of similarity separate circuits that are known to differ?

The script takes the circuits of a finished `circuitry compare` (or `extract`), makes cases with a known answer, and
scores every measure on them, after the benchmark ReSi (arXiv 2408.00531):

- fresh images: two folds of the images of a class in a domain against folds of two classes;
- another domain: the same, with the two folds in two domains. Both cases are scored by the area under the
  precision-recall curve;
- units permuted: a growing share of a circuit's units changes places within its site;
- noise: the scores of all units get growing noise, in standard deviations of the site. Both cases are scored by the
  rate at which a more changed circuit is more similar to the original than a less changed circuit.

A measure is refuted if it is no better than guessing, or violates orders as often as a coin. The similarity by depth
bias is minus the distance of the biases of two circuits.

    python experiments/validate_measures.py --circuits runs/domainnet/circuits --results experiments/results/measures
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, pairwise
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
    """Number of circuits that are permuted and made noisy, spread over classes and domains."""


def main(config: Config) -> None:
    """Judge every measure, print and write the table."""
    graphs = GraphFolder(config.circuits)
    folds = {}
    marks = SiteMarks()
    for key in graphs:
        first_two = list(graphs.folds(*key).values())[:2]
        if len(first_two) == 2:
            folds[key] = first_two
            for graph in first_two:
                marks.add(graph)
    if len({name for name, _ in folds}) < 2 or len({domain for _, domain in folds}) < 2:
        raise InputError(
            f"{config.circuits} needs two classes and two domains with two folds: extract more circuits."
        )
    # A site counts for all graphs or for none, so that means are over the same sites.
    judge = partial(similarities, marks.left_out())
    rng = np.random.default_rng(0)
    rows = precision_of_pairs(judge, folds, rng)
    # Neighbours are of one class or of one domain; steps spread the circuits over both.
    step = max(1, len(folds) // config.n_circuits)
    keys = list(folds)[::step]
    chosen = [graphs[key] for key in keys[: config.n_circuits]]
    rows += in_order(judge, chosen, "units permuted", permuted_share, rng)
    rows += in_order(judge, chosen, "noise", with_noise, rng)
    table = pd.DataFrame(
        rows, columns=["measure", "case", "statistic", "value", "guessing", "n"]
    )
    made_with = graphs.settings
    config.keep(
        {"measures": table}, model=made_with["model"], weights=made_with["weights"]
    )


def similarities(
    left_out: Collection[str], graphs: Sequence[AttributionGraph]
) -> dict[str, np.ndarray]:
    """Return the similarities [graphs, graphs] by measure, means over the sites that count.

    Args:
        left_out: Sites that do not count.
        graphs: The circuits to compare.
    """
    means = {}
    measures = list(map(Measure, MEASURES))
    matrices = similarity_matrices(graphs, measures, ReadingSettings.edges_per_node)
    for measure, by_site in matrices.items():
        counted = [by_site[site] for site in by_site if site not in left_out]
        means[measure.label] = np.mean(counted, axis=0)
    # Minus the distance, so that a large number means alike, as for all measures.
    biases = np.array(list(map(depth_bias, graphs)))
    means[DEPTH_BIAS] = -np.abs(biases - biases[:, None])
    return means


Row = tuple[str, str, str, float, float, int]
"""Measure, case, statistic, its value, the value of guessing, and the number of pairs or orders."""
Judge = Callable[[Sequence[AttributionGraph]], dict[str, np.ndarray]]


def precision_of_pairs(
    judge: Judge, folds: dict[Key, list[AttributionGraph]], rng: np.random.Generator
) -> list[Row]:
    """Return how well each measure separates pairs of one class from pairs of two, within and across domains.

    Args:
        judge: Function of circuits that returns their similarities by measure.
        folds: Two circuits of each class in a domain, found on two folds of the images.
        rng: Generator that draws the pairs of two classes.
    """
    keys = list(folds)
    matrices = judge(list(chain.from_iterable(folds.values())))
    rows = list[Row]()
    for case, across in (("fresh images", False), ("another domain", True)):
        pairs = list[tuple[int, int, bool]]()
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
            pairs.extend(
                (2 * i, 2 * j + 1, keys[j][0] == name) for j in (*same, *drawn)
            )
        a, b, truth = np.transpose(pairs)
        guessing = float(truth.mean())  # the area of scores at random
        for measure, matrix in matrices.items():
            values = matrix[a, b]
            defined = ~np.isnan(values)
            area = average_precision_score(truth[defined], values[defined])
            statistic = "area under precision-recall"
            rows.append((measure, case, statistic, area, guessing, int(defined.sum())))
    return rows


def in_order(
    judge: Judge,
    graphs: Sequence[AttributionGraph],
    case: str,
    changed: Callable[[AttributionGraph, float, np.random.Generator], AttributionGraph],
    rng: np.random.Generator,
) -> list[Row]:
    """Return how often a measure violates the order of changes; a tie counts half.

    An order is violated if a more changed circuit is more similar to the original than a less changed circuit.

    Args:
        judge: Function of circuits that returns their similarities by measure.
        graphs: The original circuits.
        case: Name of the change.
        changed: Function of a circuit, the size of the change and the generator that returns a changed circuit.
        rng: The generator.
    """
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
        # In a cycle each goes to the place of another, which no permutation at random ensures.
        places[chosen] = np.roll(chosen, 1)
        scores[site] = values[np.argsort(places)]
        kept[site] = places[graph.kept_units[site]]
    return replace(graph, node_scores=scores, kept_units=kept)


def with_noise(
    graph: AttributionGraph, size: float, rng: np.random.Generator
) -> AttributionGraph:
    """Return a graph with noise in its scores, which keeps the units that have the strongest noisy scores.

    Args:
        graph: The original.
        size: Standard deviation of the noise, in standard deviations of the scores of a site.
        rng: Generator of the noise.
    """
    scores = {}
    kept = {}
    places = {}
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
        kept_before = np.ix_(rows >= 0, columns >= 0)
        made[kept_before] = values[np.ix_(rows[rows >= 0], columns[columns >= 0])]
        edges[up, down] = made + size * values.std() * rng.normal(size=values.shape)
    return replace(graph, node_scores=scores, kept_units=kept, edge_scores=edges)


if __name__ == "__main__":
    run_script(Config, main, __doc__)
