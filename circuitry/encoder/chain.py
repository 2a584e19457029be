"""A tower as a chain of stages: the `Chain` that an adapter returns, its notation as links, and its check.

A list of links describes the chain of a network. A link is one of

1. the path of a module in the network. A container that runs its modules one after the other is opened, so that each
   block ends at a site of its own. timm's down-sampling before the first block of a level belongs to that block;
2. a tuple of paths and functions that run one after the other as one stage, which is named after the last module;
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
"""Largest difference from the tower's own output, relative to the largest number in it."""
_CONTAINERS = ("Sequential", "RegStage", "AnyStage")
"""Kinds of modules that run their children one after the other; kinds derived from them are blocks."""


@dataclass(frozen=True)
class Chain:
    """The stages of a tower, its blocks and tokens; adapters return it, see `register_architecture`.

    Example:
        >>> from circuitry.encoder import Chain, linked_stages
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> chain = Chain(tuple(linked_stages(net, [("0", "1"), "2"])), (64, 64))
        >>> [stage.site for stage in chain.stages]
        ['1', '2']
    """

    stages: tuple[Stage, ...]  #: In the order in which they run.
    image_size: tuple[int, int]
    """Height and width of the images that the tower takes."""
    blocks: Mapping[str, TransformerBlock | ConvBlock] = field(default_factory=dict)
    """Blocks by the site that each ends at: those of a transformer, or those of a CNN whose kind of block the package
    does not know. One stage follows the last block."""
    grid: TokenGrid | None = None
    """Places of a transformer's tokens in the image; None for another tower."""
    embed: Callable[[Tensor], Tensor] | None = None
    """Function of images that returns the tower's own output; None if calling the tower does."""
    scale: "ModelScale | None" = None
    """How to read the scale of logits of the model that the tower is part of; a `Clip` sets it."""
    by_hand: bool = False
    """Whether a user listed the stages. An adapter makes the same stages of a tower each time, a user may not."""


class ModelScale(NamedTuple):
    """How to read a model's scale of logits; it is read at each use, since training changes it."""

    known_by: Tensor  #: The weight that the scale is read from; different models have different weights.
    read: Callable[[Any, Tensor], float]
    """Function of an encoder and of ``known_by`` that returns the scale."""


def height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    """Return height and width of an image size as libraries write it: one number, or both."""
    if isinstance(size, int):
        return size, size
    return size[0], size[1]


def class_token(x: Tensor) -> Tensor:
    """Return the first token of each image."""
    return x[:, 0]


def token_stages(blocks: Mapping[str, TransformerBlock]) -> list[Stage]:
    """Return one stage for each transformer block; ``blocks`` has them by site."""
    return [Stage(site, block, FEATURE) for site, block in blocks.items()]


def linked_stages(
    net: nn.Module, links: Sequence[Link], unit_dim: int = 1, path: str = ""
) -> Iterator[Stage]:
    """Yield the stages of a network that links describe.

    Args:
        net: The network.
        links: Links in the order in which they run; see the module.
        unit_dim: Axis of the units in the outputs of modules; -1 fits tokens [B, L, C] and pooled features [B, C].
        path: Prefix of the names of sites, before the modules' paths.

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
    """Return one stage that runs modules, given by their paths, and functions; it has the name of the last module."""
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
    """Yield a stage for a module, or for each module inside it where it only runs them one after the other."""
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
    """Raise `InputError` where a chain and its tower give different outputs for an image of noise.

    The message names the first site at which they differ. Both run in the tower's present mode.
    """
    for name, module in tower.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise InputError(
                f"An encoder sees each image by itself, but {name} ({type(module).__name__}) has no running "
                "statistics, so it takes those of the batch: train it with track_running_stats=True."
            )
    weight = next(tower.parameters(), None)
    # Nothing can be computed on the meta device.
    if weight is None or weight.is_meta:
        return
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, *chain.image_size, generator=generator).to(weight)
    no_chain = f"This {type(tower).__name__} is no chain"
    with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
        own, calls = _own_run(tower, chain, image)
        x = image
        site = INPUT
        # The first difference between tower and chain. It is told only if the outputs differ in the end: a module that
        # is called twice, say, may be no error.
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


Call = tuple[Any, Any]
"""First argument of a module in one call, and the output of this call."""


def _own_run(
    tower: nn.Module, chain: Chain, image: Tensor
) -> tuple[Any, dict[str, list[Call]]]:
    """Return the tower's own output and, by site, its calls of each module that is a stage by itself."""
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
    """Say how the tower's calls of the module at a site differ from the chain's call; nothing if they do not."""
    # The order matters: of several true sentences the first is the cause of the next.
    given, out = calls[0]
    if len(calls) > 1:
        return f"it runs {site} {len(calls)} times."
    if given is not None and not _same(chain_input, given):
        return f"it forks before {site}, which reads more than {before}."
    if not _same(chain_output, out):
        return f"{site} is given more than the output of {before}."
    return ""


def _same(of_chain: Tensor, own: Any) -> bool:
    """Say whether two outputs are equal up to `_TOLERANCE`; numbers that are not finite count as zero."""
    # A tower with random weights may overflow; that is no fault of its chain.
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
