"""Load a CLIP model: image encoder, text weights, preprocessing."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from PIL.Image import Image
from platformdirs import user_cache_path
from torch import Tensor, nn

from circuitry.data.decoding import AsStored, with_decoding
from circuitry.data.images import Decoding
from circuitry.data.names import in_a_sentence
from circuitry.models.architectures import check_tag, register_model
from circuitry.models.checkpoints import check_state, read_checkpoint
from circuitry.models.components import in_components
from circuitry.models.encoder import Encoder
from circuitry.models.feature_basis import in_feature_basis
from circuitry.models.latent_basis import sae_digest
from circuitry.models.modes import own_modes
from circuitry.models.prompts import Template, as_patterns, default_templates
from circuitry.models.sae import SparseAutoencoder
from circuitry.models.tower_runs import TowerModules
from circuitry.runs.arrays import cached_arrays
from circuitry.runs.errors import InputError
from circuitry.runs.provenance import digest, weights_digest

TEXT_FORMAT = "circuitry text weights 1"
PROMPTS = 256
"""Prompts in one run of the text encoder."""


@dataclass(frozen=True, eq=False, repr=False)
class Clip:
    """A CLIP model ready for analysis: evaluation mode, no gradients for weights."""

    HOW_TO_GET: ClassVar = "make one with load_clip(name, ...)"

    name: str
    """open_clip's name of the architecture."""
    model: nn.Module
    encoder: Encoder
    preprocess: Callable[[Image], Tensor]
    """PIL image -> tensor [3, H, W], open_clip's own transform for inference."""
    tokenizer: Callable[[Sequence[str]], Tensor]
    saes: Mapping[str, SparseAutoencoder] = field(default_factory=dict)
    """Autoencoders by site, where the encoder is in their basis."""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """open_clip's model configuration: what else than the weights shapes an embedding."""

    def __repr__(self) -> str:
        height, width = self.encoder.image_size
        features = f", features at {', '.join(self.saes)}" if self.saes else ""
        return (
            f"Clip({self.name!r}: {len(self.encoder.sites)} sites{features}, {height} x {width} px, "
            f"on {self.encoder.device})"
        )

    @property
    def digest(self) -> str:
        """Short digest of weights, configuration, preprocessing and autoencoders: all that shapes an embedding.

        Weights are read each time: 0.65 seconds for RN50 and 0.95 for ViT-B/32, on one core of a busy machine.
        """
        preprocessing = open_clip.get_model_preprocess_cfg(self.model)
        decoded = ["as-stored"] if isinstance(self.preprocess, AsStored) else []
        saes = {site: sae_digest(sae) for site, sae in self.saes.items()}
        return digest([weights_digest(self.model.state_dict()), self._built_by, preprocessing, saes, *decoded])

    @property
    def _built_by(self) -> Mapping[str, Any]:
        """What else than the weights of ``model`` shapes an embedding."""
        return self.configuration

    @property
    def _text_digest(self) -> str:
        """Short digest of the text encoder: its weights, and the configuration that it was built by."""
        state = self.model.state_dict()
        text = {name: weight for name, weight in state.items() if not name.startswith("visual.")}
        return digest([weights_digest(text), self.configuration])

    def with_decoding(self, decoding: Decoding) -> "Clip":
        """Return the model with image files decoded upright (the default), or as stored; see `load_image`."""
        return replace(self, preprocess=with_decoding(self.preprocess, decoding))

    def in_basis(self, saes: Mapping[str, SparseAutoencoder]) -> "Clip":
        """Return the model with some sites of its encoder in the basis of autoencoders; see `in_feature_basis`."""
        return replace(self, encoder=in_feature_basis(self.encoder, saes), saes={**self.saes, **saes})

    def in_components(self) -> "Clip":
        """Return the model with attention heads and MLP neurons as units of its encoder; see `in_components`."""
        return replace(self, encoder=in_components(self.encoder))

    @own_modes()
    def shown(self, images: Float[Tensor, "batch 3 h w"]) -> np.ndarray:
        """Return preprocessed images as the bytes [B, H, W, 3] that they show: normalisation undone."""
        config = open_clip.get_model_preprocess_cfg(self.model)
        mean, std = (torch.tensor(config[name])[:, None, None] for name in ("mean", "std"))
        pixels = (images.cpu().float() * std + mean).clamp(0, 1) * 255
        return rearrange(pixels.round().byte(), "batch c h w -> batch h w c").numpy()

    @own_modes()
    def text_weights(
        self,
        class_names: Sequence[str],
        templates: Sequence[Template] | None = None,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> Float[Tensor, "classes d"]:
        """Return zero-shot weights [K, D]: each prompt's embedding normalised, averaged, normalised again.

        Args:
            class_names: Names as in a sentence; underscores become spaces.
            templates: Strings with ``{}`` or functions of the name (default: OpenAI's 80 and six for DomainNet's
                styles).
            cache_dir: Folder of kept results (default: the user's cache, on Linux below ``XDG_CACHE_HOME``), keyed by
                text encoder and tokens. A folder that cannot be written is no error.

        Raises:
            InputError: for no classes, no templates, a template without ``{}``, weights that are not finite, or a model
                whose modules have hooks or another ``forward``.

        Example:
            >>> weights = clip.text_weights(["alarm clock", "cat"], templates=["a photo of a {}."])
        """
        names, prompts = _prompts(class_names, templates)
        TowerModules(self.model).check()
        tokens = self.tokenizer(prompts)
        key = digest([self._text_digest, weights_digest({"tokens": tokens}), len(names), str(self.encoder.dtype)])
        folder = Path(cache_dir) if cache_dir is not None else user_cache_path("circuitry") / "text_weights"

        def make() -> dict[str, np.ndarray]:
            return {"text_weights": self._encode(tokens, len(names)).cpu().numpy()}

        found = cached_arrays(folder / f"{key}.safetensors", TEXT_FORMAT, "text weights", make)
        weights = torch.from_numpy(found["text_weights"])
        if len(bad := (~weights.isfinite().all(1)).nonzero()):
            raise InputError(
                f"The text weights of {names[int(bad[0])]!r} hold NaN or infinite values: the text encoder of "
                f"{self.name} is broken, or its precision is too low."
            )
        return weights.to(self.encoder.device, self.encoder.dtype)

    def _encode(self, tokens: Tensor, classes: int) -> Tensor:
        rows = []
        for part in torch.split(tokens, PROMPTS):
            embedded = self.model.encode_text(part.to(self.encoder.device))  # type: ignore[operator]
            rows.append(F.normalize(embedded.float(), dim=-1))
        by_name = rearrange(torch.cat(rows), "(name template) d -> name template d", name=classes)
        return F.normalize(by_name.mean(1), dim=-1)


def _prompts(class_names: Sequence[str], templates: Sequence[Template] | None) -> tuple[list[str], list[str]]:
    """Return the names as words, and every name in every template, name by name."""
    for what, given in (("class names", class_names), ("templates", templates)):
        if isinstance(given, str):
            raise InputError(
                f"Text weights need a list of {what}, but the string {given!r} was given: write [{given!r}]."
            )
    patterns = default_templates() if templates is None else as_patterns(templates)
    without = [p for p in patterns if "{}" not in p]
    if not class_names or not patterns or without:
        raise InputError(
            "Text weights need class names and templates with a {} for the name, but "
            + (f"{without[0]!r} has none." if without else "an empty list was given.")
        )
    names = [in_a_sentence(name) for name in class_names]
    return names, [pattern.replace("{}", name) for name in names for pattern in patterns]


@own_modes()
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
        device: Where the model lives: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        InputError: for an unknown name or tag, weights that cannot be downloaded, a device that is not there, a
            checkpoint that is missing, needs more than tensors to be read, holds values that are not finite, or
            belongs to another model (the first key that differs). For random weights wrap the tower of
            ``open_clip.create_model`` with `Encoder.from_tower`.

    Example:
        >>> clip = load_clip("RN50", checkpoint="epoch_32.pt")
        >>> clip.encoder.sites[-1]
        'attnpool'
    """
    from_hub = str(name).startswith("hf-hub:")
    model_name = str(name) if from_hub else register_model(name)
    if not from_hub and (checkpoint is None) == (pretrained is None):
        raise InputError(
            f"The model {str(name)!r} needs either a checkpoint file or a pretrained tag, but "
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
    try:
        with _quiet():
            model, _, preprocess = open_clip.create_model_and_transforms(
                name, pretrained=pretrained, pretrained_text=not random, require_pretrained=not random
            )
            tokenizer, configuration = open_clip.get_tokenizer(name), open_clip.get_model_config(name)
    except TypeError as error:
        raise InputError(f"open_clip cannot build {name} ({error}): correct its model configuration.") from error
    except (OSError, RuntimeError) as error:
        asked = f"the weights {pretrained!r} of {name}" if pretrained else f"model, weights or tokenizer of {name}"
        layout = ", and a repository in open_clip's layout" if name.startswith("hf-hub:") else ""
        raise InputError(
            f"open_clip could not load {asked} ({' '.join(str(error).split())[:300]}): what is not on this machine "
            f"needs the network once{layout}; or give a local file as checkpoint."
        ) from error
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


def checked_device(device: str | torch.device) -> torch.device:
    """Return a device on which PyTorch can put something here; raise `InputError` for another."""
    try:
        return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"Device {str(device)!r} cannot be used here ({reason}): give cpu, or cuda, cuda:1 or mps on a machine "
            "that has one."
        ) from error
