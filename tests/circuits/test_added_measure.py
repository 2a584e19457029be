"""CONTRIBUTING's recipe for a measure: a function of circuits, and one call."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from circuitry import InputError, compare, compare_domains
from circuitry.circuits import Circuit, Measure, register_measure, similarity
from circuitry.circuits.measures import MEASURES, Matrices
from circuitry.reports import Report
from circuitry.reports.measure_names import MEASURE_NAMES, measure_name
from circuitry.reports.sections.compared import add_summary
from circuitry.representations.kernel_alignment import KERNELS
from tests.circuits.test_measures import random_graph

DOMAINS = ("clipart", "real", "sketch")
GRAPHS = {("axe", domain): random_graph(i, "axe", domain, fraction=0.3 + 0.2 * i) for i, domain in enumerate(DOMAINS)}


def as_many_edges(circuits: Sequence[Circuit]) -> Matrices:
    counts = np.array([one.count for one in circuits], float)
    return {None: np.minimum(counts, counts[:, None]) / np.maximum(counts, counts[:, None])}


def by_hand(a: str, b: str) -> float:
    few, many = sorted(len(GRAPHS["axe", domain].circuit(3).graph.edges) for domain in (a, b))
    return few / many


def test_the_recipe_gives_the_measure_its_own_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("circuitry.circuits.measures.MEASURES", dict(MEASURES))
    register_measure("as_many_edges", as_many_edges)
    a, b = (GRAPHS["axe", domain] for domain in ("clipart", "real"))
    assert 0 < by_hand("clipart", "real") < 1
    assert similarity(a, b, "as_many_edges") == {None: by_hand("clipart", "real")}
    found = compare_domains(GRAPHS, measures=["as_many_edges", "node_overlap"])
    pairs = [("clipart", "real"), ("clipart", "sketch"), ("real", "sketch")]
    for table in (found["as_many_edges"].values, compare(GRAPHS, "as_many_edges")):
        assert table["value"].tolist() == [by_hand(*pair) for pair in pairs]
    report = Report("A measure", "of one's own")
    add_summary(report, [found["as_many_edges"]])
    page = report.write(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "as many edges" in page
    for domain in DOMAINS:
        mean = np.mean([by_hand(*pair) for pair in pairs if domain in pair])
        assert f"{mean:.3f}" in page, domain


def test_a_name_without_an_entry_is_no_measure() -> None:
    for use in (lambda: Measure("as_many_edges"), lambda: compare(GRAPHS, "as_many_edges")):
        with pytest.raises(InputError, match=r"'as_many_edges'.*node_overlap, edge_jaccard"):
            use()


def test_names_for_figures_are_names_of_measures() -> None:
    assert set(MEASURE_NAMES) <= {*MEASURES, *(f"cka_{kernel}" for kernel in KERNELS)}
    assert len({measure_name(name) for name in MEASURES}) == len(MEASURES)
