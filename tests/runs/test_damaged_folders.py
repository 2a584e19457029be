"""Folders, stored results, and every kind of damage to them: made again and equal, or refused by name."""

import ast
import inspect
import random
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import circuitry
from circuitry import (
    AttributionGraph,
    Circuit,
    Clip,
    Comparison,
    DomainFolder,
    GraphFolder,
    InputError,
)
from circuitry.bases import SparseAutoencoder
from circuitry.circuits import midpoint_rule
from circuitry.data import load_image
from circuitry.interventions import CheckSettings, FaithfulnessCurve
from circuitry.models import load_sae
from circuitry.questions import CausalChecks, extract
from circuitry.runs.arrays import write_arrays
from circuitry.runs.manifest import write_sealed
from circuitry.training import SaeTraining, train_sae_on_images
from circuitry.training.samples import extract_samples, image_files
from experiments.drawn import DrawingSettings, write_toy
from experiments.representations.features import ImageFeatures
from experiments.representations.grams import DomainRepresentation
from experiments.representations.representation_folder import (
    RepresentationSettings,
    extract_representations,
)
from experiments.representations.strongest_features import extract_features
from tests.bases.test_feature_basis import small_sae
from tests.circuits.test_graph import small_graph
from tests.comparison.test_comparison import comparison
from tests.explorer.made import make_curve
from tests.study.representations.test_features import random_features
from tests.study.representations.test_similarity import grams, rows
from tests.support.extraction import contents
from tests.support.work import QUIET

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "emptied": lambda content: b"",
    "torn": lambda content: content[: len(content) // 2],
    "a line short": lambda content: content[: content[:-1].rfind(b"\n") + 1],
    "one bit": lambda content: content[:-2] + bytes([content[-2] ^ 1]) + content[-1:],
    "removed": lambda content: None,
}


class Subject(NamedTuple):
    clip: Clip
    images: DomainFolder
    graphs: GraphFolder


@pytest.fixture(scope="module")
def subject(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    root = tmp_path_factory.mktemp("images")
    write_toy(root / "toy", DRAWN, workers=1, progress=False)
    images = DomainFolder(root / "toy")
    return Subject(clip, images, make_circuits(clip, images, root / "circuits"))


DRAWN = DrawingSettings(
    n_train=0, n_test=2, classes=("fish", "key"), styles=("real", "sketch"), size=16
)


def make_circuits(clip: Clip, images: DomainFolder, out: Path) -> GraphFolder:
    sites = clip.encoder.sites[-3:-1]
    return extract(
        clip,
        images,
        out,
        n_images=2,
        leave_unseen=False,
        work=QUIET,
        rule=midpoint_rule(1),
        folds=2,
        sites=sites,
    )


def circuits(subject: Subject, out: Path) -> object:
    return make_circuits(subject.clip, subject.images, out)["fish", "real"].node_scores


def checks(subject: Subject) -> CausalChecks:
    return CausalChecks(
        subject.clip,
        subject.images,
        subject.graphs,
        CheckSettings(n_images=1, n_others=1, seen=True),
    )


def faithfulness(subject: Subject, out: Path) -> object:
    return checks(subject).extract_faithfulness(
        out, rankings=["absolute"], sizes=[0.5], random_draws=1, work=QUIET
    )


def representations(subject: Subject, out: Path) -> object:
    settings = RepresentationSettings(
        n_images=2, sites=subject.clip.encoder.sites[-1:], n_folds=2
    )
    return extract_representations(subject.clip, subject.images, out, settings, QUIET)


def features(subject: Subject, out: Path) -> object:
    settings = SaeTraining(steps=2, batch_size=4)
    sae = train_sae_on_images(subject.clip, subject.images, settings, work=QUIET)
    return extract_features(subject.clip, sae, subject.images, out, work=QUIET)


def samples(subject: Subject, out: Path) -> object:
    files, about = (
        image_files(subject.images.records),
        {"site": None, "positions_per_image": None, "seed": 0},
    )
    encoder, preprocess = subject.clip.encoder, subject.clip.preprocess
    return extract_samples(
        encoder, preprocess, files, out, {**about, "piece": 4}, work=QUIET
    )


def drawings(subject: Subject, out: Path) -> object:
    return write_toy(out, DRAWN, workers=1, progress=False)


MAKERS = (
    circuits,
    faithfulness,
    representations,
    features,
    samples,
    drawings,
)


@pytest.mark.parametrize("make", MAKERS)
def test_damaged_folders(
    make: Callable[[Subject, Path], object], subject: Subject, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    make(subject, out)
    finished = contents(out)
    record = min(name for name in finished if name.startswith("checksums/"))
    result = min(
        name
        for name in finished
        if Path(name).suffix in (".csv", ".npy", ".png", ".safetensors")
    )
    damages = {
        "manifest.json": ("emptied", "one bit", "removed"),
        "images.json": ("torn", "foreign", "removed"),
        record: ("emptied", "torn", "a line short", "foreign"),
        result: ("one bit", "foreign"),
    }
    for name, damage in (
        (one, damage) for one in damages if one in finished for damage in damages[one]
    ):
        path = out / name
        alike = [
            other
            for other in finished
            if Path(other).suffix == path.suffix and finished[other] != finished[name]
        ]
        changed = (
            finished[alike[-1]]
            if damage == "foreign"
            else DAMAGES[damage](finished[name])
        )
        path.unlink() if changed is None else path.write_bytes(changed)
        try:
            make(subject, out)
        except InputError as error:
            assert path.name in str(error), damage  # noqa: PT017
            path.write_bytes(finished[name])
        else:
            assert name != "manifest.json" or damage == "removed", damage
        if name == "manifest.json":  # another run may have other versions
            path.write_bytes(finished[name])
        assert contents(out) == finished, (name, damage)


def test_a_graph_in_the_place_of_another_is_refused(
    subject: Subject, tmp_path: Path
) -> None:
    shutil.copytree(subject.graphs.path, tmp_path / "copy")
    graphs = GraphFolder(tmp_path / "copy")
    shutil.copy(graphs.file("fish", "real"), graphs.file("key", "sketch"))
    shutil.copy(graphs.file("fish", "real", 0), graphs.file("key", "sketch", 0))
    for read in (
        lambda: graphs["key", "sketch"],
        lambda: graphs.folds("key", "sketch"),
    ):
        with pytest.raises(InputError, match=r"key in sketch.* fish in real"):
            read()


@pytest.mark.parametrize("sealed", [True, False])
def test_a_graph_of_another_search_is_refused(
    sealed: bool, subject: Subject, tmp_path: Path
) -> None:
    """By what it says of itself, in folders without records, too; and by its checksum."""
    shutil.copytree(subject.graphs.path, tmp_path / "copy")
    if not sealed:
        shutil.rmtree(tmp_path / "copy" / "checksums")
    graphs = GraphFolder(tmp_path / "copy")
    graph, file = graphs["fish", "real"], graphs.file("fish", "real")
    replace(graph, settings=graph.settings | {"n_others": 77}).save(file)
    with pytest.raises(
        InputError, match=rf"{re.escape(file.name)} differ in n others \(.* and 77\)"
    ):
        graphs["fish", "real"]
    fewer = {site: units[:-1] for site, units in graph.kept_units.items()}
    replace(graph, kept_units=fewer, edge_scores={}).save(file)
    with (
        pytest.raises(InputError, match=f"{file.name} is damaged")
        if sealed
        else nullcontext()
    ):
        graphs["fish", "real"]


def test_a_folder_is_read_where_it_was_opened(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(subject.graphs.path.parent)
    graphs = GraphFolder(subject.graphs.path.name)
    assert str(graphs.path) == subject.graphs.path.name
    monkeypatch.chdir(tmp_path)
    assert graphs["fish", "real"].class_name == "fish"
    assert len(graphs.folds("fish", "real")) == 2


def test_an_image_that_unpacks_to_more_than_memory_is_left_out(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    with pytest.raises(InputError, match=r"bomb\.png.*400000000 pixels"):
        load_image(tmp_path / "bomb.png")


def representation() -> DomainRepresentation:
    units, b = {"a": np.arange(6, dtype=np.float32).reshape(3, 2)}, rows(1)
    b[2] = np.nan
    halves = grams("real", rows(2)), grams("real", b)
    return DomainRepresentation(
        grams("real", rows(0)), halves, units, ("cat", "cat", "fish"), ("0", "1", "2")
    )


MADE: dict[type, Callable[[], Any]] = {
    AttributionGraph: small_graph,
    Circuit: lambda: small_graph().circuit(1, any_sign=True),
    Comparison: comparison,
    DomainRepresentation: representation,
    FaithfulnessCurve: lambda: make_curve("axe", "real"),
    ImageFeatures: random_features,
    SparseAutoencoder: small_sae,
}


def plain(value: Any) -> Any:
    if isinstance(value, pd.DataFrame):
        return value.to_dict("list")
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if isinstance(value, torch.Tensor):
        return value.numpy()
    return (
        {f.name: plain(getattr(value, f.name)) for f in fields(value)}
        if is_dataclass(value)
        else value
    )


def files(place: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in ([place] if place.is_file() else sorted(place.iterdir()))
    }


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: str(kind.__name__))
def test_a_result_comes_back_whole_and_damage_is_noticed(
    kind: Any, tmp_path: Path
) -> None:
    load = load_sae if kind is SparseAutoencoder else kind.load
    place = tmp_path / "deep" / "result.safetensors"
    made = MADE[kind]()
    made.save(place)
    loaded = load(place)
    np.testing.assert_equal(plain(loaded), plain(made))
    loaded.save(tmp_path / "again.safetensors")
    assert list(files(tmp_path / "again.safetensors").values()) == list(
        files(place).values()
    )
    drawn = random.Random(0)
    for path, whole in files(place).items():
        places = (0, len(whole) - 3, *drawn.sample(range(len(whole)), 30))
        flipped = [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in places]
        for content in (
            b"",
            b"garbage",
            whole[: len(whole) // 2],
            whole[:-8],
            *flipped,
            None,
        ):
            path.unlink() if content is None else path.write_bytes(content)
            with pytest.raises(InputError, match=path.name):
                load(place)
            path.write_bytes(whole)
        if path.suffix == ".json":
            write_sealed(path, {"format": "circuitry other 0"})
        else:
            write_arrays(path, "circuitry other 0", {}, {"full": np.zeros(1)})
        with pytest.raises(
            InputError, match=r"'circuitry other 0'|none of the readers"
        ):
            load(place)
        path.write_bytes(whole)


def test_every_result_is_here() -> None:
    trees = [
        ast.parse(path.read_text(encoding="utf-8"))
        for folder in (
            Path(circuitry.__file__).parent,
            Path(inspect.getfile(ImageFeatures)).parent,
        )
        for path in folder.rglob("*.py")
    ]
    classes = [
        node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    methods = {
        one.name: {of.name for of in one.body if isinstance(of, ast.FunctionDef)}
        for one in classes
    }
    stored = {name for name, own in methods.items() if own >= {"save", "load"}}
    assert {kind.__name__ for kind in MADE} == stored | {"SparseAutoencoder"}
