"""Graphs of different meaning are refused; dead and non-finite graphs are never similar."""

import logging
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuitry import (
    AttributionGraph,
    Encoder,
    InputError,
    attribute,
    class_logit,
    compare,
    compare_domains,
    edge_jaccard,
    left_rule,
    node_overlap,
    wl_kernel,
)
from circuitry.circuits import similarity
from circuitry.circuits.comparable import check_comparable
from circuitry.circuits.measures import MEASURES
from circuitry.encoder import Stage, class_margin
from circuitry.encoder.metrics import ClassLogit, Metric
from circuitry.runs.identity import SHARED_ENTRIES
from tests.circuits.test_measures import FIRST, SECOND, random_graph

Use = Callable[[AttributionGraph, AttributionGraph], object]
USES: tuple[Use, ...] = (
    node_overlap,
    lambda a, b: similarity(a, b, "spearman"),
    lambda a, b: edge_jaccard(a.circuit(), b.circuit()),
    lambda a, b: wl_kernel(a.circuit(), b.circuit()),
    lambda a, b: compare([a, b]),
    lambda a, b: compare_domains({("axe", "real"): a, ("axe", "sketch"): b}),
)


def pair() -> tuple[AttributionGraph, AttributionGraph]:
    return random_graph(0, "axe", "real"), random_graph(1, "axe", "sketch")


def assert_refused(a: AttributionGraph, b: AttributionGraph, *words: str) -> None:
    for use in USES:
        with pytest.raises(InputError, match=".*".join(map(re.escape, words))):
            use(a, b)


def test_other_widths_error_units_and_sites_are_refused() -> None:
    # Equal kept units and edges: numbered by other widths they shared no edge (0.0) and 0.3 of the labels.
    wider = replace(FIRST, node_scores={"up": np.ones(40), "down": np.ones(6)})
    assert edge_jaccard(FIRST.circuit(), replace(FIRST).circuit()) == 1
    with pytest.raises(InputError, match=r"up has 6 units .* 40 units"):
        edge_jaccard(FIRST.circuit(), wider.circuit())
    a, b = pair()
    assert_refused(
        a,
        replace(b, error_scores={"b": np.zeros(2)}),
        "b has 8 units",
        "8 units and 2 error units",
    )
    for sites, words in (
        (("input", "a", "b", "d"), "c and d"),
        (("input", "a", "b"), "4 and 3 in number"),
    ):
        assert_refused(
            a,
            replace(
                b,
                sites=sites,
                node_scores={site: np.ones(8) for site in sites},
                kept_units={},
                edge_scores={},
            ),
            words,
        )


DIFFERENT = {
    "basis": ({}, {"b": "c3"}),
    "hooks": ({}, {"b": ["8f"]}),
    "size": (0.1, 0.5),
}
"""Values of settings that are no words."""


@pytest.mark.parametrize(
    "name", sorted({*SHARED_ENTRIES} - {"text_weights", "class_weights", "classes"})
)
def test_graphs_found_in_another_way_are_refused(name: str) -> None:
    a, b = pair()
    ours, theirs = DIFFERENT.get(name, ("one", "another"))
    one = replace(a, settings={name: ours})
    words = (
        "axe in real and axe in sketch differ",
        name.replace("_", " "),
        f"({ours!r} and {theirs!r})",
    )
    assert_refused(one, replace(b, settings={name: theirs}), *words)
    for agrees in (replace(b, settings={name: ours}), replace(b, settings={})):
        check_comparable(one, agrees)


TOWER = nn.Linear(1, 1)


def graph_by(
    metric: Metric, domain: str | None = None, class_name: str | None = "axe"
) -> AttributionGraph:
    encoder = Encoder(
        TOWER, (Stage("embedding", lambda x: x.flatten(1) + 1, 1),), (1, 1)
    )
    graph = attribute(
        encoder, torch.ones(1, 3, 1, 1), metric, rule=left_rule(1), progress=False
    )
    return replace(graph, class_name=class_name, domain=domain)


WEIGHTS = F.normalize(
    torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]), dim=1
)
NOISE = 1e-6 * torch.tensor([1.0, -1, 1])
"""As another machine rounds."""


@pytest.mark.parametrize(
    ("other", "taken"),
    [
        (class_logit(WEIGHTS + NOISE, 1), True),
        (class_logit(WEIGHTS[:2], 1), True),  # a logit has the text of its class alone
        (class_logit(WEIGHTS.roll(1, 1), 1), False),
        (class_logit(WEIGHTS, 0), False),
        (class_margin(WEIGHTS[:2], 1), False),
    ],
)
def test_graphs_of_one_class_are_of_the_same_text_weights(
    other: ClassLogit, taken: bool
) -> None:
    make = class_logit if other.name == "logit" else class_margin
    one, two = graph_by(make(WEIGHTS, 1), "real"), graph_by(other, "sketch")
    if taken:
        check_comparable(one, two)
    else:
        assert_refused(one, two, "axe in real and axe in sketch", "text weights")


def test_graphs_of_several_classes_are_of_the_same_text_weights() -> None:
    check_comparable(
        graph_by(class_logit(WEIGHTS, 1)),
        graph_by(class_logit(WEIGHTS, 0), class_name="fox"),
    )
    of_all = graph_by(class_logit(WEIGHTS, 1), class_name=None)
    for class_name in ("fox", None):
        with pytest.raises(InputError, match="text weights"):
            check_comparable(
                of_all,
                graph_by(class_logit(WEIGHTS.roll(1, 1), 0), class_name=class_name),
            )


def test_in_the_images_own_style_text_weights_differ_by_domain() -> None:
    def found(domain: str, weights: Tensor, **settings: object) -> AttributionGraph:
        graph = graph_by(class_margin(weights, 1), domain)
        own = {"texts": "own-style", "classes": ["axe", "fox"]}
        return replace(graph, settings=graph.settings | own | settings)

    others = WEIGHTS.roll(1, 1)
    check_comparable(found("real", WEIGHTS), found("sketch", others))
    with pytest.raises(InputError, match="text weights"):
        check_comparable(found("real", WEIGHTS), found("real", others))
    with pytest.raises(InputError, match=r"'own-style'.*'pooled'"):
        check_comparable(
            found("real", WEIGHTS), found("sketch", WEIGHTS, texts="pooled")
        )
    with pytest.raises(InputError, match=r"classes.*'cat' is new"):
        check_comparable(
            found("real", WEIGHTS),
            found("sketch", others, classes=["axe", "fox", "cat"]),
        )
    logits = [
        found(d, w, metric="logit", classes=[d])
        for d, w in (("real", WEIGHTS), ("sketch", others))
    ]
    check_comparable(*logits)  # a logit has the text of its class alone


@pytest.mark.parametrize(
    "name", ["other-domains", "other-domains-position", "counterfactual"]
)
def test_of_a_baseline_of_the_job_only_the_name_counts(name: str) -> None:
    one, other = (
        replace(g, settings={"baseline": name, "baseline_digest": g.domain})
        for g in pair()
    )
    check_comparable(one, other)
    with pytest.raises(InputError, match="baseline"):
        check_comparable(one, replace(other, settings={"baseline": "zero"}))


def test_all_graphs_of_a_set_are_checked() -> None:
    # Neither class holds two graphs that differ: only the set as a whole does.
    graphs = [
        replace(random_graph(i, "axe", d), settings={"node_rule": "left-10"})
        for i, d in enumerate("ab")
    ]
    graphs += [
        replace(random_graph(i, "fox", d), settings={"node_rule": "left-5"})
        for i, d in enumerate("ab")
    ]
    with pytest.raises(
        InputError, match=r"fox in a and axe in a .*'left-5' and 'left-10'"
    ):
        compare(graphs)
    # The first graph does not know its rule; the second and the third differ.
    with pytest.raises(
        InputError, match=r"fox in b and axe in b .*'left-5' and 'left-10'"
    ):
        compare([replace(graphs[0], settings={}), graphs[1], graphs[3]])
    a, b = (replace(g, settings={"size": 0.1}) for g in pair())
    part = replace(a, settings={"size": 0.2})
    with pytest.raises(InputError, match=r"0\.1 and 0\.2"):
        compare_domains(
            {("axe", "real"): a, ("axe", "sketch"): b},
            folds=lambda _, d: {0: replace(part, domain=d)},
        )


def test_circuits_cut_in_another_way_are_refused() -> None:
    for measure in (edge_jaccard, wl_kernel):
        with pytest.raises(InputError, match=r"edges_per_node 1 and 2"):
            measure(FIRST.circuit(1), SECOND.circuit(2))
        with pytest.raises(InputError, match="any_sign"):
            measure(FIRST.circuit(2), FIRST.circuit(2, any_sign=True))


def broken(kind: str, value: float) -> AttributionGraph:
    graph = random_graph(0, "axe", "real")
    key: object = ("a", "b") if kind == "edge" else "b"
    field = f"{kind}_scores"
    scores = np.array(
        graph.edge_scores["a", "b"] if kind == "edge" else graph.node_scores["b"]
    )
    scores.flat[1] = value
    return replace(graph, **{field: getattr(graph, field) | {key: scores}})


@pytest.mark.parametrize("kind", ["node", "edge", "error"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_neither_compared_nor_saved(
    kind: str, value: float, tmp_path: Path
) -> None:
    graph = broken(kind, value)
    words = kind, "axe in real", "a->b" if kind == "edge" else "b", "not all finite"
    assert_refused(graph, replace(graph, domain="sketch"), *words)
    with pytest.raises(InputError, match=".*".join(words)):
        graph.save(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def dead(graph: AttributionGraph, *sites: str) -> AttributionGraph:
    return replace(
        graph, node_scores=graph.node_scores | {site: np.zeros(8) for site in sites}
    )


def values(a: AttributionGraph, b: AttributionGraph, measure: str) -> list[float]:
    table = compare([replace(a, domain="p"), replace(b, domain="q")], measure)
    return [float(value) for value in table["value"]]


def test_graphs_without_any_effect_are_not_similar(
    caplog: pytest.LogCaptureFixture,
) -> None:
    graph = dead(random_graph(0), "a", "b", "c")
    for measure in MEASURES:
        assert all(math.isnan(value) for value in values(graph, graph, measure))
        assert all(
            math.isnan(value) for value in values(graph, random_graph(1), measure)
        )
    assert "no unit has an effect at b" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        compare(list(pair()))
    assert not caplog.text


def test_a_site_without_effect_is_left_out_of_both_circuits() -> None:
    a, b = pair()
    half = dead(a, "c")

    # What is left is the circuit of the sites a and b.
    def at_two(graph: AttributionGraph) -> AttributionGraph:
        two = ("input", "a", "b")
        scores, kept = (
            {s: of[s] for s in two} for of in (graph.node_scores, graph.kept_units)
        )
        edges = {("a", "b"): graph.edge_scores["a", "b"]}
        return replace(
            graph, sites=two, node_scores=scores, kept_units=kept, edge_scores=edges
        )

    short = [at_two(a), at_two(b)]
    for one, other in ((half, b), (b, half)):
        assert edge_jaccard(one.circuit(), other.circuit()) == edge_jaccard(
            *(g.circuit() for g in short)
        )
        for depth in (0, 1, 2):
            expected = wl_kernel(short[0].circuit(), short[1].circuit(), depth)
            assert wl_kernel(one.circuit(), other.circuit(), depth) == pytest.approx(
                expected, abs=1e-12
            )
    overlap = node_overlap(half, b)
    assert math.isnan(overlap["c"])
    assert {site: overlap[site] for site in "ab"} == {
        site: node_overlap(a, b)[site] for site in "ab"
    }
    # Other pairs of the same set keep the site.
    with_dead = compare([a, b, replace(half, domain="clipart")])
    assert (
        with_dead.query("domain_a == 'real'")["value"].tolist()
        == compare([a, b])["value"].tolist()
    )


@pytest.mark.parametrize(
    ("part", "advice"),
    [
        ("weights", "find both with one and the same model"),
        ("baseline_digest", "baseline=first.baseline"),
        ("text_weights", "the same texts"),
        ("method", "in the same way"),
    ],
)
def test_a_refusal_says_what_differs_and_what_to_do(part: str, advice: str) -> None:
    values = ([2.0, 1.0], [2.0, 9.0]) if part == "text_weights" else ("one", "another")
    a, b = (
        replace(one, settings={part: value})
        for one, value in zip(pair(), values, strict=True)
    )
    with pytest.raises(
        InputError, match=rf"differ in {part.replace('_', ' ')}.*: .*{advice}"
    ) as told:
        node_overlap(a, b)
    assert ("in the same way" in str(told.value)) == (part == "method")
