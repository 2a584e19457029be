"""Load a model of open_clip.

The model is given by its name, in open_clip or in this package, or by a model-config JSON.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import open_clip
import torch
from torch import nn

from circuitry.encoder.encoder import Encoder
from circuitry.models.checkpoints import check_state, loading, read_checkpoint
from circuitry.models.clip import Clip, checked_device
from circuitry.models.shipped_weights import shipped_file, shipped_models
from circuitry.runs.errors import InputError, unknown_name

log = logging.getLogger(__name__)
SHIPPED_CONFIGS = Path(__file__).parent / "configs"
"""Folder of the model configurations that come with this package."""


def known_models() -> list[str]:
    """Return the names of the models of open_clip and of this package."""
    return [*open_clip.list_models(), *shipped_configs()]


def shipped_configs() -> list[str]:
    """Return the names of models whose configuration comes with this package."""
    return sorted(path.stem for path in SHIPPED_CONFIGS.glob("*.json"))


def register_model(name: str | os.PathLike[str]) -> str:
    """Register a model configuration with open_clip, and return the name that the model has there.

    Args:
        name: Path of a model-config JSON, or the name of a configuration of this package. The name of a model of
            open_clip is returned as it is.

    Example:
        >>> from circuitry.models import register_model
        >>> register_model("rn-tiny")
        'rn-tiny'
    """
    path = Path(name)
    text = os.fspath(name)
    if path.suffix != ".json":
        if text in open_clip.list_models():
            return text
        path = SHIPPED_CONFIGS / f"{name}.json"
        if not path.is_file():
            hub = ""
            if text.count("/") == 1:
                hub = f", or for one of the hub in open_clip's layout hf-hub:{name}"
            raise InputError(
                f"{unknown_name('model', text, known_models())} Give a name from open_clip.list_models(), one "
                f"shipped here ({', '.join(shipped_configs())}), or the path of a model-config JSON{hub}."
            )
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not a readable model-config JSON ({error})."
        ) from error
    # If the JSON is not an object, all three keys are missing.
    needed = ["embed_dim", "vision_cfg", "text_cfg"]
    if isinstance(config, dict):
        needed = [key for key in needed if key not in config]
    if needed:
        raise InputError(
            f"{path} is not an open_clip model configuration: it lacks {', '.join(needed)}."
        )
    # open_clip would replace its own model of this name without a warning.
    is_known = path.stem in open_clip.list_models()
    if is_known and open_clip.get_model_config(path.stem) != config:
        raise InputError(
            f"open_clip has another model named {path.stem!r}: rename {path}."
        )
    open_clip.add_model_config(path)
    return path.stem


def load_open_clip(
    name: str,
    checkpoint: str | os.PathLike[str] | None,
    pretrained: str | None,
    device: str | torch.device,
) -> Clip:
    """Load a CLIP model of open_clip; see `load_clip`."""
    # A model of the hub brings its weights. A model of open_clip needs a checkpoint or a tag.
    from_hub = name.startswith("hf-hub:")
    model_name = name if from_hub else register_model(name)
    if checkpoint is None and pretrained is None and name in shipped_models():
        checkpoint = shipped_file(name)
    if not from_hub and (checkpoint is None) == (pretrained is None):
        given = "neither was" if checkpoint is None else "both were"
        raise InputError(
            f"The model {name!r} needs either a checkpoint file or a pretrained tag, but {given} given: give one of "
            "checkpoint= and pretrained= (of a script --checkpoint and --pretrained)."
        )
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    # open_clip compares tags without regard to case.
    known_tags = [tag.lower() for tag in tags]
    if pretrained is not None and pretrained.lower() not in known_tags:
        raise InputError(
            f"open_clip has no weights {pretrained!r} for {model_name}; its tags are: {', '.join(tags) or 'none'}. "
            "Give a local file as checkpoint instead."
        )
    # Device and file are checked before the model is built, which takes the longest.
    where = checked_device(device)
    state = None if checkpoint is None else read_checkpoint(checkpoint)
    clip = _built(model_name, pretrained, random=state is not None)
    if state is not None:
        check_state(clip.model, state, f"{checkpoint}", model_name)
        _name_normalisation(clip, model_name, tags)
        clip.model.load_state_dict(state)
    clip.model.to(where).eval().requires_grad_(False)
    return clip


def random_clip(name: str, device: str | torch.device = "cpu") -> Clip:
    """Return a model of open_clip with random weights, which runs as fast as with trained ones.

    Example:
        >>> circuitry.models.random_clip("rn-tiny").encoder.image_size
        (64, 64)
    """
    where = checked_device(device)
    clip = _built(register_model(name), None, random=True)
    clip.model.to(where).eval().requires_grad_(False)
    for module in clip.model.modules():
        # open_clip starts the last norm of each block at zero, which would leave the block without effect.
        if isinstance(module, nn.BatchNorm2d) and not module.weight.any():
            nn.init.ones_(module.weight)
    return clip


def _name_normalisation(clip: Clip, model_name: str, tags: list[str]) -> None:
    """Warn if no released weights of a model were trained with the normalisation of images that the model uses.

    A checkpoint does not say how its images were normalised, so a model with a checkpoint uses open_clip's default.

    Args:
        clip: The model with its preprocessing.
        model_name: Name of the model in open_clip.
        tags: The tags of the released weights.
    """
    settings = [open_clip.get_model_preprocess_cfg(clip.model)]
    settings += [open_clip.get_pretrained_cfg(model_name, tag) for tag in tags]
    used, *released = [(setting["mean"], setting["std"]) for setting in settings]
    if released and used not in released:
        log.warning(
            "A checkpoint does not say how its images were normalised: mean and deviation are %s and %s, but of "
            "open_clip's weights of %s %s and %s: give replace(clip, preprocess=...) where it has those.",
            *used,
            model_name,
            *released[0],
        )


def _built(name: str, pretrained: str | None, *, random: bool) -> Clip:
    """Build a model of open_clip.

    Args:
        name: Name of the model in open_clip.
        pretrained: Tag of the weights.
        random: Whether the weights are left random, because a checkpoint will replace them.
    """
    what = f"model, weights or tokenizer of {name}"
    if pretrained:
        what = f"the weights {pretrained!r} of {name}"
    with loading(f"{what} by open_clip"), _quiet():
        model, _, preprocess = open_clip.create_model_and_transforms(
            name,
            pretrained=pretrained,
            pretrained_text=not random,
            require_pretrained=not random,
        )
        tokenizer = open_clip.get_tokenizer(name)
        configuration = open_clip.get_model_config(name)
    encoder = Encoder.from_tower(model.visual)
    return Clip(
        name, model, encoder, preprocess, tokenizer, configuration=configuration
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the logging of open_clip within the block.

    Otherwise open_clip would warn about missing weights, although they are loaded next.
    """
    root = logging.getLogger()
    silent = logging.NullHandler()
    level = logging.root.manager.disable
    # open_clip calls logging.warning, which adds a permanent handler to a root logger that has no handler.
    root.addHandler(silent)
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(level)
        root.removeHandler(silent)
