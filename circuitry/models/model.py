"""`Model`, the interface that all models share, and `from_encoder`, which makes a model from any encoder.

A model has four members: an encoder, the preprocessing of pictures, a weight vector for every class, and an identity of
these three. `Clip` and `Classifier` are models. A user calls `from_encoder` in Python, or in a file that a command line
names (``--model FILE.py:FUNCTION``).
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from runpy import run_path
from typing import Annotated, Any, Protocol

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from circuitry.encoder.encoder import Encoder
from circuitry.models.classifier import Classifier
from circuitry.models.clip import Clip, checked_device, read_no_text
from circuitry.models.prompts import Template
from circuitry.runs.arguments import SOME, Names, checked
from circuitry.runs.errors import InputError, shown, unknown_name
from circuitry.runs.identity import Identity


class Model(Protocol):
    """The four members of a model.

    Example:
        >>> from circuitry.models import Model
        >>> def recognise(model: Model, images: torch.Tensor, names: list[str]) -> torch.Tensor:
        ...     return model.encoder(images) @ model.text_weights(names).T
        >>> recognise(clip, images, ["clock", "cup"]).shape
        torch.Size([4, 2])
    """

    @property
    def encoder(self) -> Encoder:
        """Encoder of its image tower."""

    @property
    def preprocess(self) -> Callable[[Image], Tensor]:
        """Function of an RGB picture that returns a tensor [3, H, W]."""

    @property
    def identity(self) -> Identity:
        """Identity of everything that shapes an embedding or a class weight; results keep it and compare it."""

    def text_weights(
        self, class_names: Names, templates: Sequence[Template] | None = None
    ) -> Float[Tensor, "classes d"]:
        """Return the weight of each class [K, D], of unit length."""


@checked
def from_encoder(
    encoder: Encoder,
    preprocess: Callable[[Image], Tensor],
    rows: Annotated[Mapping[str, Tensor], SOME] | None = None,
    *,
    name: str | None = None,
) -> Clip:
    """Make a model of an encoder; it works wherever a model from `load_clip` does.

    Args:
        encoder: An encoder, such as `Encoder.from_stages` makes of a tower of no known library.
        preprocess: Function of an RGB picture that returns a tensor [3, H, W], as in the tower's training.
        rows: Weight [D] of each class by name, such as the rows of the tower's last, linear layer, which the encoder
            leaves out (default: none; fit a `linear_probe`, in commands by ``--probe``).
        name: Name of the model in tables and reports (default: the tower's class).

    Raises:
        InputError: for rows that are not as wide as the embedding, or no row at all.

    Example:
        >>> from torchvision.transforms.functional import pil_to_tensor
        >>> rows = {"cup": torch.eye(64)[0], "clock": torch.eye(64)[1]}
        >>> from circuitry.models import from_encoder
        >>> model = from_encoder(encoder, lambda picture: pil_to_tensor(picture) / 255, rows)
        >>> model.text_weights(["clock", "cup"]).shape
        torch.Size([2, 64])
    """
    tower = encoder.tower
    known = Clip(name or type(tower).__name__, tower, encoder, preprocess, read_no_text)
    if rows is None:
        return known
    # Only a run tells the width of the embedding of any tower.
    with encoder.running():
        width = encoder(encoder.blank()).shape[-1]
    for class_name, row in rows.items():
        if row.shape != (width,):
            raise InputError(
                f"A class has a row of {width} numbers, as many as the embedding, but {class_name!r} has "
                f"{list(row.shape)}: give the tower up to the layer whose rows these are."
            )
    weights = torch.stack([row.detach() for row in rows.values()])
    weights = weights.to(encoder.device, encoder.dtype)
    return Classifier(
        **vars(known),
        rows=weights,
        bias=weights.new_zeros(len(weights)),
        classes={class_name: (i,) for i, class_name in enumerate(rows)},
    )


def is_model_file(name: str) -> bool:
    """Return whether the name of a model has the form FILE.py:FUNCTION."""
    return name.rpartition(":")[0].endswith(".py")


def load_from_file(name: str, device: str | torch.device) -> Clip:
    """Run a Python file and return the model that one of its functions returns, on a device.

    Args:
        name: FILE.py:FUNCTION of a function without arguments. The file may import modules of its folder, as a script.
        device: Device of the model.
    """
    where = checked_device(device)
    path, _, function = name.rpartition(":")
    if not Path(path).is_file():
        raise InputError(f"There is no file {path}: give FILE.py:FUNCTION.")
    folder = os.fspath(Path(path).resolve().parent)
    # As Python does for a script.
    if folder not in sys.path:
        sys.path.insert(0, folder)
    # The file is run as a module that is not __main__, so a guarded script part stays silent.
    content: dict[str, Any] = run_path(path)
    if not callable(content.get(function)):
        functions = [key for key, value in content.items() if callable(value)]
        raise unknown_name(f"function of {path}", function, functions)
    model = content[function]()
    if not isinstance(model, Clip):
        raise InputError(
            f"A function that makes a model returns one, but {name} returned {shown(model)}: let it return "
            "from_encoder(encoder, preprocess, rows), see circuitry.models."
        )
    model.model.to(where).eval().requires_grad_(False)
    return model
