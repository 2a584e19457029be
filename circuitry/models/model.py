"""`Model`, the interface that all models share, and `from_encoder`, which makes a model from any encoder.

A model has four members: an encoder, the preprocessing of pictures, a weight vector for every class, and an identity,
which covers the other three members. `Clip` and `Classifier` are models. A user calls `from_encoder` in Python, or in a
function of a Python file that is given to a command (``--model FILE.py:FUNCTION``).
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
    """The interface that all models share; it has four members.

    Example:
        >>> from circuitry.models import Model
        >>> def recognise(model: Model, images: torch.Tensor, names: list[str]) -> torch.Tensor:
        ...     return model.encoder(images) @ model.text_weights(names).T
        >>> recognise(clip, images, ["clock", "cup"]).shape
        torch.Size([4, 2])
    """

    @property
    def encoder(self) -> Encoder:
        """Encoder of the model's image tower."""

    @property
    def preprocess(self) -> Callable[[Image], Tensor]:
        """Function of an RGB picture that returns a tensor [3, H, W]."""

    @property
    def identity(self) -> Identity:
        """Identity of everything that changes an embedding or a class weight.

        Results store the identity, so that only results of the same model are compared.
        """

    def text_weights(
        self, class_names: Names, templates: Sequence[Template] | None = None
    ) -> Float[Tensor, "classes d"]:
        """Return the weights of K classes [K, D]. Each row has length one."""


@checked
def from_encoder(
    encoder: Encoder,
    preprocess: Callable[[Image], Tensor],
    rows: Annotated[Mapping[str, Tensor], SOME] | None = None,
    *,
    name: str | None = None,
) -> Clip:
    """Make a model from an encoder. The model works wherever a model from `load_clip` works.

    Args:
        encoder: An encoder. `Encoder.from_stages` makes one from a tower of a library that this package does not know.
        preprocess: Function of an RGB picture that returns a tensor [3, H, W], as in the training of the tower.
        rows: Weight [D] of each class, by name. These may be the rows of a network's last, linear layer. The encoder
            must not include this layer. Without rows (the default) the model has no class weights until you fit a
            `linear_probe`; commands do this with ``--probe``.
        name: Name of the model in tables and reports (default: the name of the tower's class).

    Raises:
        InputError: if a row is not as wide as the embedding, or if ``rows`` is empty.

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
    # The width of the embedding is read off a run, which works for any tower.
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
    """Run a Python file, call one of its functions, and return the model that the function returns.

    Args:
        name: FILE.py:FUNCTION. The function takes no arguments. Like a script, the file may import modules of its own
            folder.
        device: The device to which the model is moved.
    """
    where = checked_device(device)
    path, _, function = name.rpartition(":")
    if not Path(path).is_file():
        raise InputError(f"There is no file {path}: give FILE.py:FUNCTION.")
    folder = os.fspath(Path(path).resolve().parent)
    # Python does the same for a script.
    if folder not in sys.path:
        sys.path.insert(0, folder)
    # The file does not run as __main__, so code under ``if __name__ == "__main__"`` does not run.
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
