"""Graphs that mean different things are refused, dead and non-finite ones never count as alike."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from circuitry import (
    AttributionGraph,
    Encoder,
    InputError,
    attribute,
    compare,
    compare_domains,
    edge_jaccard,
    left_rule,
    node_overlap,
    wl_kernel,
)
from circuitry.circuits import ReadingSettings, rank_similarity
from circuitry.circuits.comparable import SETTINGS, check_comparable
from circuitry.circuits.graph import IN_STREAM
from circuitry.circuits.similarity import MEASURES
from tests.circuits.test_similarity import FIRST, SECOND, random_graph
from tests.support.towers import VIT, randomise

Use = Callable[[AttributionGraph, AttributionGraph], object]
USES: tuple[Use, ...] = (
    node_overlap,
    lambda a, b: rank_similarity(a, b, "spearman"),
    lambda a, b: edge_jaccard(a.circuit(), b.circuit()),
    lambda a, b: wl_kernel(a.circuit(), b.circuit()),
    lambda a, b: compare([a, b]),
    lambda a, b: compare_domains({("axe", "real"): a, ("axe", "sketch"): b}),
)


def pair() -> tuple[AttributionGraph, AttributionGraph]:
    return random_graph(0, "axe", "real"), random_graph(1, "axe", "sketch")


def assert_refused(a: AttributionGraph, b: AttributionGraph, words: str) -> None:
    for use in USES:
        with pytest.raises(InputError, match=words):
            use(a, b)


# Other units


def vit_graph(width: int) -> AttributionGraph:
    """By a small ViT; the names of its sites do not depend on its width."""
    torch.manual_seed(0)
    config = VIT | {"vision_cfg": VIT["vision_cfg"] | {"width": width}}  # type: ignore[operator]
    tower = open_clip.model.CLIP(**config).visual.eval().requires_grad_(False)
    randomise(tower)
    encoder = Encoder.from_tower(tower)
    images = torch.rand(2, 3, *encoder.image_size)
    graph = attribute(encoder, images, lambda e: e.sum(1), rule=left_rule(1), progress=False)
    return replace(graph, class_name="axe")


def test_two_vits_of_different_width_are_refused_and_one_is_like_itself() -> None:
    small, large = replace(vit_graph(32), domain="real"), replace(vit_graph(64), domain="sketch")
    assert small.sites == large.sites
    site = next(site for site in small.sites if small.n_units(site) != large.n_units(site))
    assert_refused(small, large, f"{site} has 32 units in axe in real and 64 units in axe in sketch: attribute both")
    same = {("axe", "real"): small, ("axe", "sketch"): small}
    found = compare_domains(same, settings=ReadingSettings(any_sign=True))
    assert all(value.values["value"].tolist() == [1] * len(value.values) for value in found.values())


def test_other_widths_of_the_same_kept_units_are_refused() -> None:
    # Equal kept units and edges: numbered by other widths they shared no edge (0.0) and 0.3 of the labels.
    wider = replace(FIRST, node_scores={"up": np.ones(40), "down": np.ones(6)})
    assert edge_jaccard(FIRST.circuit(), replace(FIRST).circuit()) == 1
    with pytest.raises(InputError, match="up has 6 units in a graph without a name and 40 units in"):
        edge_jaccard(FIRST.circuit(), wider.circuit())


def test_other_numbers_of_error_units_are_refused() -> None:
    a, b = pair()
    assert_refused(
        a, replace(b, error_scores={"b": np.zeros(2)}), "b has 8 units in .* and 8 units and 2 error units in"
    )


# Other settings

OTHERS: dict[str, tuple[object, object]] = {
    "model_digest": ("a1", "b2"),
    "basis": ({}, {"b": "c3"}),
    "hooked_sites": ([], ["b"]),
    "metric": ("logit", "margin"),
    "node_fraction": (0.1, 0.5),
    "node_rule": ("left-10", "gauss-radau-5"),
    "edge_rule": ("left-10", "gauss-radau-5"),
    "edges": ("neighbouring sites", IN_STREAM),
    "edge_method": ("gradient", "exact-readers"),
    "path": ("inputs", "activations"),
    "correction": ("none", "relp"),
    "baseline": ("zero", "mean-unit"),
    "baseline_digest": ("d4", "e5"),
    "autocast": (None, "bfloat16"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_graphs_found_in_another_way_are_refused(name: str) -> None:
    a, b = pair()
    ours, theirs = OTHERS[name]
    one, other, unknown = (
        replace(a, settings={name: ours}),
        replace(b, settings={name: theirs}),
        replace(b, settings={}),
    )
    words = f"but {SETTINGS[name]} is {ours!r} for axe in real and {theirs!r} for axe in sketch: attribute both alike"
    assert_refused(one, other, words.replace("(", r"\(").replace(")", r"\)").replace("[", r"\[").replace("]", r"\]"))
    for agrees in (replace(b, settings={name: ours}), unknown):
        check_comparable(one, agrees)


def test_the_model_is_known_from_the_provenance() -> None:
    a, b = pair()
    one, other = (replace(g, provenance={"model_digest": d}) for g, d in ((a, "a1"), (b, "b2")))
    assert_refused(one, other, "the model is 'a1' for axe in real and 'b2'")


def test_lists_and_tuples_are_the_same_setting() -> None:
    a, b = pair()
    check_comparable(replace(a, settings={"hooked_sites": ("b",)}), replace(b, settings={"hooked_sites": ["b"]}))


@pytest.mark.parametrize("name", ["other-domains", "other-domains-position", "counterfactual"])
def test_of_a_baseline_of_the_job_only_the_name_counts(name: str) -> None:
    one, other = (replace(g, settings={"baseline": name, "baseline_digest": g.domain}) for g in pair())
    check_comparable(one, other)
    with pytest.raises(InputError, match="baseline is"):
        check_comparable(one, replace(other, settings={"baseline": "zero"}))


def test_numbers_of_images_may_differ() -> None:
    a, b = pair()
    check_comparable(a, replace(b, n_images=a.n_images + 3))


def test_all_graphs_of_a_set_are_checked() -> None:
    # Neither class holds two graphs that differ: only the set as a whole does.
    graphs = [replace(random_graph(i, "axe", d), settings={"node_rule": "left-10"}) for i, d in enumerate("ab")]
    graphs += [replace(random_graph(i, "fox", d), settings={"node_rule": "left-5"}) for i, d in enumerate("ab")]
    with pytest.raises(InputError, match="'left-5' for fox in a and 'left-10' for axe in a"):
        compare(graphs)
    # The first graph does not know its rule; the second and the third differ.
    with pytest.raises(InputError, match="'left-5' for fox in b and 'left-10' for axe in b"):
        compare([replace(graphs[0], settings={}), graphs[1], graphs[3]])


def test_parts_are_checked_against_the_whole() -> None:
    a, b = (replace(g, settings={"node_fraction": 0.1}) for g in pair())
    part = replace(a, settings={"node_fraction": 0.2})
    with pytest.raises(InputError, match=r"share of kept units is 0\.1 for axe in real and 0\.2"):
        compare_domains({("axe", "real"): a, ("axe", "sketch"): b}, parts=lambda *_: {0: part})


def test_circuits_of_other_sizes_are_refused() -> None:
    for measure in (edge_jaccard, wl_kernel):
        with pytest.raises(InputError, match="equally many edges per node, but these have 1 and 2"):
            measure(FIRST.circuit(1), SECOND.circuit(2))


# Scores that are no numbers


def broken(kind: str, value: float) -> AttributionGraph:
    graph = random_graph(0, "axe", "real")
    key: object = ("a", "b") if kind == "edge" else "b"
    field = f"{kind}_scores"
    scores = np.array(graph.edge_scores["a", "b"] if kind == "edge" else graph.node_scores["b"])
    scores.flat[1] = value
    return replace(graph, **{field: getattr(graph, field) | {key: scores}})


@pytest.mark.parametrize("kind", ["node", "edge", "error"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_neither_compared_nor_saved(kind: str, value: float, tmp_path: Path) -> None:
    graph = broken(kind, value)
    words = f"The {kind} scores of axe in real at {'a->b' if kind == 'edge' else 'b'} are not all finite numbers"
    assert_refused(graph, replace(graph, domain="sketch"), words)
    with pytest.raises(InputError, match=words):
        graph.save(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_scores_that_are_not_finite_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(AttributionGraph, "check_finite", lambda self: None)
        broken("node", math.nan).save(tmp_path / "x")
    with pytest.raises(InputError, match="node scores of axe in real at b are not all finite"):
        AttributionGraph.load(tmp_path / "x")


def test_units_that_are_not_there_are_not_loaded(tmp_path: Path) -> None:
    graph = random_graph(0)
    replace(graph, kept_units=graph.kept_units | {"b": np.array([0, 1, 2, 8])}).save(tmp_path / "x")
    with pytest.raises(InputError, match="kept units of b are not among its 8 units: the file is damaged"):
        AttributionGraph.load(tmp_path / "x")


# No effect at all


def dead(graph: AttributionGraph, *sites: str) -> AttributionGraph:
    return replace(graph, node_scores=graph.node_scores | {site: np.zeros(8) for site in sites})


def values(a: AttributionGraph, b: AttributionGraph, measure: str) -> list[float]:
    table = compare([replace(a, domain="p"), replace(b, domain="q")], measure)
    return [float(value) for value in table["value"]]


def test_graphs_without_any_effect_are_not_alike(caplog: pytest.LogCaptureFixture) -> None:
    graph = dead(random_graph(0), "a", "b", "c")
    for measure in MEASURES:
        assert all(math.isnan(value) for value in values(graph, graph, measure))
        assert all(math.isnan(value) for value in values(graph, random_graph(1), measure))
    assert all(math.isnan(value) for value in node_overlap(graph, graph).values())
    assert math.isnan(edge_jaccard(graph.circuit(), graph.circuit()))
    assert math.isnan(wl_kernel(graph.circuit(), graph.circuit()))
    assert "axe in real: no unit has an effect at b, so nothing is compared there." in caplog.text


def test_a_site_without_effect_is_left_out_of_both_circuits() -> None:
    a, b = pair()
    half = dead(a, "c")
    # What is left is the circuit of the sites a and b.
    short = [replace(g, sites=("input", "a", "b"), edge_scores={("a", "b"): g.edge_scores["a", "b"]}) for g in (a, b)]
    for one, other in ((half, b), (b, half)):
        assert edge_jaccard(one.circuit(), other.circuit()) == edge_jaccard(*(g.circuit() for g in short))
        for depth in (0, 1, 2):
            expected = wl_kernel(short[0].circuit(), short[1].circuit(), depth)
            assert wl_kernel(one.circuit(), other.circuit(), depth) == pytest.approx(expected, abs=1e-12)
    overlap = node_overlap(half, b)
    assert math.isnan(overlap["c"])
    assert {site: overlap[site] for site in "ab"} == {site: node_overlap(a, b)[site] for site in "ab"}
    assert values(half, b, "edge_jaccard") == [edge_jaccard(half.circuit(), b.circuit())]
    assert values(half, b, "wl_kernel") == [wl_kernel(half.circuit(), b.circuit())]


def test_a_dead_graph_does_not_change_what_other_pairs_share() -> None:
    a, b = pair()
    with_dead = compare([a, b, replace(dead(a, "c"), domain="clipart")])
    alone = compare([a, b])["value"].tolist()
    assert with_dead.query("domain_a == 'real'")["value"].tolist() == alone


def test_nothing_is_said_of_graphs_with_effects(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        compare(list(pair()))
    assert not caplog.text
