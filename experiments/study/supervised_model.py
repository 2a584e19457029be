"""A classifier on an open_clip image tower (tower, ReLU, linear head), with its file format.

The study trains on ImageNet and DomainNet at once. The head has 1345 outputs: the 1000 classes of ImageNet, and then
the 345 classes of DomainNet. Images of an ImageNet class with a partner in DomainNet are labelled with the output of
the partner. The output of the ImageNet class then stays unused.
"""

import json
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from circuitry.runs import InputError, read_arrays, write_arrays
from circuitry.data import imagenet_partners, readable
from circuitry.encoder import Encoder
from circuitry.models import register_model

import open_clip
import torch
from PIL.Image import Image
from timm.data import ImageNetInfo
from torch import Tensor, nn


@dataclass(frozen=True)
class LabelTable:
    """Outputs of a classifier, and the output of every class of the data."""

    classes: tuple[str, ...]  # name of every output, in the order of outputs
    labels: Mapping[str, int]  # index of the output of every class of the data


def found_labels(classes: Iterable[str]) -> LabelTable:
    """Return a table with one output for each class, sorted by name."""
    names = tuple(sorted(set(classes)))
    return LabelTable(names, dict(zip(names, count())))


def merged_labels(
    imagenet: Sequence[str],
    domainnet: Sequence[str],
    partners: Mapping[str, Sequence[int]],
) -> LabelTable:
    """Return the table of both data sets: the outputs of ImageNet, and then the outputs of DomainNet.

    Args:
        imagenet: WordNet ids in the order of ImageNet.
        domainnet: Classes of DomainNet.
        partners: Takes a class of DomainNet. Returns the indices of the ImageNet classes that get its output.
    """
    outputs = (*imagenet, *domainnet)
    labels = dict(zip(outputs, count()))
    # The same class may be spelled with a space in one list and with an underscore in another.
    by_words = {readable(name): labels[name] for name in domainnet}
    for name, indices in partners.items():
        if readable(name) not in by_words:
            raise InputError(
                f"The labels are of all of DomainNet, but its class {name!r} is not in the lists: add it."
            )
        for index in indices:
            labels[imagenet[index]] = by_words[readable(name)]
    return LabelTable(outputs, labels)


def study_labels(domainnet: Sequence[str], classes: Iterable[str]) -> LabelTable:
    """Return the study's 1345 outputs if a class is a WordNet id of ImageNet; otherwise one output for each class."""
    imagenet = ImageNetInfo().label_names()
    names = set(classes)
    if names.isdisjoint(imagenet):
        return found_labels(names)
    return merged_labels(imagenet, domainnet, imagenet_partners())


_FORMAT = "circuitry supervised model 1"
Transform = Callable[[Image], Tensor]


@dataclass(frozen=True, eq=False)
class SupervisedModel:
    """A trained classifier in evaluation mode, without gradients of weights."""

    encoder: Encoder  # the tower, before the ReLU and the head
    head: nn.Module
    table: LabelTable
    preprocess: Transform  # open_clip's transform for inference: from a PIL image to a tensor [3, H, W]

    def head_for(self, classes: Sequence[str]) -> Callable[[Tensor], Tensor]:
        """Return a function that takes embeddings and returns the logits of these classes."""
        labels = {readable(name): label for name, label in self.table.labels.items()}
        outputs = []
        for name in classes:
            if readable(name) not in labels:
                raise InputError(
                    f"The supervised model was not trained on the class {name!r}: choose classes that it knows."
                )
            outputs.append(labels[readable(name)])
        # The encoder ends before the ReLU, so that embeddings compare with those of CLIP models.
        return lambda embeddings: self.head(embeddings.relu())[:, outputs]


def build_classifier(
    name: str, n_classes: int, crop_scale: float
) -> tuple[nn.Module, Transform, Transform]:
    """Build a classifier on the image tower of a registered model, with random weights.

    Args:
        crop_scale: Least share of an image that a random crop shows in training.

    Returns:
        The tower with ReLU and head, and open_clip's transforms for training and for inference.
    """
    model, train, test = open_clip.create_model_and_transforms(
        name, aug_cfg={"scale": (crop_scale, 1.0)}
    )
    head = nn.Linear(open_clip.get_model_config(name)["embed_dim"], n_classes)
    # Names of the modules are names of the arrays in the file.
    layers = OrderedDict(tower=model.visual, relu=nn.ReLU(), head=head)
    return nn.Sequential(layers), train, test


def write_classifier(
    path: Path, model: nn.Module, name: str, table: LabelTable
) -> None:
    """Write a classifier atomically, with the configuration of its tower and the table of its labels."""
    header = {
        "name": name,
        "config": open_clip.get_model_config(name),
        "classes": table.classes,
        "labels": dict(table.labels),
    }
    arrays = {
        key: tensor.detach().cpu().numpy() for key, tensor in model.state_dict().items()
    }
    write_arrays(path, _FORMAT, header, arrays)


def load_supervised(path: Path, device: str | torch.device = "cpu") -> SupervisedModel:
    """Load a checkpoint of `train_supervised`."""
    header, arrays = read_arrays(path, _FORMAT, "supervised model")
    table = LabelTable(tuple(header["classes"]), header["labels"])
    name = header["name"]
    # open_clip builds models by name, and reads names from files.
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / f"{name}.json"
        config.write_text(json.dumps(header["config"]), encoding="utf-8")
        register_model(config)
    model, _, preprocess = build_classifier(name, len(table.classes), crop_scale=1.0)
    # Stored arrays have at least one axis; counters of batch norms have none.
    state = {
        key: torch.tensor(arrays[key]).reshape(tensor.shape)
        for key, tensor in model.state_dict().items()
    }
    model.load_state_dict(state)
    model.to(device).eval().requires_grad_(False)
    tower = Encoder.from_tower(model.get_submodule("tower"))
    return SupervisedModel(tower, model.get_submodule("head"), table, preprocess)
