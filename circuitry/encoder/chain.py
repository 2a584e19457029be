"""A tower as a chain: what adapters read off towers, how to write a chain down, and the check against the tower itself.

A chain is a list of links. A link is

1. a module by its path in the network; containers of modules that run one after the other are opened, so that each
   block ends at a site of its own, and timm's down-sampling before the first block of a level belongs to that block;
2. a tuple of modules and functions that run one after the other as one stage, named after the last module;
3. a `Stage`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from circuitry.encoder.narrowing import in_order
from circuitry.encoder.stages import ConvBlock, EnteredBlock, PlacedBlock, Stage
from circuitry.encoder.tokens import TokenGrid
from circuitry.runs.errors import InputError

TransformerBlock = nn.Module | PlacedBlock
Link = str | tuple[str | Callable[[Tensor], Tensor], ...] | Stage

_TOLERANCE = 1e-5
"""Largest difference from the tower's own output, relative to the largest number in it."""
_CONTAINERS = ("Sequential", "RegStage", "AnyStage")
"""Kinds of modules that run their children one after the other; kinds derived from them are blocks."""


@dataclass(frozen=True)
class Chain:
    """What an adapter reads off a tower; see `register_architecture`."""

    stages: tuple[Stage, ...]  #: In the order in which they run.
    image_size: tuple[int, int]
    """Height and width of images."""
    blocks: Mapping[str, TransformerBlock | ConvBlock] = field(default_factory=dict)
    """Blocks by the site that each ends at, and one stage follows the last: of a transformer, or of a CNN where the
    package does not know their kind."""
    grid: TokenGrid | None = None
    """Where the tokens of a transformer lie."""
    embed: Callable[[Tensor], Tensor] | None = None
    """Images -> the tower's own output, where that is not just what calling it returns."""
    scale: "ModelScale | None" = None
    """What tells the scale of logits of the model that the tower is of; a `Clip` sets it."""
    by_hand: bool = False
    """Whether somebody wrote the stages down: a reader makes the same ones of the same tower, a hand may not."""


class ModelScale(NamedTuple):
    """How the scale of logits of a model is told: when it is asked for, since training changes it."""

    known_by: Tensor  #: What it is read off, which tells one model from another.
    read: Callable[[Any, Tensor], float]
    """An encoder and that -> the scale."""


def height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    """Return the height and width that a library's setting of an image size means."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def class_token(x: Tensor) -> Tensor:
    """Return the first token of each image."""
    return x[:, 0]


def linked_stages(
    net: nn.Module, links: Sequence[Link], unit_dim: int = 1, path: str = ""
) -> Iterator[Stage]:
    """Yield the stages of a network that is written as links.

    Args:
        links: In order; see the module.
        unit_dim: Axis of the units in the outputs of modules; -1 fits tokens [B, L, C] and pooled features [B, C].
        path: Goes before the modules' paths in the names of sites.
    """
    for link in links:
        if isinstance(link, Stage):
            yield link
        elif isinstance(link, str):
            yield from _opened(_module(net, link), path + link, unit_dim)
        else:
            names = [piece for piece in link if isinstance(piece, str)]
            if not names:
                raise InputError(
                    "A tuple of a chain names a module, after which its site is called, but one has none."
                )
            runs = [
                _module(net, piece) if isinstance(piece, str) else piece
                for piece in link
            ]
            yield Stage(
                path + names[-1],
                in_order(*runs) if len(runs) > 1 else runs[0],
                unit_dim,
            )


def _module(net: nn.Module, path: str) -> nn.Module:
    try:
        return net.get_submodule(path)
    except AttributeError as error:
        inside = ", ".join(name for name, _ in net.named_children())
        raise InputError(
            f"A {type(net).__name__} has no module {path!r}; its modules are {inside}."
        ) from error


def _opened(module: nn.Module, site: str, unit_dim: int) -> Iterator[Stage]:
    level: Any = module
    if type(module).__name__ in _CONTAINERS:
        for name, child in module.named_children():
            yield from _opened(child, f"{site}.{name}", unit_dim)
    elif isinstance(getattr(module, "blocks", None), nn.Sequential | nn.ModuleList):
        entry = [
            getattr(level, name)
            for name in ("downsample", "pos_emb")
            if hasattr(level, name)
        ]
        for j, block in enumerate(level.blocks):
            yield Stage(
                f"{site}.blocks.{j}",
                block if j else EnteredBlock(block, in_order(*entry)),
                unit_dim,
            )
    elif not isinstance(module, nn.Identity):
        yield Stage(site, module, unit_dim)


def check_chain(tower: nn.Module, chain: Chain) -> None:
    """Run an image of noise through a chain and through its tower, both in the tower's present mode."""
    for name, module in tower.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise InputError(
                f"An encoder sees each image by itself, but {name} ({type(module).__name__}) has no running "
                "statistics, so it takes those of the batch: train it with track_running_stats=True."
            )
    weight = next(tower.parameters(), None)
    if weight is None or weight.is_meta:
        return
    image = torch.randn(
        1, 3, *chain.image_size, generator=torch.Generator().manual_seed(0)
    ).to(weight)
    with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
        own, calls = _own_run(tower, chain, image)
        found, at, parted = image, "input", ""
        for stage in chain.stages:
            before = found, at
            try:
                found, at = stage.run(found), stage.site
            except (RuntimeError, TypeError, ValueError, IndexError) as error:
                raise InputError(
                    f"{parted or f'This {_kind(tower)} is no chain of its parts: they'} cannot be run one after the "
                    f"other up to {stage.site} ({' '.join(str(error).split())[:200]})."
                ) from error
            if not parted and stage.site in calls:
                parted = _parting(tower, calls[stage.site], before, (found, at))
    if not _same(found, own):
        raise InputError(
            (
                parted
                or f"This {_kind(tower)} is no chain of its parts: behind {at} it does something else."
            )
            + f" Its own output {_shape(own)} differs from the chain's {_shape(found)}: give the stages up to there to "
            "Encoder.from_stages."
        )


Call = tuple[Any, Any]
"""What a module is given and what it returns."""


def _own_run(
    tower: nn.Module, chain: Chain, image: Tensor
) -> tuple[Any, dict[str, list[Call]]]:
    """Return the tower's own output, and the calls of the modules that are stages by themselves, by site."""
    modules = {
        s.site: s.run.module if isinstance(s.run, PlacedBlock) else s.run
        for s in chain.stages
    }
    calls: dict[str, list[Call]] = {}

    def record(site: str, given: tuple[Any, ...], out: Any) -> None:
        calls.setdefault(site, []).append((given[0] if given else None, out))

    hooks = [
        module.register_forward_hook(
            lambda _, given, out, site=site: record(site, given, out)
        )
        for site, module in modules.items()
        if isinstance(module, nn.Module)
    ]
    try:
        return (tower(image) if chain.embed is None else chain.embed(image)), calls
    finally:
        for hook in hooks:
            hook.remove()


def _parting(
    tower: nn.Module,
    calls: list[Call],
    before: tuple[Tensor, str],
    after: tuple[Tensor, str],
) -> str:
    """Return the sentence that says how the tower parts from its chain at a site; none where it does not."""
    (given, out), site = calls[0], after[1]
    if len(calls) > 1:
        return f"This {_kind(tower)} is no chain: it runs {site} {len(calls)} times."
    if given is not None and not _same(before[0], given):
        return f"This {_kind(tower)} is no chain: it forks before {site}, which reads more than {before[1]}."
    if not _same(after[0], out):
        return f"This {_kind(tower)} is no chain: {site} is given more than the output of {before[1]}."
    return ""


def _same(found: Tensor, own: Any) -> bool:
    """Say whether two outputs are equal up to `_TOLERANCE`; what is not finite is equal to what is not finite."""
    if not isinstance(own, Tensor) or own.shape != found.shape:
        return False
    ours, theirs = (
        x.detach().cpu().double().nan_to_num(0.0, 0.0, 0.0) for x in (found, own)
    )
    return bool((ours - theirs).abs().max() <= _TOLERANCE * theirs.abs().max())


def _kind(tower: nn.Module) -> str:
    return type(tower).__name__


def _shape(output: Any) -> str:
    return (
        str(list(output.shape)) if isinstance(output, Tensor) else type(output).__name__
    )
