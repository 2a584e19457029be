"""Examples in docstrings run: those of every name on a front, in a small world of drawn pictures and shipped models."""

import doctest
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch

import circuitry
from circuitry.circuits import EDGE_METHODS, MEASURES, METHODS
from experiments.drawn import DrawingSettings, write_toy
from tests.support.work import QUIET
from tests.test_imports import PUBLIC

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FRONT = {
    f"{package}.{name}".removeprefix("circuitry."): getattr(
        importlib.import_module(package), name
    )
    for package, name in PUBLIC
    if package != "circuitry"
}
"""What the rooms list, by room and name."""
PUBLIC_NAMES = {name.rpartition(".")[2]: thing for name, thing in FRONT.items()}
"""Examples use public names of all rooms without importing them."""
EXPLAINED = {
    name: thing
    for name, thing in FRONT.items()
    if inspect.isfunction(thing) or isinstance(thing, type)
}
"""Functions and classes: constants and types are explained by a text below them."""


class ShownOutput(doctest.OutputChecker):
    """Compare the output of a line where the example shows one."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return want == "" or super().check_output(want, got, optionflags)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Return the names that examples use without making them; the working directory holds the pictures."""
    place = tmp_path_factory.mktemp("examples")
    pictures = DrawingSettings(
        n_train=0,
        n_test=4,
        classes=("car", "clock", "cup", "house"),
        styles=("quickdraw", "real", "sketch"),
    )
    write_toy(place / "DomainNet", pictures)
    with pytest.MonkeyPatch.context() as moved:
        moved.chdir(place)
        clip = circuitry.load_clip("rn-tiny")
        folder = circuitry.DomainFolder("DomainNet")
        weights = clip.text_weights(folder.classes)
        metric = circuitry.class_logit(weights, folder.classes.index("clock"))
        images = read(clip, folder, ("clock",), 4)
        others = read(clip, folder, ("car", "cup", "house"), 2)
        graph = circuitry.attribute(
            clip.encoder, images, metric, others=others, progress=False
        )
        graphs = circuitry.extract(
            clip,
            folder,
            "runs/x",
            classes=("clock", "cup"),
            domains=("real", "sketch"),
            n_images=2,
            work=QUIET,
        )
        yield {
            "circuitry": circuitry,
            "np": np,
            "pd": pd,
            "torch": torch,
            "Path": Path,
            "clip": clip,
            "vit": circuitry.load_clip("vit-tiny"),
            "encoder": clip.encoder,
            "folder": folder,
            "weights": weights,
            "metric": metric,
            "images": images,
            "others": others,
            "task": circuitry.Task(clip.encoder, images, metric, others=others),
            "graph": graph,
            "circuit": graph.circuit(),
            "graphs": graphs,
        }


def read(
    clip: circuitry.Clip,
    folder: circuitry.DomainFolder,
    classes: tuple[str, ...],
    n_images: int,
) -> torch.Tensor:
    """Return photographs of some classes, preprocessed."""
    records = [
        record for name in classes for record in folder.select(name, "real", n_images)
    ]
    return circuitry.models.read_images(clip, records)[1]


def docstrings(thing: Any) -> Iterator[str]:
    """Yield the docstring of a function, or those of a class and of its own public methods."""
    yield thing.__doc__ or ""
    if isinstance(thing, type):
        # A first copy of an object adds an attribute to its class.
        for name, member in dict(vars(thing)).items():
            function = getattr(member, "__func__", member)
            function = getattr(function, "fget", function)
            if not name.startswith("_") and inspect.isfunction(function):
                yield function.__doc__ or ""


@pytest.mark.parametrize("name", EXPLAINED)
def test_examples_run(name: str, world: dict[str, Any]) -> None:
    thing = EXPLAINED[name]
    assert ">>> " in (thing.__doc__ or ""), "every name on a front has an example"
    runner = doctest.DocTestRunner(ShownOutput(), verbose=False, optionflags=OPTIONS)
    told = list[str]()
    # What an example registers is gone when it ends: other tests ask all measures and methods.
    readers = patch.dict("circuitry.encoder.adapters._READERS")
    registered = (patch.dict(MEASURES), patch.dict(METHODS), patch.dict(EDGE_METHODS))
    with readers, registered[0], registered[1], registered[2]:
        for text in docstrings(thing):
            names = {**PUBLIC_NAMES, **world}
            example = doctest.DocTestParser().get_doctest(text, names, name, None, None)
            runner.run(example, out=told.append)
    assert runner.failures == 0, "".join(told)
