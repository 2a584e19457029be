"""Every result that can be saved comes back whole; a flipped bit, a cut or another format in a file is noticed."""

import ast
import random
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import circuitry
from circuitry import AttributionGraph, Circuit, Comparison, InputError
from circuitry.bases import SparseAutoencoder
from circuitry.circuits import DirectEffects
from circuitry.interventions import FaithfulnessCurve
from circuitry.models import load_sae
from circuitry.representations import ImageFeatures
from circuitry.representations.grams import DomainRepresentation
from circuitry.runs.arrays import write_arrays
from circuitry.runs.manifest import write_sealed
from tests.bases.test_sae import small_sae
from tests.circuits.test_graph import small_graph
from tests.comparison.test_comparison import comparison
from tests.explorer.made import make_curve
from tests.representations.test_features import random_features
from tests.representations.test_similarity import grams, rows


def representation() -> DomainRepresentation:
    units, b = {"a": np.arange(6, dtype=np.float32).reshape(3, 2)}, rows(1)
    b[2] = np.nan
    halves = grams("real", rows(2)), grams("real", b)
    return DomainRepresentation(grams("real", rows(0)), halves, units, ("cat", "cat", "fish"), ("0", "1", "2"))


MADE: dict[type, Callable[[], Any]] = {
    AttributionGraph: small_graph,
    Circuit: lambda: small_graph().circuit(1, any_sign=True),
    Comparison: comparison,
    DirectEffects: lambda: DirectEffects(("a",), np.ones((2, 1)), np.ones((2, 1, 4)), np.zeros(2), np.ones(2)),
    DomainRepresentation: representation,
    FaithfulnessCurve: lambda: make_curve("axe", "real"),
    ImageFeatures: random_features,
    SparseAutoencoder: small_sae,
}


def load(kind: Any, place: Path) -> Any:
    return load_sae(place) if kind is SparseAutoencoder else kind.load(place)


def plain(value: Any) -> Any:
    if isinstance(value, pd.DataFrame):
        return value.to_dict("list")
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if isinstance(value, torch.Tensor):
        return value.numpy()
    return {f.name: plain(getattr(value, f.name)) for f in fields(value)} if is_dataclass(value) else value


def files(place: Path) -> dict[Path, bytes]:
    found = [place] if place.is_file() else sorted(place.iterdir())
    return {path: path.read_bytes() for path in found}


def test_every_result_is_here() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in Path(circuitry.__file__).parent.rglob("*.py")]
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    methods = {one.name: {of.name for of in one.body if isinstance(of, ast.FunctionDef)} for one in classes}
    stored = {name for name, own in methods.items() if own >= {"save", "load"}}
    assert {kind.__name__ for kind in MADE} == stored | {"SparseAutoencoder"}


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: str(kind.__name__))
def test_a_result_comes_back_whole_and_damage_is_noticed(kind: type, tmp_path: Path) -> None:
    place = tmp_path / "deep" / "result.safetensors"
    made = MADE[kind]()
    made.save(place)
    loaded = load(kind, place)
    np.testing.assert_equal(plain(loaded), plain(made))
    loaded.save(tmp_path / "again.safetensors")
    assert list(files(tmp_path / "again.safetensors").values()) == list(files(place).values())
    drawn = random.Random(0)
    for path, whole in files(place).items():
        places = (0, len(whole) - 3, *drawn.sample(range(len(whole)), 30))
        flipped = [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in places]
        for content in (b"", b"garbage", whole[: len(whole) // 2], whole[:-8], *flipped, None):
            path.unlink() if content is None else path.write_bytes(content)
            with pytest.raises(InputError, match=path.name):
                load(kind, place)
            path.write_bytes(whole)
        if path.suffix == ".json":
            write_sealed(path, {"format": "circuitry other 0"})
        else:
            write_arrays(path, "circuitry other 0", {}, {"full": np.zeros(1)})
        with pytest.raises(InputError, match=r"'circuitry other 0'|none of the readers"):
            load(kind, place)
        path.write_bytes(whole)
