"""Odd values are refused in a sentence: public names take nothing that they cannot use, and nothing silently."""

import importlib
import inspect
import random
import shutil
from collections.abc import Callable
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch

import circuitry
from circuitry import (
    AttributionGraph,
    GraphFolder,
    InputError,
    circuits,
    comparison,
    encoder,
    interventions,
    models,
    runs,
)
from circuitry.representations import silhouettes
from circuitry.runs.given import DOOR
from tests.doors.odd_values import write_odd_files
from tests.doors.walk import Walk
from tests.test_imports import modules

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    return Walk(tmp_path_factory.mktemp("doors"))


SETTINGS: Any = [
    (interventions.MaskSettings, {"steps": 2.5}),
    (interventions.MaskSettings, {"batch_size": float("nan")}),
    (interventions.AblationSettings, {"random_draws": 1.5}),
    (interventions.AblationSettings, {"fractions": (0.1, float("nan"))}),
    (circuits.ReadingSettings, {"chance_draws": 40.5}),
    (circuits.AttributionSettings, {"rule_error": float("nan")}),
    (circuits.AttributionSettings, {"node_fraction": float("nan")}),
    (models.FolderSettings, {"n_images": 2.5}),
    (models.FolderSettings, {"seed": True}),
    (runs.Work, {"memory_gib": float("nan")}),
    (circuitry.training.SaeTraining, {"lr": float("inf")}),
    (circuitry.training.SaeTraining, {"steps": 10.5}),
]


@pytest.mark.parametrize(("kind", "values"), SETTINGS)
def test_settings_that_are_no_numbers_are_refused(kind: Any, values: dict[str, Any]) -> None:
    (name, value), *_ = values.items()
    shown = value[-1] if isinstance(value, tuple) else value
    with pytest.raises(InputError, match=rf"{name}.*{shown} was given"):
        kind(**values)


SILENT: Any = {
    "gates as NaN": (lambda w: _gated(w).run(torch.full((_gated(w).n_gates,), torch.nan)), "gates.*NaN"),
    "a single gate": (lambda w: _gated(w).run(torch.ones(1)), "gates.* 1 "),
    "own as integers": (lambda w: replace(_one(w, interventions.FaithfulnessCurve), own=np.array([1, 0, 1])), "own"),
    "a start before the first": (lambda w: _one(w, encoder.Baseline).at("act1", torch.zeros(1, 2), -1), "start.*-1"),
    "a class twice": (lambda w: circuitry.compare(w.values.world.graphs, classes=["cat", "cat"]), "'cat' twice"),
    "an edge twice": (lambda w: _positions(w, [("embed", "embedding")] * 2), "twice"),
    "names as a column": (lambda w: _span(w, pd.Series(["a", "b"], [1, 0])), "texts.*Series"),
    "a text twice": (lambda w: _span(w, ["a", "a"]), "'a' twice"),
    "parts that are no whole numbers": (
        lambda w: circuits.attribute_parts(
            w.values.world.task, circuits.AttributionSettings(), np.array([0.2, 0.7, 1])
        ),
        "parts.*float64",
    ),
    "a word for another": (
        lambda w: silhouettes(_one(w, circuitry.representations.Embeddings), by=cast(Any, "domians")),
        "'domians'",
    ),
    "a baseline of uint8": (lambda w: encoder.Baseline("x", {"act1": torch.zeros(1, 2, dtype=torch.uint8)}), "uint8"),
    "a counterfactual of uint8": (
        lambda w: encoder.Counterfactual(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)),
        "uint8",
    ),
    "a patch of uint8": (lambda w: circuitry.Patch("act1", torch.zeros(1, dtype=torch.uint8)), "uint8"),
    "rows twice": (lambda w: _values(w, lambda v: pd.concat([v, v])), "several"),
    "both orders": (lambda w: _values(w, _turned), "several"),
    "a matrix of rows twice": (lambda w: comparison.domain_matrix(pd.concat([_found(w).values] * 2)), "several"),
    "one model as three": (
        lambda w: comparison.compare_models([replace(_found(w)) for _ in range(3)]),
        "twice among 3",
    ),
}


def _one(walk: Walk, kind: type) -> Any:
    return next(one for one in walk.values.instances if type(one) is kind)


def _gated(walk: Walk) -> Any:
    return _one(walk, interventions.Gated)


def _found(walk: Walk) -> circuitry.Comparison:
    return walk.values.world.comparison


def _positions(walk: Walk, edges: Any) -> Any:
    return circuits.edges_by_position(walk.values.world.stream_task, edges)


def _span(walk: Walk, texts: Any) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return circuits.text_span(rng.normal(size=(5, 3)), rng.normal(size=(2, 3)), texts)


def _values(walk: Walk, change: Callable[[pd.DataFrame], pd.DataFrame]) -> circuitry.Comparison:
    return circuitry.Comparison("x", change(_found(walk).values))


def _turned(values: pd.DataFrame) -> pd.DataFrame:
    turned = values.rename(columns={"domain_a": "domain_b", "domain_b": "domain_a"})
    return pd.concat([values, turned.assign(value=0.0)])


@pytest.mark.parametrize("name", SILENT)
def test_what_gave_wrong_numbers_silently_is_refused(name: str, walk: Walk) -> None:
    call, words = SILENT[name]
    with pytest.raises(InputError, match=words):
        call(walk)


def test_texts_of_one_direction_explain_no_more_than_one_of_them() -> None:
    rng = np.random.default_rng(0)
    vectors, text = rng.normal(size=(8, 4)), rng.normal(size=(1, 4))
    alone = circuits.text_span(vectors, text, ["a"], 3)
    found = circuits.text_span(vectors, np.repeat(text, 3, 0), ["a", "b", "c"], 3)
    assert len(found) == 1
    assert found["together"].iloc[-1] == pytest.approx(alone["together"].iloc[-1])


def test_a_graph_in_the_place_of_another_is_refused(walk: Walk, tmp_path: Any) -> None:
    folder = GraphFolder(shutil.copytree(walk.values.folder / "graphs", tmp_path / "graphs"))
    shutil.copyfile(folder.file("axe", "real"), folder.file("cat", "real"))
    assert folder["axe", "real"].class_name == "axe"
    with pytest.raises(InputError, match=r"cat in real.* axe"):
        folder["cat", "real"]


def test_permuted_classes_give_the_same_comparison(walk: Walk) -> None:
    graphs = walk.values.world.graphs
    forth, back = (circuitry.compare(graphs, classes=names) for names in (["axe", "cat"], ["cat", "axe"]))
    key = ["class", "domain_a", "domain_b", "site"]
    pd.testing.assert_frame_equal(forth.sort_values(key, ignore_index=True), back.sort_values(key, ignore_index=True))


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    for path in write_odd_files(tmp_path / "odd").values():
        for load in (AttributionGraph.load, circuitry.Comparison.load, circuitry.load_clip, GraphFolder):
            with pytest.raises(InputError):
                load(path)


def test_dataclasses_that_inherit_from_a_checked_one_are_checked() -> None:
    kinds = {
        kind
        for module in modules()
        if not module.endswith("open_clip_main")  # a program
        if not module.startswith("commands.")  # whose settings run_script checks
        for kind in vars(importlib.import_module(f"circuitry.{module}")).values()
        if isinstance(kind, type) and is_dataclass(kind)
    }
    doors = {kind for kind in kinds if hasattr(inspect.getattr_static(kind, "__init__"), DOOR)}
    inheriting = {kind for kind in kinds if doors & set(kind.__mro__[1:])}
    assert inheriting
    assert {kind.__name__ for kind in inheriting - doors} == set()


def test_odd_values_get_a_sentence_or_a_value(walk: Walk) -> None:
    rng = random.Random(0)
    for door, parameter in rng.sample(walk.places, 250):
        outcome = walk.call(door, parameter, walk.draw(rng, door, parameter))
        assert outcome.kind != "traceback", outcome
