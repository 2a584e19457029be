"""Adapters: functions that turn a tower of a known architecture into a chain of stages.

To support a new architecture, write a function that takes a tower. It returns the `Chain` of a tower of this
architecture, and None for any other tower. Register the function with `register_architecture`. The adapters of the
package are in `open_clip_towers`, `timm_nets`, `torchvision_nets` and `transformers_towers`.
"""

from collections.abc import Callable

from torch import nn

from circuitry.encoder.chain import Chain
from circuitry.encoder.open_clip_towers import read_open_clip
from circuitry.encoder.timm_nets import read_timm
from circuitry.encoder.torchvision_nets import read_torchvision
from circuitry.encoder.transformers_towers import FAMILIES, read_transformers
from circuitry.runs.errors import InputError

ReadTower = Callable[[nn.Module], Chain | None]

_READERS: dict[str, ReadTower] = {
    "open_clip's ModifiedResNet, VisionTransformer, and TimmModel with one of timm's": read_open_clip,
    "timm's ResNet, RegNet, ConvNeXt, EfficientNet, MobileNetV3, FastViT, Swin and vision transformers": read_timm,
    "torchvision's ResNet, RegNet, ConvNeXt, EfficientNet, MobileNet and VisionTransformer": read_torchvision,
    f"transformers' {', '.join(FAMILIES)}": read_transformers,
}


def register_architecture(name: str, read: ReadTower) -> None:
    """Register an adapter, so that `Encoder.from_tower` and all loaders can wrap towers of its architecture.

    Adapters are tried one after the other, and the newest adapter is tried first.

    Args:
        name: Name of the architecture in messages. If an adapter has this name already, it is replaced.
        read: Function that takes a tower. It returns the chain of a tower of this architecture, and None for any other
            tower.

    Example:
        >>> from circuitry.encoder import Chain, linked_stages, register_architecture
        >>> class MyTower(torch.nn.Sequential):
        ...     pass
        >>> def read_mine(tower: torch.nn.Module) -> Chain | None:
        ...     if type(tower).__name__ != "MyTower":
        ...         return None
        ...     return Chain(tuple(linked_stages(tower, ["0", ("1", "2")])), (64, 64))
        >>> register_architecture("MyTower", read_mine)
        >>> tower = MyTower(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> circuitry.Encoder.from_tower(tower).sites
        ('input', '0', '2')
    """
    # Removed first, so that an adapter that replaces another becomes the newest.
    _READERS.pop(name, None)
    _READERS[name] = read


def chain_of(tower: nn.Module) -> Chain:
    """Return the chain of a tower. Raise `InputError` if no adapter knows the architecture."""
    # Newest first: a user's adapter may be for a class that is derived from a class of the package's adapters.
    for read in reversed(_READERS.values()):
        chain = read(tower)
        if chain is not None:
            return chain
    raise InputError(
        f"No adapter for a tower of type {type(tower).__name__}; supported are: {'; '.join(_READERS)}. Pass the image "
        "tower of a CLIP model (model.visual), give the stages to Encoder.from_stages, or add a reader with "
        "register_architecture."
    )
