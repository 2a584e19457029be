"""A model of images and texts: image encoder, text weights, preprocessing."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import compress
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from PIL.Image import Image, fromarray
from PIL.Image import new as new_picture
from platformdirs import user_cache_path
from torch import Tensor, nn

from circuitry.bases.components import in_components
from circuitry.bases.feature_basis import in_feature_basis
from circuitry.bases.sae import SparseAutoencoder
from circuitry.data.decoding import AsStored, with_decoding
from circuitry.data.images import Decoding, reason_of
from circuitry.data.names import in_a_sentence
from circuitry.encoder.chain import ModelScale
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.modes import own_modes
from circuitry.encoder.tower_identity import (
    global_hooks,
    noise_numbers,
    precision_of,
    tower_digests,
)
from circuitry.encoder.tower_runs import check_modules
from circuitry.encoder.transformers_towers import pooled_output
from circuitry.models.prompt_tokens import (
    absent_tokens,
    check_known_words,
    prompt_tokens,
)
from circuitry.models.prompts import Template, as_patterns, default_templates
from circuitry.runs.arguments import Names, checked
from circuitry.runs.arrays import cached_arrays
from circuitry.runs.errors import InputError
from circuitry.runs.identity import Identity
from circuitry.runs.progress import BRIEF, Bar
from circuitry.runs.provenance import digest, weights_digest

TEXT_FORMAT = "circuitry text weights 1"
PROMPTS = 256
"""Number of prompts in one run of the text encoder."""
_SENTENCES = ["a photo of 3 Clocks.", "naïve, ice-cold"]
"""Sentences whose tokens identify a tokenizer: with capitals, digits, an accent and punctuation."""
LARGE_PICTURE = 807, 1203
"""Height and width of the largest picture by which preprocessing is identified."""
_OF_IMAGES = ("visual.", "vision_model.", "visual_projection.")
"""Prefixes of names of modules that no text passes, in open_clip and transformers."""


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Clip:
    """A CLIP model ready for analysis: evaluation mode, no gradients for weights.

    Example:
        >>> clip = circuitry.load_clip("rn-tiny")
        >>> weights = clip.text_weights(["cup", "clock"])    # [K, D], of unit length
        >>> (clip.encoder(images) @ weights.T).shape
        torch.Size([4, 2])
    """

    HOW_TO_GET: ClassVar = (
        "make one with load_clip(name, ...), or with circuitry.models.from_encoder(encoder, preprocess, rows) of your "
        "own tower's encoder"
    )

    name: str
    """open_clip's name of the architecture, or the source of the model, such as a folder."""
    model: nn.Module  #: The whole model, with its text encoder where it has one.
    encoder: Encoder  #: Its image tower.
    preprocess: Callable[[Image], Tensor]
    """The model's own transform for inference: function of a PIL image that returns a tensor [3, H, W]."""
    tokenizer: Callable[[Sequence[str]], Tensor]  #: Texts -> tokens [T, context].
    saes: Mapping[str, SparseAutoencoder] = field(default_factory=dict)
    """Autoencoders in whose basis the encoder is, by site."""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """The model's own configuration: everything besides the weights that shapes an embedding."""
    fitted_on: frozenset[str] = frozenset()
    """`pixel_digests` of the images that a `linear_probe` was fitted on; `read_images` refuses these images."""

    def __repr__(self) -> str:
        height, width = self.encoder.image_size
        features = f", features at {', '.join(self.saes)}" if self.saes else ""
        return (
            f"Clip({self.name!r}: {len(self.encoder.sites)} sites{features}, {height} x {width} px, "
            f"on {self.encoder.device})"
        )

    def __call__(self, *_: object, **__: object) -> NoReturn:
        """Raise `InputError`: a model is not called; it has an encoder of images and weights of texts."""
        raise InputError(
            "A Clip is not called itself: take clip.encoder(images) for embeddings of images [B, 3, H, W], and "
            "clip.text_weights(class_names) for those of texts."
        )

    @classmethod
    def from_pretrained(cls, *_: object, **__: object) -> NoReturn:
        """Raise `InputError` that points to `load_clip`: other libraries load models by this name."""
        raise InputError(
            "A Clip is made by circuitry.load_clip(name, pretrained=...), and there is no Clip.from_pretrained: write "
            "load_clip('ViT-B-32', pretrained='openai'), or load_clip(FOLDER) of transformers' save_pretrained."
        )

    @property
    @own_modes()
    def identity(self) -> Identity:
        """Identity of everything that shapes an embedding: the encoder's, and that of text encoder and preprocessing.

        Each access reads all weights and runs an image of noise: 0.6 seconds for RN50 and ViT-B/32, on one core.
        """
        tower = self.encoder.tower
        # The encoder's identity has the tower; the rest of the model is read without it.
        beside = Identity()
        if tower is not self.model:
            # A prefix that no name has, for a tower that is no part of the model: then nothing is left out.
            inside = "no module."
            for name, module in self.model.named_modules():
                if module is tower:
                    inside = f"{name}."
            beside |= tower_digests(self.model, (inside,))
        prepared = _prepared_digest(self.preprocess, self.encoder.image_size)
        if isinstance(self.preprocess, AsStored):
            prepared = f"{prepared}, as stored"
        # An unknown entry must stay visible, since a digest of it would look known.
        text_encoder: Any = beside
        if not beside.unknown:
            text_encoder = digest([beside, self._built_by])
        of_preparation = {"text_encoder": text_encoder, "preprocessing": prepared}
        return self.encoder.identity | of_preparation

    @own_modes()
    def tokens_digest(self, class_names: Names, templates: Sequence[Template]) -> str:
        """Return a short digest of the tokens of class names in templates, the prompts of `text_weights`.

        For a model that reads no text it is a fixed word.
        """
        _, prompts = _prompts(class_names, templates)
        try:
            return weights_digest({"tokens": self.tokenizer(prompts)})
        except InputError:
            return "reads no text"

    @property
    def digest(self) -> str:
        """Short digest of the `identity`; raises `InputError` while hooks of unknown effect act."""
        return self.identity.key

    def __post_init__(self) -> None:
        # The class is frozen. The encoder gets the scale, since tasks have an encoder and no model.
        if (scale := self._own_scale) is not None:
            object.__setattr__(self, "encoder", self.encoder.of_model(scale))

    @property
    def _own_scale(self) -> ModelScale | None:
        """How to read the model's own scale of logits; None if it has none."""
        log_scale = getattr(self.model, "logit_scale", None)
        if log_scale is None:
            return None
        return ModelScale(log_scale, _exponential)

    @property
    def scale(self) -> float:
        """Factor from cosines to logits: the model's own scale, or CLIP's usual one if it has none.

        The encoder has the same scale, so tasks and metrics use it without further settings.
        """
        return self.encoder.scale

    @property
    def _built_by(self) -> Mapping[str, Any]:
        """Everything besides the modules of ``model`` that shapes an embedding: configuration and tokenizer."""
        try:
            tokens = weights_digest({"tokens": self.tokenizer(_SENTENCES)})
        except InputError:  # of a model that reads no text
            tokens = None
        return {"configuration": self.configuration, "tokens": tokens}

    def with_decoding(self, decoding: Decoding) -> "Clip":
        """Return the model with image files decoded upright (the default) or as stored; see `load_image`."""
        return replace(self, preprocess=with_decoding(self.preprocess, decoding))

    def in_basis(self, saes: Mapping[str, SparseAutoencoder]) -> "Clip":
        """Return the model with some sites of its encoder in the basis of autoencoders; see `in_feature_basis`."""
        encoder = in_feature_basis(self.encoder, saes)
        return replace(self, encoder=encoder, saes={**self.saes, **saes})

    def in_components(self) -> "Clip":
        """Return the model with components, such as heads or hidden channels, as units; see `in_components`."""
        return replace(self, encoder=in_components(self.encoder))

    @own_modes()
    def shown(self, images: Float[Tensor, "batch 3 h w"]) -> np.ndarray:
        """Return the pictures of preprocessed images as bytes [B, H, W, 3], with the normalisation undone."""
        mean, std = self._normalisation
        pixels = (images.cpu().float() * std + mean).clamp(0, 1) * 255
        return rearrange(pixels.round().byte(), "batch c h w -> batch h w c").numpy()

    @property
    def _normalisation(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation [3, 1, 1] of the normalisation: the model's setting, or measured with two pictures."""
        module = getattr(self.model, "visual", self.model)
        if hasattr(module, "image_mean"):
            # open_clip and our loaders note the setting at the tower.
            config = open_clip.get_model_preprocess_cfg(self.model)
            mean = torch.tensor(config["mean"])
            std = torch.tensor(config["std"])
        else:
            height, width = self.encoder.image_size
            black = self.preprocess(new_picture("RGB", (width, height), "black"))
            white = self.preprocess(new_picture("RGB", (width, height), "white"))
            # Black becomes -mean / std and white (1 - mean) / std, so their difference is 1 / std.
            std = 1 / (white - black).float().mean((1, 2))
            mean = -black.float().mean((1, 2)) * std
        return mean[:, None, None], std[:, None, None]

    @own_modes()
    @checked
    def text_weights(
        self,
        class_names: Names,
        templates: Sequence[Template] | None = None,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: bool = True,
    ) -> Float[Tensor, "classes d"]:
        """Return zero-shot weights [K, D]: the normalised mean of the normalised embeddings of each class's prompts.

        Args:
            class_names: Names as in a sentence; underscores become spaces.
            templates: Strings with ``{}`` or functions of the name (default: OpenAI's 80 and six for DomainNet's
                styles).
            cache_dir: Folder that keeps results by text encoder and tokens (default: the user's cache, on Linux below
                ``XDG_CACHE_HOME``). A folder that cannot be written is no error.
            progress: Whether to show a bar if it takes longer.

        Raises:
            InputError: for no classes, no templates, a template without ``{}``, prompts longer than the text encoder's
                context, two names with the same tokens, words without an embedding in packed weights, weights that are
                not finite, or a model whose modules have hooks or another ``forward``.

        Example:
            >>> clip.text_weights(["cup", "clock"], templates=["a photo of a {}."], progress=False).shape
            torch.Size([2, 64])
        """
        names, prompts = _prompts(class_names, templates)
        # Hooks of PyTorch on the text encoder would change the weights, and the cache could not know.
        check_modules(self.model, dict(self.model.named_modules()))
        tokens = prompt_tokens(self.tokenizer, class_names, prompts)
        if (embedding := self._token_embedding) is not None:
            check_known_words(self.name, self.tokenizer, embedding, prompts, tokens)
        # Everything that shapes the weights, as the key of their cache; the image tower does not.
        read = Identity(tower_digests(self.model, _OF_IMAGES)) | {
            "configuration": self.configuration,
            "tokens": weights_digest({"tokens": tokens}),
            "names": len(names),
            "precision": [str(self.encoder.dtype), *precision_of(self.encoder.device)],
            "hooks": global_hooks(),
        }
        folder = user_cache_path("circuitry") / "text_weights"
        if cache_dir is not None:
            folder = Path(cache_dir)

        def make() -> dict[str, np.ndarray]:
            encoded = self._encode(tokens, len(names), progress)
            return {"text_weights": encoded.cpu().numpy()}

        arrays = cached_arrays(folder, read, TEXT_FORMAT, "text weights", make)
        weights = torch.from_numpy(arrays["text_weights"])
        # Also of weights from the cache: one NaN would spread to all probabilities.
        finite = weights.isfinite().all(1)
        if not finite.all():
            broken = names[int(finite.int().argmin())]
            raise InputError(
                f"The text weights of {broken!r} hold NaN or infinite values: the text encoder of {self.name} is "
                "broken, or its precision is too low."
            )
        return weights.to(self.encoder.device, self.encoder.dtype)

    def known(self, words: Sequence[str]) -> tuple[str, ...]:
        """Return the words whose tokens all have an embedding; packed weights store embeddings of some tokens only.

        Example:
            >>> clip.known(["cat", "cup"])
            ('cup',)
        """
        embedding = self._token_embedding
        if embedding is None or not words:
            return tuple(words)
        # A word is known if all its tokens are.
        tokens = self.tokenizer(list(words))
        absent = absent_tokens(self.tokenizer, embedding, tokens)
        has_absent = torch.isin(tokens, absent).any(1)
        return tuple(compress(words, (~has_absent).tolist()))

    @property
    def _token_embedding(self) -> Tensor | None:
        embedding = getattr(self.model, "token_embedding", None)
        return embedding.weight if isinstance(embedding, nn.Embedding) else None

    def pair_logits(
        self, embeddings: Float[Tensor, "batch d"], weights: Float[Tensor, "classes d"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the model's own logits of images and texts: cosines times its scale, plus SigLIP's bias.

        The softmax of the logits gives probabilities; for a SigLIP model their sigmoid does.

        Example:
            >>> clip.pair_logits(encoder(images), weights).softmax(-1).shape
            torch.Size([4, 4])
        """
        scale = getattr(self.model, "logit_scale", None)
        bias = getattr(self.model, "logit_bias", None)
        if scale is None:
            raise InputError(
                f"{self.name} has no scale of logits, for it was not trained on texts: take cosines."
            )
        cosines = F.normalize(embeddings, dim=-1).to(weights) @ weights.T
        logits: Tensor = cosines * scale.exp()
        return logits if bias is None else logits + bias

    def _encode(self, tokens: Tensor, classes: int, progress: bool) -> Tensor:
        """Return text weights [classes, D] of tokens, all prompts of the first class first."""
        model: Any = self.model
        # transformers' method, else open_clip's.
        embed = getattr(model, "get_text_features", None) or model.encode_text
        options = {"desc": "text weights", "unit": "text", "disable": not progress}
        rows = []
        with Bar(total=len(tokens), **options, **BRIEF) as bar:
            for some in torch.split(tokens.to(self.encoder.device), PROMPTS):
                rows.append(F.normalize(pooled_output(embed(some)).float(), dim=-1))
                bar.update(len(some))
        # [class, prompt, D]: prompts are name by name.
        by_name = torch.unflatten(torch.cat(rows), 0, (classes, -1))
        return F.normalize(by_name.mean(1), dim=-1)


def read_no_text(prompts: Sequence[str]) -> Tensor:
    """Raise `InputError`: the tokenizer of a model that reads no text."""
    raise InputError(
        "This model reads no text: name outputs by Classifier.with_classes, or fit a linear probe on images of the "
        "classes with linear_probe(clip, records) (in a script: --probe LIST), whose rows replace class texts."
    )


def _exponential(encoder: Encoder, log_scale: Tensor) -> float:
    """Return the scale of a CLIP, which learns its logarithm."""
    return float(log_scale.detach().exp())


def _prompts(
    class_names: Sequence[str], templates: Sequence[Template] | None
) -> tuple[list[str], list[str]]:
    """Return the names as words, and the prompts: every name in every template, name by name."""
    patterns = default_templates() if templates is None else as_patterns(templates)
    fault = "" if class_names and patterns else "an empty list was given"
    for pattern in patterns:
        # Without a place for the name all classes would have one text.
        if "{}" not in pattern:
            fault = f"{pattern!r} has none"
    if fault:
        raise InputError(
            f"Text weights need class names and templates with a {{}} for the name, but {fault}."
        )
    names = [in_a_sentence(name) for name in class_names]
    prompts = [p.replace("{}", name) for name in names for p in patterns]
    return names, prompts


def _prepared_digest(
    preprocess: Callable[[Image], Tensor], size: tuple[int, int]
) -> str:
    """Return a short digest of the tensors that preprocessing makes of three noise pictures."""
    # Three shapes, since resizing and cropping differ for wide, small and large pictures. Numbers are rounded to
    # eighths, so that the rounding of one processor or another does not show.
    prepared = {}
    wider = 3 * size[0] // 2, 2 * size[1]
    small = max(1, size[0] // 2), max(1, size[1] // 3)
    for height, width in (wider, small, LARGE_PICTURE):
        picture = fromarray(_noise_picture(height, width))
        try:
            image = torch.as_tensor(preprocess(picture))
        except Exception as error:  # of whatever the caller made
            raise InputError(
                f"Expected preprocessing that takes any RGB picture, but it fails on one of {width} x {height} pixels "
                f"({reason_of(error)}): give another preprocess."
            ) from error
        prepared[f"{width} x {height}"] = (image.float() * 8).round().int()
    return weights_digest(prepared)


@cache
def _noise_picture(height: int, width: int) -> np.ndarray:
    """Return the pixels [H, W, 3] of a picture of noise, the same on every machine."""
    return noise_numbers(height, width, 3).astype(np.uint8)


def checked_device(device: str | torch.device) -> torch.device:
    """Return a device that PyTorch can use on this machine; raise `InputError` for another."""
    # Only an allocation shows whether the device exists.
    try:
        return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"Device {str(device)!r} cannot be used here ({reason}): give cpu, or cuda, cuda:1 or mps on a machine "
            "that has one."
        ) from error
