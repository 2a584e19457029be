"""Identify the computation of a tower or model: modules, weights, stages and answers to noise of an `Identity`."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as of_all_modules

from circuitry.encoder.doubles import in_double
from circuitry.encoder.stages import Stage
from circuitry.runs.identity import UNKNOWN
from circuitry.runs.leaves import Leaves, is_of_library
from circuitry.runs.provenance import digest, weights_digest

_CHANGE_NO_NUMBER = {
    "training",
    "grad_checkpointing",
    "gradient_checkpointing",
    "fused_attn",
    "inplace",
    "name_or_path",
    "pretrained_cfg",
    "default_cfg",
    "_name_or_path",
    "_commit_hash",
    "transformers_version",
    "_attn_implementation_internal",
    "_attn_implementation_autoset",
    "_gradient_checkpointing_func",
}
"""Settings of modules that do not change the output: ways to compute it, and notes on its origin."""
_OF_PYTORCH = {*vars(nn.Module())} | _CHANGE_NO_NUMBER
"""Attributes of a module that are not read as settings: the above, and PyTorch's own attributes. Of these the weights
are read separately, and hooks are refused."""
_DIRECTIONS = 5
"""Number of directions along which an answer to noise is measured."""
_SHORTEST = 1e-12
"""Length in place of zero, to divide by."""
_KNUTH = 2654435761
"""The prime near 2^32 times the golden ratio of Knuth's multiplicative hash."""
_GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)


def tower_digests(tower: nn.Module, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a digest of the ``weights`` and buffers of a tower or model, and one of the settings of its ``modules``.

    All weights are read: this takes 0.12 seconds for the tower of RN50 and 0.24 for that of ViT-B/32, on one core. A
    setting that cannot be read is `UNKNOWN`, by its place.

    Args:
        tower: A tower or a whole model.
        without: Prefixes of the names of modules that are left out, each with its dot at the end.
    """
    tensors = dict(tower.named_parameters()) | dict(tower.named_buffers())
    for name in list(tensors):
        if name.startswith(without):
            del tensors[name]
    weights = weights_digest(tensors)
    # Quantised layers have weights that are neither parameters nor buffers.
    packed = tower.state_dict()
    # Shared weights have several names in the state dict; all were read above.
    names = {name for name, _ in tower.named_parameters(remove_duplicate=False)}
    names |= {name for name, _ in tower.named_buffers(remove_duplicate=False)}
    for name in list(packed):
        if name in names or name.startswith(without):
            del packed[name]
    leaves = Leaves(without=_CHANGE_NO_NUMBER)
    modules = []
    for name, module in tower.named_modules():
        if not f"{name}.".startswith(without):
            settings = _settings(module, name, leaves, {*packed})
            modules.append([name, type(module).__name__, settings])
    if packed:
        weights = digest([weights, leaves.read(dict(packed), "weights")])
    return {"weights": weights, "modules": leaves.unknown or digest(modules)}


def stage_digests(
    stages: Iterable[Stage],
    tower: nn.Module,
    points: Mapping[str, nn.Module],
    sites: Collection[str],
) -> dict[str, Any]:
    """Return a digest, by site, of each stage that runs other code than the tower's modules and libraries.

    Code that cannot be read is left out where the kind of units has a ``made_of``, see `UnitKind`.

    Args:
        stages: Stages of an encoder in order, since a stage may hold the stages before it.
        tower: The tower whose modules they run.
        points: Hook points inside the stages, by name.
        sites: Sites whose stages have a digest in any case.
    """
    # Modules of the tower stand for themselves: `tower_digests` has read their weights and settings.
    modules = {id(module): name for name, module in tower.named_modules()}
    inside = {id(point): name for name, point in points.items()}
    leaves = Leaves(modules | inside)
    digests = dict[str, Any]()
    for stage in stages:
        # One reader for all stages, so that what an earlier stage holds is read once; the verdicts are for each stage.
        leaves.foreign = False
        leaves.unknown = {}
        place = f"the stage of {stage.site}"
        layout = [stage.kind.layout, stage.carried, stage.error_units]
        read = leaves.read([stage.run, layout], place)
        if leaves.unknown and stage.kind.made_of is not None:
            # The definition of its units, which the basis holds, stands for code that cannot be read.
            leaves.unknown = {}
            read = leaves.read(layout, place)
        if stage.site in sites or leaves.foreign or leaves.unknown:
            digests[stage.site] = leaves.unknown or digest(read)
    return digests


def noise_numbers(*shape: int) -> np.ndarray:
    """Return whole numbers from 0 to 255 that look random: Knuth's hash of their places."""
    # Random generators differ between versions and devices; arithmetic of whole numbers does not.
    places = np.arange(np.prod(shape)).reshape(shape)
    return (places * _KNUTH >> 13) % 256


def noise_image(height: int, width: int) -> np.ndarray:
    """Return an image [1, 3, H, W] of numbers from -2 to 2, the same on every machine: noise above, waves below."""
    # Two kinds of picture in one image: a change that noise does not show may show in waves.
    shape = 1, 3, height, width
    waves = 2 * np.sin(np.arange(3 * height * width).reshape(shape) / 7)
    noise = noise_numbers(*shape) / 64 - 2
    noise[:, :, height // 2 :] = waves[:, :, height // 2 :]
    return noise.astype(np.float32)


def answers_to_noise(stages: Iterable[Stage], images: Tensor) -> list[float]:
    """Return the length of the output of the stages for each image, and its cosines with five fixed directions.

    The numbers change with any change of the computation, even by code that no digest can read, and hardly with
    rounding.
    """
    x = images
    for stage in stages:
        x = stage.run(x)
    numbers = list[float]()
    for answer in in_double(x.detach().cpu().flatten(1)).nan_to_num(0, 0, 0):
        length = float(answer.norm())
        places = torch.arange(len(answer), dtype=answer.dtype)
        for frequency in range(1, _DIRECTIONS + 1):
            wave = torch.cos(frequency * places)
            # Directions are cosine waves over the units: fixed for any width, without a table or a generator.
            along = float(answer @ wave / wave.norm())
            numbers.append(round(along / max(length, _SHORTEST), 6))
        numbers.append(round(length, 6))
    return numbers


def global_hooks() -> dict[str, list[str]]:
    """Return an `UNKNOWN` effect if PyTorch has hooks for all modules, in the form of `HookedSites.hook_effects`."""
    if any(getattr(of_all_modules, name) for name in _GLOBAL_HOOKS):
        return {"all modules": [UNKNOWN]}
    return {}


def precision_of(device: torch.device) -> list[str]:
    """Return names of the modes that make products or convolutions on a device less precise than float32."""
    low = []
    products = torch.get_float32_matmul_precision()
    if products != "highest":
        low.append(f"{products} products")
    if device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        low.append("TF32 convolutions")
    return low


def _settings(module: nn.Module, name: str, leaves: Leaves, packed: set[str]) -> Any:
    """Return the settings of a module: attributes of the object, and of its classes that belong to no library."""
    # A module may identify itself by a text.
    own = getattr(module, "identity", None)
    if isinstance(own, str):
        return own
    settings = dict[str, Any]()
    # From base to derived class, so that a derived class overrides; attributes of the object override both.
    for kind in reversed(type(module).__mro__):
        if not is_of_library(kind.__module__):
            for attribute, value in vars(kind).items():
                is_code = callable(value) or hasattr(value, "__get__")
                if not is_code and not attribute.startswith("__"):
                    settings[attribute] = value
    settings |= vars(module)
    place = name or type(module).__name__
    path = f"{name}." if name else ""
    read = []
    for attribute, value in settings.items():
        if attribute not in _OF_PYTORCH and f"{path}{attribute}" not in packed:
            read.append((attribute, leaves.read(value, f"{place}.{attribute}")))
    return sorted(read)
