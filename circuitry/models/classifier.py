"""A classifier as a model: the rows of its last, linear layer replace the texts of its classes.

A CLIP model recognises a class by the cosine of an image's embedding with a text's, a classifier by the product of its
pooled features with a row of its last layer. So all functions for CLIP models work for a classifier: its tower has no
last layer, and the text weight of a class is its row, normalised, or the mean of several. The bias takes no part in
cosines; `Classifier.logits` are the classifier's own numbers, bias included. A model that reads no text and has no
classifier of its own takes the rows of a `linear_probe`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor, nn

from circuitry.data.domains import ImageRecord
from circuitry.data.image_sources import read_table
from circuitry.encoder.chain import ModelScale
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.modes import own_modes
from circuitry.encoder.site_activations import clean_activations
from circuitry.encoder.tensor_batches import pixel_digests
from circuitry.models.clip import Clip
from circuitry.models.image_pass import image_batches
from circuitry.models.prompts import Template
from circuitry.models.ridge import ridge_probe
from circuitry.runs.errors import InputError
from circuitry.runs.given import Names, checked
from circuitry.runs.provenance import weights_digest

NOISE_IMAGES = 4
"""Images of noise that tell how long a classifier's embeddings are."""


@checked
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Classifier(Clip):
    """A classifier with the interface of a CLIP model; see `load_classifier` and `linear_probe`."""

    rows: Tensor
    """Weight [outputs, D] of its last layer."""
    bias: Tensor
    """Bias [outputs] of its last layer."""
    classes: Mapping[str, tuple[int, ...]]
    """The classifier's outputs that count as a class, by name."""

    @property
    def _own_scale(self) -> ModelScale:
        return ModelScale(self.rows, _mean_lengths)

    @property
    def _built_by(self) -> Mapping[str, Any]:
        last = weights_digest({"rows": self.rows, "bias": self.bias})
        return {**self.configuration, "last_layer": last}

    @own_modes()
    def text_weights(
        self,
        class_names: Names,
        templates: Sequence[Template] | None = None,
        **_: object,
    ) -> Float[Tensor, "classes d"]:
        """Return the normalised row of each class [K, D]; templates change nothing, for a classifier reads no text."""
        known = self.classes
        unknown = [name for name in class_names if name not in known]
        if unknown or not class_names or isinstance(class_names, str):
            raise InputError(
                f"Expected names of the {len(known)} classes that this classifier was loaded with, but "
                f"{unknown[0] if unknown else class_names!r} was given: name its outputs by Classifier.with_classes."
            )
        unit = F.normalize(self.rows, dim=-1)
        return F.normalize(
            torch.stack([unit[list(known[name])].mean(0) for name in class_names]),
            dim=-1,
        )

    def with_classes(self, classes: Mapping[str, Sequence[int]]) -> "Classifier":
        """Return the classifier with other outputs counting as classes, by name."""
        outputs = _checked_outputs(classes, len(self.rows))
        return replace(
            self,
            classes=outputs,
            configuration={**self.configuration, "classes": outputs},
        )

    def logits(
        self, embeddings: Float[Tensor, "batch d"]
    ) -> Float[Tensor, "batch outputs"]:
        """Return the classifier's own logits, bias included.

        Example:
            >>> graph = attribute(clip.encoder, images, lambda embeddings: clip.logits(embeddings)[:, 404])
        """
        return F.linear(embeddings.to(self.rows), self.rows, self.bias)


@own_modes()
def _mean_lengths(encoder: Encoder, rows: Tensor) -> float:
    """Return the mean length of a classifier's rows times that of embeddings of a few noise images."""
    noise = torch.randn(
        NOISE_IMAGES, 3, *encoder.image_size, generator=torch.Generator().manual_seed(0)
    )
    lengths = encoder(noise.to(encoder.device, encoder.dtype)).norm(dim=-1)
    return float(rows.norm(dim=-1).mean() * lengths.mean())


def as_classifier(
    name: str,
    net: nn.Module,
    preprocess: Callable[[Image], Tensor],
    made_by: Mapping[str, Any],
    classes: Mapping[str, Sequence[int]],
) -> Classifier:
    """Return a network as a classifier; it loses its last layer."""
    last = _without_last_layer(net)
    rows = last.weight.detach()
    bias = torch.zeros(len(rows)).to(rows) if last.bias is None else last.bias.detach()
    outputs = _checked_outputs(classes, len(rows))
    return Classifier(
        name,
        net,
        Encoder.from_tower(net),
        preprocess,
        _read_no_text,
        configuration={**made_by, "classes": outputs},
        rows=rows,
        bias=bias,
        classes=outputs,
    )


@checked
def read_outputs(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the classifier's outputs by class from a table ``classes.tsv`` with columns class and imagenet_index."""
    what = (
        "a table with tabs and the columns class and imagenet_index (404, or 294,295)"
    )
    table, outputs = read_table(path, what), dict[str, tuple[int, ...]]()
    for column in ("class", "imagenet_index"):
        if column not in table:
            raise InputError(
                f"Expected {what}, but {path} has no column {column}: add it."
            )
    for name, listed in zip(table["class"], table["imagenet_index"], strict=True):
        if name in outputs:
            raise InputError(
                f"A class has one row, but {path} has {name!r} in two: give all of its outputs in one."
            )
        try:
            outputs[name] = tuple(map(int, listed.split(",")))
        except ValueError:
            raise InputError(
                f"Expected {what}, but {path} has {listed!r} for {name!r}: write numbers."
            ) from None
    return outputs


def _without_last_layer(net: Any) -> nn.Linear:
    """Take the last layer off a network and return it."""
    if hasattr(net, "get_classifier"):
        last = net.get_classifier()
        net.reset_classifier(0)
    else:
        name, last = list(net.named_modules())[-1]
        net.set_submodule(name, nn.Identity())
    if not isinstance(last, nn.Linear):
        raise InputError(
            f"Expected a network that ends in a linear layer, but {type(net).__name__} ends in {last}."
        )
    return last


def _read_no_text(prompts: Sequence[str]) -> Tensor:
    raise InputError(
        "A classifier reads no text: give its classes to Classifier.with_classes."
    )


def _checked_outputs(
    classes: Mapping[str, Sequence[int]], outputs: int
) -> dict[str, tuple[int, ...]]:
    for name, chosen in classes.items():
        if not chosen or not all(0 <= index < outputs for index in chosen):
            raise InputError(
                f"A class is one or more of the classifier's {outputs} outputs, numbered from 0, but {name!r} is "
                f"{list(chosen)}."
            )
    return {name: tuple(chosen) for name, chosen in classes.items()}


@own_modes()
@checked
def linear_probe(clip: Clip, records: Sequence[ImageRecord]) -> Classifier:
    """Return a model whose class texts are the rows of a linear probe on its embeddings; its own texts are not used.

    Take other images than the images to explain: the probe has seen its own, whose pixels `read_images` refuses.

    Raises:
        InputError: for images of fewer than two classes, or embeddings that are not finite.

    Example:
        >>> dino = load_clip("facebook/dinov2-base")
        >>> clip = linear_probe(dino, DomainFolder(root, split="train").records)
        >>> metric = class_logit(clip.text_weights(["cat", "dog"]), label=0)
    """
    last, encoder = clip.encoder.sites[-1], clip.encoder
    embeddings, names, fitted_on = list[np.ndarray](), list[str](), set[str]()
    for there, images in image_batches(encoder, clip.preprocess, records):
        with encoder.running():
            found = encoder.units_of(
                last, clean_activations(encoder, images, [last])[last]
            )
        embeddings.append(found.detach().cpu().double().numpy())
        names += [record.class_name for record in there]
        fitted_on.update(pixel_digests(images))
    classes = sorted(set(names))
    if len(classes) < 2:
        raise InputError(
            f"A linear probe tells at least two classes apart, but the images are of {', '.join(classes) or 'none'}."
        )
    probe = ridge_probe().fit(np.concatenate(embeddings), names)
    scaler, ridge = probe[0], probe[1]
    rows = np.atleast_2d(ridge.coef_) / scaler.scale_
    bias = ridge.intercept_ - rows @ scaler.mean_
    if len(classes) == 2:  # scikit-learn keeps the second class's alone
        rows, bias = np.concatenate([-rows, rows]), np.concatenate([-bias, bias])
    outputs = {name: (i,) for i, name in enumerate(classes)}
    last_layer = {
        name: torch.from_numpy(values).to(clip.encoder.device, clip.encoder.dtype)
        for name, values in (("rows", rows), ("bias", bias))
    }
    configuration = {**clip.configuration, "classes": outputs}
    given = {
        **vars(clip),
        **last_layer,
        "classes": outputs,
        "configuration": configuration,
    }
    return Classifier(**{**given, "fitted_on": frozenset(fitted_on)})
