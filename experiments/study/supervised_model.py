"""A classifier on an open_clip image tower (tower, ReLU, linear head), with its file format.

The file is safetensors; its JSON header has the model's configuration, the names of the outputs and the labels.
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitry.runs import InputError, read_arrays, write_arrays
from circuitry.data import readable
from circuitry.encoder import Encoder
from circuitry.encoder.modes import own_modes
from circuitry.models.architectures import register_model
from circuitry.models.checkpoints import check_state
from circuitry.models.clip import checked_device
from circuitry.runs.errors import naming_damage
from circuitry.runs.given import Names, checked
from experiments.study.labels import LabelTable

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor, nn

_FORMAT = "circuitry supervised model 1"
Transform = Callable[[Image], Tensor]


class TowerClassifier(nn.Module):
    """Images -> one logit per class: ``head(relu(tower(images)))``."""

    def __init__(self, tower: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.tower = tower
        self.head = head

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch classes"]:
        logits: Tensor = self.head(F.relu(self.tower(images)))
        return logits


@checked
@dataclass(frozen=True, eq=False)
class SupervisedModel:
    """A trained classifier in evaluation mode, without gradients of weights."""

    name: str
    """open_clip's name of the tower's architecture."""
    encoder: Encoder
    """The tower, before the ReLU and the head."""
    head: nn.Linear
    table: LabelTable
    preprocess: Transform
    """PIL image -> tensor [3, H, W], open_clip's own transform for inference."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of every output."""
        return self.table.classes

    @checked
    def logits(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch classes"]:
        """Return one logit per class."""
        found: Tensor = self.head(F.relu(self.encoder(images)))
        return found

    @checked
    def head_for(self, classes: Names) -> Callable[[Tensor], Tensor]:
        """Return a function from embeddings to the logits of these classes.

        Raises:
            InputError: For a class that the model was not trained on.
        """
        labels = {readable(name): label for name, label in self.table.labels.items()}
        if missing := [name for name in classes if readable(name) not in labels]:
            raise InputError(
                f"The supervised model was not trained on the class {missing[0]!r}: choose classes that it knows."
            )
        outputs = torch.tensor([labels[readable(name)] for name in classes])
        return lambda embeddings: self.head(F.relu(embeddings))[:, outputs.to(embeddings.device)]


def build_classifier(name: str, n_classes: int, crop_scale: float) -> tuple[TowerClassifier, Transform, Transform]:
    """Return a classifier with random weights on a registered model's tower, and open_clip's transforms of this model.

    The first transform is for training, the second for testing.
    """
    model, train, test = open_clip.create_model_and_transforms(name, aug_cfg={"scale": (crop_scale, 1.0)})
    width = open_clip.get_model_config(name)["embed_dim"]
    return TowerClassifier(model.visual, nn.Linear(width, n_classes)), train, test


def write_classifier(path: Path, model: TowerClassifier, name: str, table: LabelTable, epoch: int) -> None:
    """Write a classifier atomically."""
    header = {
        "name": name,
        "config": open_clip.get_model_config(name),
        "classes": table.classes,
        "labels": dict(table.labels),
        "epoch": epoch,
    }
    write_arrays(path, _FORMAT, header, as_arrays(model.state_dict()))


@own_modes()
@checked
def load_supervised(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> SupervisedModel:
    """Load a checkpoint of `train_supervised`.

    Args:
        path: ``epoch_N.safetensors``.
        device: Device of the model.

    Raises:
        InputError: For a missing, damaged or foreign file, or if another model of this name is registered.

    Example:
        >>> model = load_supervised("runs/supervised/checkpoints/epoch_90.safetensors")
        >>> model.classes[int(model.logits(images)[0].argmax())]
        'lion'
    """
    header, arrays = read_arrays(path, _FORMAT, "supervised model")
    with naming_damage(path):
        table = LabelTable(tuple(header["classes"]), header["labels"])
        name, settings = str(header["name"]), json.dumps(header["config"])
    with tempfile.TemporaryDirectory() as folder:  # open_clip builds models by name, and knows names by files
        config = Path(folder) / f"{name}.json"
        config.write_text(settings, encoding="utf-8")
        try:
            register_model(config)
        except InputError as error:
            raise InputError(f"The model of {path} cannot be built here: {error}") from error
    with naming_damage(path):
        model, _, preprocess = build_classifier(name, len(table.classes), crop_scale=1.0)
        set_state(model, arrays, str(path), name)
    model.to(checked_device(device)).eval().requires_grad_(False)
    return SupervisedModel(name, Encoder.from_tower(model.tower), model.head, table, preprocess)


def as_arrays(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Convert tensors to arrays."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}


def set_state(model: nn.Module, arrays: Mapping[str, Any], source: str, name: str) -> None:
    """Load stored weights into a model; InputError for weights of another model, or that are not finite."""
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    # Stored arrays have at least one axis; counters of batch norms have none.
    state = {
        key: torch.from_numpy(array.copy()).reshape(shapes[key] if shapes.get(key) == () else array.shape)
        for key, array in arrays.items()
    }
    check_state(model, state, source, name)
    model.load_state_dict(state)
