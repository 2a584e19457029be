"""Divide blocks of convolutional networks into steps, so that their hidden channels become units.

Each step runs modules of the block. A block reads the stream x [batch, channel, height, width] and adds to it:

    h = hidden(x)                     hidden channels after the last nonlinearity inside the block
    x = after(add(h) + shortcut(x))   the shortcut is the stream itself, a projection of the stream, or zero

The hidden channels of a convolutional block correspond to the neurons of an MLP. A block may have several hidden
activations in a row; a bottleneck has two. The addition to the stream is linear in the last hidden channels unless
squeeze-excite or a norm follows them. ResNet applies a nonlinearity to the stream after every block (``after``);
EfficientNet does not.

The channels of a projection shortcut are a site, too. So everything in the stream is written by units, and the output
is the same for all images if no unit is kept.

To support a new kind of block, add a line to `BLOCK_KINDS`. Or list the block as a `ConvBlock` in the ``blocks`` of the
`Chain` of a new architecture (`register_architecture`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from open_clip import modified_resnet
from timm.models import _efficientnet_blocks as timm_blocks
from timm.models import convnext as timm_convnext
from timm.models import regnet as timm_regnet
from timm.models import resnet as timm_resnet
from torch import Tensor, nn
from torchvision.models import (
    convnext,
    efficientnet,
    mobilenetv2,
    mobilenetv3,
    regnet,
    resnet,
)

from circuitry.encoder.narrowing import in_order
from circuitry.encoder.stages import NO_STEP, ConvBlock, EnteredBlock, Stage, Step
from circuitry.encoder.unit_kinds import HIDDEN_CHANNEL, PROJECTION_CHANNEL, UnitKind

STREAM_ITSELF = ("", NO_STEP)
"""The ``shortcut`` of a `ConvBlock` whose shortcut is the stream itself."""


class UnitsAndPast(NamedTuple):
    """An activation inside a block: the units of a site, and a second tensor that later steps need (``past``).

    Both tensors are [batch, channel, height, width].
    """

    units: Tensor
    """The units of the current site, which the next step reads."""
    past: Tensor | None
    """The tensor that the block passes on next to the units. It is None if the block has no shortcut.

    At most sites it is the stream or its projection, which the shortcut adds at the end of the block. At the site of a
    projection, it is the last hidden activation.
    """


class _Move(NamedTuple):
    """A site inside a block, and the parts of the step to this site that differ from site to site; see `PathStep`."""

    name: str
    kind: UnitKind
    units: Step
    carry: Step = NO_STEP
    swaps: bool = False


@dataclass(frozen=True)
class AfterBlock:
    """The step from the activation of the last site of a block to the stream after the block."""

    block: ConvBlock
    """The block."""
    n_units: int
    """Number of units of the site."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return the stream after the block."""
        units, past = _split(self.n_units, x)
        added = self.block.add(units)
        return self.block.after(added if past is None else added + past)


@dataclass(frozen=True)
class PathStep:
    """The step from one site to the next, in parts that can be run without the others.

    A change of the units of the site before, or of the stream that is carried past them, is followed by running the
    parts that it reaches.
    """

    n_before: int | None
    """Number of units of the site before. The stream comes after them. None if all of the activation are units."""
    add: Step | None
    """Step from the units of the site before to what they add to the stream. None inside of a block, where units read
    units of the same block, or what is carried past them."""
    after: Step
    """Step after the sum of what is added and the carried stream. Without a sum (``add`` is None) it is ignored."""
    swaps: bool
    """Whether the units of this site are computed from what is carried, and the units before are carried on."""
    units: Step
    """Step that computes the units of this site."""
    carry: Step | None
    """Step to what is carried past this site. None if nothing is carried."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return the activation of this site for an activation of the site before."""
        units, past = self.run(x)
        return units if past is None else torch.cat([units, past], 1)

    def run(self, x: Tensor) -> UnitsAndPast:
        """Return the units of this site and what it carries, for an activation of the site before."""
        units, past = self.split(x)
        if self.add is not None:
            added = self.add(units)
            units = past = self.after(added if past is None else added + past)
        if self.swaps:
            assert past is not None  # a block with a projection carries the stream
            units, past = past, units
        if self.carry is None or past is None:
            return UnitsAndPast(self.units(units), None)
        return UnitsAndPast(self.units(units), self.carry(past))

    def split(self, x: Tensor) -> UnitsAndPast:
        """Split an activation of the site before into its units and what it carries past them."""
        return (
            UnitsAndPast(x, None) if self.n_before is None else _split(self.n_before, x)
        )


def path_step(run: Step) -> PathStep | None:
    """Return the parts of the step of a stage, or None if the stage is not known to consist of such parts."""
    if isinstance(run, PathStep):
        return run
    # The stage after the last block reads the stream after this block.
    first, *later = in_order(run).functions
    if not isinstance(first, AfterBlock):
        return None
    block = first.block
    return PathStep(
        first.n_units, block.add, block.after, False, in_order(*later), None
    )


class Kind(NamedTuple):
    """The names under which blocks of one kind hold their modules.

    Not every block of a kind has all these modules. The names of missing modules are skipped.
    """

    hidden: tuple[tuple[str, ...], ...]
    """For each hidden activation, the modules that compute it, in order.

    The site of the activation has the name of the last of these modules that is not an identity.
    """
    add: tuple[str, ...]
    """Modules that compute the addition to the stream from the last hidden activation, in order."""
    shortcut: str
    """Name of the attribute that describes the shortcut of a block.

    The value of the attribute is a module that projects the stream, a flag that says whether the block has a shortcut,
    or None. The field ``whole`` says what None means.
    """
    after: str = ""
    """Module that runs after addition and shortcut are summed. It is empty if there is no such module."""
    whole: bool = True
    """The meaning of None in the attribute ``shortcut``.

    If True, the shortcut is the stream itself. If False, the block has no shortcut.
    """


_CONVOLUTION = {i: (f"conv{i}", f"bn{i}", "drop_block", f"act{i}") for i in (1, 2)}
_SEPARABLE = (("conv_s2d", "bn_s2d", "conv_dw", "bn1", "aa", "se"),)
_INVERTED = (("conv_s2d", "bn_s2d", "conv_pw", "bn1", "conv_dw", "bn2", "aa", "se"),)
BLOCK_KINDS: dict[type[nn.Module], Kind] = {
    modified_resnet.Bottleneck: Kind(
        (("conv1", "bn1", "act1"), ("conv2", "bn2", "act2", "avgpool")),
        ("conv3", "bn3"),
        "downsample",
        "act3",
    ),
    timm_resnet.BasicBlock: Kind(
        ((*_CONVOLUTION[1], "aa"),), ("conv2", "bn2", "se"), "downsample", "act2"
    ),
    timm_resnet.Bottleneck: Kind(
        (_CONVOLUTION[1], (*_CONVOLUTION[2], "aa")),
        ("conv3", "bn3", "se"),
        "downsample",
        "act3",
    ),
    timm_regnet.Bottleneck: Kind(
        (("conv1",), ("conv2", "se")), ("conv3",), "downsample", "act3", whole=False
    ),
    timm_blocks.DepthwiseSeparableConv: Kind(
        _SEPARABLE, ("conv_pw", "bn2"), "has_skip"
    ),
    timm_blocks.InvertedResidual: Kind(_INVERTED, ("conv_pwl", "bn3"), "has_skip"),
    timm_blocks.UniversalInvertedResidual: Kind(
        (("dw_start", "pw_exp", "dw_mid", "se"),),
        ("pw_proj", "dw_end", "layer_scale"),
        "has_skip",
    ),
    timm_blocks.EdgeResidual: Kind(
        (("conv_exp", "bn1", "aa", "se"),), ("conv_pwl", "bn2"), "has_skip"
    ),
    timm_blocks.ConvBnAct: Kind((("conv", "bn1", "aa"),), (), "has_skip"),
    resnet.BasicBlock: Kind(
        (("conv1", "bn1", "relu"),), ("conv2", "bn2"), "downsample", "relu"
    ),
    resnet.Bottleneck: Kind(
        (("conv1", "bn1", "relu"), ("conv2", "bn2", "relu")),
        ("conv3", "bn3"),
        "downsample",
        "relu",
    ),
    regnet.ResBottleneckBlock: Kind(
        (("f.a",), ("f.b", "f.se")), ("f.c",), "proj", "activation"
    ),
}
"""Names of the modules, by class of the block."""
ROWS: dict[type[nn.Module], tuple[str, int]] = {
    efficientnet.MBConv: ("block", 1),
    efficientnet.FusedMBConv: ("block", 1),
    mobilenetv3.InvertedResidual: ("block", 1),
    mobilenetv2.InvertedResidual: ("conv", 2),
}
"""torchvision's blocks that consist of a single sequence of modules.

The values are the name of the sequence, and how many modules at its end compute the addition to the stream.
"""


def conv_blocks(stages: Sequence[Stage]) -> dict[str, ConvBlock]:
    """Return the convolutional blocks of a tower by site. Stages that run no such block are left out."""
    blocks = {}
    for stage in stages:
        entered = stage.run
        if not isinstance(entered, EnteredBlock):
            entered = EnteredBlock(entered, NO_STEP)
        block = _taken_apart(entered.module, entered.entry)
        if block is not None:
            blocks[stage.site] = block
    return blocks


def conv_stages(
    path: str, block: ConvBlock, read: Step, x: Tensor
) -> tuple[list[Stage], Tensor]:
    """Return the stages of a block, which end at its hidden channels and at the channels of its projection shortcut.

    Args:
        path: Site of the block.
        block: The block.
        read: Step that computes the stream from the activation of the site before the block.
        x: An activation of the site before the block. It is run through the stages to count their channels.

    Returns:
        The stages, and the output of the last stage for ``x``.
    """
    # The first step reads the stream, which is formed after the block before, if there is one.
    reader, *entry = in_order(read, block.entry).functions
    n_before = None
    add: Step = NO_STEP
    if isinstance(reader, AfterBlock):
        n_before = reader.n_units
        add = reader.block.add
        reader = reader.block.after
    carries = block.shortcut is not None
    step = PathStep(
        n_before,
        add,
        in_order(reader, *entry),
        swaps=False,
        units=NO_STEP,
        carry=NO_STEP if carries else None,
    )
    # The site of the projection comes right before the site of the last hidden activation. There both activations have
    # the same resolution, so they fit into one tensor.
    *first, (last_name, last_step) = block.hidden
    moves = [_Move(name, HIDDEN_CHANNEL, hidden) for name, hidden in first]
    if block.shortcut is not None and block.shortcut[0]:
        # The projection reads the stream, so one step computes both the projection and the last hidden activation. The
        # hidden channels are carried past the site of the projection, and the next step only swaps the two.
        name, project = block.shortcut
        # At the entry of the block both are computed from the stream.
        swaps = bool(first)
        moves.append(_Move(name, PROJECTION_CHANNEL, project, last_step, swaps))
        moves.append(_Move(last_name, HIDDEN_CHANNEL, NO_STEP, NO_STEP, swaps=True))
    else:
        moves.append(_Move(last_name, HIDDEN_CHANNEL, last_step))

    stages = list[Stage]()
    for move in moves:
        step = replace(step, units=move.units, swaps=move.swaps)
        if carries:
            step = replace(step, carry=move.carry)
        units, past = step.run(x)
        x = units if past is None else torch.cat([units, past], 1)
        n_units = units.shape[1]
        carried = range(n_units, x.shape[1])
        stages.append(Stage(f"{path}.{move.name}", step, move.kind, carried=carried))
        # The next steps are inside of the block.
        step = replace(step, n_before=n_units, add=None)
    return stages, x


def _split(n_units: int, x: Tensor) -> UnitsAndPast:
    units, past = torch.split(x, [n_units, x.shape[1] - n_units], 1)
    return UnitsAndPast(units, past if past.shape[1] else None)


def _taken_apart(module: Any, entry: Step) -> ConvBlock | None:
    """Return the steps of a block in evaluation mode, or None if the module is not a block of a known kind.

    ``entry`` is a step that is applied to the stream before the block reads it, such as a down-sampling.
    """
    # Exact types are compared, because a derived class may run the same modules in another order.
    if type(module) in BLOCK_KINDS:
        return _by_names(module, BLOCK_KINDS[type(module)], entry)
    if type(module) in ROWS:
        name, n_last = ROWS[type(module)]
        row = list(getattr(module, name))
        # A block without expansion has a single module before the modules that project back to the stream.
        n = max(1, len(row) - n_last)
        hidden = ((f"{name}.{n - 1}", in_order(*row[:n])),)
        past = STREAM_ITSELF if module.use_res_connect else None
        return ConvBlock(hidden, in_order(*row[n:]), past, entry=entry)
    if isinstance(module, timm_convnext.ConvNeXtBlock):
        return _convnext(module, entry)
    if isinstance(module, convnext.CNBlock):
        # The module permutes its input to channels last before its MLP, and back to channels first after it. Here the
        # hidden channels are permuted to channels first, as at all sites of CNNs, and back before they are projected.
        *into, out, back = module.block
        hidden = (("block.4", in_order(*into, back)),)
        add = in_order(_channels_last, out, back, lambda x: module.layer_scale * x)
        return ConvBlock(hidden, add, STREAM_ITSELF, entry=entry)
    return None


def _by_names(block: nn.Module, kind: Kind, entry: Step) -> ConvBlock:
    """Return the steps of a block whose modules have the names in ``kind``.

    ``entry`` is a step that is applied to the stream before the block reads it.
    """
    modules = dict(block.named_modules())
    steps = {n: m for n, m in modules.items() if not isinstance(m, nn.Identity)}

    def named(names: Sequence[str]) -> dict[str, Any]:
        # In `named_modules` the empty name means the whole block. Here an empty name means that there is no step.
        return {name: steps[name] for name in names if name and name in steps}

    hidden = []
    for number, names in enumerate(kind.hidden, 1):
        run = named(names)
        name = [*run][-1]
        # torchvision runs the same ReLU several times. A number after its name makes the names of its sites distinct.
        if name == kind.after:
            name = f"{name}{number}"
        hidden.append((name, in_order(*run.values())))
    add = in_order(*named(kind.add).values())
    after = in_order(*named((kind.after,)).values())
    past = getattr(block, kind.shortcut)
    shortcut: tuple[str, Step] | None = STREAM_ITSELF
    # A flag (timm) says whether there is a shortcut. A module projects the stream. None means the stream itself in most
    # kinds of blocks.
    if past is False or (past is None and not kind.whole):
        shortcut = None
    elif isinstance(past, nn.Module) and not isinstance(past, nn.Identity):
        shortcut = kind.shortcut, past
    return ConvBlock(hidden, add, shortcut, after, entry)


def _convnext(block: Any, entry: Step) -> ConvBlock:
    """Return the steps of a block of timm's ConvNeXt. Its MLP reads channels last or channels first."""
    mlp = block.mlp
    norm = getattr(mlp, "norm", None) or getattr(mlp, "grn", None) or NO_STEP
    to: Step = NO_STEP
    back: Step = NO_STEP
    if not block.use_conv_mlp:
        to = _channels_last
        back = _channels_first
    hidden = in_order(block.conv_dw, to, block.norm, mlp.fc1, mlp.act, back)

    def scaled(x: Tensor) -> Tensor:
        # Some releases have no layer scale.
        return x if block.gamma is None else x * block.gamma.reshape(1, -1, 1, 1)

    add = in_order(to, norm, mlp.fc2, back, scaled)
    past = ("shortcut", block.shortcut)
    if isinstance(block.shortcut, nn.Identity):
        past = STREAM_ITSELF
    return ConvBlock((("mlp.act", hidden),), add, past, entry=entry)


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)
