"""A classifier as a model: the rows of its last, linear layer replace the texts of its classes.

A CLIP model recognises a class by the cosine between the embeddings of an image and of a text. A classifier recognises
a class by the product of its pooled features with a row of its last layer. All functions for CLIP models work for a
classifier:

- Its tower is the network without the last layer.
- The text weight of a class is the normalised row of its output. If a class has several outputs, it is the normalised
  mean of their normalised rows.

Cosines ignore the bias of the last layer. `Classifier.logits` returns the classifier's own logits, which include it.
A model that has neither texts nor a classifier gets its rows from `linear_probe`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
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
from circuitry.models.clip import Clip, read_no_text
from circuitry.models.image_pass import activations, image_batches
from circuitry.models.prompts import Template
from circuitry.models.ridge import ridge_probe
from circuitry.runs.arguments import Names, checked
from circuitry.runs.errors import InputError
from circuitry.runs.provenance import weights_digest

NOISE_IMAGES = 4
"""Number of noise images on which the mean length of a classifier's embeddings is measured."""


@checked
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Classifier(Clip):
    """A classifier with the interface of a CLIP model; see `load_classifier`, `linear_probe` and `from_encoder`.

    Example:
        >>> from circuitry.models import from_encoder
        >>> rows = {"cup": torch.eye(64)[0], "clock": torch.eye(64)[1]}
        >>> classifier = from_encoder(encoder, clip.preprocess, rows)
        >>> classifier.with_classes({"thing": [0, 1]}).text_weights(["thing"]).shape
        torch.Size([1, 64])
    """

    rows: Tensor
    """Weight [outputs, D] of the last layer."""
    bias: Tensor
    """Bias [outputs] of the last layer."""
    classes: Mapping[str, tuple[int, ...]]
    """Names of the classes, each with the indices of the outputs that belong to it."""

    @property
    def _own_scale(self) -> ModelScale:
        # The logit is |row| |embedding| cosine, so the product of these lengths turns cosines into logits.
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
        """Return the weight of each class [K, D].

        The last layer has a row of weights for each output of the classifier. All rows are normalised first. The weight
        of a class with one output is the normalised row of this output. The weight of a class with several outputs is
        the mean of their normalised rows, and this mean is normalised, too.

        Args:
            class_names: Names of K classes, which must be among the `classes` of this classifier.
            templates: Ignored, because a classifier reads no text. Further arguments of `Clip.text_weights` are ignored
                as well.

        Raises:
            InputError: for an unknown name, or no name.
        """
        known = self.classes
        unknown = [name for name in class_names if name not in known]
        if unknown or not class_names or isinstance(class_names, str):
            given = unknown[0] if unknown else class_names
            raise InputError(
                f"Expected names of the {len(known)} classes that this classifier was loaded with, but {given!r} was "
                "given: name its outputs by Classifier.with_classes, or give from_encoder rows of these names."
            )
        # Rows are normalised before the mean, as prompts of CLIP are, so that a longer row does not count more.
        unit = F.normalize(self.rows, dim=-1)
        means = torch.stack([unit[list(known[name])].mean(0) for name in class_names])
        weights = F.normalize(means, dim=-1)
        return weights.to(self.encoder.device, self.encoder.dtype)

    def with_classes(self, classes: Mapping[str, Sequence[int]]) -> "Classifier":
        """Return the same classifier with other classes.

        Args:
            classes: Names of the new classes, each with the indices of the outputs that belong to it.
        """
        outputs = _checked_outputs(classes, len(self.rows))
        configuration = {**self.configuration, "classes": outputs}
        return replace(self, classes=outputs, configuration=configuration)

    def logits(
        self, embeddings: Float[Tensor, "batch d"]
    ) -> Float[Tensor, "batch outputs"]:
        """Return the classifier's own logits, with the bias added.

        A metric may be a single logit: ``lambda embeddings: classifier.logits(embeddings)[:, 404]``.
        """
        return F.linear(embeddings.to(self.rows), self.rows, self.bias)


@own_modes()
def _mean_lengths(encoder: Encoder, rows: Tensor) -> float:
    """Return the mean length of a classifier's rows, times the mean length of the embeddings of noise images.

    A logit without bias is |row| |embedding| cosine. So a cosine multiplied by this number has about the size of a
    logit.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(NOISE_IMAGES, 3, *encoder.image_size, generator=generator)
    lengths = encoder(noise.to(encoder.device, encoder.dtype)).norm(dim=-1)
    return float(rows.norm(dim=-1).mean() * lengths.mean())


def as_classifier(
    name: str,
    net: nn.Module,
    preprocess: Callable[[Image], Tensor],
    made_by: Mapping[str, Any],
    classes: Mapping[str, Sequence[int]],
) -> Classifier:
    """Turn a network into a `Classifier`. The network is changed in place: its last layer is removed.

    Args:
        name: Name of the model.
        net: Network that ends in a linear layer.
        preprocess: Function of an RGB picture that returns a tensor [3, H, W].
        made_by: How the network was made, such as its library and its name there. This is stored in the model's
            configuration.
        classes: Names of the classes, each with the indices of the outputs that belong to it.
    """
    last = _without_last_layer(net)
    rows = last.weight.detach()
    bias = torch.zeros(len(rows)).to(rows) if last.bias is None else last.bias.detach()
    outputs = _checked_outputs(classes, len(rows))
    return Classifier(
        name,
        net,
        Encoder.from_tower(net),
        preprocess,
        read_no_text,
        configuration={**made_by, "classes": outputs},
        rows=rows,
        bias=bias,
        classes=outputs,
    )


@checked
def read_outputs(path: Path) -> dict[str, tuple[int, ...]]:
    """Read which outputs of a classifier belong to each class.

    Args:
        path: Table with tabs and the columns class and imagenet_index. The second column holds the index of an output,
            or several indices such as ``294,295``.

    Returns:
        A dictionary from the name of each class to the indices of its outputs.

    Example:
        >>> from circuitry.models import read_outputs
        >>> text = "class\\timagenet_index\\nairliner\\t404\\nbear\\t294,295\\n"
        >>> Path("classes.tsv").write_text(text) > 0
        True
        >>> read_outputs(Path("classes.tsv"))
        {'airliner': (404,), 'bear': (294, 295)}
    """
    what = (
        "a table with tabs and the columns class and imagenet_index (404, or 294,295)"
    )
    table = read_table(path, what)
    outputs = dict[str, tuple[int, ...]]()
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
    """Remove the last layer of a network and return it."""
    # A network of timm returns its classifier. In a network of torchvision the classifier is the last module.
    if hasattr(net, "get_classifier"):
        last = net.get_classifier()
        # For some networks timm also has to change the forward pass, so replacing the module would not be enough.
        net.reset_classifier(0)
    else:
        name, last = list(net.named_modules())[-1]
        net.set_submodule(name, nn.Identity())
    if not isinstance(last, nn.Linear):
        raise InputError(
            f"Expected a network that ends in a linear layer, but {type(net).__name__} ends in {last}."
        )
    return last


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
    """Fit a linear probe on the embeddings of images, and return a model with the probe's rows as class weights.

    `read_images` refuses images that the probe was fitted on. So do not fit the probe on images that you want to
    explain.

    Args:
        clip: The model whose embeddings the probe reads.
        records: Images of two or more classes.

    Raises:
        InputError: for images of fewer than two classes, or embeddings that are not finite.

    Example:
        >>> from circuitry.models import linear_probe
        >>> probe = linear_probe(clip, folder.records[:24])
        >>> probe.text_weights(list(probe.classes)[:1]).shape
        torch.Size([1, 64])
    """
    encoder = clip.encoder
    last = encoder.sites[-1]
    embeddings = list[np.ndarray]()
    names = list[str]()
    fitted_on = set[str]()
    for read, images in image_batches(encoder, clip.preprocess, records):
        with encoder.running():
            clean = clean_activations(encoder, images, [last])
        units = encoder.units_of(last, clean[last])
        embeddings.append(units.detach().cpu().double().numpy())
        names += [record.class_name for record in read]
        fitted_on.update(pixel_digests(images))
    classes = sorted(set(names))
    if len(classes) < 2:
        raise InputError(
            f"A linear probe tells at least two classes apart, but the images are of {', '.join(classes) or 'none'}."
        )
    scaler, ridge = ridge_probe().fit(np.concatenate(embeddings), names)
    # The probe was fitted on (x - mean) / scale. These rows and biases give the same logits for x.
    rows = np.atleast_2d(ridge.coef_) / scaler.scale_
    bias = ridge.intercept_ - rows @ scaler.mean_
    # For two classes scikit-learn fits a single row, which belongs to the second class.
    if len(classes) == 2:
        rows = np.concatenate([-rows, rows])
        bias = np.concatenate([-bias, bias])
    outputs = {name: (i,) for i, name in enumerate(classes)}
    of_probe = {
        "rows": torch.from_numpy(rows).to(encoder.device, encoder.dtype),
        "bias": torch.from_numpy(bias).to(encoder.device, encoder.dtype),
        "classes": outputs,
        "configuration": {**clip.configuration, "classes": outputs},
        "fitted_on": frozenset(fitted_on),
    }
    return Classifier(**(vars(clip) | of_probe))


@own_modes()
def probe_accuracy(probe: Classifier, records: Sequence[ImageRecord]) -> pd.DataFrame:
    """Return how many images of each domain a linear probe gives their own class.

    Args:
        probe: The probe.
        records: Images that it was not fitted on.

    Returns:
        A row for each domain. Columns:

        - images: the number of images that can be read;
        - own: the share of images whose largest logit of the probe, which includes its constant, is of their class;
        - rows: the share of images whose largest cosine with a row of the probe is of their class. Circuits are asked
          of these cosines.

    Example:
        >>> from circuitry.models import linear_probe
        >>> from circuitry.models.classifier import probe_accuracy
        >>> probe = linear_probe(clip, folder.records[::2])
        >>> list(probe_accuracy(probe, folder.records[1::2]).columns)
        ['images', 'own', 'rows']
    """
    encoder = probe.encoder
    last = encoder.sites[-1]
    names = np.array(list(probe.classes))
    weights = probe.text_weights(names.tolist())
    tables = []
    for read, by_site in activations(encoder, probe.preprocess, records, [last]):
        embeddings = by_site[last]
        shown = np.array([record.class_name for record in read])
        by_rows = (embeddings @ weights.T).argmax(1)
        by_logits = probe.logits(embeddings).argmax(1)
        answers = {
            "domain": [record.domain for record in read],
            "own": names[by_logits.cpu().numpy()] == shown,
            "rows": names[by_rows.cpu().numpy()] == shown,
        }
        tables.append(pd.DataFrame(answers))
    by_domain = pd.concat(tables).groupby("domain")
    return by_domain.mean().assign(images=by_domain.size())[["images", "own", "rows"]]
