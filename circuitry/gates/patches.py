"""Patches: values to write into activations, and the context manager `patched`, which writes them.

A `Patch` says where to write and what to write. It acts in every run that passes its site, also in a run through only
some stages, and in a run that starts at this site. All patches of a site are written at once. Each of them is computed
from the activation that the site had before any patch was written.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitry.encoder.baselines import Baseline, Counterfactual, check_count
from circuitry.encoder.chain import Chain
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.narrowing import in_order
from circuitry.encoder.stages import Stage
from circuitry.runs.arguments import FINITE, checked
from circuitry.runs.errors import InputError, name_some
from circuitry.runs.identity import UNKNOWN
from circuitry.runs.provenance import digest, weights_digest


@runtime_checkable
class ArrayLike(Protocol):
    """An object that numpy converts to an array, such as a tensor on the CPU."""

    def __array__(self) -> np.ndarray: ...


Chosen = int | float | Sequence[Any] | ArrayLike
"""An index, several indices, or a boolean mask over all units or positions.

Several indices and masks are lists, arrays or tensors on the CPU.
"""


@dataclass(frozen=True)
class Places:
    """Chosen units of a site, or chosen positions of a site."""

    indices: tuple[int, ...]
    """Indices of the chosen units or positions."""
    mask_length: int | None = None
    """Length of the boolean mask that was given, or None if indices were given.

    It must be the number of units, or of positions, of the site.
    """

    @classmethod
    def read(cls, given: Chosen, what: str) -> "Places":
        """Read the units or positions that a user gives.

        Args:
            given: An index, several indices, or a boolean mask.
            what: ``units`` or ``positions``, for error messages.

        Raises:
            InputError: if ``given`` is none of these.
        """
        try:
            array = np.asarray(given)
        except (ValueError, TypeError, RecursionError):
            # Lists of unequal lengths, or lists that contain themselves, are refused below like any text.
            array = np.asarray("no numbers")
        if array.dtype == bool and array.ndim:
            mask = array.reshape(-1)
            return cls(tuple(np.flatnonzero(mask).tolist()), len(mask))
        is_list_of_numbers = array.dtype.kind in "iuf" and array.ndim <= 1
        # The type is tested first, because floor and isfinite fail for arrays without numbers.
        if (
            not is_list_of_numbers
            or not (array == np.floor(array)).all()
            or not np.isfinite(array).all()
        ):
            raise InputError(
                f"Expected {what} as whole numbers or as a boolean mask, but {given!r} was given."
            )
        return cls(tuple(map(int, array.reshape(-1).tolist())))

    def mask(self, size: int, site: str, what: str) -> Bool[np.ndarray, " size"]:
        """Return a boolean mask over all units or positions of a site, True at the chosen ones.

        Args:
            size: Number of units or positions of the site.
            site: Name of the site, for error messages.
            what: ``units`` or ``positions``, for error messages.

        Raises:
            InputError: if the given mask has another length, or if an index is not from 0 to size - 1.
        """
        if self.mask_length not in (None, size):
            raise InputError(
                f"Site {site!r} has {size} {what}, but the boolean mask has {self.mask_length}: give one per place."
            )
        # A circuit may keep tens of thousands of units, so they are not looked at one by one.
        if self.indices and (min(self.indices) < 0 or max(self.indices) >= size):
            outside = [i for i in self.indices if not 0 <= i < size]
            raise InputError(
                f"Site {site!r} has {what} 0 to {size - 1}, but {name_some(outside)} was asked for: choose one there."
            )
        chosen = np.zeros(size, dtype=bool)
        chosen[list(self.indices)] = True
        return chosen


def mark_kept(units: Chosen, size: int, site: str) -> Bool[np.ndarray, " size"]:
    """Return a boolean mask over the units of a site, True at the chosen units.

    Args:
        units: An index, several indices, or a boolean mask.
        size: Number of units of the site.
        site: Name of the site, for error messages.
    """
    # A mask is returned as it is, because there may be thousands of circuits.
    if isinstance(units, np.ndarray) and units.dtype == bool and units.shape == (size,):
        return units
    return Places.read(units, "units").mask(size, site, "units")


_Finite = Annotated[float, FINITE] | Annotated[Float[Tensor, "..."], FINITE]
PatchValue = int | _Finite | Baseline | Counterfactual | Callable[[Tensor], Tensor]
"""The value of a `Patch`.

It is a number; an activation of the site [B, ...] or [1, ...]; a `Baseline`; `Counterfactual` images; or a function
that takes the whole activation of the site and returns an activation of the same shape. Only the patched units and
positions of an activation are written.
"""


@checked
@dataclass(frozen=True, eq=False)
class Patch:
    """A value to write into units and positions of the activation [B, ...] of a site.

    Example:
        >>> print(Patch("layer4.0", 0.0, units=5))  # zero ablation of one channel
        'layer4.0', units 5, all positions
        >>> negative = Patch("layer4.0", 0.0, units=graph.node_scores["layer4.0"] < 0)
        >>> mean = Patch("layer2.0", circuitry.mean_baseline(encoder, images))
        >>> swapped = Patch("act1", Counterfactual(others[:1]), positions=[0, 1])
        >>> steered = Patch("layer3.0", lambda activation: 2 * activation, units=[5])
    """

    site: str  #: Where to write.
    value: PatchValue
    """What to write: a number, an activation, a baseline, counterfactual images or a function; see `PatchValue`."""
    units: Chosen | None = None
    """Units to write: an index, several indices, or a boolean mask over all units (default: all units).

    They are stored as a tuple.
    """
    positions: Chosen | None = None
    """Positions to write: an index, several indices, or a boolean mask over all positions (default: all positions).

    The index of a position is row * width + column in a feature map, and the index of the token in a transformer. A
    site without positions has the single index 0.
    """

    def __post_init__(self) -> None:
        for name in ("units", "positions"):
            places = self.places(name)
            if places is None:
                continue
            kept = places.indices
            if places.mask_length is not None:
                # A mask is stored as a mask, because a run compares its length with the site.
                kept = tuple(np.ravel(getattr(self, name)).tolist())
            # A tuple is stored, because the caller may later change a list. The dataclass is frozen.
            object.__setattr__(self, name, kept)

    def places(self, what: Literal["units", "positions"]) -> Places | None:
        """Return the units or positions that are written, or None if all are written.

        Args:
            what: ``units`` or ``positions``.
        """
        given = getattr(self, what)
        return None if given is None else Places.read(given, what)

    @property
    def identity(self) -> str:
        """Digest of where the patch writes and what it writes; `UNKNOWN` if the value is a function."""
        value = self.value
        if isinstance(value, int | float):
            written: object = float(value)
        elif isinstance(value, Tensor):
            written = weights_digest({"": value})
        elif isinstance(value, Baseline | Counterfactual):
            written = value.digest
        else:
            return UNKNOWN
        chosen = list[list[int] | None]()
        for places in (self.places("units"), self.places("positions")):
            # They are sorted, because the order in which they were given changes no result.
            chosen.append(None if places is None else sorted(set(places.indices)))
        return digest([self.site, *chosen, written])

    def __str__(self) -> str:
        words = [repr(self.site)]
        for what in ("units", "positions"):
            places = self.places(what)
            if places is None:
                words.append(f"all {what}")
            else:
                words.append(f"{what} {name_some(places.indices)}")
        return ", ".join(words)


@checked
@contextmanager
def patched(encoder: Encoder, patches: Patch | Sequence[Patch]) -> Iterator[Encoder]:
    """Write one or several patches in every run of the encoder within the ``with`` block.

    They are also written in runs through only some of the stages. If such blocks are nested, the inner patches are
    computed from the activation after the outer patches, and overwrite it.

    Raises:
        InputError: if a site is unknown, or if two patches write the same unit at the same position. A run inside the
            block raises it if units, positions or a value do not fit the activation.

    Example:
        >>> with patched(encoder, Patch("layer4.0", 0.0, units=3)):
        ...     ablated = encoder(images)
        >>> ablated.shape == encoder(images).shape
        True
    """
    several = [patches] if isinstance(patches, Patch) else patches
    # Each site gets one hook for all its patches, so that each patch is computed from the unpatched activation.
    with encoder.hooks(fwd_hooks=list(_hooks_of(encoder, several).items())):
        yield encoder


@checked
def with_patches(encoder: Encoder, patches: Sequence[Patch]) -> Encoder:
    """Return an encoder whose stages write some patches, so that they act in every run for good.

    The sites and their units are those of the given encoder. The tower's modules do not write the patches, so functions
    that take the tower apart, such as `ResidualStream`, refuse the new encoder.

    Raises:
        InputError: as for `patched`.

    Example:
        >>> dead = with_patches(encoder, [Patch("layer4.0", 0.0, units=3)])
        >>> float(dead(images, stop="layer4.0")[:, 3].abs().max())
        0.0
    """
    hooks = _hooks_of(encoder, patches)
    stages = list[Stage]()
    for stage in encoder.stages:
        hook = hooks.get(stage.site)
        # Blocks would be run without the patches.
        stage = replace(stage, block=None)
        if hook is not None:
            # What is written becomes an entry of the identity of the encoder.
            kind = replace(stage.kind, made_of=[stage.kind.made_of, hook])
            stage = replace(
                stage,
                run=in_order(stage.run, hook),
                fast=stage.fast and in_order(stage.fast, hook),
                units=kind,
                narrow=None,
            )
        stages.append(stage)
    chain = Chain(
        tuple(stages),
        encoder.image_size,
        grid=encoder.chain.grid,
        scale=encoder.chain.scale,
        lower_precision=encoder.chain.lower_precision,
        by_hand=encoder.chain.by_hand,
    )
    return Encoder(
        encoder.tower,
        chain.stages,
        chain.image_size,
        points=encoder.points,
        chain=chain,
    )


def _hooks_of(encoder: Encoder, patches: Sequence[Patch]) -> "dict[str, _Hook]":
    """Return a hook for each site, which writes all patches of the site.

    Raises:
        InputError: if a site is unknown, or if two patches write the same unit at the same position.
    """
    for a, b in combinations(patches, 2):
        if a.site != b.site:
            continue
        same_units = _meet(a.places("units"), b.places("units"))
        same_positions = _meet(a.places("positions"), b.places("positions"))
        # The result would depend on the order of the patches.
        if same_units and same_positions:
            raise InputError(
                f"Two patches must not write the same place, but the one at {a} and the one at {b} do: "
                "separate their units or positions, or make them one."
            )
    by_site: dict[str, list[_Write]] = {}
    for patch in patches:
        by_site.setdefault(patch.site, []).append(_Write(encoder, patch))
    return {site: _Hook(writes) for site, writes in by_site.items()}


class _Write:
    """A patch that is ready to be written.

    Activations of counterfactual images are computed once. The mask of units and positions is computed once for each
    shape of an activation.
    """

    def __init__(self, encoder: Encoder, patch: Patch) -> None:
        self.patch = patch
        self.unit_dim = encoder.unit_dim(patch.site)
        self.n_carried = len(encoder.carried.get(patch.site, ()))
        value = patch.value
        if isinstance(value, Baseline):
            value.check_made_of(encoder)
        if isinstance(value, Counterfactual):
            # The counterfactual images are run before the hooks are set, so that no patch of this block acts on them.
            value = value.run(encoder, [patch.site])[patch.site]
        self.value = value
        self._masks: dict[torch.Size, Tensor] = {}

    def written(self, activation: Tensor) -> Tensor:
        """Return the value to write, in a shape that can be broadcast to the activation."""
        value = self.value
        if isinstance(value, int | float):
            return activation.new_full((), value)
        if isinstance(value, Baseline):
            check_count(value, len(activation))
            return value.at(self.patch.site, activation)
        given = value.to(activation) if isinstance(value, Tensor) else value(activation)
        fits_in_batch = given.shape[:1] in ((1,), (len(activation),))
        if given.shape[1:] != activation.shape[1:] or not fits_in_batch:
            raise InputError(
                f"The value of the patch at {self.patch} has shape {list(given.shape)}, but the activation there is "
                f"{list(activation.shape)}: give one of that shape, or with a batch of 1 for all images."
            )
        return given

    def mask(self, activation: Tensor) -> Tensor:
        """Return a mask of where to write [1, ...], which can be broadcast to the activation."""
        shape = activation.shape[1:]
        if shape not in self._masks:
            unit_axis = self.unit_dim % activation.dim() - 1
            sizes = list(shape)
            n_units = sizes.pop(unit_axis)
            # A stream that the site carries past its units is not a unit, so it is never written.
            units = self._chosen("units", n_units - self.n_carried)
            units = torch.cat([units, torch.zeros(self.n_carried, dtype=torch.bool)])
            positions = self._chosen("positions", math.prod(sizes))
            mask = (units[:, None] & positions).reshape(-1, *sizes)
            mask = mask.movedim(0, unit_axis)
            self._masks[shape] = mask.to(activation.device)[None]
        return self._masks[shape]

    def _chosen(self, what: Literal["units", "positions"], size: int) -> Tensor:
        places = self.patch.places(what)
        if places is None:
            return torch.ones(size, dtype=torch.bool)
        return torch.from_numpy(places.mask(size, self.patch.site, what))


@dataclass(frozen=True, eq=False)
class _Hook:
    """All patches of a site as one hook."""

    writes: list[_Write]

    @property
    def identity(self) -> str:
        """Digest of what the patches do, or `UNKNOWN`."""
        identities = [write.patch.identity for write in self.writes]
        return UNKNOWN if UNKNOWN in identities else digest(identities)

    def __call__(self, activation: Tensor, hook: object = None) -> Tensor:
        patched = activation
        for write in self.writes:
            value = write.written(activation)
            patched = torch.where(write.mask(activation), value, patched)
        # The result gets the memory layout of the activation, so that the next stage rounds as in the clean run.
        return torch.empty_like(activation).copy_(patched)


def _meet(a: Places | None, b: Places | None) -> bool:
    """Return whether two choices of units, or of positions, have an element in common. None chooses all of them."""
    for places in (a, b):
        if places is not None and not places.indices:
            return False
    if a is None or b is None:
        return True
    return not set(a.indices).isdisjoint(b.indices)
