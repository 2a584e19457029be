"""Odd values are refused in a sentence at the doors: none gives a traceback, and none is taken silently."""

import importlib
import inspect
from dataclasses import is_dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import circuitry
from circuitry import (
    AttributionGraph,
    GraphFolder,
    InputError,
    attribute,
    bases,
    circuits,
    comparison,
    encoder,
    interventions,
    models,
)
from circuitry.cards.strongest_images import watch_units
from circuitry.comparison import domain_matrix
from circuitry.runs.arguments import DOOR
from circuitry.runs.arrays import read_arrays, write_arrays
from experiments.over_models import compare_models
from tests.doors.odd_values import write_odd_files
from tests.doors.others import DOORS_THAT_TAKE_ANOTHER, Others, listed, mixed
from tests.doors.walk import FAULTS, Walk, doors
from tests.doors.world import World
from tests.support.assert_same import assert_same
from tests.test_imports import modules

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    return Walk(tmp_path_factory.mktemp("doors"))


def test_every_name_at_the_top_is_a_door() -> None:
    """And no more than 155 in all: what the package itself calls has none."""
    found = {door.name for door in doors()}
    top = {
        name
        for name in dir(circuitry)
        if callable(getattr(circuitry, name)) and name[0] != "_"
    } - {"InputError"}
    assert top - found == set()
    assert len(found) <= 155


TURNED = {"domain_a": "domain_b", "domain_b": "domain_a"}
COLUMN: Any = pd.Series(["a", "b"])
SILENT: Any = {
    "no number": (
        lambda w: interventions.AblationSettings(sizes=(0.1, float("nan"))),
        "sizes.* nan",
    ),
    "a baseline of uint8": (
        lambda w: encoder.Baseline("x", {"a": torch.zeros(1, 2).byte()}),
        "uint8",
    ),
    "a counterfactual of uint8": (
        lambda w: encoder.Counterfactual(torch.zeros(1, 3, 8, 8).byte()),
        "uint8",
    ),
    "a patch of uint8": (
        lambda w: circuitry.Patch("act1", torch.zeros(1).byte()),
        "uint8",
    ),
    "a class twice": (
        lambda w: circuitry.compare(w.graphs, classes=["cat", "cat"]),
        "'cat' twice",
    ),
    "names as a column": (
        lambda w: circuitry.compare(w.graphs, classes=COLUMN),
        "Series",
    ),
    "folds that are no whole numbers": (
        lambda w: circuits.attribute_folds(
            w.task, circuits.AttributionSettings(), np.array([0.2, 0.7, 1])
        ),
        "folds.*float64",
    ),
    "rows twice": (
        lambda w: circuitry.Comparison("x", pd.concat([w.comparison.values] * 2)),
        "several",
    ),
    "both orders": (
        lambda w: circuitry.Comparison(
            "x", pd.concat([w.tables[0], w.tables[0].rename(columns=TURNED)])
        ),
        "several",
    ),
    "a matrix of rows twice": (
        lambda w: domain_matrix(pd.concat([w.comparison.values] * 2)),
        "several",
    ),
    "one model as three": (
        lambda w: compare_models([replace(w.comparison) for _ in range(3)]),
        "twice among 3",
    ),
    "hooks that repeat rows": (lambda w: repeating(w), "layer3.0 make 6 of 3"),
    "a metric in place": (
        lambda w: attribute(w.task.encoder, w.task.images, in_place, progress=False),
        "'in_place'",
    ),
    "sparse weights": (
        lambda w: circuitry.class_logit(w.named["weights"].to_sparse(), 1),
        "weights.*sparse",
    ),
    "no values": (
        lambda w: circuitry.Patch("act1", torch.zeros(1, device="meta")),
        "value.*meta",
    ),
    "images of no values": (
        lambda w: list(replace(w.task, images=[w.task.images.to("meta")]).batches()),
        "meta",
    ),
    "masked values": (
        lambda w: replace(w.curve, own=np.ma.masked_equal(w.curve.own, False)),
        "own.*masked",
    ),
    "no way of patching": (lambda w: replace(w.effects, by="UNIT"), "by.*UNIT"),
    "a site without scores": (
        lambda w: replace(w.graph, sites=w.graph.sites[1:]),
        "layer3.0",
    ),
    "kept units twice": (
        lambda w: replace(w.graph, kept_units=twice(w), edge_scores={}),
        "each once",
    ),
    "units twice": (
        lambda w: replace(w.graph.circuit(None), units=twice(w)),
        "each once",
    ),
    "a fold that is not there": (
        lambda w: w.graphs.file("cat", "real", 10**9),
        "2 folds",
    ),
    "NaN that is tested": (
        lambda w: comparison.sign_flip_p(np.array([0.1, np.nan])),
        "NaN",
    ),
    "keys of others": (
        lambda w: circuitry.compare(
            {("cat", d): w.graphs["axe", d] for d in w.graphs.domains}
        ),
        "axe",
    ),
    "a value that is none": (
        lambda w: circuitry.Patch("act1", float("nan")),
        "value.*NaN",
    ),
    "p beyond 1": (lambda w: comparison.holm(pd.Series([0.5, 7.0])), "p values"),
    "no name": (
        lambda w: circuitry.Comparison("x", w.tables[0].assign(domain_a=None)),
        "name in domain_a",
    ),
    "folds below 0": (
        lambda w: circuits.attribute_folds(
            w.task, circuits.AttributionSettings(), -np.arange(3)
        ),
        "-2",
    ),
    "a curve twice": (
        lambda w: interventions.pool_curves([w.curve, w.curve]),
        "twice among 2",
    ),
    "names of other images": (
        lambda w: list(watch_units([(["a"], w.task)], w.named["units"])),
        "1 names of 3",
    ),
    "a list that holds itself": (
        lambda w: circuitry.Patch("act1", 0.0, positions=in_itself()),
        "positions",
    ),
    "circuits as groups": (
        lambda w: circuitry.compare_domains(w.graphs, w.graphs),
        "names of groups.*tuple",
    ),
    "a path as a block": (
        lambda w: encoder.Stage("a", torch.relu, 1, block=Path("x")),
        "a Block as block",
    ),
    "texts without a word": (lambda w: models.FolderSettings(texts=""), "pooled"),
    "half a character": (lambda w: replace(w.graph, class_name="\ud800"), "ud800"),
}


def in_itself() -> list[Any]:
    """Return a list that holds itself."""
    places = list[Any]()
    places.append(places)
    return places


def repeating(world: Any) -> Any:
    with world.task.encoder.hooks(
        [(world.task.sites[0], lambda x, hook: x.repeat(2, 1, 1, 1))]
    ):
        return circuitry.gates.patch_effects(world.task)


def in_place(embeddings: torch.Tensor) -> torch.Tensor:
    embeddings /= embeddings.norm(dim=-1, keepdim=True)
    return embeddings[:, 0]


def twice(world: Any) -> dict[str, np.ndarray]:
    return {site: np.repeat(units, 2) for site, units in world.graph.kept_units.items()}


@pytest.mark.parametrize("name", SILENT)
def test_what_gave_wrong_numbers_silently_is_refused(name: str, walk: Walk) -> None:
    call, words = SILENT[name]
    with pytest.raises(InputError, match=words):
        call(walk.world)


TOLD: Any = {
    "2 of 4 classes": lambda w: circuitry.compare(
        {key: w.graphs[key] for key in list(w.graphs)[1:-1]}
    ),
    "4 are NaN": lambda w: circuitry.Comparison(
        "x", w.tables[0].replace(w.tables[0]["value"][0], np.nan)
    ),
    "4 are beyond 1": lambda w: circuitry.Comparison(
        "x", w.tables[0].replace(w.tables[0]["value"][0], 77.0)
    ),
}


@pytest.mark.parametrize("words", TOLD)
def test_what_does_not_count_is_told_with_its_number(
    words: str, walk: Walk, caplog: pytest.LogCaptureFixture
) -> None:
    TOLD[words](walk.world)
    assert [words in line for line in caplog.messages].count(True) == 1


def test_values_of_other_modes_are_taken(walk: Walk, tmp_path: Path) -> None:
    """Weights of inference mode, metrics that work in place, PyTorch's counter of operations, any mapping."""
    world, weight = walk.world, walk.world.named["weights"][1]
    with torch.inference_mode():
        inferred = weight.clone()
    stream = bases.ResidualStream.of(world.in_stream.encoder)
    plain, other = (
        circuits.direct_effects(stream, world.in_stream.images, one)
        for one in (weight, inferred)
    )
    np.testing.assert_array_equal(plain.effects, other.effects)
    written = replace(world.task, metric=lambda e: e.mul_(2) @ weight)
    read = replace(written, metric=lambda e: 2 * e @ weight)
    found, expected = (
        circuitry.gates.patch_effects(task).scores for task in (written, read)
    )
    assert_same(found, expected, 1e-3)
    with FlopCounterMode(display=False):
        assert_same(circuitry.gates.patch_effects(read).scores, expected, 1e-3)
    write_arrays(tmp_path / "x", "x 1", MappingProxyType({"a": 1}), {})
    assert read_arrays(tmp_path / "x", "x 1", "file")[0] == {"a": 1}


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    for path in write_odd_files(tmp_path / "odd").values():
        for load in (
            AttributionGraph.load,
            circuitry.Comparison.load,
            circuitry.load_clip,
            GraphFolder,
        ):
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
    found = {
        kind
        for kind in kinds
        if hasattr(inspect.getattr_static(kind, "__init__"), DOOR)
    }
    inheriting = {kind for kind in kinds if found & set(kind.__mro__[1:])}
    assert inheriting
    assert {kind.__name__ for kind in inheriting - found} == set()


def test_odd_values_get_a_sentence_or_a_value_that_fits(walk: Walk) -> None:
    """And what means the same as a good value gives the same result."""
    found = dict(walk.calls(250, 0))
    assert {name: one for name, one in found.items() if one.kind in FAULTS} == {}
    assert sum(one.kind == "equal" for one in found.values()) > 15


def test_no_number_is_of_two_models_or_metrics(walk: Walk, tmp_path: Path) -> None:
    others = Others(walk.world, World(tmp_path, 1.25))
    calls = mixed(walk, others)
    found = {
        (f"{door.name}({where})", name): walk.run(door, {where: one}).kind
        for door, where, name, one in calls
    }
    taken = {call for call, kind in found.items() if kind != "sentence"}
    assert taken == listed(DOORS_THAT_TAKE_ANOTHER)
    assert "traceback" not in found.values()
    assert len(found) > 150
