"""Every public class that holds a result is a table by `to_pandas`, and a table has the numbers of its result."""

import importlib
import inspect
import re
from collections.abc import Iterator

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from circuitry import AttributionGraph, Circuit
from circuitry.analysis import AccuracyAnswer
from circuitry.cards import TopImages, UnitCard
from circuitry.circuits import LearnedMasks, Scores
from circuitry.comparison import FOLDS, FoldArray
from circuitry.questions import (
    ComparedAnswer,
    CurvesAnswer,
    OwnPartsAnswer,
)
from tests.circuits.test_graph import small_graph
from tests.comparison.test_comparison import comparison
from tests.reports.sections.test_interventions import curve
from tests.test_imports import PUBLIC

HELD = re.compile(
    r"DataFrame|ndarray|Table\b|Circuit\b|FaithfulnessCurve|AttributionCheck|Comparison\b"
)
"""Types of fields that hold numbers that were computed."""
OTHERWISE = {
    "AttributionFolds": "holds graphs, and each of them has its table",
    "DomainFolder": "holds pictures; counts() is their table",
    "ModelView": "is written for the explorer's page",
    "PoolingPairs": "has effects only for a weight that is given",
    "ShuffledImages": "holds pictures",
    "WordedImages": "is given to name_units",
}
"""Public classes with such fields that have no table, and why."""


def results() -> Iterator[type]:
    """Yield the public classes that have a field of computed numbers."""
    for name, package in {name: package for package, name in PUBLIC}.items():
        value = getattr(importlib.import_module(package), name)
        if not inspect.isclass(value):
            continue
        kinds = [one for one in value.__mro__ if one.__module__.startswith("circuitry")]
        fields = [inspect.get_annotations(kind) for kind in kinds]
        if HELD.search(str(fields)):
            yield value


def test_every_result_is_a_table() -> None:
    lacking = {kind.__name__ for kind in results() if not hasattr(kind, "to_pandas")}
    assert lacking == OTHERWISE.keys()
    assert {AttributionGraph, Circuit, Scores, FoldArray, UnitCard} <= set(results())


def test_scores_have_a_row_for_each_unit() -> None:
    graph = small_graph()
    table = Scores.to_pandas(graph)
    assert list(table) == ["site", "unit", "score"]
    for site, scores in graph.node_scores.items():
        of_site = table[table["site"] == site]
        assert of_site["score"].tolist() == scores.tolist()
        assert of_site["unit"].tolist() == list(range(len(scores)))


def test_the_strongest_units_of_a_circuit_by_sorting_in_python() -> None:
    circuit = small_graph().circuit()
    found = circuit.top(3)
    effects = []
    for site, units in circuit.units.items():
        scores = circuit.source.node_scores[site]
        effects += [(site, unit, float(scores[unit])) for unit in units.tolist()]
    expected = sorted(effects, key=lambda row: -abs(row[2]))[:3]
    assert list(found) == ["site", "unit", "effect"]
    assert list(found.itertuples(index=False, name=None)) == expected
    assert len(circuit.top(100)) == len(effects)


def test_a_graph_of_networkx_says_what_it_is_of() -> None:
    graph = small_graph(provenance={"model": "rn-tiny"})
    told = {"class": "alarm clock", "domain": "sketch", "model": "rn-tiny"}
    assert graph.circuit().graph.graph == told
    by_weights = small_graph(provenance={}, settings={"weights": "abc"}, domain=None)
    told = {"class": "alarm clock", "domain": "unknown", "model": "abc"}
    assert by_weights.circuit().graph.graph == told
    # Other programs read such files, which hold no None.
    assert "unknown" in "".join(nx.generate_graphml(by_weights.circuit().graph))


def test_masks_are_a_table_with_their_sizes() -> None:
    graph = small_graph()
    circuits = [graph.strongest(size) for size in (0.2, 0.6)]
    table = LearnedMasks(circuits, graph.node_scores).to_pandas()
    for circuit in circuits:
        of_mask = table[table["size"] == circuit.made_with["size"]]
        pd.testing.assert_frame_equal(
            of_mask.drop(columns="size").reset_index(drop=True), circuit.to_pandas()
        )


def test_folds_come_back_from_their_table() -> None:
    rows = [
        ("cat", "cat", "real", "sketch", 0, 1, "conv", 0.5),
        ("cat", "cat", "real", "real", 0, 1, "conv", 0.75),
    ]
    array = FoldArray.from_table(pd.DataFrame(rows, columns=FOLDS))
    table = array.to_pandas()
    assert list(table) == list(FOLDS)
    assert {*rows} <= {*table.itertuples(index=False, name=None)}
    np.testing.assert_array_equal(FoldArray.from_table(table).values, array.values)
    of_circuits = pd.DataFrame(rows, columns=FOLDS).assign(site=None)
    assert FoldArray.from_table(of_circuits).to_pandas()["site"].tolist() == [None] * 4


def test_a_card_has_a_row_for_each_class_and_domain() -> None:
    card = UnitCard(
        "conv",
        3,
        "channel",
        classes=("cat", "key"),
        domains=("real", "sketch"),
        top={},
        heat_scale=1.0,
        bin_edges=np.arange(3.0),
        counts=np.zeros((2, 2), int),
        effects=np.array([[0.0, 1], [2, 3]]),
        kept=np.array([[True, False], [False, True]]),
        exact={"zero": np.array([[4.0, 5], [6, 7]])},
        attributed_like="zero",
        name=None,
    )
    expected = pd.DataFrame(
        {
            "class": ["cat", "cat", "key", "key"],
            "domain": ["real", "sketch", "real", "sketch"],
            "effect": [0.0, 1, 2, 3],
            "kept": [True, False, False, True],
            "exact_zero": [4.0, 5, 6, 7],
        }
    )
    pd.testing.assert_frame_equal(card.to_pandas(), expected)
    top = TopImages(("a", "b"), np.array([2.0, 1.0]), None)
    assert top.to_pandas().to_dict("list") == {"id": ["a", "b"], "value": [2, 1]}


def test_answers_are_their_tables() -> None:
    found = comparison()
    answer = ComparedAnswer({"edge_jaccard": found})
    pd.testing.assert_frame_equal(found.to_pandas(), found.values)
    assert answer.to_pandas()["value"].tolist() == found.values["value"].tolist()
    assert set(answer.to_pandas()["measure"]) == {"edge_jaccard"}
    real = curve("real", 0.75, 0.0)
    expected = pd.concat([real.to_pandas()] * 2, ignore_index=True)
    pd.testing.assert_frame_equal(CurvesAnswer([real], [real]).to_pandas(), expected)
    table = pd.DataFrame({"value": [1.0]})
    assert AccuracyAnswer(table).to_pandas() is table
    assert OwnPartsAnswer(table, table).to_pandas() is table


@pytest.mark.parametrize(
    "answer", [ComparedAnswer(), CurvesAnswer([]), OwnPartsAnswer()]
)
def test_no_results_are_a_table_of_no_rows(
    answer: ComparedAnswer | CurvesAnswer | OwnPartsAnswer,
) -> None:
    assert answer.to_pandas().empty
