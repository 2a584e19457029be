"""Odd values are refused in a sentence at the doors: none gives a traceback, and none is taken silently."""

import importlib
import inspect
import random
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import circuitry
from circuitry import AttributionGraph, GraphFolder, InputError, circuits, encoder, interventions
from circuitry.comparison import compare_models, domain_matrix
from circuitry.runs.given import DOOR
from tests.doors.odd_values import write_odd_files
from tests.doors.walk import Walk, doors
from tests.test_imports import modules

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    return Walk(tmp_path_factory.mktemp("doors"))


def test_every_name_at_the_top_is_a_door() -> None:
    """And no more than 150 in all: what the package itself calls has none."""
    found = {door.name for door in doors()}
    top = {name for name in dir(circuitry) if callable(getattr(circuitry, name)) and name[0] != "_"} - {"InputError"}
    assert top - found == set()
    assert len(found) <= 150


TURNED = {"domain_a": "domain_b", "domain_b": "domain_a"}
COLUMN: Any = pd.Series(["a", "b"])
SILENT: Any = {
    "no number": (lambda w: interventions.AblationSettings(sizes=(0.1, float("nan"))), "sizes.* nan"),
    "a baseline of uint8": (lambda w: encoder.Baseline("x", {"a": torch.zeros(1, 2).byte()}), "uint8"),
    "a counterfactual of uint8": (lambda w: encoder.Counterfactual(torch.zeros(1, 3, 8, 8).byte()), "uint8"),
    "a patch of uint8": (lambda w: circuitry.Patch("act1", torch.zeros(1).byte()), "uint8"),
    "a class twice": (lambda w: circuitry.compare(w.graphs, classes=["cat", "cat"]), "'cat' twice"),
    "names as a column": (lambda w: circuitry.compare(w.graphs, classes=COLUMN), "Series"),
    "parts that are no whole numbers": (
        lambda w: circuits.attribute_parts(w.task, circuits.AttributionSettings(), np.array([0.2, 0.7, 1])),
        "parts.*float64",
    ),
    "rows twice": (lambda w: circuitry.Comparison("x", pd.concat([w.comparison.values] * 2)), "several"),
    "both orders": (
        lambda w: circuitry.Comparison("x", pd.concat([w.tables[0], w.tables[0].rename(columns=TURNED)])),
        "several",
    ),
    "a matrix of rows twice": (lambda w: domain_matrix(pd.concat([w.comparison.values] * 2)), "several"),
    "one model as three": (lambda w: compare_models([replace(w.comparison) for _ in range(3)]), "twice among 3"),
}


@pytest.mark.parametrize("name", SILENT)
def test_what_gave_wrong_numbers_silently_is_refused(name: str, walk: Walk) -> None:
    call, words = SILENT[name]
    with pytest.raises(InputError, match=words):
        call(walk.world)


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
    found = {kind for kind in kinds if hasattr(inspect.getattr_static(kind, "__init__"), DOOR)}
    inheriting = {kind for kind in kinds if found & set(kind.__mro__[1:])}
    assert inheriting
    assert {kind.__name__ for kind in inheriting - found} == set()


def test_odd_values_get_a_sentence_or_a_value_that_fits(walk: Walk) -> None:
    rng = random.Random(0)
    for door, parameter in rng.sample(walk.places, 250):
        walk.call(door, parameter, rng)
