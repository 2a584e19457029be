"""Tests of a circuit: is it enough, is it needed, is each part of it needed, and what does the rest alone?

After "Hypothesis Testing the Circuit Hypothesis in LLMs" (Shi et al. 2024, arXiv 2410.13032). The measure is
selectivity where there are images of other classes, else faithfulness.

- sufficiency: random circuits with as many units at every site. Null: the circuit beats at most a share q of them;
  with s wins of n, p = P(Binomial(n, q) >= s).
- necessity: the same of what is left when the circuit, or as many random units, is taken away: it is to do worse.
- minimality: each unit in turn is taken out of the circuit. Null: the metric's contrast does not fall; one-sided t-test
  over images (Welch's, between images of the class and others, for selectivity), Holm over units.
- complement: the measure of everything but the circuit, with its bootstrap interval: it is to do less than the circuit.

A circuit of edges is put to the same tests, edge by edge, against random edges (`edge_sets`).
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
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
from circuitry.interventions.edge_cuts import AT_ONCE, measure_edges
from circuitry.interventions.edge_runs import EDGES, cut_embeddings
from circuitry.interventions.edge_sets import count_edges, random_edges, take_edges, take_other_edges, without_each_edge
from circuitry.interventions.faithfulness import AblationSettings, measure_circuits, measure_metric
from circuitry.interventions.found_circuit import check_encoder
from circuitry.models.batches import Images
from circuitry.models.encoder import Encoder
from circuitry.models.metrics import Metric
from circuitry.runs.errors import InputError
from circuitry.runs.given import check_kinds
from circuitry.runs.workers import Work

UNITS = "units"


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
        circuit: Edges of this graph, which are tested likewise.

    Returns:
        One row per test, those of edges named so: columns test, measure, value, n, p, holds. The value is the share of
        random circuits beaten (sufficiency, necessity), the share of units or edges without which the measure falls
        (minimality, p the largest after Holm), and the measure itself (circuit, complement; with low and high, no p).

    Raises:
        InputError: for a circuit of another encoder, or without units or edges.

    Example:
        >>> judge_circuit(encoder, unseen, metric, found.graph, AblationSettings(baseline=mean), others=others)
    """
    check_kinds(encoder=(encoder, Encoder), graph=(graph, AttributionGraph), settings=(settings, AblationSettings))
    if "model_digest" in graph.settings:
        check_encoder(encoder, graph)
    units = take_kept_units(graph, choose_sites(graph, settings.sites))
    if not sum(map(len, units.values())):
        raise InputError(f"The circuit of {graph.title} has no units: there is nothing to test.")
    if circuit is not None and not count_edges(take_edges(circuit)):
        raise InputError(
            f"The circuit of {circuit.source.title} has no edges to test: give one whose edges have scores above 0, or "
            "test its units alone (circuit=None)."
        )
    bench = _Bench(encoder, images, metric, settings, judgement, others, work)
    rng = np.random.default_rng(settings.seed)
    error = partial(add_error_units, encoder) if settings.keep_error else lambda circuit: circuit
    tested = _units_tested(graph, units, error, judgement.draws, rng)
    rows = bench.rows(ablated_embeddings, measure_circuits, tested)
    if circuit is not None:
        tested = _edges_tested(circuit, settings.keep_error, judgement.draws, rng)
        rows += bench.rows(cut_embeddings, measure_edges, tested)
    return pd.DataFrame(rows, columns=["test", "measure", "value", "low", "high", "n", "p", "holds"])


class _Tested(NamedTuple):
    """A circuit of units or of edges, and what it is tested against."""

    kind: str
    source: AttributionGraph
    circuit: Any
    kept: list[Any]
    """The circuit, and random ones."""
    rests: list[Any]
    """What the circuit leaves out, and what other random ones do."""
    without: Iterable[Any]
    """The circuit, and it without each part."""


def _units_tested(
    graph: AttributionGraph,
    units: Mapping[str, np.ndarray],
    error: Callable[[KeptUnits], KeptUnits],
    draws: int,
    rng: np.random.Generator,
) -> _Tested:
    """Return tests of units, against random ones, as many at every site."""
    sizes = {site: len(kept) for site, kept in units.items()}
    random = [
        {site: rng.permutation(len(graph.node_scores[site]))[:size] for site, size in sizes.items()}
        for _ in range(2 * draws)
    ]
    kept, left_out = random[:draws], random[draws:]
    return _Tested(
        UNITS,
        graph,
        units,
        [error(one) for one in (units, *kept)],
        [take_complement(error(one), graph) for one in (units, *left_out)],
        map(error, chain([units], _without_one(units))),
    )


def _edges_tested(circuit: Circuit, keep_error: bool, draws: int, rng: np.random.Generator) -> _Tested:
    """Return tests of edges, against `random_edges`."""
    edges = take_edges(circuit, keep_error=keep_error)
    random = [random_edges(circuit.source, edges, rng) for _ in range(2 * draws)]
    kept, left_out = random[:draws], random[draws:]
    without = chain([edges], without_each_edge(edges, take_edges(circuit)))
    rests = [take_other_edges(one) for one in (edges, *left_out)]
    return _Tested(EDGES, circuit.source, edges, [edges, *kept], rests, without)


Row = tuple[str, str, float, float, float, int, float, bool]


class _Bench(NamedTuple):
    """What circuits of all kinds are judged on."""

    encoder: Encoder
    images: Images
    metric: Metric
    settings: AblationSettings
    judgement: JudgementSettings
    others: Images | None
    work: Work

    @property
    def measure(self) -> str:
        """What is read off a curve."""
        return "faithfulness" if self.others is None else "selectivity"

    def rows(
        self, run: Callable[..., Tensor], measured: Callable[..., FaithfulnessCurve], tested: _Tested
    ) -> list[Row]:
        """Return the rows of circuits of one kind, given what runs them and what makes a curve of them."""
        given = self.encoder, self.images, self.metric, tested.source, [tested.circuit]
        curve = measured(*given, replace(self.settings, random_draws=0), others=self.others, work=self.work)
        against = self._contrasts(run, [*tested.kept, *tested.rests])
        rows = [*_alone(curve, self.measure), *_against_random(against, curve.own, self.measure, self.judgement)]
        changed = self._contrasts(run, tested.without)
        minimal = _minimality(tested.kind, self.measure, changed, curve.own, self.judgement.alpha)
        return [*(_of_kind(tested.kind, row) for row in rows), minimal]

    def _contrasts(self, run: Callable[..., Tensor], circuits: Iterable[Any]) -> Float[np.ndarray, "circuits images"]:
        """Return what each image adds to the measure under each circuit."""
        left, runs, parts = iter(circuits), partial(run, self.encoder, work=self.work), list[np.ndarray]()
        while some := list(islice(left, AT_ONCE)):
            given = runs, some, self.metric, self.images, self.others
            parts.append(measure_metric(*given, self.settings.baseline)[0])
        return np.concatenate(parts)


def _of_kind(kind: str, row: Row) -> Row:
    """Return a row that says what the circuit is made of, where that is not units."""
    return row if kind == UNITS else (f"{row[0]} ({kind})", *row[1:])


def _without_one(units: Mapping[str, np.ndarray]) -> Iterator[KeptUnits]:
    for site, kept in units.items():
        for i in range(len(kept)):
            yield {**units, site: np.delete(kept, i)}


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
