"""Graphs and their tables, circuits cut out of them, and their files."""

import math
from dataclasses import fields, replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from circuitry import AttributionGraph, Circuit, GraphFolder, InputError
from circuitry.circuits import Completeness, Scores
from circuitry.circuits.budgets import RANKINGS
from circuitry.runs.manifest import claim


def small_graph(**changes: object) -> AttributionGraph:
    """Two sites of 4 and 3 units; two and three of them kept."""
    graph = AttributionGraph(
        sites=("input", "conv", "head"),
        node_scores={
            "input": np.array([0.5, -0.25, 0.125]),
            "conv": np.array([0.0, -2.0, 0.5, 1.0]),
            "head": np.array([-1.0, 3.0, 2.0]),
        },
        kept_units={
            "input": np.array([0]),
            "conv": np.array([1, 3]),
            "head": np.array([1, 2, 0]),
        },
        edge_scores={
            ("conv", "head"): np.array([[0.5, 0.25], [-0.5, -0.25], [2.0, 2.0]])
        },
        completeness={
            "input": Completeness(0.375, 0.5),
            "conv": Completeness(-0.5, -0.75),
            "head": Completeness(4.0, 4.0),
        },
        n_images=7,
        class_name="alarm clock",
        domain="sketch",
        settings={"size": 0.5, "baseline": "zero"},
        provenance={"seed": 3, "versions": {"numpy": "2"}},
    )
    return replace(graph, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sums", "share", "verdict"),
    [
        ((1.05, 1.0), 0.05, "adds up"),
        ((-0.5, -0.75), 1 / 3, "roughly"),
        ((-0.671, -0.135), -0.536 / 0.135, "does not add up"),
        ((0.5, 0.0), math.inf, "does not add up"),
        ((0.0, 0.0), 0.0, "adds up"),
        ((math.nan, 1.0), math.nan, "unknown"),
    ],
)
def test_a_gap_is_judged_by_the_change_of_the_metric(
    sums: tuple[float, float], share: float, verdict: str
) -> None:
    found = Completeness(*sums)
    assert found.share == pytest.approx(share, nan_ok=True)
    assert found.verdict == verdict


def test_doubtful_sites_are_not_among_the_strongest() -> None:
    graph = small_graph()
    assert graph.doubtful_sites == {}
    wrong = small_graph(
        completeness={**graph.completeness, "head": Completeness(4.0, 2.0)}
    )
    assert wrong.doubtful_sites == {"head": "scores miss the metric's change by 100%"}
    assert set(wrong.top(9)["site"]) == {"conv"}
    assert wrong.top(1, "head").to_numpy().tolist() == [["head", 1, 3.0]]
    again = small_graph(
        node_scores={**graph.node_scores, "head": graph.node_scores["conv"]},
        edge_scores={},
    )
    assert again.doubtful_sites == {"head": "repeats conv"}
    everywhere = small_graph(
        completeness=dict.fromkeys(graph.sites, Completeness(4.0, 2.0))
    )
    assert len(everywhere.top(99)) == 7
    with pytest.raises(InputError, match=r"'layer9'.*conv"):
        graph.top(3, "layer9")


def test_hand_worked_circuit() -> None:
    cut = small_graph().circuit(edges_per_node=1, any_sign=True)
    circuit = cut.graph
    # head/1 takes the larger of (0.5, 0.25); head/2 of (-0.5, -0.25), by sign and not by size; head/0 has equals.
    assert {(a, b): d["weight"] for a, b, d in circuit.edges(data=True)} == {
        ("conv/1", "head/1"): 0.5,
        ("conv/3", "head/2"): -0.25,
        ("conv/1", "head/0"): 2.0,
    }
    assert dict(circuit.nodes(data=True)) == {
        "conv/1": {"site": "conv", "unit": 1, "score": -2.0},
        "conv/3": {"site": "conv", "unit": 3, "score": 1.0},
        "head/1": {"site": "head", "unit": 1, "score": 3.0},
        "head/2": {"site": "head", "unit": 2, "score": 2.0},
        "head/0": {"site": "head", "unit": 0, "score": -1.0},
    }


def test_a_circuit_has_a_complement_random_twins_and_parts(tmp_path: Path) -> None:
    graph = small_graph()
    for cut in (
        graph.circuit(None),
        graph.strongest(0.5),
        graph.circuit(1, any_sign=True),
    ):
        rest, everything = cut.complement(), cut.nothing().complement()
        assert (cut.nothing().count, cut.count + rest.count) == (0, everything.count)
        assert everything.size == 1
        assert cut.size == cut.count / everything.count
        assert (rest.keep_error, rest.complement().keep_error) == (True, False)
        twin, again = cut.random(3), cut.random(3)
        assert nx.utils.graphs_equal(twin.graph, again.graph)
        assert (twin.count, twin.at(["head"]).units.keys()) == (cut.count, {"head"})  # type: ignore[comparison-overlap]
        assert {site: len(units) for site, units in twin.units.items()} == {
            s: len(u) for s, u in cut.units.items()
        }
        assert [one.count for one in cut.without_each()] == [cut.count - 1] * cut.count
        rest.save(tmp_path / "rest")
        loaded = Circuit.load(tmp_path / "rest")
        assert nx.utils.graphs_equal(loaded.graph, rest.graph)
        assert (loaded.made_with, loaded.keep_error) == (
            rest.made_with,
            rest.keep_error,
        )
    with pytest.raises(InputError, match="act9"):
        graph.circuit(None).at(["act9"])


def test_units_are_chosen_by_what_ranks_them_and_scored_by_their_effects(
    tmp_path: Path,
) -> None:
    importance = {
        "input": np.zeros(3),
        "conv": np.array([4.0, 0, 1, 2]),
        "head": np.array([1, 3, 0.5]),
    }
    small_graph(importance=importance).save(tmp_path / "graph")
    graph = AttributionGraph.load(tmp_path / "graph")
    assert graph.importance is not None
    assert {site: ranks.tolist() for site, ranks in graph.importance.items()} == {
        site: ranks.tolist() for site, ranks in importance.items()
    }
    for ranking in RANKINGS:
        units = graph.strongest(0.5, ranking).units
        assert {site: some.tolist() for site, some in units.items()} == {
            "conv": [0, 3],
            "head": [1, 0],
        }
        assert {
            site: len(some)
            for site, some in graph.strongest(1 / 7, ranking, "global").units.items()
        } == {
            "conv": 1,
            "head": 0,
        }
    assert graph.top(1).to_numpy().tolist() == small_graph().top(1).to_numpy().tolist()
    for wrong in (
        importance | {"conv": np.ones(3)},
        {site: importance[site] for site in ("input", "head")},
    ):
        with pytest.raises(InputError, match=r"4 units of conv"):
            small_graph(importance=wrong)


def test_the_strongest_units_in_a_table() -> None:
    table = small_graph().top(3)
    assert table.to_numpy().tolist() == [
        ["head", 1, 3.0],
        ["conv", 1, -2.0],
        ["head", 2, 2.0],
    ]  # of equals the first
    assert list(table.columns) == ["site", "unit", "score"]
    assert len(small_graph().top(99)) == 7  # not those of the image


def test_nodes_and_edges_as_tables() -> None:
    nodes = small_graph().to_pandas()
    assert nodes.query("site == 'conv'").to_numpy().tolist() == [
        ["conv", 0, 0.0, False],
        ["conv", 1, -2.0, True],
        ["conv", 2, 0.5, False],
        ["conv", 3, 1.0, True],
    ]
    assert len(nodes) == 3 + 4 + 3
    edges = small_graph().to_pandas("edges")
    assert edges.to_numpy().tolist()[:3] == [
        ["conv", 1, "head", 1, 0.5],
        ["conv", 3, "head", 1, 0.25],
        ["conv", 1, "head", 2, -0.5],
    ]
    circuit = small_graph().circuit(9, any_sign=True).graph
    assert {
        (
            f"{row.upstream_site}/{row.upstream_unit}",
            f"{row.downstream_site}/{row.downstream_unit}",
        ): row.score
        for row in edges.itertuples()
    } == {(a, b): weight for a, b, weight in circuit.edges(data="weight")}
    assert small_graph(edge_scores={}).to_pandas("edges").empty
    with pytest.raises(InputError, match=r"'nodes', 'edges', 'sites' .*'units'"):
        small_graph().to_pandas("units")


def test_the_sites_as_a_table() -> None:
    table = small_graph().to_pandas("sites").set_index("site")
    assert table["units"].to_dict() == {"input": 3, "conv": 4, "head": 3}
    assert table["kept"].to_dict() == {"input": 1, "conv": 2, "head": 3}
    assert table["gap"].to_dict() == {"input": -0.125, "conv": 0.25, "head": 0}


def test_a_circuit_of_scores_names_its_units_once(tmp_path: Path) -> None:
    graph = small_graph()
    names = [one.name for one in fields(Scores)]
    scores = Scores(**{name: getattr(graph, name) for name in names})
    circuit = scores.strongest(0.5)
    circuit.save(tmp_path / "circuit")
    read = Circuit.load(tmp_path / "circuit")
    assert type(read.source) is Scores
    assert {s: u.tolist() for s, u in read.units.items()} == {
        s: u.tolist() for s, u in circuit.units.items()
    }
    with pytest.raises(InputError, match=r"a circuit and no graph.*Circuit\.load"):
        AttributionGraph.load(tmp_path / "circuit")
    kept = scores.keeping(circuit.units)
    assert kept.circuit(None).units.keys() == circuit.units.keys()


@pytest.mark.parametrize("version", ["circuitry attribution graph 7"])
def test_files_and_folders_of_before_are_refused_by_name(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("circuitry.circuits.graph_files.FORMAT", version)
        small_graph().save(tmp_path / "old")
    for load in (AttributionGraph.load, Circuit.load):
        with pytest.raises(InputError, match=version):
            load(tmp_path / "old")
    claim(tmp_path / "folder", "circuitry extraction 6", {"n_parts": 0}, jobs=[])
    with pytest.raises(InputError, match="circuitry extraction 6"):
        GraphFolder(tmp_path / "folder")
