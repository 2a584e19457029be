"""Weights that a training starts from: of a whole model, or of an image tower under a new projection and text tower."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
from torch import Tensor, nn

from circuitry.models.checkpoints import check_weights, read_checkpoint
from circuitry.models.classifier_nets import LIBRARIES
from circuitry.models.loading import load_clip
from circuitry.runs.errors import InputError

log = logging.getLogger(__name__)

# The names of open_clip, timm and torchvision for what follows the tower: a classifier, or a projection.
_HEADS = ("attnpool.c_proj", "classifier", "fc", "head", "heads", "proj")


def starting_weights(
    start: str | Path, model: nn.Module, name: str
) -> dict[str, Tensor]:
    """Return the weights that a training starts from, under the names that they have in the model.

    If the start is a checkpoint of the same model, all weights are returned. Otherwise the weights of its image tower
    are returned. Then the projection and the text tower are new.

    Args:
        start: See `ClipTraining.start`.
        model: The model to train.
        name: Name of the model in messages.

    Raises:
        InputError: if the start cannot be read, or if its image tower is another one. The message names the first
            weight that differs.
    """
    state, statistics = _read(start)
    own = model.state_dict()
    if state.keys() == own.keys() and all(
        tensor.shape == own[key].shape for key, tensor in state.items()
    ):
        check_weights(own, state, str(start), name)
        return state
    source = _tower_of(state)
    if len(source) < len(state):
        log.warning(
            "%s is not a checkpoint of %s: its image tower alone is taken, under a new projection and text tower.",
            start,
            name,
        )
    tower = _without_head(_tower_of(own))
    source = _without_head(source)
    check_weights(tower, source, str(start), f"the image tower of {name}")
    _adapt_contrast(source, statistics)
    in_trunk = any(key.startswith("visual.trunk.") for key in own)
    prefix = "visual.trunk." if in_trunk else "visual."
    return {prefix + key: tensor for key, tensor in source.items()}


def _read(start: str | Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Return the weights of a start, and the settings of its preprocessing as far as they are known."""
    name, _, tag = str(start).rpartition(":")
    # timm writes resnet50.a1_in1k, which looks like the name of a file.
    if name in LIBRARIES:
        raise InputError(
            f"A start of {name} is {name}:NETWORK:TAG with a tag of its weights, but {str(start)!r} was given: add the "
            "tag, such as timm:resnet50:a1_in1k."
        )
    if Path(start).suffix or Path(start).is_file():
        return read_checkpoint(start), {}
    loaded = load_clip(name, pretrained=tag) if name else load_clip(tag)
    model = loaded.model
    return model.state_dict(), open_clip.get_model_preprocess_cfg(model)


def _tower_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the image tower of a CLIP model, or all weights of another model, under their own names."""
    tower = dict(state)
    for prefix in ("visual.", "trunk."):
        below = {
            key.removeprefix(prefix): tensor
            for key, tensor in tower.items()
            if key.startswith(prefix)
        }
        tower = below or tower
    return tower


def _without_head(tower: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out a classifier of other classes, and a projection to another dimension."""
    return {key: tensor for key, tensor in tower.items() if not _is_head(key)}


def _is_head(key: str) -> bool:
    # ConvNeXt's last norm, though it has the name of a head, is of the tower.
    if key.startswith("head.norm."):
        return False
    return any(key == head or key.startswith(f"{head}.") for head in _HEADS)


def _adapt_contrast(tower: dict[str, Tensor], statistics: Mapping[str, Any]) -> None:
    """Scale the first convolution to images that are normalised as open_clip normalises them.

    Networks divide colours by other deviations. The difference of the mean colours, some percent of their range, is
    left to the training.
    """
    if "std" not in statistics:
        return
    first = next(key for key, tensor in tower.items() if tensor.ndim == 4)
    weight = tower[first]
    used = weight.new_tensor(open_clip.OPENAI_DATASET_STD)
    expected = weight.new_tensor(statistics["std"])
    tower[first] = weight * (used / expected)[:, None, None]
