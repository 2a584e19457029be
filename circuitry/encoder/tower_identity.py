"""Entries of an `Identity` that describe a tower or model: modules, weights, stages, and outputs for noise."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as of_all_modules

from circuitry.encoder.doubles import in_double
from circuitry.encoder.stages import Stage
from circuitry.encoder.tower_runs import weight_sums
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
"""Settings of modules that do not change the output. They choose how the output is computed, or say where a module is
from."""
_OF_PYTORCH = {*vars(nn.Module())} | _CHANGE_NO_NUMBER
"""Attributes of a module that are not read as settings: the settings above, and PyTorch's own attributes. The weights
are read separately, and hooks are refused."""
_DIRECTIONS = 5
"""Number of directions along which the output for an image of noise is measured."""
_SHORTEST = 1e-12
"""Smallest length by which an output is divided, so that no output is divided by zero."""
_KNUTH = 2654435761
"""The factor of Knuth's multiplicative hash: a prime near 2^32 divided by the golden ratio."""
_DIGESTS: WeakKeyDictionary[nn.Module, dict[int, tuple[Any, str]]] = WeakKeyDictionary()
"""The digests of a tower's tensors by their number, each with the state of the tensors at the time."""
_GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)


def tower_digests(
    tower: nn.Module,
    without: tuple[str, ...] = (),
    sums: list[str] | None = None,
) -> dict[str, Any]:
    """Return the entries ``weights`` and ``modules`` of the `Identity` of a tower or model.

    The digest of the weights is computed once for a tower, and again after a change of the weights. A digest takes 0.1
    seconds for the tower of RN50 and 0.24 seconds for the tower of ViT-B/32 on one core; seeing that the weights have
    not changed takes a third of it.

    Args:
        tower: A tower or a whole model.
        without: Prefixes, each with a dot at its end. Modules and weights whose names begin with a prefix are left out.
        sums: The `weight_sums` of the `weights_of` the tower (default: they are computed).

    Returns:
        A dictionary with two keys. ``weights`` is a digest of all weights and buffers. ``modules`` is a digest of the
        settings of all modules. If some settings cannot be read, ``modules`` is instead a dictionary from the names of
        these settings to `UNKNOWN`.
    """
    tensors = dict(tower.named_parameters()) | dict(tower.named_buffers())
    for name in list(tensors):
        if name.startswith(without):
            del tensors[name]
    weights = _digest_once(tower, tensors, sums or weight_sums(tensors.values()))
    # Quantised layers have weights that are neither parameters nor buffers.
    packed = tower.state_dict()
    # Shared weights have several names in the state dict. They were read above, under one of these names.
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


def _digest_once(
    tower: nn.Module, tensors: Mapping[str, Tensor], sums: list[str]
) -> str:
    """Return the digest of a tower's tensors. If the tensors have not changed since the last call, it is remembered."""
    # Sparse tensors have no address, and are copied each time.
    tensors = {name: tensors[name].to_dense() for name in sorted(tensors)}
    # PyTorch counts writes into a tensor, but not writes through ``tensor.data``. The sums show these, unless a change
    # is too small for them, or several changes cancel each other.
    writes = [0 if t.is_inference() else t._version for t in tensors.values()]
    addresses = [tensor.data_ptr() for tensor in tensors.values()]
    state = [*tensors], addresses, writes, sums
    known = _DIGESTS.setdefault(tower, {})
    # A digest of all tensors and a digest of some of them are remembered side by side.
    number = len(tensors)
    if number not in known or known[number][0] != state:
        known[number] = state, weights_digest(tensors)
    return known[number][1]


def stage_digests(
    stages: Iterable[Stage],
    tower: nn.Module,
    points: Mapping[str, nn.Module],
    sites: Collection[str],
) -> dict[str, Any]:
    """Return digests of the stages that run code of a user.

    Most stages run only modules of the tower, and code of installed libraries and of this package. The other entries of
    an `Identity` describe these stages, so they get no digest.

    Args:
        stages: Stages of an encoder, in the order in which they run. The order matters, because a stage may contain
            stages before it.
        tower: The tower whose modules the stages run.
        points: Hook points inside the stages, by name.
        sites: Sites whose stages get a digest in any case.

    Returns:
        A dictionary from sites to digests. If the code of a stage cannot be read, there are two cases. If its units
        have a definition (`UnitKind.made_of`), the digest leaves out the code. Otherwise the value is not a digest, but
        a dictionary from the names of the unreadable values to `UNKNOWN`.
    """
    # Modules of the tower are read as their names, because `tower_digests` has read their weights and settings.
    modules = {id(module): name for name, module in tower.named_modules()}
    inside = {id(point): name for name, point in points.items()}
    leaves = Leaves(modules | inside)
    digests = dict[str, Any]()
    for stage in stages:
        # All stages share `leaves`, so that values of earlier stages are not read again. Each stage starts with the
        # results `foreign` and `unknown` empty.
        leaves.foreign = False
        leaves.unknown = {}
        place = f"the stage of {stage.site}"
        layout = [stage.kind.layout, stage.carried, stage.error_units]
        read = leaves.read([stage.run, layout], place)
        if leaves.unknown and stage.kind.made_of is not None:
            # The definition of the units is in `Encoder.basis`. It identifies the stage in place of its code.
            leaves.unknown = {}
            read = leaves.read(layout, place)
        if stage.site in sites or leaves.foreign or leaves.unknown:
            digests[stage.site] = leaves.unknown or digest(read)
    return digests


def noise_numbers(*shape: int) -> np.ndarray:
    """Return an array of whole numbers from 0 to 255 that look random.

    They are Knuth's multiplicative hashes of 0, 1, 2 and so on, so they are the same on every machine.
    """
    # Random generators differ between versions and devices. Arithmetic of whole numbers does not differ.
    places = np.arange(np.prod(shape)).reshape(shape)
    return (places * _KNUTH >> 13) % 256


def noise_image(height: int, width: int) -> np.ndarray:
    """Return an image [1, 3, H, W] with values from -2 to 2, which is the same on every machine.

    The upper half of the image is noise, and the lower half is waves.
    """
    # A change of the computation that does not show in noise may show in waves.
    shape = 1, 3, height, width
    waves = 2 * np.sin(np.arange(3 * height * width).reshape(shape) / 7)
    noise = noise_numbers(*shape) / 64 - 2
    noise[:, :, height // 2 :] = waves[:, :, height // 2 :]
    return noise.astype(np.float32)


def answers_to_noise(stages: Iterable[Stage], images: Tensor) -> list[float]:
    """Run the stages on images of noise, and return six numbers for each image, which describe the output.

    The numbers are the cosines of the output with five fixed directions, then the length of the output. They change if
    the computation changes, even in code that no digest can read. Rounding hardly changes them.
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
            # Directions are cosine waves over the units. They are defined for any width, without a random generator.
            along = float(answer @ wave / wave.norm())
            numbers.append(round(along / max(length, _SHORTEST), 6))
        numbers.append(round(length, 6))
    return numbers


def global_hooks() -> dict[str, list[str]]:
    """Say whether hooks are set that PyTorch runs in all modules, in the form of `HookedSites.hook_effects`.

    Functions such as ``register_module_forward_hook`` set these hooks. If one is set, return a dictionary with the text
    `UNKNOWN`, because it is not known what the hook does. Otherwise return an empty dictionary.
    """
    if any(getattr(of_all_modules, name) for name in _GLOBAL_HOOKS):
        return {"all modules": [UNKNOWN]}
    return {}


def precision_of(device: torch.device) -> list[str]:
    """Return the names of active modes that make matrix products or convolutions less precise than float32."""
    low = []
    products = torch.get_float32_matmul_precision()
    if products != "highest":
        low.append(f"{products} products")
    if device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        low.append("TF32 convolutions")
    return low


def _settings(module: nn.Module, name: str, leaves: Leaves, packed: set[str]) -> Any:
    """Return the settings of a module in a form for `digest`.

    The settings are the attributes of the module and of its classes, without classes that belong to libraries. If the
    module has an attribute ``identity`` that is a text, this text is returned instead.

    Args:
        module: The module.
        name: Name of the module in the tower.
        leaves: Object that reads the values of attributes. It also collects the names of values that cannot be read.
        packed: Names of attributes that hold weights although they are neither parameters nor buffers, as in quantised
            layers. They are not settings.
    """
    # A module may identify itself by a text.
    own = getattr(module, "identity", None)
    if isinstance(own, str):
        return own
    settings = dict[str, Any]()
    # From base class to derived class, so that attributes of a derived class override attributes of its base class.
    # Attributes of the object override both.
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
