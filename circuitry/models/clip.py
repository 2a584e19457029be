"""A model of images and texts: its image encoder, the text weights of classes, and its preprocessing."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import compress
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn

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
from circuitry.encoder.baselines import (
    ZERO,
    AnyBaseline,
    Baseline,
    as_baseline,
    mean_baseline,
)
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
from circuitry.gates.patches import Patch, mark_kept, with_patches
from circuitry.models.edits_in_weights import (
    TOLERANCE,
    edited_weights,
    embedding_distance,
)
from circuitry.models.prompt_tokens import (
    absent_tokens,
    check_known_words,
    prompt_tokens,
)
from circuitry.models.prompts import Template, as_patterns, default_templates
from circuitry.runs.arguments import Condition, Names, checked
from circuitry.runs.arrays import cached_arrays
from circuitry.runs.errors import InputError, shown
from circuitry.runs.files import whole_file
from circuitry.runs.identity import OF_TOWER, Identity
from circuitry.runs.progress import BRIEF, Bar
from circuitry.runs.provenance import digest, weights_digest

log = logging.getLogger(__name__)

TEXT_FORMAT = "circuitry text weights 1"
PROMPTS = 256
"""Number of prompts in one run of the text encoder."""
_SENTENCES = ["a photo of 3 Clocks.", "naïve, ice-cold"]
"""Sentences whose tokens identify a tokenizer. They contain capitals, digits, an accent and punctuation."""
LARGE_PICTURE = 807, 1203
"""Height and width of the largest of the noise pictures whose tensors identify the preprocessing."""
_OF_IMAGES = ("visual.", "vision_model.", "visual_projection.")
"""Prefixes of names of modules in open_clip and transformers through which only images pass, and no texts."""

N_NOISE = 4
"""Number of noise images on which a checkpoint is compared with the model after removing a part."""


def _no_part(given: Any) -> str | None:
    """Check an argument of `Clip.without`: return None for circuits of units or units by site, else describe it."""
    # `Circuit` is in circuits, above this room, so it cannot be imported here.
    parts = given if isinstance(given, list | tuple) else [given]
    if not parts:
        return "no circuit"
    for part in parts:
        if isinstance(part, Mapping):
            continue
        if not hasattr(part, "its_edges"):
            return shown(part)
        if part.edges is not None:
            return "a circuit of edges"
    return None


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Clip:
    """A CLIP model ready for analysis: it is in evaluation mode, and its weights need no gradients.

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
    """Name of the architecture in open_clip, or the source of the model, such as a folder."""
    model: (
        nn.Module
    )  #: The whole model. It includes the text encoder if the model has one.
    encoder: Encoder  #: Encoder of the model's image tower.
    preprocess: Callable[[Image], Tensor]
    """The model's own transform for inference: a function of a PIL image that returns a tensor [3, H, W]."""
    tokenizer: Callable[
        [Sequence[str]], Tensor
    ]  #: Function of T texts that returns their tokens [T, context].
    saes: Mapping[str, SparseAutoencoder] = field(default_factory=dict)
    """Sparse autoencoders by site. At these sites the units of the encoder are the features of the autoencoder."""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """The model's own configuration: all settings, besides the weights, that change an embedding."""
    fitted_on: frozenset[str] = frozenset()
    """`pixel_digests` of the images that a `linear_probe` was fitted on. `read_images` refuses these images."""
    removed: tuple[Patch, ...] = ()
    """What `without` has set to the baseline. `save` writes it into the weights."""
    whole: Encoder | None = None
    """Encoder of the model before `without`; None if nothing was removed."""

    def __repr__(self) -> str:
        height, width = self.encoder.image_size
        features = f", features at {', '.join(self.saes)}" if self.saes else ""
        n_removed = sum(map(len, self.removed_units.values()))
        if n_removed:
            features += f", {n_removed} units removed"
        return (
            f"Clip({self.name!r}: {len(self.encoder.sites)} sites{features}, {height} x {width} px, "
            f"on {self.encoder.device})"
        )

    def __call__(self, *_: object, **__: object) -> NoReturn:
        """Raise `InputError`, because a model is not called.

        The message names `encoder` and `text_weights`, which compute embeddings of images and texts.
        """
        raise InputError(
            "A Clip is not called itself: take clip.encoder(images) for embeddings of images [B, 3, H, W], and "
            "clip.text_weights(class_names) for those of texts."
        )

    @classmethod
    def from_pretrained(cls, *_: object, **__: object) -> NoReturn:
        """Raise `InputError` with a pointer to `load_clip`. Other libraries load models by a method of this name."""
        raise InputError(
            "A Clip is made by circuitry.load_clip(name, pretrained=...), and there is no Clip.from_pretrained: write "
            "load_clip('ViT-B-32', pretrained='openai'), or load_clip(FOLDER) of transformers' save_pretrained."
        )

    @property
    @own_modes()
    def identity(self) -> Identity:
        """Identity of everything that changes an embedding: the encoder, the text encoder and the preprocessing.

        Each access reads all weights and runs the model on an image of noise. This takes 0.6 seconds for RN50 and
        ViT-B/32 on one core.
        """
        tower = self.encoder.tower
        # The encoder's identity covers the tower, so here only the remaining modules of the model are read.
        beside = Identity()
        if tower is not self.model:
            # No module's name has this prefix. So no module is left out if the tower is not a module of the model.
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
        """Return a short digest of the tokens of all prompts that `text_weights` would encode.

        For a model that reads no text, return the words "reads no text".

        Args:
            class_names: Names of the classes.
            templates: Templates that make a prompt of each name.
        """
        _, prompts = _prompts(class_names, templates)
        try:
            return weights_digest({"tokens": self.tokenizer(prompts)})
        except InputError:
            return "reads no text"

    @property
    def digest(self) -> str:
        """Short digest of the `identity`. Raises `InputError` while the model has hooks whose effect is unknown."""
        return self.identity.key

    def __post_init__(self) -> None:
        # The class is frozen, so object.__setattr__ is used. The encoder gets the scale of logits, because a task has
        # an encoder but no model.
        if self.whole is not None and self.whole.tower is not self.encoder.tower:
            raise InputError(
                "A model and what it was before a part was removed have one tower, but two were given: call "
                "clip.without(part)."
            )
        if (scale := self._own_scale) is not None:
            object.__setattr__(self, "encoder", self.encoder.of_model(scale))

    @property
    def _own_scale(self) -> ModelScale | None:
        """The model's own scale of logits, or None if the model has no such scale.

        It is given by the tensor that stores the scale, and by the function that computes the scale from this tensor.
        """
        log_scale = getattr(self.model, "logit_scale", None)
        if log_scale is None:
            return None
        return ModelScale(log_scale, _exponential)

    @property
    def scale(self) -> float:
        """Factor from cosines to logits: the model's own scale, or CLIP's usual scale if the model has no scale.

        The encoder has the same scale. Tasks and metrics read the scale from the encoder.
        """
        return self.encoder.scale

    @property
    def _built_by(self) -> Mapping[str, Any]:
        """What changes an embedding besides the modules of ``model``: the configuration and the tokenizer.

        The tokenizer is identified by the tokens of two fixed sentences. The tokens are None if the model reads no
        text.
        """
        try:
            tokens = weights_digest({"tokens": self.tokenizer(_SENTENCES)})
        except InputError:  # raised by the tokenizer of a model that reads no text
            tokens = None
        return {"configuration": self.configuration, "tokens": tokens}

    def with_decoding(self, decoding: Decoding) -> "Clip":
        """Return the same model, with image files decoded upright (the default) or as stored; see `load_image`."""
        return replace(self, preprocess=with_decoding(self.preprocess, decoding))

    def in_basis(self, saes: Mapping[str, SparseAutoencoder]) -> "Clip":
        """Return the same model, whose units at some sites are features of autoencoders; see `in_feature_basis`.

        Args:
            saes: The autoencoders by site of the encoder.
        """
        encoder = in_feature_basis(self.encoder, saes)
        return replace(self, encoder=encoder, saes={**self.saes, **saes})

    def in_components(self) -> "Clip":
        """Return the same model, with components of blocks, such as heads or hidden channels, as units.

        See the function `in_components`.
        """
        return replace(self, encoder=in_components(self.encoder))

    @checked
    def without(
        self,
        part: Annotated[
            Any,
            Condition(
                "a Circuit of units, units by site, or several of these",
                _no_part,
                "take it from own_part, find_circuit or GraphFolder(path)[class_name, domain].circuit(None)",
            ),
        ],
        baseline: AnyBaseline | None = None,
    ) -> "Clip":
        """Return the same model after removing a part: its units are always at the baseline. Texts stay as they are.

        The result is a model like any other: circuits can be found in it, and it can be compared, evaluated and saved.
        Its sites and units are those of this model, or of ``in_components()`` if the part has units of these. Functions
        that take a transformer's residual stream apart refuse it; save it and load the checkpoint for these.

        Args:
            part: The circuit of units, such as an own part; indices of units by site, such as ``{"act2": [3, 5]}``; or
                several of these. A circuit was found in this model and in its units.
            baseline: What the units are set to: images whose mean activations by unit are taken, or a `Baseline` with
                one activation for all images, such as ``task.baseline`` of the task that found the part, or ``"zero"``
                (default: zero, if the part was found with the baseline zero).

        Raises:
            InputError: for a part of edges, of another model or of other units, and for a baseline that is not known
                or that differs between images.

        Example:
            >>> part = circuitry.own_part(task, share=0.02)
            >>> removed = clip.without(part, images)
            >>> removed.encoder(images).shape == clip.encoder(images).shape
            True
            >>> dead = clip.without({"layer1.0.act1": [3]}, "zero")
        """
        parts = part if isinstance(part, list | tuple) else [part]
        found_with = list[Identity]()
        by_site = list[Mapping[str, Any]]()
        for each in parts:
            if isinstance(each, Mapping):
                by_site.append(each)
            else:
                by_site.append(each.units)
                found_with.append(Identity(each.source.settings))
        sites = set[str]().union(*by_site)
        clip = self
        if not sites <= {*self.encoder.sites}:
            clip = self.in_components()
        encoder = clip.encoder
        own = encoder.identity
        entries = (*OF_TOWER, "stages", "basis")
        for made in found_with:
            made.check(own, "the part that is removed", "this model", entries)
        sizes = encoder.count_units(sites)
        chosen = dict[str, np.ndarray]()
        for of_part in by_site:
            for site, units in of_part.items():
                kept = np.flatnonzero(mark_kept(units, sizes[site], site))
                if len(kept):
                    chosen[site] = np.union1d(chosen.get(site, kept), kept)
        if not chosen:
            raise InputError(
                "A part that is removed has units, but none were given: give a circuit with units, or units by site."
            )
        for site, gone in self.removed_units.items():
            again = np.intersect1d(chosen.get(site, []), gone)
            if len(again):
                raise InputError(
                    f"A unit is removed once, but {int(again[0])} at {site!r} is not in this model any more: "
                    "give all parts together to the whole model, or units that are left."
                )
        if baseline is None:
            made = next(iter(found_with), Identity())
            baseline = made.get("baseline", ZERO.name)
        if isinstance(baseline, Tensor):
            baseline = mean_baseline(encoder, baseline, "unit", progress=False)
        values = as_baseline(baseline)
        if not isinstance(values, Baseline) or values.n_images is not None:
            raise InputError(
                f"A part is removed at one activation for all images, but the baseline {values.name!r} has one for "
                "every image: give images whose mean is taken, 'zero' or mean_baseline(encoder, images)."
            )
        values.check_made_of(encoder)
        patches = [Patch(site, values, units) for site, units in chosen.items()]
        return replace(
            clip,
            encoder=with_patches(encoder, patches),
            removed=(*self.removed, *patches),
            whole=self.whole or encoder,
        )

    @property
    def removed_units(self) -> dict[str, np.ndarray]:
        """Indices of the units that `without` has removed, by site."""
        units = dict[str, np.ndarray]()
        for patch in self.removed:
            places = patch.places("units")
            assert places is not None
            before = units.get(patch.site, np.zeros(0, np.int64))
            units[patch.site] = np.union1d(before, places.indices)
        return units

    def save(
        self,
        path: str | os.PathLike[str],
        images: Float[Tensor, "batch 3 h w"] | None = None,
    ) -> float:
        """Write a checkpoint of the model's weights, which open_clip and `load_clip` load.

        What `without` has removed is written into the weights; see `edited_weights`. Means over positions and images
        (``mean-unit``), and zero, are written exactly. Weights cannot hold a mean for each position: then the mean over
        positions is written, and a warning says how far the answers are off.

        Args:
            path: The file, which is written whole or not at all.
            images: A few images on which the checkpoint is compared with the model after `without` (default: noise).

        Returns:
            The largest distance between embeddings of length 1 by the model and by the checkpoint: 0 for the same
            answers, at most 2.

        Raises:
            InputError: if the image tower is no module of the model, or if units that were removed cannot be written
                as weights.

        Example:
            >>> clip.save("copy.pt")
            0.0
            >>> circuitry.load_clip("rn-tiny", checkpoint="copy.pt").name
            'rn-tiny'
        """
        named = self.model.named_modules()
        prefix = next((n for n, m in named if m is self.encoder.tower), None)
        if prefix is None:
            raise InputError(
                f"The image tower of {self.name} is no module of the model, so its weights have no names there: save "
                "those of the tower by torch.save."
            )
        state = dict(self.model.state_dict())
        distance = 0.0
        if self.whole is not None:
            if images is None:
                generator = torch.Generator().manual_seed(0)
                size = self.encoder.image_size
                images = torch.randn(N_NOISE, 3, *size, generator=generator)
            images = images.to(self.encoder.device, self.encoder.dtype)
            changed = edited_weights(self.whole, self.removed, images)
            encoder = self.encoder.in_type_of_weights()
            distance = embedding_distance(encoder, changed, images)
            for name, value in changed.items():
                state[f"{prefix}.{name}" if prefix else name] = value
        if distance > TOLERANCE:
            log.warning(
                "The checkpoint answers in another way than the model after removing the part: embeddings of length 1 "
                "differ by up to %.3f, because weights hold one mean of a unit for all positions. A part that is "
                "removed at means by unit (the baseline 'mean-unit') gives the same answers.",
                distance,
            )
        with whole_file(Path(path)) as temporary:
            torch.save({"state_dict": state}, temporary)
        return distance

    def in_precision(self, name: str) -> "Clip":
        """Return the same model, whose image tower runs in another precision; see `Encoder.in_precision`.

        Args:
            name: ``float32``, ``bfloat16`` or ``float16``.
        """
        return replace(self, encoder=self.encoder.in_precision(name))

    @own_modes()
    def shown(self, images: Float[Tensor, "batch 3 h w"]) -> np.ndarray:
        """Undo the normalisation of preprocessed images, and return them as RGB bytes [B, H, W, 3]."""
        mean, std = self._normalisation
        pixels = (images.cpu().float() * std + mean).clamp(0, 1) * 255
        return rearrange(pixels.round().byte(), "batch c h w -> batch h w c").numpy()

    @property
    def _normalisation(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each [3, 1, 1], with which preprocessing normalises images.

        If the model does not store these values, they are measured by preprocessing a black and a white picture.
        """
        module = getattr(self.model, "visual", self.model)
        if hasattr(module, "image_mean"):
            # open_clip and our loaders store them as attributes of the tower.
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
        """Return zero-shot weights of classes [K, D]. Each row has length one.

        A class has one prompt for each template. The embeddings of these prompts are normalised and averaged, and the
        mean is normalised again.

        Args:
            class_names: Names of K classes, as they should stand in a sentence. Underscores become spaces.
            templates: Strings with ``{}`` for the name, or functions of the name (default: OpenAI's 80 templates, and
                six for the styles of DomainNet).
            cache_dir: Folder in which computed weights are stored, so that a later call with the same text encoder and
                prompts reads them (default: the user's cache, on Linux below ``XDG_CACHE_HOME``). If nothing can be
                written to the folder, no error is raised.
            progress: Whether to show a progress bar if the computation takes a while.

        Raises:
            InputError: for no classes, no templates, a template without ``{}``, prompts longer than the text encoder's
                context, two names with the same tokens, words that have no embedding in packed weights (see
                `shipped_weights`), text weights that are not finite, or a model whose modules have hooks or a replaced
                ``forward``.

        Example:
            >>> clip.text_weights(["cup", "clock"], templates=["a photo of a {}."], progress=False).shape
            torch.Size([2, 64])
        """
        names, prompts = _prompts(class_names, templates)
        # PyTorch's hooks on the text encoder would change the weights, but not the key of the cache.
        check_modules(self.model, dict(self.model.named_modules()))
        tokens = prompt_tokens(self.tokenizer, class_names, prompts)
        if (embedding := self._token_embedding) is not None:
            check_known_words(self.name, self.tokenizer, embedding, prompts, tokens)
        # The key of the cache: everything that changes the weights. The image tower does not change them.
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
        # Weights from the cache are checked, too, because one NaN would spread to all probabilities.
        finite = weights.isfinite().all(1)
        if not finite.all():
            broken = names[int(finite.int().argmin())]
            raise InputError(
                f"The text weights of {broken!r} hold NaN or infinite values: the text encoder of {self.name} is "
                "broken, or its precision is too low."
            )
        return weights.to(self.encoder.device, self.encoder.dtype)

    def known(self, words: Sequence[str]) -> tuple[str, ...]:
        """Return the words that the text encoder knows: all of their tokens have an embedding.

        A model with packed weights (`shipped_weights`) has embeddings of some tokens only. Any other model knows all
        words.

        Example:
            >>> clip.known(["cat", "cup"])
            ('cup',)
        """
        embedding = self._token_embedding
        if embedding is None or not words:
            return tuple(words)
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
        """Return the model's own logits [batch, classes]: cosines times the model's scale, plus its bias if it has one.

        For most models the probabilities of the classes are the softmax of the logits. SigLIP models have a bias, and
        their probabilities are the sigmoid of each logit.

        Raises:
            InputError: if the model has no scale of logits.

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
        """Encode the prompts of classes, and return the text weights [classes, D].

        Args:
            tokens: Tokens of prompts [prompts, context]: all prompts of the first class, then all prompts of the second
                class, and so on. Each class has equally many prompts.
            classes: Number of classes.
            progress: Whether to show a progress bar.
        """
        model: Any = self.model
        # A model of transformers has the first method, a model of open_clip the second.
        embed = getattr(model, "get_text_features", None) or model.encode_text
        options = {"desc": "text weights", "unit": "text", "disable": not progress}
        rows = []
        with Bar(total=len(tokens), **options, **BRIEF) as bar:
            for some in torch.split(tokens.to(self.encoder.device), PROMPTS):
                rows.append(F.normalize(pooled_output(embed(some)).float(), dim=-1))
                bar.update(len(some))
        # [class, prompt, D]
        by_name = torch.unflatten(torch.cat(rows), 0, (classes, -1))
        return F.normalize(by_name.mean(1), dim=-1)


def read_no_text(prompts: Sequence[str]) -> Tensor:
    """Raise `InputError`. This function is the tokenizer of models that read no text."""
    raise InputError(
        "This model reads no text: name outputs by Classifier.with_classes, or fit a linear probe on images of the "
        "classes with linear_probe(clip, records) (in a command: --probe FOLDER), whose rows replace class texts."
    )


def _exponential(encoder: Encoder, log_scale: Tensor) -> float:
    """Return the scale of logits, given its logarithm, which CLIP models learn."""
    return float(log_scale.detach().exp())


def _prompts(
    class_names: Sequence[str], templates: Sequence[Template] | None
) -> tuple[list[str], list[str]]:
    """Return (class names with spaces for underscores, prompts).

    There is a prompt for each pair of a name and a template: first all prompts of the first name, then all prompts of
    the second name, and so on.
    """
    patterns = default_templates() if templates is None else as_patterns(templates)
    fault = "" if class_names and patterns else "an empty list was given"
    for pattern in patterns:
        # Without a place for the name all classes would have the same text.
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
    """Return a short digest of the tensors into which preprocessing turns three noise pictures.

    Args:
        preprocess: The preprocessing.
        size: Height and width of the encoder's images.
    """
    # Resizing and cropping differ for wide, small and large pictures, so there are three shapes. Numbers are rounded to
    # eighths, so that the digest does not depend on the rounding of a processor.
    prepared = {}
    wider = 3 * size[0] // 2, 2 * size[1]
    small = max(1, size[0] // 2), max(1, size[1] // 3)
    for height, width in (wider, small, LARGE_PICTURE):
        picture = fromarray(_noise_picture(height, width))
        try:
            image = torch.as_tensor(preprocess(picture))
        except Exception as error:  # the caller's function may raise anything
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
    """Return the device if PyTorch can use it on this machine; otherwise raise `InputError`."""
    # Only an allocation shows whether the device exists.
    try:
        return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"Device {str(device)!r} cannot be used here ({reason}): give cpu, or cuda, cuda:1 or mps on a machine "
            "that has one."
        ) from error
