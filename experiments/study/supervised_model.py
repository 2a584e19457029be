"""A classifier on an open_clip image tower (tower, ReLU, linear head), with its file format.

The study trains on ImageNet and DomainNet at once. Its head has 1345 outputs: the 1000 classes of ImageNet, then the
345 of DomainNet. An ImageNet class with a partner in DomainNet gets the partner's output; its own stays unused.
"""

import json
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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

    classes: tuple[str, ...]  # name of every output, in order
    labels: Mapping[str, int]  # class of the data -> index of its output


def found_labels(classes: Iterable[str]) -> LabelTable:
    """Return a table with one output for each class, sorted by name."""
    names = tuple(sorted(set(classes)))
    return LabelTable(names, {name: label for label, name in enumerate(names)})


def merged_labels(
    imagenet: Sequence[str],
    domainnet: Sequence[str],
    partners: Mapping[str, Sequence[int]],
) -> LabelTable:
    """Return the table of both data sets: ImageNet's outputs, then DomainNet's."""
    labels = {name: label for label, name in enumerate([*imagenet, *domainnet])}
    by_words = {readable(name): name for name in domainnet}
    for name, indices in partners.items():
        if readable(name) not in by_words:
            raise InputError(
                f"The labels are of all of DomainNet, but its class {name!r} is not in the lists: add it."
            )
        labels |= {
            imagenet[index]: labels[by_words[readable(name)]] for index in indices
        }
    return LabelTable((*imagenet, *domainnet), labels)


def study_labels(domainnet: Sequence[str], classes: Iterable[str]) -> LabelTable:
    """Return the study's 1345 outputs if a class is one of ImageNet's WordNet ids, else one output for each class."""
    imagenet, found = ImageNetInfo().label_names(), set(classes)
    if found.isdisjoint(imagenet):
        return found_labels(found)
    return merged_labels(imagenet, domainnet, imagenet_partners())


_FORMAT = "circuitry supervised model 1"
Transform = Callable[[Image], Tensor]


@dataclass(frozen=True, eq=False)
class SupervisedModel:
    """A trained classifier in evaluation mode, without gradients of weights."""

    encoder: Encoder  # the tower, before the ReLU and the head
    head: nn.Module
    table: LabelTable
    preprocess: Transform  # PIL image -> tensor [3, H, W], open_clip's own transform for inference

    def head_for(self, classes: Sequence[str]) -> Callable[[Tensor], Tensor]:
        """Return a function from embeddings to the logits of these classes."""
        labels = {readable(name): label for name, label in self.table.labels.items()}
        if missing := [name for name in classes if readable(name) not in labels]:
            raise InputError(
                f"The supervised model was not trained on the class {missing[0]!r}: choose classes that it knows."
            )
        outputs = [labels[readable(name)] for name in classes]
        return lambda embeddings: self.head(embeddings.relu())[:, outputs]


def build_classifier(
    name: str, n_classes: int, crop_scale: float
) -> tuple[nn.Module, Transform, Transform]:
    """Return tower, ReLU and head of a registered model, with random weights, and open_clip's transforms."""
    model, train, test = open_clip.create_model_and_transforms(
        name, aug_cfg={"scale": (crop_scale, 1.0)}
    )
    head = nn.Linear(open_clip.get_model_config(name)["embed_dim"], n_classes)
    return (
        nn.Sequential(OrderedDict(tower=model.visual, relu=nn.ReLU(), head=head)),
        train,
        test,
    )


def write_classifier(
    path: Path, model: nn.Module, name: str, table: LabelTable
) -> None:
    """Write a classifier atomically."""
    config = open_clip.get_model_config(name)
    header = {
        "name": name,
        "config": config,
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
    table, name = LabelTable(tuple(header["classes"]), header["labels"]), header["name"]
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # open_clip builds models by name, and knows names by files
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
    tower, head = (model.get_submodule(part) for part in ("tower", "head"))
    return SupervisedModel(Encoder.from_tower(tower), head, table, preprocess)
