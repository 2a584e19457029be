"""Tests of a circuit: is it enough, is it needed, is each part of it needed, and what does the rest alone?

After "Hypothesis Testing the Circuit Hypothesis in LLMs" (Shi et al. 2024, arXiv 2410.13032). The measure is
selectivity where there are images of other classes, else faithfulness.

- sufficiency: random circuits with as many units at every site. Null: the circuit beats at most a share q of them;
  with s wins of n, p = P(Binomial(n, q) >= s).
- necessity: the same of what is left when the circuit, or as many random units, is taken away: it is to do worse.
- minimality: each unit in turn is taken out of the circuit. Null: the metric's contrast does not fall; one-sided t-test
  over images (Welch's, between images of the class and others, for selectivity), Holm over units. Likewise each edge.
- complement: the measure of everything but the circuit, with its bootstrap interval: it is to do less than the circuit.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from torch import Tensor

from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.comparison.significance import holm
from circuitry.interventions.ablation import ablated_embeddings
from circuitry.interventions.circuit_sets import (
    KeptUnits,
    add_error_units,
    choose_sites,
    take_complement,
    take_kept_units,
)
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.edge_cuts import EdgeSet, cut_embeddings, take_edges
from circuitry.interventions.faithfulness import AblationSettings, measure_circuits, measure_metric
from circuitry.interventions.found_circuit import check_encoder
from circuitry.models.batches import Images
from circuitry.models.encoder import Encoder
from circuitry.models.metrics import Metric
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work


@dataclass(frozen=True)
class JudgementSettings:
    """How strictly circuits are judged."""

    draws: int = 40
    """Random circuits; with 40, a share of .9 can be exceeded significantly."""
    share: float = 0.9
    """The share q of random circuits that a circuit has to beat."""
    alpha: float = 0.05
    """Level of the tests."""

    def __post_init__(self) -> None:
        if self.draws < 1 or not 0 < self.share < 1 or not 0 < self.alpha < 1:
            raise InputError(
                "A judgement needs at least one random circuit, and a share and a level in (0, 1), but "
                f"{self} was given."
            )
        if self.share**self.draws > self.alpha:
            needed = int(np.ceil(np.log(self.alpha) / np.log(self.share)))
            raise InputError(
                f"Beating all of {self.draws} random circuits is not significant against a share of {self.share:g} at "
                f"level {self.alpha:g}: draw at least {needed}."
            )


def judge_circuit(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    graph: AttributionGraph,
    settings: AblationSettings = AblationSettings(),
    judgement: JudgementSettings = JudgementSettings(),
    *,
    others: Images | None = None,
    circuit: Circuit | None = None,
    work: Work = Work(),
) -> pd.DataFrame:
    """Test the kept units of a graph: sufficiency, necessity, minimality, and the complement alone.

    Args:
        encoder: As for images, metric, others, work and errors, see `faithfulness_curve`.
        graph: The circuit, such as `FoundCircuit.graph`.
        settings: Of these, baseline, sites, seed and whether errors are kept.
        judgement: Random circuits and levels.
        circuit: Edges of this graph, each of which is tested for minimality, too.

    Returns:
        One row per test: columns test, measure, value, n, p, holds. The value is the share of random circuits beaten
        (sufficiency, necessity), the share of units or edges without which the measure falls (minimality, p the
        largest after Holm), and the measure itself (circuit, complement; with low and high, no p).

    Raises:
        InputError: for a circuit of another encoder, or without units.

    Example:
        >>> judge_circuit(encoder, unseen, metric, found.graph, AblationSettings(baseline=mean), others=others)
    """
    if "model_digest" in graph.settings:
        check_encoder(encoder, graph)
    units = take_kept_units(graph, choose_sites(graph, settings.sites))
    if not sum(map(len, units.values())):
        raise InputError(f"The circuit of {graph.title} has no units: there is nothing to test.")
    measure = "faithfulness" if others is None else "selectivity"
    once = replace(settings, random_draws=0)
    curve = measure_circuits(encoder, images, metric, graph, [units], once, others=others, work=work)

    def contrasts(run: Callable[..., Tensor], circuits: Sequence[Any]) -> np.ndarray:
        """Return what each image adds to the measure under each circuit, [circuits, images]."""
        return measure_metric(partial(run, encoder, work=work), circuits, metric, images, others, settings.baseline)[0]

    def error(circuits: Sequence[KeptUnits]) -> list[KeptUnits]:
        return [add_error_units(encoder, one) if settings.keep_error else one for one in circuits]

    kept, left_out = np.split(np.array(_random_circuits(graph, units, 2 * judgement.draws, settings.seed)), 2)
    rests = [take_complement(one, graph) for one in error([units, *left_out])]
    values = contrasts(ablated_embeddings, [*error([units, *kept]), *rests])
    parts = error([units, *_without_one(units)])
    rows = [*_alone(curve, measure), *_against_random(values, curve.own, measure, judgement)]
    rows.append(_minimality("units", measure, contrasts(ablated_embeddings, parts), curve.own, judgement.alpha))
    if circuit is not None:
        edges = take_edges(circuit, keep_error=settings.keep_error)
        changed = contrasts(cut_embeddings, [edges, *_without_edge(edges, circuit)])
        rows.append(_minimality("edges", measure, changed, curve.own, judgement.alpha))
    return pd.DataFrame(rows, columns=["test", "measure", "value", "low", "high", "n", "p", "holds"])


Row = tuple[str, str, float, float, float, int, float, bool]


def _random_circuits(graph: AttributionGraph, units: KeptUnits, draws: int, seed: int) -> list[KeptUnits]:
    """Return circuits of random units, as many at every site."""
    rng = np.random.default_rng(seed)
    return [
        {site: rng.permutation(len(graph.node_scores[site]))[: len(np.asarray(kept))] for site, kept in units.items()}
        for _ in range(draws)
    ]


def _without_one(units: Mapping[str, np.ndarray]) -> Iterator[KeptUnits]:
    for site, kept in units.items():
        for i in range(len(kept)):
            yield {**units, site: np.delete(kept, i)}


def _without_edge(edges: EdgeSet, circuit: Circuit) -> Iterator[EdgeSet]:
    nodes = circuit.graph.nodes
    for tail, head in circuit.graph.edges:
        pair = nodes[tail]["site"], nodes[head]["site"]
        mask = edges[pair].copy()
        mask[nodes[head]["unit"], nodes[tail]["unit"]] = False
        yield {**edges, pair: mask}


def _alone(curve: FaithfulnessCurve, measure: str) -> list[Row]:
    table = curve.table(measure).set_index("circuit")
    found = list[Row]()
    for name, circuit in (("circuit", "kept"), ("complement", "complement")):
        value, low, high = map(float, table.loc[circuit, ["value", "low", "high"]].to_numpy())
        holds = value > 0 if name == "circuit" else value < found[0][2]
        found.append((name, measure, value, low, high, int(curve.own.sum()), float("nan"), bool(holds)))
    return found


def _against_random(values: np.ndarray, own: np.ndarray, measure: str, judgement: JudgementSettings) -> list[Row]:
    """Count random circuits that do less than the circuit, and complements of random ones that do more than its own.

    ``values`` [circuits, images] are the circuit's, those of random ones, and then of the complements of all these.
    """
    contrasts = values[:, own].mean(1) - (0 if measure == "faithfulness" else values[:, ~own].mean(1))
    circuits, rests = np.split(contrasts, 2)
    found = list[Row]()
    for name, wins in (("sufficiency", circuits[1:] < circuits[0]), ("necessity", rests[1:] > rests[0])):
        test = stats.binomtest(int(wins.sum()), len(wins), judgement.share, alternative="greater")
        interval = stats.binomtest(int(wins.sum()), len(wins)).proportion_ci()
        p, low, high = float(test.pvalue), float(interval.low), float(interval.high)
        found.append((name, measure, float(wins.mean()), low, high, len(wins), p, p < judgement.alpha))
    return found


def _minimality(name: str, measure: str, values: np.ndarray, own: np.ndarray, alpha: float) -> Row:
    """Test for each part whether the contrast falls without it.

    ``values`` [1 + parts, images] are those of the circuit, and without each part.
    """
    change = values[1:] - values[:1]
    inside, outside = change[:, own], change[:, ~own]
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # the change is the same for all images: judged by its size
        if measure == "faithfulness":
            p, mean = stats.ttest_1samp(inside, 0, axis=1, alternative="less").pvalue, inside.mean(1)
        else:
            p = stats.ttest_ind(inside, outside, axis=1, equal_var=False, alternative="less").pvalue
            mean = inside.mean(1) - outside.mean(1)
    changed = np.abs(mean) > 1e-6 * np.abs(values).max()
    corrected = holm(pd.Series(np.where(changed & np.isfinite(p), p, 1.0))).to_numpy()
    needed = corrected < alpha
    interval = stats.binomtest(int(needed.sum()), len(needed)).proportion_ci()
    value, low, high = float(needed.mean()), float(interval.low), float(interval.high)
    return f"minimality ({name})", measure, value, low, high, len(needed), float(corrected.max()), bool(needed.all())
