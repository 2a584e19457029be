"""Graphs, their tables and stream edges, circuits cut out of them, and units by budget."""

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuitry import AttributionGraph, Circuit, GraphFolder, InputError, compare
from circuitry.bases import Component, ResidualStream, in_components
from circuitry.circuits import (
    BUDGETS,
    EDGE_METHODS,
    Completeness,
    Scores,
    attribute,
    attribute_components,
    depth_bias,
    edge_jaccard,
    left_rule,
    strongest_units,
)
from circuitry.circuits.budgets import RANKINGS
from circuitry.circuits.edge_methods import COMPONENT_SCORERS, EDGE_SCORERS, as_graph
from circuitry.circuits.stream_edges import StreamScores
from circuitry.data import ImageRecord
from circuitry.encoder import Encoder, Task
from circuitry.gates import Edges
from circuitry.runs.manifest import claim
from tests.support.assert_same import assert_same
from tests.support.metrics import product as metric
from tests.support.stream_scores import edge_scores
from tests.support.towers import make_tower
from tests.support.work import QUIET


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


NONE = np.nan
HEAD = Component("blocks.0.attn", 0)
SMALL = StreamScores(
    (
        *(HEAD._replace(port=port) for port in "qkv"),
        Component("blocks.0.mlp"),
        Component("embedding"),
    ),
    (Component("embed"), HEAD, Component("blocks.0.mlp")),
    np.array(
        [
            [1, NONE, NONE],
            [-2, NONE, NONE],
            [4, NONE, NONE],
            [-8, 16, NONE],
            [32, -64, 128],
        ]
    ),
    np.array([1.0, -2, 4, 8, 96]),
    np.array([27.0, -48, 128]),
    3,
)


def test_a_small_graph_on_paper() -> None:
    graph = as_graph(SMALL, {})
    assert graph.sites == ("embed", "blocks.0.attn", "blocks.0.mlp", "embedding")
    nodes = {site: scores.tolist() for site, scores in graph.node_scores.items()}
    assert nodes == {
        "embed": [27],
        "blocks.0.attn": [-48],
        "blocks.0.mlp": [128],
        "embedding": [96],
    }
    assert {pair: scores.item() for pair, scores in graph.edge_scores.items()} == {
        ("embed", "blocks.0.attn"): 3,
        ("embed", "blocks.0.mlp"): -8,
        ("blocks.0.attn", "blocks.0.mlp"): 16,
        ("embed", "embedding"): 32,
        ("blocks.0.attn", "embedding"): -64,
        ("blocks.0.mlp", "embedding"): 128,
    }


def test_ports_apart_read_in_the_place_of_their_head() -> None:
    graph = as_graph(SMALL, {}, ports=True)
    assert graph.sites[1:5] == (
        "blocks.0.attn.q",
        "blocks.0.attn.k",
        "blocks.0.attn.v",
        "blocks.0.attn",
    )
    assert graph.node_scores["blocks.0.attn.v"].tolist() == [4]
    assert graph.edge_scores["embed", "blocks.0.attn.k"].item() == -2
    assert ("embed", "blocks.0.attn") not in graph.edge_scores
    assert set(graph.circuit(2).graph.successors("embed/0")) >= {
        "blocks.0.attn.q/0",
        "blocks.0.attn.v/0",
    }


def test_a_plain_encoder_and_one_in_components_have_the_same_edges_by_every_method() -> (
    None
):
    encoder = Encoder.from_tower(make_tower("timm-vit").double())
    images = torch.randn(2, 3, *encoder.image_size, dtype=torch.float64)
    assert set(EDGE_SCORERS) == set(EDGE_METHODS)
    for method in COMPONENT_SCORERS:
        plain, fine = (
            attribute_components(
                Task(one, images, metric, baseline=images.flip(0), work=QUIET),
                method=method,
            )
            for one in (encoder, in_components(encoder))
        )
        assert plain.settings["edge_method"] == method
        for pair, scores in plain.edge_scores.items():
            assert np.array_equal(scores, fine.edge_scores[pair])
        matrix = edge_scores(
            ResidualStream.of(encoder), images, metric, method, baseline=images.flip(0)
        )
        last = np.concatenate(
            [plain.edge_scores[up, "embedding"][0] for up in plain.sites[:-1]]
        )
        assert_same(np.sort(last), np.sort(matrix.scores[-1]), at_least=1e-3)


@pytest.mark.parametrize("ports", [False, True])
def test_heads_have_the_effects_of_nodes_and_graphs_are_stored_and_compared(
    ports: bool, tmp_path: Path
) -> None:
    encoder = Encoder.from_tower(make_tower("vit").double())
    torch.manual_seed(1)
    images = torch.randn(4, 3, *encoder.image_size, dtype=torch.float64)
    graph = attribute_components(Task(encoder, images[:2], metric), ports=ports)
    nodes = attribute(
        in_components(encoder), images[:2], metric, rule=left_rule(1), progress=False
    ).node_scores
    for i in range(2):
        path = f"transformer.resblocks.{i}"
        np.testing.assert_allclose(
            graph.node_scores[f"blocks.{i}.attn"], nodes[f"{path}.attn"], rtol=1e-8
        )
        np.testing.assert_allclose(
            graph.node_scores[f"blocks.{i}.mlp"],
            [nodes[f"{path}.mlp"].sum()],
            rtol=1e-8,
        )
    graph.save(tmp_path / "graph")
    again = AttributionGraph.load(tmp_path / "graph")
    other = attribute_components(
        Task(in_components(encoder), images[2:], metric), ports=ports
    )
    assert edge_jaccard(again.circuit(2), graph.circuit(2)) == 1
    assert 0 < edge_jaccard(again.circuit(2), other.circuit(2)) < 1


def test_depth_is_that_of_layers() -> None:
    assert depth_bias(as_graph(SMALL, {})) == pytest.approx(
        math.log((128 + 96) / (27 + 48))
    )


RANKED = {
    "a": np.array([0.1, -5.0, 3.0, 0.0, -4.0]),
    "b": np.array([9.0, 0.2]),
    "c": np.zeros(3),
}


def counts(
    share: float, budget: str, scores: Mapping[str, np.ndarray] = RANKED
) -> list[int]:
    return [len(units) for units in strongest_units(scores, share, budget).values()]


def test_the_largest_absolute_scores_are_kept_largest_first_the_first_among_equals() -> (
    None
):
    kept = strongest_units(RANKED, 0.5)
    assert {site: units.tolist() for site, units in kept.items()} == {
        "a": [1, 4, 2],
        "b": [0],
        "c": [0, 1],
    }
    assert all(units.dtype == np.int64 for units in kept.values())


def test_a_global_budget_cuts_all_sites_at_one_score() -> None:
    kept = strongest_units(RANKED, 0.4, "global")
    assert {site: units.tolist() for site, units in kept.items()} == {
        "a": [1, 4, 2],
        "b": [0],
        "c": [],
    }


def test_the_image_keeps_its_share_under_every_budget() -> None:
    scores = {"input": np.array([7.0, 8.0, 9.0]), **RANKED}
    for budget in ("same-share", "global"):
        kept = strongest_units(scores, 0.4, budget)
        assert kept["input"].tolist() == [2, 1]
        assert kept["a"].tolist() == strongest_units(RANKED, 0.4, budget)["a"].tolist()


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=5),
    st.integers(1, 100),
    st.randoms(),
)
def test_as_many_units_are_kept_as_exact_arithmetic_says(
    sizes: list[int], percent: int, random: object
) -> None:
    rng = np.random.default_rng(sizes)
    scores = {str(i): rng.normal(size=n) for i, n in enumerate(sizes)}
    total = -(-percent * sum(sizes) // 100)
    assert counts(percent / 100, "same-share", scores) == [
        -(-percent * n // 100) for n in sizes
    ]
    everywhere = np.sort(np.abs(np.concatenate(list(scores.values()))))[::-1][:total]
    brute = [
        int(np.isin(np.abs(of_site), everywhere).sum()) for of_site in scores.values()
    ]
    assert counts(percent / 100, "global", scores) == brute


@pytest.mark.parametrize(
    ("share", "budget", "named"),
    [
        *((share, "same-share", [str(share)]) for share in (0.0, -0.1, 1.1, math.nan)),
        (0.5, "even", [*BUDGETS, "even"]),
    ],
)
def test_wrong_budgets_are_refused_by_name(
    share: float, budget: str, named: list[str]
) -> None:
    with pytest.raises(InputError) as refused:
        strongest_units(RANKED, share, budget)
    assert all(name in str(refused.value) for name in named)


MADE = {
    "model": "tiny",
    "weights": "0",
    "modules": "0",
    "n_images": 2,
    "seed": 0,
    "classes": ["axe", "cat"],
}
MADE |= {"metric": "logit", "texts": "pooled", "baseline": "zero"}


def test_circuits_found_in_any_way_become_a_folder(tmp_path: Path) -> None:
    source = small_graph(kept_units={}, edge_scores={})
    units = {"conv": np.array([3, 1]), "head": np.array([0, 1])}
    edges = Edges(units, {("conv", "head"): np.array([[0.5, np.nan], [0.25, 2.0]])})
    circuits = {
        ("cat", "photo"): Circuit(source, units, edges),
        ("cat", "clipart"): Circuit(source, {"head": units["head"]}),
    }
    images = {
        key: [
            ImageRecord(
                tmp_path / f"{name}.png", f"{key[1]}/{name}/0.png", key[1], name
            )
            for name in ("cat", "axe")
        ]
        for key in circuits
    }
    written = GraphFolder.write(tmp_path / "x", circuits, MADE, images)
    graph = written["cat", "photo"]
    assert {site: kept.tolist() for site, kept in graph.kept_units.items()} == {
        "input": [],
        "conv": [1, 3],
        "head": [1, 0],
    }
    assert graph.edge_scores["conv", "head"].tolist() == [[2.0, 0.25], [0.0, 0.5]]
    assert (
        graph.provenance.items()
        >= {"images": ["photo/cat/0.png"], "others": ["photo/axe/0.png"]}.items()
    )
    alone = written["cat", "clipart"]
    assert {site: kept.tolist() for site, kept in alone.kept_units.items()} == {
        "input": [],
        "conv": [],
        "head": [1, 0],
    }
    assert not alone.edge_scores
    assert not written.parts("cat", "photo")
    assert written.manifest["config"]["size"] == 4 / 7
    overlap = compare(written, measure="node_overlap").set_index("site")["value"]
    assert overlap["head"] == 1.0
    with pytest.raises(InputError, match="another configuration"):
        GraphFolder.write(
            tmp_path / "x", {("cat", "photo"): circuits["cat", "clipart"]}, MADE, images
        )


@pytest.mark.parametrize(
    ("units", "made", "images", "says"),
    [
        ({"conv": np.array([], int)}, MADE, 1, "cat in photo lacks"),
        ({"conv": np.array([1])}, MADE, 0, "cat in photo lacks"),
        ({"conv": np.array([1])}, {"model": "tiny"}, 1, "weights.*FolderWork"),
        (None, MADE, 1, "there is none"),
    ],
)
def test_a_folder_is_of_circuits_with_units_and_images(
    units: dict[str, np.ndarray] | None,
    made: dict[str, object],
    images: int,
    says: str,
    tmp_path: Path,
) -> None:
    key, record = (
        ("cat", "photo"),
        ImageRecord(tmp_path / "0.png", "photo/cat/0.png", "photo", "cat"),
    )
    circuits = (
        {}
        if units is None
        else {key: Circuit(small_graph(kept_units={}, edge_scores={}), units)}
    )
    with pytest.raises(InputError, match=says):
        GraphFolder.write(tmp_path / "x", circuits, made, {key: [record] * images})
    assert not (tmp_path / "x").exists()


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
    claim(tmp_path / "folder", "circuitry extraction 5", {"n_parts": 0}, jobs=[])
    with pytest.raises(InputError, match="circuitry extraction 5"):
        GraphFolder(tmp_path / "folder")
