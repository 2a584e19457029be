"""Methods and measures from outside: what they return is looked at once, where it comes in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from circuitry import (
    AttributionGraph,
    Encoder,
    Task,
    attribute,
    compare,
    find_circuit,
)
from circuitry.circuits import (
    EDGE_METHODS,
    MEASURES,
    METHODS,
    AttributionSettings,
    Circuit,
    EdgeMethod,
    Method,
    attribute_components,
    register_edge_method,
    register_measure,
    register_method,
    score_edges,
    score_units,
    similarity,
)
from circuitry.circuits.unit_methods import COMPLETE_SCORERS, SCORERS, SEARCHERS
from circuitry.circuits.unit_scores import score_folds
from circuitry.runs import InputError
from tests.circuits.test_measures import random_graph
from tests.support.planted_classes import planted_classes
from tests.support.towers import make_tower
from tests.support.work import QUIET

NET = planted_classes()
TASK = Task(
    NET.encoder,
    NET.images(0, 4, 0),
    lambda e: e[:, 0],
    sites=["units", "code"],
    work=QUIET,
)
N_UNITS = {site: NET.encoder(TASK.images, stop=site).shape[1] for site in TASK.sites}
Scores = Mapping[str, Any]


def numbers() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {site: rng.normal(size=n) for site, n in N_UNITS.items()}


def attributed(**asked: Any) -> AttributionGraph:
    return attribute(
        TASK.encoder,
        TASK.images,
        TASK.metric,
        sites=TASK.sites,
        progress=False,
        **asked,
    )


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    monkeypatch.setitem(METHODS, "mine", Method("mine"))  # taken back afterwards

    def register(returned: Any) -> None:
        register_method("mine", lambda task, settings: returned)

    return register


ONE_NAN = {
    site: np.where(np.arange(n) == 1, np.nan, 1.0) for site, n in N_UNITS.items()
}


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (ONE_NAN, "at units some are NaN"),
        ({"units": numbers()["units"]}, "none at code"),
        (numbers() | {"elsewhere": np.ones(2)}, "'elsewhere'"),
        (numbers()["units"], "float64"),
        (numbers() | {"code": 7.0}, r"at code it returned an array \[\]"),
        (
            numbers() | {"code": np.ones((2, 3))},
            r"at code it returned an array \[2, 3\]",
        ),
        (numbers() | {"code": "much"}, "the string 'much'"),
        (numbers() | {"code": [[1.0], [1.0, 2.0]]}, "list"),
        (numbers() | {"code": np.ones(5)}, "5 scores for the 6 units"),
    ],
)
def test_what_a_method_returns_is_refused_with_its_name(
    returned: Any, words: str, registered: Callable[[Any], None]
) -> None:
    registered(returned)
    askers: list[Callable[[], object]] = [
        lambda: score_units(TASK, "mine"),
        lambda: attributed(method="mine"),
        lambda: find_circuit(TASK, method="mine", size=0.1),
    ]
    for ask in askers:
        with pytest.raises(InputError, match=f"(?s)'mine'.*{words}"):
            ask()


def test_tensors_of_a_method_are_its_scores(registered: Callable[[Any], None]) -> None:
    registered(
        {
            site: torch.tensor(scores, requires_grad=True)
            for site, scores in numbers().items()
        }
    )
    for site, scores in score_units(TASK, "mine").items():
        np.testing.assert_array_equal(scores, numbers()[site])
    scored = attributed(method="mine").node_scores
    np.testing.assert_array_equal(scored["code"], numbers()["code"])


def test_a_method_that_says_it_learns_a_mask_ranks_by_its_scores(
    registered: Callable[[Any], None],
) -> None:
    registered(numbers())
    register_method(replace(METHODS["mine"], learns_mask=True))
    found = find_circuit(TASK, method="mine", size=0.5)
    assert found.source.settings["method"] == "mine"


def test_the_third_argument_of_a_method_are_the_folds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(METHODS, "mine", Method("mine"))
    asked = list[Any]()

    def by_folds(task: Task, settings: AttributionSettings, folds: Any) -> Scores:
        asked.append(folds)
        rows = np.arange(1 + len(np.unique(folds)))[:, None]
        return {site: rows + scores for site, scores in numbers().items()}

    register_method(Method("mine", function=by_folds, takes_folds=True))
    settings, numbered = AttributionSettings(method="mine"), np.array([4, 7, 4, 7])
    whole, of_folds = score_folds(TASK, settings, numbered)
    assert [list(one) for one in asked] == [[4, 7, 4, 7]]
    for row, found in enumerate((whole, of_folds[4], of_folds[7])):
        np.testing.assert_array_equal(found.scores["code"], numbers()["code"] + row)
    register_method(
        Method(
            "mine",
            function=lambda task, settings, folds: by_folds(
                task, settings, folds[:2] * 0
            ),
            takes_folds=True,
        )
    )
    with pytest.raises(
        InputError, match=r"'mine'.*at units it returned an array \[2, "
    ):
        score_folds(TASK, settings, numbered)


def test_every_method_of_the_package_has_its_function() -> None:
    own = {name for name, method in METHODS.items() if method.function is None}
    assert own == {*SCORERS, *COMPLETE_SCORERS}
    assert {name for name in own if METHODS[name].learns_mask} == set(SEARCHERS)


UNITS = {site: np.arange(2) for site in TASK.sites}
PAIR = ("units", "code")


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (np.ones((2, 2)), "float64"),
        ({}, "returned"),
        ({PAIR: np.full((2, 2), np.nan)}, "at units->code some are NaN"),
        ({PAIR: np.ones((2, 3))}, r"at units->code it returned an array \[2, 3\]"),
        ({PAIR: "much"}, "the string 'much'"),
        ({PAIR: [[1.0], [1.0, 2.0]]}, "list"),
        ({("code", "units"): np.ones((2, 2))}, "there are some at"),
        ({"units": np.ones((2, 2))}, "there are some at"),
    ],
)
def test_what_a_method_of_edges_returns_is_refused_with_its_name(
    returned: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EDGE_METHODS, "mine", EdgeMethod("mine"))
    register_edge_method("mine", lambda task, units, rule: returned)
    with pytest.raises(InputError, match=f"(?s)'mine'.*{words}"):
        score_edges(TASK, UNITS, method="mine")


def test_a_method_of_edges_from_outside_makes_graphs_that_name_its_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(EDGE_METHODS, "mine", EdgeMethod("mine"))

    def graph_by(factor: float) -> AttributionGraph:
        def constant(task: Task, units: Any, rule: Any) -> Any:
            return {PAIR: torch.full([len(units[s]) for s in PAIR[::-1]], factor)}

        register_edge_method("mine", constant)
        return attributed(edges="mine")

    graphs = [graph_by(factor) for factor in (2.0, 2.0, 3.0)]
    assert set(graphs[0].edge_scores[PAIR].ravel()) == {2.0}
    assert graphs[0].settings["edge_method"] == "mine"
    assert similarity(graphs[0], graphs[1], "edge_jaccard") == {None: 1.0}
    with pytest.raises(InputError, match="edge method code"):
        similarity(graphs[0], graphs[2], "edge_jaccard")


def test_components_from_outside_are_refused_with_their_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = Encoder.from_tower(make_tower("timm-vit"))
    task = Task(encoder, encoder.blank(), lambda e: e[:, 0], work=QUIET)
    bad = EdgeMethod("mine", components=lambda stream, task, rule: {}, in_stream=True)
    monkeypatch.setitem(EDGE_METHODS, "mine", bad)
    with pytest.raises(InputError, match=r"'mine'.*its components returned"):
        attribute_components(task, method="mine")
    with pytest.raises(InputError, match="'squared' was given"):
        attribute_components(task, method="squared")


GRAPHS: dict[tuple[str, str], AttributionGraph] = {
    ("axe", domain): random_graph(i, "axe", domain)
    for i, domain in enumerate(("clipart", "real", "sketch"))
}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda circuits: np.eye(len(circuits)), "ndarray float64"),
        (lambda circuits: {}, "dict"),
        (
            lambda circuits: {None: np.ones((1, 1))},
            r"for the whole circuit it returned ndarray float64 \[1, 1\]",
        ),
        (lambda circuits: {"a": 0.5}, "at a it returned 0.5"),
        (
            lambda circuits: {None: np.full((len(circuits),) * 2, 7.0)},
            "one is 7, out of its bounds 0 and 1",
        ),
        (
            lambda circuits: {None: -np.eye(len(circuits))},
            "one is -1, out of its bounds 0 and 1",
        ),
        (lambda circuits: {"nowhere": np.eye(len(circuits))}, "'nowhere'"),
        (
            lambda circuits: dict.fromkeys((None, "nowhere"), np.eye(len(circuits))),
            "returned some for None",
        ),
        (
            lambda circuits: {None: np.tri(len(circuits))},
            "for the whole circuit the two orders of a pair differ",
        ),
    ],
)
def test_what_a_measure_returns_is_refused_with_its_name(
    function: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circuitry.circuits.measures.MEASURES", dict(MEASURES))
    register_measure("alike", function)
    a, b, _ = GRAPHS.values()
    askers: list[Callable[[], object]] = [
        lambda: similarity(a, b, "alike"),
        lambda: compare(GRAPHS, "alike"),
    ]
    for ask in askers:
        with pytest.raises(InputError, match=f"'alike'.*{words}"):
            ask()


def test_a_measure_says_its_bounds_and_may_give_tensors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("circuitry.circuits.measures.MEASURES", dict(MEASURES))

    def opposite(circuits: Any) -> Any:
        ones = torch.ones(len(circuits), len(circuits), requires_grad=True)
        return {None: -ones}

    register_measure("apart", opposite, bounds=(-1.0, 1.0))
    a, b, _ = GRAPHS.values()
    assert similarity(a, b, "apart") == {None: -1.0}


def no_matrices(circuits: Sequence[Circuit]) -> dict[str | None, np.ndarray]:
    return {}


@pytest.mark.parametrize(
    ("register", "words"),
    [
        (lambda: register_method("mine"), "'mine'.*no function"),
        (lambda: register_method("", lambda task, settings: {}), "name ''"),
        (lambda: register_method(Method("mine")), "'mine'.*no function"),
        (
            lambda: register_method(Method("mine", "", dict), lambda task: {}),
            "'mine'.*two",
        ),
        (lambda: register_edge_method("mine"), "'mine'.*no function"),
        (lambda: register_edge_method("mine", 3), "function.*3"),  # type: ignore[arg-type]
        (lambda: register_measure("", no_matrices), "name"),
        (
            lambda: register_measure("mine", no_matrices, bounds=(1.0, 0.0)),
            r"'mine'|\(1.0",
        ),
        (
            lambda: register_measure("mine", no_matrices, bounds=(0.0, float("nan"))),
            "bounds.*nan",
        ),
    ],
)
def test_what_is_registered_has_a_name_a_function_and_bounds(
    register: Callable[[], None], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        register()
    assert "mine" not in {*METHODS, *EDGE_METHODS, *MEASURES}


@pytest.mark.parametrize(
    "kind", [torch.bfloat16, torch.int64, torch.bool], ids=lambda kind: str(kind)
)
def test_scores_of_any_number_type_are_scores(
    kind: torch.dtype, registered: Callable[[Any], None]
) -> None:
    ones = {site: torch.ones(n, dtype=kind) for site, n in N_UNITS.items()}
    registered(ones)
    for site, scores in attributed(method="mine").node_scores.items():
        np.testing.assert_array_equal(scores, np.ones(N_UNITS[site]))
