"""Load a model by one name, whatever library it is of."""

import os
import re
from pathlib import Path

import torch
from torch import nn

from circuitry.encoder.modes import own_modes
from circuitry.encoder.transformers_towers import from_transformers
from circuitry.models.classifier_nets import EFFICIENTNETS, LIBRARIES, load_classifier
from circuitry.models.clip import Clip
from circuitry.models.open_clip_models import known_models, load_open_clip
from circuitry.models.transformers_models import load_transformers
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked


@own_modes()
@checked
def load_clip(
    name: str | os.PathLike[str] | nn.Module,
    checkpoint: str | os.PathLike[str] | None = None,
    pretrained: str | None = None,
    device: str | torch.device = "cpu",
) -> Clip:
    """Load a CLIP model of open_clip or transformers, or another vision model with the interface of one.

    Args:
        name: One of

            - open_clip's: a model name (``RN50``, ``ViT-B-32``), the path of a model-config JSON, or a hub tag
              (``hf-hub:org/model``, which brings its own weights);
            - ``rn-tiny`` or ``vit-tiny``: the quickstart's models, whose weights come with this package;
            - transformers': a hub id (``google/siglip-base-patch16-224``), a local folder as ``save_pretrained`` writes
              it, or a model in memory that was loaded from one, which is copied: CLIP, SigLIP, DINOv2, DINOv3, ViT;
            - a classifier's: see `load_classifier`.
        checkpoint: Local file: an open_clip training checkpoint, a state dict (.pt, .pth, .bin) or
            safetensors; prefixes of wrappers (``module.``, ``_orig_mod.``) are dropped.
        pretrained: The library's tag of pretrained weights, e.g. ``openai``.
        device: Where the model lives: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        InputError: for an unknown name or tag, weights that cannot be downloaded, a folder without a configuration, a
            model of texts, a device that is not there, a checkpoint that is missing, needs more than tensors to be
            read, holds values that are not finite, or belongs to another model (the first key that differs). For random
            weights wrap the tower of ``open_clip.create_model`` with `Encoder.from_tower`.

    Example:
        >>> load_clip("rn-tiny")    # the quickstart's model, with its weights
        >>> clip = load_clip("RN50", checkpoint="epoch_32.pt")
        >>> clip.encoder.sites[-1]
        'attnpool'
        >>> siglip = load_clip("google/siglip-base-patch16-224")
    """
    if isinstance(name, nn.Module):
        if not from_transformers(name):
            raise InputError(
                f"A model in memory is one of transformers, but a {type(name).__name__} was given: wrap its image "
                "tower with Encoder.from_tower."
            )
        return load_transformers(name, device)
    text = os.fspath(name)
    if text in EFFICIENTNETS or text.partition(":")[0] in LIBRARIES:
        return load_classifier(text, checkpoint, pretrained, device=device)
    # Where a folder also has the name of a model, it needs a configuration.
    is_folder = Path(text).is_dir() and (
        text not in known_models() or (Path(text) / "config.json").is_file()
    )
    is_hub_id = text.count("/") == 1 and ":" not in text and not text.endswith(".json")
    named = re.sub(
        "[/@]", "-", text.removesuffix("px")
    )  # as OpenAI writes them: ViT-B/32, ViT-L/14@336px
    if is_hub_id and not is_folder and named in known_models():
        raise InputError(
            f"There is no model {text!r} here; perhaps you meant {named}: write "
            f"load_clip({named!r}, pretrained='openai'), in a command --model {named} --pretrained openai."
        )
    if is_folder or (is_hub_id and checkpoint is None and pretrained is None):
        if checkpoint is not None or pretrained is not None:
            raise InputError(
                f"The folder {text} brings its own weights: give no checkpoint and no pretrained tag."
            )
        return load_transformers(Path(text) if Path(text).is_dir() else text, device)
    return load_open_clip(text, checkpoint, pretrained, device)
