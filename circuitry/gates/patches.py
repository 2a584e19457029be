"""Interventions: frozen values that say where and what, and the context manager that writes them at the sites.

A patch acts whenever a run, whole or partial, passes its site, the start of the run included. All patches of a site are
written at once, each from the unpatched activation.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitry.encoder.baselines import Baseline, Counterfactual, check_count
from circuitry.encoder.encoder import Encoder
from circuitry.runs.errors import InputError, name_some
from circuitry.runs.given import FINITE, checked
from circuitry.runs.identity import UNKNOWN
from circuitry.runs.provenance import digest, weights_digest


@runtime_checkable
class ArrayLike(Protocol):
    """An object that numpy converts to an array, such as a tensor on the CPU."""

    def __array__(self) -> np.ndarray: ...


Chosen = int | float | Sequence[Any] | ArrayLike
"""The number of one place, several numbers, or a boolean mask over all places: lists, arrays or tensors on the CPU."""


@dataclass(frozen=True)
class Places:
    """Some of the units or positions of a site."""

    indices: tuple[int, ...]
    mask_length: int | None = None
    """Length of the boolean mask that chose them, which must be that of the site."""

    @classmethod
    def read(cls, given: Chosen, what: str) -> "Places":
        """Read places as a user gives them; ``what`` (units or positions) is for messages."""
        try:
            array = np.asarray(given)
        except (
            ValueError,
            TypeError,
            RecursionError,
        ):  # lists of several lengths, or within themselves
            array = np.asarray("no numbers")
        if array.dtype == bool and array.ndim:
            flat = array.reshape(-1)
            return cls(tuple(np.flatnonzero(flat).tolist()), len(flat))
        whole = (
            array.dtype.kind in "iuf"
            and array.ndim <= 1
            and bool((array == np.floor(array)).all())
        )
        if not whole or not np.isfinite(array).all():
            raise InputError(
                f"Expected {what} as whole numbers or as a boolean mask, but {given!r} was given."
            )
        return cls(tuple(int(i) for i in array.reshape(-1)))

    def mask(self, size: int, site: str, what: str) -> Bool[np.ndarray, " size"]:
        """Return where the places are among ``size`` of them."""
        if self.mask_length not in (None, size):
            raise InputError(
                f"Site {site!r} has {size} {what}, but the boolean mask has {self.mask_length}: give one per place."
            )
        if outside := [i for i in self.indices if not 0 <= i < size]:
            raise InputError(
                f"Site {site!r} has {what} 0 to {size - 1}, but {name_some(outside)} was asked for: choose one there."
            )
        chosen = np.zeros(size, dtype=bool)
        chosen[list(self.indices)] = True
        return chosen


def mark_kept(units: Chosen, size: int, site: str) -> Bool[np.ndarray, " size"]:
    """Return which of a site's units are chosen, as a boolean mask."""
    return Places.read(units, "units").mask(size, site, "units")


_Finite = Annotated[float, FINITE] | Annotated[Float[Tensor, "..."], FINITE]
PatchValue = int | _Finite | Baseline | Counterfactual | Callable[[Tensor], Tensor]
"""A constant; an activation of the site [B, ...] or [1, ...]; a `Baseline`; `Counterfactual` images; or a function of
the site's whole activation that returns one of the same shape. Only the patched part of each is written."""


@checked
@dataclass(frozen=True, eq=False)
class Patch:
    """A value to write into units and positions of the activation [B, ...] of a site.

    Example:
        >>> Patch("layer4.0", 0.0, units=5)                           # zero ablation of one channel
        >>> Patch("layer4.0", 0.0, units=scores > 0)                  # of the channels where a mask is true
        >>> Patch("layer2.0", mean_baseline(encoder, reference))      # mean ablation of a whole site
        >>> Patch("act1", Counterfactual(corrupted), positions=[0, 1])    # activation patching of two positions
        >>> Patch("layer3.0", lambda a: 2 * a, units=[5])             # steering
    """

    site: str  #: Where to write.
    value: PatchValue
    """A number, an activation, a baseline, counterfactual images or a function; see `PatchValue`."""
    units: Chosen | None = None
    """Units to write: one, several, or a boolean mask over all of them (default: all); kept as a tuple."""
    positions: Chosen | None = None
    """Positions to write, likewise; counted row by row: row * width + column of a map, index of a token, 0 where a
    site has no positions."""

    def __post_init__(self) -> None:
        for name in ("units", "positions"):
            places = self.places(name)
            if places is not None:
                is_mask = places.mask_length is not None
                kept = (
                    tuple(np.ravel(getattr(self, name)).tolist())
                    if is_mask
                    else places.indices
                )
                object.__setattr__(self, name, kept)

    def places(self, what: Literal["units", "positions"]) -> Places | None:
        """Return the ``units`` or ``positions`` that are written; None for all."""
        given = getattr(self, what)
        return None if given is None else Places.read(given, what)

    @property
    def identity(self) -> str:
        """Digest of everything that it writes, or `UNKNOWN` for a function."""
        value = self.value
        if isinstance(value, int | float):
            written: object = float(value)
        elif isinstance(value, Tensor):
            written = weights_digest({"": value})
        elif isinstance(value, Baseline | Counterfactual):
            written = value.digest
        else:
            return UNKNOWN
        chosen = self.places("units"), self.places("positions")
        return digest(
            [
                self.site,
                *(
                    None if some is None else sorted(set(some.indices))
                    for some in chosen
                ),
                written,
            ]
        )

    def __str__(self) -> str:
        chosen = {what: self.places(what) for what in ("units", "positions")}
        words = [
            f"all {what}" if p is None else f"{what} {name_some(p.indices)}"
            for what, p in chosen.items()
        ]
        return ", ".join([repr(self.site), *words])


@checked
@contextmanager
def patched(encoder: Encoder, patches: Patch | Sequence[Patch]) -> Iterator[Encoder]:
    """Have one patch, or several, written in every run of the encoder within the block, whole or partial.

    A block inside another one sees, and overwrites, what the outer one wrote.

    Raises:
        InputError: for an unknown site or two patches of the same place; and, from the run inside the block,
            for units, positions or a value that do not fit the activation.

    Example:
        >>> with patched(encoder, Patch("layer4.0", 0.0, units=3)):
        ...     ablated = encoder(images)
    """
    several = [patches] if isinstance(patches, Patch) else patches
    for a, b in combinations(several, 2):
        if a.site == b.site and all(
            _meet(a.places(what), b.places(what)) for what in ("units", "positions")
        ):
            raise InputError(
                f"Two patches must not write the same place, but the one at {a} and the one at {b} do: "
                "separate their units or positions, or make them one."
            )
    by_site: dict[str, list[_Write]] = {}
    for patch in several:
        by_site.setdefault(patch.site, []).append(_Write(encoder, patch))
    with encoder.hooks(
        fwd_hooks=[(site, _Hook(writes)) for site, writes in by_site.items()]
    ):
        yield encoder


class _Write:
    """A patch with what it writes computed and its mask made once per shape."""

    def __init__(self, encoder: Encoder, patch: Patch) -> None:
        self.patch, self.unit_dim = patch, encoder.unit_dim(patch.site)
        self.n_carried = len(encoder.carried.get(patch.site, ()))
        value = patch.value
        if isinstance(value, Baseline):
            value.check_made_of(encoder)
        self.value = (
            value.run(encoder, [patch.site])[patch.site]
            if isinstance(value, Counterfactual)
            else value
        )
        self._masks: dict[torch.Size, Tensor] = {}

    def written(self, activation: Tensor) -> Tensor:
        """Return what stands at the patched places, broadcastable to the activation."""
        value = self.value
        if isinstance(value, int | float):
            return activation.new_full((), value)
        if isinstance(value, Baseline):
            check_count(value, len(activation))
            return value.at(self.patch.site, activation)
        found = value.to(activation) if isinstance(value, Tensor) else value(activation)
        if found.shape[1:] != activation.shape[1:] or len(found) not in (
            1,
            len(activation),
        ):
            raise InputError(
                f"The value of the patch at {self.patch} has shape {list(found.shape)}, but the activation there is "
                f"{list(activation.shape)}: give one of that shape, or with a batch of 1 for all images."
            )
        return found

    def mask(self, activation: Tensor) -> Tensor:
        """Return where to write, [1, ...] broadcastable to the activation."""
        shape = activation.shape[1:]
        if shape not in self._masks:
            units = self.unit_dim % activation.dim()
            axes = [axis for axis in range(1, activation.dim()) if axis != units]
            wide = self._chosen("units", activation.shape[units] - self.n_carried)
            wide = torch.cat([wide, torch.zeros(self.n_carried, dtype=torch.bool)])
            spread = self._chosen(
                "positions", int(np.prod([activation.shape[axis] for axis in axes]))
            )
            mask = wide[:, None] & spread
            mask = mask.reshape(-1, *(activation.shape[axis] for axis in axes)).movedim(
                0, units - 1
            )
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
        several = [one.patch.identity for one in self.writes]
        return UNKNOWN if UNKNOWN in several else digest(several)

    def __call__(self, activation: Tensor, hook: object) -> Tensor:
        out = activation
        for one in self.writes:
            out = torch.where(one.mask(activation), one.written(activation), out)
        return torch.empty_like(activation).copy_(
            out
        )  # the same memory layout: the next stage then rounds alike


def _meet(a: Places | None, b: Places | None) -> bool:
    """Whether two sets of places share one, None being all of them; the empty set meets none."""
    if a is None or b is None:
        return all(places is None or len(places.indices) > 0 for places in (a, b))
    return not set(a.indices).isdisjoint(b.indices)
