"""Load a CLIP model: image encoder, text weights, preprocessing.

Any open_clip model with a pretrained tag, or a local checkpoint (open_clip training checkpoint, plain state
dict, safetensors) for a model name or a model-config JSON. Checkpoints are read with ``weights_only``.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from PIL.Image import Image
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from circuitry.data.captions import readable
from circuitry.models.encoder import Encoder
from circuitry.models.feature_basis import in_feature_basis, sae_digest
from circuitry.models.prompts import as_patterns, default_templates
from circuitry.models.sae import SparseAutoencoder
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.provenance import digest, weights_digest

SHIPPED_CONFIGS = Path(__file__).parent / "configs"
"""Model configurations that come with this package."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A CLIP model ready for analysis: evaluation mode, no gradients for weights."""

    name: str
    """open_clip's name of the architecture."""
    model: nn.Module
    encoder: Encoder
    preprocess: Callable[[Image], Tensor]
    """PIL image -> tensor [3, H, W], open_clip's own transform for inference."""
    tokenizer: Callable[[Sequence[str]], Tensor]
    saes: Mapping[str, SparseAutoencoder] = field(default_factory=dict)
    """Autoencoders by site, where the encoder is in their basis."""

    @cached_property
    def digest(self) -> str:
        """Short digest of all weights, those of autoencoders too: two models agree if and only if these do."""
        own = self._weights_digest
        return digest([own, {site: sae_digest(sae) for site, sae in self.saes.items()}]) if self.saes else own

    @cached_property
    def _weights_digest(self) -> str:
        return weights_digest(self.model.state_dict())

    def in_basis(self, saes: Mapping[str, SparseAutoencoder]) -> "Clip":
        """Return the model with some sites of its encoder in the basis of autoencoders; see `in_feature_basis`.

        Example:
            >>> clip = clip.in_basis({"layer3.0": load_sae("runs/sae.safetensors")})
            >>> graphs = extract(clip, images, "runs/features")    # circuits of latents at layer3.0
        """
        return replace(self, encoder=in_feature_basis(self.encoder, saes), saes={**self.saes, **saes})

    def shown(self, images: Float[Tensor, "batch 3 h w"]) -> np.ndarray:
        """Return preprocessed images as the bytes [B, H, W, 3] that they show: normalisation undone."""
        config = open_clip.get_model_preprocess_cfg(self.model)
        mean, std = (torch.tensor(config[name])[:, None, None] for name in ("mean", "std"))
        pixels = (images.cpu().float() * std + mean).clamp(0, 1) * 255
        return rearrange(pixels.round().byte(), "batch c h w -> batch h w c").numpy()

    def text_weights(
        self,
        class_names: Sequence[str],
        templates: Sequence[str | Callable[[str], str]] | None = None,
        *,
        batch_size: int = 256,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> Float[Tensor, "classes d"]:
        """Return zero-shot weights [K, D]: each prompt's embedding normalised, averaged, normalised again.

        Args:
            class_names: Names as in a sentence; underscores and hyphens become spaces.
            templates: Strings with ``{}`` or functions of the name; OpenAI's 80 and six for DomainNet's
                styles unless told.
            batch_size: Prompts in one run.
            cache_dir: Where results are kept, keyed by weights and prompts; the user's cache unless told.

        Raises:
            InputError: for no classes, no templates, or a template without ``{}``.

        Example:
            >>> weights = clip.text_weights(["alarm clock", "cat"], templates=["a photo of a {}."])
        """
        if isinstance(class_names, str):
            raise InputError(f"Text weights need a list of class names, but the string {class_names!r} was given.")
        patterns = default_templates() if templates is None else as_patterns(templates)
        without = [p for p in patterns if "{}" not in p]
        if not class_names or not patterns or without:
            raise InputError(
                "Text weights need class names and templates with a {} for the name, but "
                + (f"{without[0]!r} has none." if without else "an empty list was given.")
            )
        names = [readable(name) for name in class_names]
        prompts = [pattern.replace("{}", name) for name in names for pattern in patterns]
        folder = Path(cache_dir) if cache_dir is not None else user_cache_path("circuitry") / "text_weights"
        path = folder / f"{digest([self._weights_digest, len(names), prompts])}.safetensors"
        try:
            stored: Tensor = load_file(path)["text_weights"]
            return stored.to(self.encoder.device)
        except (OSError, SafetensorError, KeyError):
            weights = self._encode(prompts, len(names), batch_size)
        with whole_file(path) as temporary:
            temporary.write_bytes(save({"text_weights": weights.cpu()}))
        return weights

    def _encode(self, prompts: Sequence[str], classes: int, batch_size: int) -> Tensor:
        rows = []
        with torch.no_grad():
            for i in range(0, len(prompts), batch_size):
                tokens = self.tokenizer(prompts[i : i + batch_size]).to(self.encoder.device)
                rows.append(F.normalize(self.model.encode_text(tokens).float(), dim=-1))  # type: ignore[operator]
        embedded = rearrange(torch.cat(rows), "(name template) d -> name template d", name=classes)
        return F.normalize(embedded.mean(1), dim=-1).to(self.encoder.dtype)


def load_clip(
    name: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str] | None = None,
    pretrained: str | None = None,
    device: str | torch.device = "cpu",
) -> Clip:
    """Load a CLIP model of open_clip.

    Args:
        name: open_clip model name (``RN50``, ``ViT-B-32``, ``rn-tiny`` of this package), path of a
            model-config JSON, or a hub tag (``hf-hub:org/model``, which brings its own weights).
        checkpoint: Local file: an open_clip training checkpoint, a state dict (.pt, .pth, .bin) or
            safetensors; prefixes of wrappers (``module.``, ``_orig_mod.``) are dropped.
        pretrained: open_clip's tag of pretrained weights, e.g. ``openai``.
        device: Where the model lives.

    Raises:
        InputError: for an unknown name or tag, a checkpoint that is missing, needs more than tensors to be
            read, holds values that are not finite, or belongs to another model (the first key that differs).

    Example:
        >>> clip = load_clip("RN50", checkpoint="epoch_32.pt")
        >>> clip.encoder.sites[-1]
        'attnpool'
    """
    from_hub = str(name).startswith("hf-hub:")
    if not from_hub and (checkpoint is None) == (pretrained is None):
        raise InputError(
            f"load_clip needs either a checkpoint file or a pretrained tag for {str(name)!r}, but "
            f"{'neither' if checkpoint is None else 'both'} was given; for random weights wrap the tower of "
            "open_clip.create_model with Encoder.from_tower."
        )
    model_name = str(name) if from_hub else register_model(name)
    if pretrained is not None:
        _check_tag(model_name, pretrained)
    state = None if checkpoint is None else read_checkpoint(checkpoint)
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(
            model_name, pretrained=pretrained, pretrained_text=state is None
        )
    except TypeError as error:
        raise InputError(f"open_clip cannot build {name} ({error}): correct its model configuration.") from error
    if state is not None:
        check_state(model, state, f"{checkpoint}", model_name)
        model.load_state_dict(state)
    model.to(device).eval().requires_grad_(False)
    return Clip(model_name, model, Encoder.from_tower(model.visual), preprocess, open_clip.get_tokenizer(model_name))


def register_model(name: str | os.PathLike[str]) -> str:
    """Make a model-config JSON or a shipped configuration known to open_clip; return the model's name there.

    Raises:
        InputError: for an unknown name, a file that is no model configuration, or one named like a model.
    """
    path = Path(name)
    if path.suffix != ".json":
        if str(name) in open_clip.list_models():
            return str(name)
        path = SHIPPED_CONFIGS / f"{name}.json"
        if not path.is_file():
            shipped = ", ".join(sorted(p.stem for p in SHIPPED_CONFIGS.glob("*.json")))
            raise InputError(
                f"There is no model {str(name)!r}: give a name from open_clip.list_models(), one shipped here "
                f"({shipped}), or the path of a model-config JSON."
            )
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable model-config JSON ({error}).") from error
    missing = [
        key for key in ("embed_dim", "vision_cfg", "text_cfg") if not isinstance(config, dict) or key not in config
    ]
    if missing:
        raise InputError(f"{path} is not an open_clip model configuration: it lacks {', '.join(missing)}.")
    if path.stem in open_clip.list_models() and open_clip.get_model_config(path.stem) != config:
        raise InputError(f"open_clip has another model named {path.stem!r}: rename {path}.")
    open_clip.add_model_config(path)
    return path.stem


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the state dict of a checkpoint file, tensors only, without prefixes of wrappers.

    Raises:
        InputError: for a missing or unreadable file, one that needs more than tensors, or no tensors in it.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"Expected a checkpoint at {file}, but there is no such file.")
    try:
        if file.suffix == ".safetensors":
            content: Any = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise InputError(
            f"{file} holds more than tensors and plain values, and reading it could run code: save its state "
            "dict alone (torch.save(model.state_dict(), ...)) or as safetensors."
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        raise InputError(f"{file} is not a readable checkpoint ({error or type(error).__name__}).") from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    state = state if isinstance(state, Mapping) else {}
    tensors = {_without_prefix(key): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(
            f"{file} holds no state dict: expected names and tensors, or an open_clip training checkpoint."
        )
    return tensors


def _without_prefix(key: str) -> str:
    while key.startswith(("module.", "_orig_mod.")):
        key = key.partition(".")[2]
    return key


def check_state(model: nn.Module, state: Mapping[str, Tensor], source: str, name: str) -> None:
    """Check that a state dict is one of this model, whose tensors may be on the meta device.

    Raises:
        InputError: for the first key that only one of them has, another shape, or values that are not finite.
    """
    expected = model.state_dict()
    for key in dict.fromkeys([*expected, *state]):
        ours, theirs = expected.get(key), state.get(key)
        if ours is None or theirs is None or ours.shape != theirs.shape:
            raise InputError(
                f"{source} is not a checkpoint of {name}: {key} is {_shape(ours)} in the model and "
                f"{_shape(theirs)} in the file."
            )
        if theirs.is_floating_point() and not bool(theirs.isfinite().all()):
            raise InputError(f"{source} holds NaN or infinite values in {key}: take an earlier checkpoint.")


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else str(list(tensor.shape))


def _check_tag(name: str, tag: str) -> None:
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag.lower() not in (t.lower() for t in tags):
        raise InputError(
            f"open_clip has no weights {tag!r} for {name}; its tags are: {', '.join(tags) or 'none'}. "
            "Give a local file as checkpoint instead."
        )
