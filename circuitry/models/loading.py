"""Load a model of any supported library by its name."""

import os
import re
from pathlib import Path

import torch
from torch import nn

from circuitry.encoder.modes import own_modes
from circuitry.encoder.transformers_towers import from_transformers
from circuitry.models.classifier_nets import EFFICIENTNETS, LIBRARIES, load_network
from circuitry.models.clip import Clip
from circuitry.models.model import is_model_file, load_from_file
from circuitry.models.open_clip_models import known_models, load_open_clip
from circuitry.models.transformers_models import load_transformers
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError


@own_modes()
@checked
def load_clip(
    name: str | os.PathLike[str] | nn.Module,
    checkpoint: str | os.PathLike[str] | None = None,
    pretrained: str | None = None,
    device: str | torch.device = "cpu",
) -> Clip:
    """Load a CLIP model of open_clip or transformers, or another vision model with the same interface.

    Args:
        name: One of

            - a model of open_clip: its name (``RN50``, ``ViT-B-32``), the path of a model-config JSON, or a hub tag
              (``hf-hub:org/model``, which brings its own weights);
            - ``rn-tiny`` or ``vit-tiny``: the models of the quickstart, whose weights come with this package;
            - a CLIP, SigLIP, DINOv2, DINOv3 or ViT model of transformers: a hub id
              (``google/siglip-base-patch16-224``), a local folder that ``save_pretrained`` wrote, or a model in memory,
              which is copied;
            - a classifier: its name, see `load_classifier`; or a network of timm without a classifier, such as
              ``timm:vit_small_patch14_dinov2``, to which a `linear_probe` is fitted;
            - ``FILE.py:FUNCTION``: a function in a file of yours that returns a model, see `from_encoder`.
        checkpoint: Local file of weights: an open_clip training checkpoint, a state dict (.pt, .pth, .bin) or
            safetensors. Prefixes of wrappers (``module.``, ``_orig_mod.``) are dropped from the names of weights.
        pretrained: The library's tag of pretrained weights, such as ``openai``.
        device: Device of the model: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        InputError: for an unknown name or tag, weights that cannot be downloaded, a folder without a configuration, a
            model without an image encoder, or a device that does not exist. Also for a checkpoint that is missing,
            holds other objects than tensors, has values that are not finite, or belongs to another model (the message
            names the first key that differs). Also for a model of open_clip without weights: for random weights, give
            the tower of ``open_clip.create_model`` to `Encoder.from_tower`.

    Example:
        >>> model = circuitry.load_clip("rn-tiny")    # the quickstart's, with its weights
        >>> model.encoder.sites[-1]
        'attnpool'
    """
    if isinstance(name, nn.Module):
        if not from_transformers(name):
            raise InputError(
                f"A model in memory is one of transformers, but a {type(name).__name__} was given: make a model of it "
                "with from_encoder(Encoder.from_stages(tower, links, image_size), preprocess, rows) of "
                "circuitry.models, where Encoder.from_tower(tower) does for a tower of a known library."
            )
        return load_transformers(name, device)
    text = os.fspath(name)
    path = Path(text)
    if text in EFFICIENTNETS or text.partition(":")[0] in LIBRARIES:
        return load_network(text, checkpoint, pretrained, device)
    has_weights = checkpoint is not None or pretrained is not None
    in_file = is_model_file(text)
    # A folder of results may happen to have the name of a model. So a folder with such a name counts as a model only
    # if it has a configuration.
    has_config = (path / "config.json").is_file()
    is_folder = path.is_dir() and (has_config or text not in known_models())
    if (in_file or is_folder) and has_weights:
        raise InputError(
            f"{text} brings its own weights: give no checkpoint and no pretrained tag."
        )
    if in_file:
        return load_from_file(text, device)
    if is_folder:
        return load_transformers(path, device)
    # Names of open_clip have no slash, except for those with a prefix (hf-hub:) and paths of a configuration.
    is_hub_id = text.count("/") == 1 and ":" not in text and path.suffix != ".json"
    # OpenAI writes ViT-B/32 and ViT-L/14@336px where open_clip writes ViT-B-32 and ViT-L-14-336.
    at_open_clip = re.sub("[/@]", "-", text.removesuffix("px"))
    if is_hub_id and at_open_clip in known_models():
        raise InputError(
            f"There is no model {text!r} here; perhaps you meant {at_open_clip}: write "
            f"load_clip({at_open_clip!r}, pretrained='openai'), in a command --model {at_open_clip} --pretrained "
            "openai."
        )
    if is_hub_id and not has_weights:
        return load_transformers(text, device)
    return load_open_clip(text, checkpoint, pretrained, device)
