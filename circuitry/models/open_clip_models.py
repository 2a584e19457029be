"""Load a model of open_clip."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import open_clip
import torch

from circuitry.encoder.encoder import Encoder
from circuitry.models.architectures import check_tag, register_model
from circuitry.models.checkpoints import check_state, loading, read_checkpoint
from circuitry.models.clip import Clip, checked_device
from circuitry.models.shipped_weights import shipped_file, shipped_models
from circuitry.runs.errors import InputError


def load_open_clip(
    name: str,
    checkpoint: str | os.PathLike[str] | None,
    pretrained: str | None,
    device: str | torch.device,
) -> Clip:
    """Load a CLIP model of open_clip; see `load_clip`."""
    from_hub = name.startswith("hf-hub:")
    model_name = name if from_hub else register_model(name)
    if checkpoint is None and pretrained is None and name in shipped_models():
        checkpoint = shipped_file(name)
    if not from_hub and (checkpoint is None) == (pretrained is None):
        raise InputError(
            f"The model {name!r} needs either a checkpoint file or a pretrained tag, but "
            f"{'neither was' if checkpoint is None else 'both were'} given: give one of checkpoint= and pretrained= "
            "(of a script --checkpoint and --pretrained)."
        )
    if pretrained is not None:
        check_tag(model_name, pretrained)
    where = checked_device(device)
    state = None if checkpoint is None else read_checkpoint(checkpoint)
    clip = _built(model_name, pretrained, random=state is not None)
    if state is not None:
        check_state(clip.model, state, f"{checkpoint}", model_name)
        clip.model.load_state_dict(state)
    clip.model.to(where).eval().requires_grad_(False)
    return clip


def _built(name: str, pretrained: str | None, *, random: bool) -> Clip:
    """Build a model with its pretrained weights, or with random ones, to be replaced."""
    what = f"the weights {pretrained!r} of {name}" if pretrained else f"model, weights or tokenizer of {name}"
    with loading(f"{what} by open_clip"), _quiet():
        model, _, preprocess = open_clip.create_model_and_transforms(
            name, pretrained=pretrained, pretrained_text=not random, require_pretrained=not random
        )
        tokenizer, configuration = open_clip.get_tokenizer(name), open_clip.get_model_config(name)
    return Clip(name, model, Encoder.from_tower(model.visual), preprocess, tokenizer, configuration=configuration)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what open_clip logs: weights follow a moment later, and their lack is an error with a message."""
    root, silent, level = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(silent)  # without any, logging would give the root logger one of its own
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(level)
        root.removeHandler(silent)
