"""A tiny CLIP model on disk, for tests of loading and extraction."""

import json
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor

from circuitry import Clip, load_clip
from circuitry.models.open_clip_models import register_model
from tests.support.towers import RESNET, TEXT, randomise

CONFIG = RESNET | {"text_cfg": TEXT | {"context_length": 16}}
NAME = "circuitry-test-tiny"


@dataclass(frozen=True)
class Tiny:
    """A model on disk: its configuration, and its weights, of which none is at its initial value."""

    config: Path
    state: dict[str, Tensor]

    @classmethod
    def write(cls, folder: Path) -> "Tiny":
        path = folder / f"{NAME}.json"
        path.write_text(json.dumps(CONFIG))
        torch.manual_seed(7)
        model = open_clip.create_model(register_model(path))
        randomise(model)
        return cls(
            path, {key: value.clone() for key, value in model.state_dict().items()}
        )

    def load(self) -> Clip:
        weights = self.config.with_suffix(".safetensors")
        save_file(self.state, weights)
        return load_clip(self.config, weights)


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path
