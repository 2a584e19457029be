"""A classifier on an open_clip image tower (tower, ReLU, linear head), with its file format.

The file is safetensors; its JSON header has the model's configuration, the names of the outputs and the labels.

The study trains on ImageNet and DomainNet at once. Its head has 1345 outputs: the 1000 classes of ImageNet, then the
345 of DomainNet. An ImageNet class with a partner in DomainNet gets the partner's output; its own stays unused.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitry.runs import InputError, read_arrays, write_arrays
from circuitry.data import imagenet_partners, readable
from circuitry.encoder import Encoder
from circuitry.models import register_model

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor, nn


@dataclass(frozen=True)
class LabelTable:
    """Outputs of a classifier, and the output of every class of the data."""

    classes: tuple[str, ...]  # name of every output, in order
    labels: Mapping[str, int]  # class of the data -> index of its output


def found_labels(classes: Iterable[str]) -> LabelTable:
    """Return a table with one output for each class, sorted by name."""
    names = tuple(sorted(set(classes)))
    return LabelTable(names, {name: label for label, name in enumerate(names)})


def merged_labels(
    imagenet: Sequence[str], domainnet: Sequence[str], partners: Mapping[str, Sequence[int] | None]
) -> LabelTable:
    """Return the table of both data sets: ImageNet's outputs, then DomainNet's."""
    labels = {name: label for label, name in enumerate([*imagenet, *domainnet])}
    by_words = {readable(name): name for name in domainnet}
    for name, indices in partners.items():
        if readable(name) not in by_words:
            raise InputError(f"The labels are of all of DomainNet, but its class {name!r} is not in the lists: add it.")
        for index in indices or ():
            labels[imagenet[index]] = labels[by_words[readable(name)]]
    return LabelTable((*imagenet, *domainnet), labels)


def imagenet_wnids() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet's 1000 classes by index, as timm lists them."""
    from timm.data import ImageNetInfo  # here, since it brings torch

    return tuple(ImageNetInfo().label_names())


def study_labels(domainnet: Sequence[str], classes: Iterable[str]) -> LabelTable:
    """Return the study's 1345 outputs if a class is one of ImageNet's, else one output for each class."""
    imagenet, found = imagenet_wnids(), set(classes)
    return (
        found_labels(found) if found.isdisjoint(imagenet) else merged_labels(imagenet, domainnet, imagenet_partners())
    )


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


@dataclass(frozen=True, eq=False)
class SupervisedModel:
    """A trained classifier in evaluation mode, without gradients of weights."""

    name: str  # open_clip's name of the tower's architecture
    encoder: Encoder  # the tower, before the ReLU and the head
    head: nn.Linear
    table: LabelTable
    preprocess: Transform  # PIL image -> tensor [3, H, W], open_clip's own transform for inference

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of every output."""
        return self.table.classes

    def logits(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch classes"]:
        """Return one logit per class."""
        found: Tensor = self.head(F.relu(self.encoder(images)))
        return found

    def head_for(self, classes: Sequence[str]) -> Callable[[Tensor], Tensor]:
        """Return a function from embeddings to the logits of these classes."""
        labels = {readable(name): label for name, label in self.table.labels.items()}
        if missing := [name for name in classes if readable(name) not in labels]:
            raise InputError(
                f"The supervised model was not trained on the class {missing[0]!r}: choose classes that it knows."
            )
        outputs = torch.tensor([labels[readable(name)] for name in classes])
        return lambda embeddings: self.head(F.relu(embeddings))[:, outputs.to(embeddings.device)]


def build_classifier(name: str, n_classes: int, crop_scale: float) -> tuple[TowerClassifier, Transform, Transform]:
    """Return a classifier with random weights on a registered model's tower, and open_clip's transforms."""
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


def load_supervised(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> SupervisedModel:
    """Load a checkpoint of `train_supervised`."""
    header, arrays = read_arrays(path, _FORMAT, "supervised model")
    table, name = LabelTable(tuple(header["classes"]), header["labels"]), str(header["name"])
    with tempfile.TemporaryDirectory() as folder:  # open_clip builds models by name, and knows names by files
        config = Path(folder) / f"{name}.json"
        config.write_text(json.dumps(header["config"]), encoding="utf-8")
        register_model(config)
    model, _, preprocess = build_classifier(name, len(table.classes), crop_scale=1.0)
    set_state(model, arrays)
    model.to(device).eval().requires_grad_(False)
    return SupervisedModel(name, Encoder.from_tower(model.tower), model.head, table, preprocess)


def as_arrays(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Convert tensors to arrays."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}


def set_state(model: nn.Module, arrays: Mapping[str, Any]) -> None:
    """Load stored weights into a model."""
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    # Stored arrays have at least one axis; counters of batch norms have none.
    model.load_state_dict(
        {
            key: torch.from_numpy(array.copy()).reshape(shapes[key] if shapes.get(key) == () else array.shape)
            for key, array in arrays.items()
        }
    )
