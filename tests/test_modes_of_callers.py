"""No public function that runs a model gives other numbers under the modes of its caller, and no cache keeps such."""

import inspect
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from circuitry import (
    CausalChecks,
    Clip,
    DomainFolder,
    Patch,
    Task,
    left_rule,
    mean_baseline,
)
from circuitry.circuits import own_part
from circuitry.encoder import Baseline, Counterfactual
from circuitry.encoder.doubles import in_double
from circuitry.encoder.modes import own_modes
from circuitry.gates.fisher import normal_ranks
from circuitry.interventions import (
    circuit_of,
    explain,
    find_copies,
    lesion,
)
from circuitry.models import FolderBaseline, edited_weights
from experiments.representations.embeddings import embed_images, embed_texts
from experiments.representations.representation_folder import (
    extract_representations,
    unit_means,
)
from experiments.representations.strongest_features import (
    extract_features,
    image_features,
    name_features,
)
from tests.doors.walk import FEW, public_names
from tests.doors.world import World
from tests.support.planted_classes import planted_classes
from tests.support.work import QUIET

ROOMS = (
    "bases",
    "circuits",
    "encoder",
    "interventions",
    "models",
    "training",
)
MODEL = re.compile(r"\b(Encoder|Clip|Task|ResidualStream)\b")
ELSEWHERE = {
    "in_components": "runs nothing",
    "site_named": "runs nothing",
    "tower_speed": "returns times",
    "extract_samples": "as sample_activations",
    "explain": "below, with texts",
    "zero_shot_heads": "returns functions",
    **dict.fromkeys(
        ("own_part", "lesion", "find_copies", "edited_weights"),
        "below, on a class that is recognised",
    ),
}
"""Public functions of a model that are not called here, and why."""
FOUND: dict[str, Callable[..., Any]] = {
    name: value
    for name, value in public_names()
    if inspect.isfunction(value)
    if value.__module__.split(".")[1] in ROOMS
    if name not in ELSEWHERE
    if MODEL.search(str(list(inspect.signature(value).parameters.values())))
}
FOUND |= {
    "embed_images": embed_images,
    "embed_texts": embed_texts,
    "extract_features": extract_features,
    "extract_representations": extract_representations,
    "image_features": image_features,
    "name_features": name_features,
}
SMALL = (
    "cache_dir",
    "classes",
    "edge_rule",
    "masks",
    "n_images",
    "rule",
    "settings",
    "sites",
    "size",
)
"""Parameters that are given although they have a default, which takes long."""
OF_STREAM = ("direct_effects", "direct_vectors", "attribute_components")
CLASSES = planted_classes()
RECOGNISED = replace(CLASSES.task(0), work=QUIET)
PART = circuit_of(RECOGNISED, {"units": [0, 1]})


def mean_of(task: Task) -> Baseline:
    return mean_baseline(task.encoder, task.images, per="unit")


METHODS: dict[str, Callable[[World], Any]] = {
    "own_part": lambda w: own_part(RECOGNISED, share=0.1),
    "find_copies": lambda w: find_copies(RECOGNISED, RECOGNISED, share=0.1, most=2),
    "lesion": lambda w: lesion({("a", "x"): RECOGNISED}, {("a", "x"): PART}),
    "edited_weights": lambda w: edited_weights(
        w.in_stream.encoder,
        [Patch(w.in_stream.encoder.sites[2], mean_of(w.in_stream), units=[0, 1])],
        w.in_stream.encoder.blank(),
    ),
    "Clip.text_weights": lambda w: w.one(Clip).text_weights(
        ["axe", "cat"], cache_dir=w.scratch
    ),
    "explain": lambda w: explain(
        w.one(Clip), w.one(Tensor)[0], ["axe", "cat"], n_units=2
    ),
    "Clip.without": lambda w: (
        w.one(Clip).without({w.one(Clip).encoder.sites[1]: [0]}, w.one(Tensor)).identity
    ),
    "Clip.shown": lambda w: w.one(Clip).shown(w.task.images),
    "Counterfactual": lambda w: Counterfactual(w.one(Tensor)).run(
        w.task.encoder, w.task.sites
    ),
    "FolderBaseline": lambda w: FolderBaseline(
        "mean-unit", w.one(Clip), w.one(DomainFolder)
    ).of("axe", "real", 2),
    "CausalChecks": lambda w: CausalChecks(
        *(w.one(Clip), w.one(DomainFolder), w.graphs, w.named["checks"])
    ).extract_faithfulness(
        w.scratch, rankings=["absolute"], sizes=(0.5,), random_draws=1, work=QUIET
    ),
}


@contextmanager
def hostile() -> Iterator[None]:
    """Autocast and a default of bfloat16, inference mode, and another default device."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        with (
            torch.inference_mode(),
            torch.autocast("cpu", dtype=torch.bfloat16),
            torch.device("meta"),
        ):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def numbers(value: Any) -> Any:
    if isinstance(value, Tensor):
        return (
            str(value.dtype),
            str(value.device),
            numbers(value.detach().double().numpy()),
        )
    if isinstance(value, pd.DataFrame):
        return {str(name): numbers(value[name].to_numpy()) for name in value}
    if isinstance(value, np.ndarray):
        return (
            str(value.dtype),
            value.shape,
            value.tolist() if value.dtype == object else value.tobytes(),
        )
    if is_dataclass(value) and not isinstance(value, type):
        return {
            one.name: numbers(getattr(value, one.name))
            for one in fields(value)
            if one.name != "provenance"
        }
    if isinstance(value, Mapping):
        return {str(key): numbers(one) for key, one in value.items()}
    if isinstance(value, list | tuple | Iterator):
        return [numbers(one) for one in value]
    return (
        value if isinstance(value, int | float | str | None) else type(value).__name__
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def call(world: World, name: str, arguments: Mapping[str, Any]) -> Any:
    shutil.rmtree(world.scratch, ignore_errors=True)
    torch.manual_seed(0)
    return numbers(
        METHODS[name](world) if name in METHODS else FOUND[name](**arguments)
    )


@pytest.mark.parametrize("name", [*FOUND, *METHODS])
def test_modes_of_the_caller_change_nothing(world: World, name: str) -> None:
    arguments = (
        world.arguments(FOUND[name], more=(*FEW, *SMALL)) if name in FOUND else {}
    )
    if name == "extract":
        arguments |= {
            "size": 0.02,
            "rule": left_rule(1),
            "sites": world.named["sites"][1:],
            "texts": ["a {}."],
        }
    if name in OF_STREAM:
        stream = {"task": world.in_stream, "images": world.in_stream.images}
        arguments |= {key: value for key, value in stream.items() if key in arguments}
    expected = call(world, name, arguments)
    with hostile():
        before = modes_now()
        found = call(world, name, arguments)
        assert modes_now() == before
    assert found == expected


def modes_now() -> Any:
    return (
        *(
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
        ),
        *(
            torch.get_default_device(),
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
        ),
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_blocks_of_several_threads_share_the_default_type(dtype: torch.dtype) -> None:
    """PyTorch has one default type for all threads: the last block to end restores it."""
    inside, done, kept = threading.Event(), threading.Event(), list[torch.dtype]()

    def other() -> None:
        with own_modes():
            inside.set()
            done.wait(10)
            kept.append(torch.get_default_dtype())

    torch.set_default_dtype(dtype)
    try:
        with own_modes():
            thread = threading.Thread(target=other)
            thread.start()
            assert inside.wait(10)
        assert torch.get_default_dtype() == torch.float32
        done.set()
        thread.join()
        assert kept == [torch.float32]
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_exception_restores_the_modes_of_the_caller() -> None:
    @own_modes(gradients=True)
    def fail() -> None:
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
        assert torch.zeros(1).device.type == "cpu"
        raise ZeroDivisionError

    with hostile():
        before = modes_now()
        with pytest.raises(ZeroDivisionError):
            fail()
        assert modes_now() == before


def test_caches_keep_no_numbers_of_other_modes(world: World, tmp_path: Path) -> None:
    clip, images = world.one(Clip), world.one(DomainFolder)

    def both(cache: Path) -> Any:
        return [
            numbers(clip.text_weights(["axe", "cat"], cache_dir=cache)),
            numbers(embed_images(clip, images, cache_dir=cache, work=QUIET)),
        ]

    with hostile():
        both(tmp_path / "filled")
    assert len(list((tmp_path / "filled").iterdir())) == 2
    assert both(tmp_path / "filled") == both(tmp_path / "clean")


def test_an_encoder_by_itself_follows_the_caller_as_its_tower_does(
    world: World,
) -> None:
    encoder, images = world.task.encoder, world.task.images
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder(images), encoder.tower(images))
        assert encoder(images).dtype == torch.bfloat16


class NoDoublesOnMps(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in tree_leaves(found):
            if (
                isinstance(one, Tensor)
                and one.device.type == "mps"
                and one.dtype == torch.float64
            ):
                raise TypeError(f"{func} makes doubles on MPS")
        return found


@pytest.mark.parametrize(
    ("function", "device"),
    [
        (in_double, "cpu"),
        (normal_ranks, "mps"),
        (lambda x: unit_means(x.expand(2, 3, 4), 1), "cpu"),
    ],
)
def test_no_doubles_are_made_on_mps(
    function: Callable[[Tensor], Tensor], device: str
) -> None:
    with FakeTensorMode(), NoDoublesOnMps():  # type: ignore[no-untyped-call]
        assert function(torch.empty(4, device="mps")).device.type == device
