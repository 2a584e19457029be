"""A tower as a chain of stages: the `Chain` that an adapter returns, a notation for chains, and a check of chains.

A chain is written as a list of links. A link is one of

1. the path of a module in the network. The module becomes a stage. If the module is a container that runs its modules
   one after the other, each of these modules becomes a stage instead. Some networks of timm group their blocks into
   levels (timm itself calls a level a stage), and a level may down-sample its input. Then each block of the level
   becomes a stage, and the down-sampling belongs to the stage of the first block;
2. a tuple of paths of modules and functions. They run one after the other as one stage, which is named after the last
   module in the tuple;
3. a `Stage`.

`check_chain` compares the output of the chain with the output of the tower itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from circuitry.encoder.narrowing import in_order
from circuitry.encoder.sites import INPUT
from circuitry.encoder.stages import ConvBlock, EnteredBlock, PlacedBlock, Stage
from circuitry.encoder.tokens import TokenGrid
from circuitry.encoder.unit_kinds import FEATURE
from circuitry.runs.errors import InputError

TransformerBlock = nn.Module | PlacedBlock
Link = str | tuple[str | Callable[[Tensor], Tensor], ...] | Stage

_TOLERANCE = 1e-5
"""Largest allowed difference between the outputs of a chain and of its tower, relative to the largest number in the
tower's output."""
_CONTAINERS = ("Sequential", "RegStage", "AnyStage")
"""Names of the classes of modules that only run their children one after the other. A module of a derived class is a
block."""


@dataclass(frozen=True)
class Chain:
    """The stages of a tower, its blocks and its tokens.

    Adapters return a `Chain`; see `register_architecture`.

    Example:
        >>> from circuitry.encoder import Chain, linked_stages
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> chain = Chain(tuple(linked_stages(net, [("0", "1"), "2"])), (64, 64))
        >>> [stage.site for stage in chain.stages]
        ['1', '2']
    """

    stages: tuple[Stage, ...]  #: Stages in the order in which they run.
    image_size: tuple[int, int]
    """Height and width of the images that the tower takes."""
    blocks: Mapping[str, TransformerBlock | ConvBlock] = field(default_factory=dict)
    """Blocks of the network, by the site at which each block ends. Give the blocks of a transformer. Give the blocks of
    a CNN only if the package does not know this kind of block (see `ConvBlock`). The chain of a transformer has exactly
    one stage after the last block."""
    grid: TokenGrid | None = None
    """The grid of a transformer's tokens in the image. It is None if the tower has no tokens."""
    embed: Callable[[Tensor], Tensor] | None = None
    """Function that takes images and returns the tower's own output. None if calling the tower returns this output."""
    scale: "ModelScale | None" = None
    """How to read the logit scale of the model that the tower belongs to. A `Clip` sets this field."""
    lower_precision: str | None = None
    """Type in which runs compute the operations that PyTorch deems safe in it: ``bfloat16`` or ``float16``. None for
    the type of the weights. See `Encoder.in_precision`."""
    by_hand: bool = False
    """Whether a user listed the stages. An adapter always makes the same stages for a tower, but a user may divide the
    same tower into different stages. So if this is True, the identity of an encoder has a digest of each stage."""


class ModelScale(NamedTuple):
    """How to read the logit scale of a model: a weight of the model, and a function that reads the scale from it.

    The scale itself is not stored, because training changes the scale.
    """

    known_by: Tensor
    """The weight from which the scale is read. It also identifies the model: two models do not share this tensor."""
    read: Callable[[Any, Tensor], float]
    """Function that takes an encoder and ``known_by``, and returns the scale."""


def height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    """Return (height, width) of an image size. Libraries write an image size as one number or as two numbers."""
    if isinstance(size, int):
        return size, size
    return size[0], size[1]


def class_token(x: Tensor) -> Tensor:
    """Return the first token of each image."""
    return x[:, 0]


def token_stages(blocks: Mapping[str, TransformerBlock]) -> list[Stage]:
    """Return one stage for each transformer block. ``blocks`` maps the site of each stage to its block."""
    return [Stage(site, block, FEATURE) for site, block in blocks.items()]


def linked_stages(
    net: nn.Module, links: Sequence[Link], unit_dim: int = 1, path: str = ""
) -> Iterator[Stage]:
    """Yield the stages of a network, given as links.

    Args:
        net: The network.
        links: Links in the order in which they run. A link is the path of a module, a tuple of paths and functions that
            form one stage, or a `Stage`. If a module only runs its children one after the other, each child becomes a
            stage.
        unit_dim: Axis of the units in the outputs of modules. Use -1 for tokens [B, L, C] and pooled features [B, C].
        path: Prefix of the names of sites. Without a prefix a site has the path of its module as its name.

    Example:
        >>> from circuitry.encoder import linked_stages
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> [stage.site for stage in linked_stages(net, [("0", torch.relu), "2"], path="tower.")]
        ['tower.0', 'tower.2']
    """
    for link in links:
        if isinstance(link, Stage):
            yield link
        elif isinstance(link, str):
            yield from _opened(_module(net, link), path + link, unit_dim)
        else:
            yield _joined_stage(net, link, unit_dim, path)


def _joined_stage(
    net: nn.Module,
    pieces: Sequence[str | Callable[[Tensor], Tensor]],
    unit_dim: int,
    path: str,
) -> Stage:
    """Return one stage that runs several modules and functions one after the other.

    Args:
        net: The network that holds the modules.
        pieces: Paths of the modules, and functions. The stage is named after the last module.
        unit_dim: Axis of the units in the output.
        path: Prefix of the name of the site.
    """
    runs = list[Callable[[Tensor], Tensor]]()
    name = None
    for piece in pieces:
        if isinstance(piece, str):
            name = piece
            runs.append(_module(net, piece))
        else:
            runs.append(piece)
    if name is None:
        raise InputError(
            "A tuple of a chain names a module, after which its site is called, but one has none."
        )
    run = runs[0] if len(runs) == 1 else in_order(*runs)
    return Stage(path + name, run, unit_dim)


def _module(net: nn.Module, path: str) -> nn.Module:
    try:
        return net.get_submodule(path)
    except AttributeError as error:
        inside = ", ".join(name for name, _ in net.named_children())
        raise InputError(
            f"A {type(net).__name__} has no module {path!r}; its modules are {inside}."
        ) from error


def _opened(module: nn.Module, site: str, unit_dim: int) -> Iterator[Stage]:
    """Yield the stage of a module, or the stages of the modules inside it.

    If the module is a container, which only runs its children one after the other, each child gets a stage (or several
    stages, if the child is a container itself). If the module has a list ``blocks``, each block gets a stage. An
    `nn.Identity` gets no stage.
    """
    level: Any = module
    # By exact name: a class derived from nn.Sequential may add a shortcut around its modules, so it is a block.
    if type(module).__name__ in _CONTAINERS:
        for name, child in module.named_children():
            yield from _opened(child, f"{site}.{name}", unit_dim)
    elif isinstance(getattr(module, "blocks", None), nn.Sequential | nn.ModuleList):
        entry = [
            getattr(level, n) for n in ("downsample", "pos_emb") if hasattr(level, n)
        ]
        for j, block in enumerate(level.blocks):
            # The level runs these steps before its first block, so they belong to the stage of that block.
            run = block if j else EnteredBlock(block, in_order(*entry))
            yield Stage(f"{site}.blocks.{j}", run, unit_dim)
    elif not isinstance(module, nn.Identity):
        yield Stage(site, module, unit_dim)


def check_chain(tower: nn.Module, chain: Chain) -> None:
    """Raise `InputError` if a chain and its tower have different outputs for an image of noise.

    The message names the first site at which the chain and the tower differ. If the tower is in training mode, both run
    in training mode. If the tower has a batch norm without running statistics, `InputError` is raised, too.
    """
    for name, module in tower.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise InputError(
                f"An encoder sees each image by itself, but {name} ({type(module).__name__}) has no running "
                "statistics, so it takes those of the batch: train it with track_running_stats=True."
            )
    weight = next(tower.parameters(), None)
    image = _noise(weight, chain.image_size)
    if weight is None or image is None:
        return
    no_chain = f"This {type(tower).__name__} is no chain"
    with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
        own, calls = _own_run(tower, chain, image)
        x = image
        site = INPUT
        # The first difference between tower and chain. It is reported only if the outputs differ in the end, because
        # a difference on the way, such as a module that is called twice, need not be an error.
        parting = ""
        for stage in chain.stages:
            try:
                y = stage.run(x)
            except (RuntimeError, TypeError, ValueError, IndexError) as error:
                raise InputError(
                    f"{parting or f'{no_chain} of its stages: they'} cannot be run one after the "
                    f"other up to {stage.site} ({' '.join(str(error).split())[:200]})."
                ) from error
            if not parting and stage.site in calls:
                how = _parting(calls[stage.site], site, stage.site, x, y)
                parting = how and f"{no_chain}: {how}"
            x = y
            site = stage.site
    if not _same(x, own):
        parting = (
            parting
            or f"{no_chain} of its stages: behind {site} it does something else."
        )
        raise InputError(
            f"{parting} Its own output {_shape(own)} differs from the chain's {_shape(x)}: give the stages up to there "
            "to Encoder.from_stages."
        )


def check_division(tower: nn.Module, chain: Chain, stages: Sequence[Stage]) -> None:
    """Raise `InputError` if stages that divide a tower anew and the tower's chain have different outputs for noise."""
    image = _noise(next(tower.parameters(), None), chain.image_size)
    if image is None:
        return
    outputs = []
    for of_division in (stages, chain.stages):
        x = image
        for stage in of_division:
            try:
                x = stage.run(x)
            except (RuntimeError, TypeError, ValueError, IndexError) as error:
                raise InputError(
                    f"These stages of {type(tower).__name__} cannot be run one after the other up to {stage.site} "
                    f"({' '.join(str(error).split())[:200]}): let each stage take what the stage before returns."
                ) from error
            if x.dim() <= max(stage.unit_dim, -stage.unit_dim - 1):
                raise InputError(
                    f"The units of {stage.site} lie along axis {stage.unit_dim}, but the activation is {_shape(x)}: "
                    "give the stage a UnitKind with an axis of its activation."
                )
        outputs.append(x)
    if not _same(*outputs):
        raise InputError(
            f"These stages of {type(tower).__name__} do not compute what the tower computes: their output "
            f"{_shape(outputs[0])} differs from the tower's {_shape(outputs[1])}. Let the stage after new units undo "
            "what makes them, such as a rotation."
        )


def _noise(weight: Tensor | None, image_size: tuple[int, int]) -> Tensor | None:
    """Return an image of noise for a tower with this weight, or None if the tower cannot compute anything."""
    # Nothing can be computed on the meta device.
    if weight is None or weight.is_meta:
        return None
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, *image_size, generator=generator).to(weight)


Call = tuple[Any, Any]
"""One call of a module: its first argument and its output."""


def _own_run(
    tower: nn.Module, chain: Chain, image: Tensor
) -> tuple[Any, dict[str, list[Call]]]:
    """Run the tower itself on an image, and record how the tower calls its modules.

    Returns:
        (output, calls): ``output`` is the output of the tower. ``calls`` is a dictionary from sites to lists of calls
        of one module. It has the sites of the stages that run a single module.
    """
    calls: dict[str, list[Call]] = {}

    def record(site: str, _: nn.Module, given: tuple[Any, ...], out: Any) -> None:
        calls.setdefault(site, []).append((given[0] if given else None, out))

    hooks = []
    for stage in chain.stages:
        module: Any = stage.run
        if isinstance(module, PlacedBlock):
            module = module.module
        if isinstance(module, nn.Module):
            hooks.append(module.register_forward_hook(partial(record, stage.site)))
    try:
        return (chain.embed or tower)(image), calls
    finally:
        for hook in hooks:
            hook.remove()


def _parting(
    calls: list[Call], before: str, site: str, chain_input: Tensor, chain_output: Tensor
) -> str:
    """Say how the tower runs a module in another way than the chain does.

    The tower may call the module several times, with another input, or with further arguments. Return an empty text if
    none of this is the case.

    Args:
        calls: Calls of the module by the tower.
        before: The site before the module, for the message.
        site: The site after the module, for the message.
        chain_input: Input of the module in the chain.
        chain_output: Output of the module in the chain.
    """
    # The order matters: if several of these sentences are true, the first is the cause of the next.
    given, out = calls[0]
    if len(calls) > 1:
        return f"it runs {site} {len(calls)} times."
    if given is not None and not _same(chain_input, given):
        return f"it forks before {site}, which reads more than {before}."
    if not _same(chain_output, out):
        return f"{site} is given more than the output of {before}."
    return ""


def _same(of_chain: Tensor, own: Any) -> bool:
    """Return whether two outputs are equal up to `_TOLERANCE`. Numbers that are not finite count as zero."""
    # A tower with random weights may overflow, which is not an error of its chain.
    if not isinstance(own, Tensor) or own.shape != of_chain.shape:
        return False
    expected = _finite(own)
    error = (_finite(of_chain) - expected).abs().max()
    return bool(error <= _TOLERANCE * expected.abs().max())


def _finite(x: Tensor) -> Tensor:
    return x.detach().cpu().double().nan_to_num(0.0, 0.0, 0.0)


def _shape(output: Any) -> str:
    if isinstance(output, Tensor):
        return str(list(output.shape))
    return type(output).__name__
