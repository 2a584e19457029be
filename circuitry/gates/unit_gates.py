"""Gates on units: a gate keeps a unit, replaces it by its baseline, or mixes the two.

With gate g, activation a and baseline b, the unit gets the value b + g (a - b). The gates of all sites act in the same
run. So the activation a of a site depends on the gates of all earlier sites. The image itself never has gates, but the
embedding can have gates like any other site.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor

from circuitry.bases.gated_reading import mixed
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import rows_that_fit
from circuitry.gates.patches import Chosen, mark_kept
from circuitry.runs.errors import InputError

UnitGates = Mapping[str, Shaped[Tensor, "stack units"]]
"""Gates by site [stack, units], as booleans or real numbers. The units include error units.

A site that is not listed has no gates, so its activation is not changed.
"""


@dataclass(frozen=True, eq=False)
class GatedUnits:
    """An encoder with gates on the units of some sites."""

    encoder: Encoder
    """The encoder that runs."""
    sites: tuple[str, ...]
    """Sites with gates, in the encoder's order."""
    rows: int
    """Largest number of images in one run. An image under several rows of gates counts once for each row."""

    @classmethod
    def of(cls, task: Task, sites: Sequence[str]) -> "GatedUnits":
        """Return the encoder of a task with gates at some sites.

        Raises:
            InputError: if `input` is among the sites.
        """
        if INPUT in sites:
            raise InputError(
                "The image itself is never ablated, but units at 'input' were given: leave out 'input'."
            )
        encoder = task.encoder
        ordered = tuple(sorted(set(sites), key=encoder.position))
        return cls(encoder, ordered, rows_that_fit(encoder, task.work.memory_gib))

    @property
    def start(self) -> str:
        """The site where runs start. No gate acts before it."""
        return self.sites[0] if self.sites else INPUT

    def sizes(self, activations: Mapping[str, Tensor]) -> dict[str, int]:
        """Return the number of units of each gated site, including error units.

        Args:
            activations: Activations by site, from which the numbers are read.
        """
        n_units = self.encoder.n_units
        return {site: n_units(site, activations[site]) for site in self.sites}

    def stacks(
        self,
        circuits: Sequence[Mapping[str, Chosen]],
        clean: Mapping[str, Tensor],
        at_once: int,
    ) -> tuple[Iterator[UnitGates], list[int]]:
        """Return gates that keep the units of each circuit, with several circuits in each call of `run`.

        A stack is the gates of one call: arrays [circuits, units] by site, with a row for each circuit. Equal circuits
        share a row. So they run once, and their results are equal to the last bit.

        Args:
            circuits: Kept units of each circuit by site. All units of a site that is not listed are kept.
            clean: Activations by site, which give the numbers of units.
            at_once: Largest number of circuits in a stack.

        Returns:
            An iterator over the stacks, and a list with an index for each circuit: the index of its row if all stacks
            are concatenated. The gates are on the CPU, where `run` compares them, so that it does not wait for the GPU.
        """
        sizes = self.sizes(clean)
        whole = {site: np.ones(size, bool) for site, size in sizes.items()}
        numbers = dict[bytes, int]()
        different = list[dict[str, np.ndarray]]()
        number_of = list[int]()
        for circuit in circuits:
            kept = dict(whole)
            for site, units in circuit.items():
                kept[site] = mark_kept(units, sizes[site], site)
            # Circuits are equal if all their masks are equal. The order in which their units were given is ignored.
            key = b"".join(mask.tobytes() for mask in kept.values())
            if key not in numbers:
                numbers[key] = len(different)
                different.append(kept)
            number_of.append(numbers[key])

        def stacked() -> Iterator[UnitGates]:
            for i in range(0, len(different), at_once):
                some = different[i : i + at_once]
                yield {
                    site: torch.from_numpy(np.stack([kept[site] for kept in some]))
                    for site in self.sites
                }

        return stacked(), number_of

    def run(
        self, start: Tensor, ends: Mapping[str, Tensor], gates: UnitGates
    ) -> Float[Tensor, "stack b d"]:
        """Return the embeddings of all images under each row of boolean gates.

        Rows that are equal at the first sites share a run up to the first site where they differ.

        Args:
            start: Activations of the images at the first gated site.
            ends: Baselines by site. A baseline has an activation for each image, or a single activation for all images.
            gates: Gates of the units, as booleans on the CPU. Only distinct rows are moved to the device.
        """
        if not gates:
            whole: Tensor = self.encoder(start, start=self.start)
            return whole[None]
        # For each row of gates, the index of the run that it shares so far. Before the first gate all rows share a run.
        runs = [0] * len(next(iter(gates.values())))
        different = list[Tensor]()
        indices = list[Tensor]()
        for of_site in gates.values():
            rows = of_site.numpy()
            numbers = dict[tuple[int, bytes], int]()
            first = list[int]()
            parents = list[int]()
            of_rows = list[int]()
            for row, parent in enumerate(runs):
                key = (parent, rows[row].tobytes())
                if key not in numbers:
                    numbers[key] = len(first)
                    first.append(row)
                    parents.append(parent)
                of_rows.append(numbers[key])
            runs = of_rows
            different.append(of_site[first])
            indices.append(torch.tensor(parents))
        # Gates and indices of all sites are moved together, because Python waits for the GPU at each copy.
        different = _moved(different, start.device)
        *parents_of_sites, last_runs = _moved(
            [*indices, torch.tensor(runs)], start.device
        )
        hooks = list[tuple[str, Callable[..., Tensor]]]()
        for site, own, places in zip(gates, different, parents_of_sites, strict=True):
            hooks.append((site, self._hook(own, ends[site], places, len(start))))
        with self.encoder.hooks(fwd_hooks=hooks):
            stacked: Tensor = self.encoder(start, start=self.start)
        embeddings: Tensor = rearrange(
            stacked, "(stack b) d -> stack b d", b=len(start)
        )
        return embeddings[last_runs]

    def run_each(
        self, start: Tensor, ends: Mapping[str, Tensor], gates: UnitGates
    ) -> Float[Tensor, "b d"]:
        """Return the embeddings of the images under gates, where each image has its own row of gates.

        Args:
            start: Activations of the images at the first gated site.
            ends: Baselines by site, as in `run`.
            gates: Gates by site, as booleans or real numbers: [images, units], or [1, units] for all images. The
                embeddings are differentiable with respect to real gates.
        """
        hooks = list[tuple[str, Callable[..., Tensor]]]()
        # There is a single run of all images, so every row continues run 0.
        parent = torch.arange(1)
        for site, own in gates.items():
            hooks.append((site, self._hook(own, ends[site], parent, len(start))))
        with self.encoder.hooks(fwd_hooks=hooks):
            embeddings: Tensor = self.encoder(start, start=self.start)
        return embeddings

    def _hook(
        self, gates: Tensor, end: Tensor, parents: Tensor, n_images: int
    ) -> Callable[..., Tensor]:
        """Return a hook that applies the gates of one site.

        Up to this site, rows of gates that are equal at all earlier sites share one copy of the images. The hook makes
        a copy for each row that differs at this site, and applies the row to it. The hook is a plain function, because
        TransformerLens prints every hook, and tensors take long to print.

        Args:
            gates: Distinct rows of gates at the site.
            end: Baseline at the site.
            parents: For each row of gates, the index of the copy that it shared before this site.
            n_images: Number of images in each copy.
        """

        def gated(activation: Tensor, hook: Any) -> Tensor:
            n_runs = len(activation) // n_images
            if len(parents) > n_runs:  # several rows of gates continue the same run
                stacked = rearrange(
                    activation, "(stack b) ... -> stack b ...", b=n_images
                )
                activation = stacked[parents].flatten(0, 1)
            return gate_units(self.encoder, hook.name, gates, end, activation)

        return gated


def gate_units(
    encoder: Encoder,
    site: str,
    gates: Shaped[Tensor, "stack units"],
    end: Float[Tensor, "b ..."],
    activation: Float[Tensor, "rows ..."],
) -> Float[Tensor, "rows ..."]:
    """Return an activation after gates have acted on its units.

    Args:
        encoder: The encoder.
        site: Site of the activation.
        gates: Rows of gates [stack, units], each for an equal share of the rows of ``activation``.
        end: Baseline: an activation for each image, or a single activation for all images.
        activation: Activations of the images under each row of gates [stack * b, ...], row by row.
    """
    n = len(gates)
    # The stream that a site carries past its units has no gates.
    x, *past = encoder.units_and_carried(site, activation)
    end = encoder.units_of(site, end).to(activation)
    unit_dim = encoder.unit_dim(site)
    shape = [n, *[1] * (x.dim() - 1)]
    shape[unit_dim % x.dim()] = -1
    gates = gates.view(shape)
    if n > 1:
        gates = gates.repeat_interleave(len(x) // n, 0)
        if 1 < len(end) < len(x):  # each image has its own end, and occurs n times
            end = end.expand(n, *end.shape).flatten(0, 1)
    value = mixed(gates, x, end)
    if gates.dtype == torch.bool:
        # The result gets the memory layout of the activation, so that the next stage rounds as in the clean run.
        like_x = torch.empty_like(x)
        if value.stride() != like_x.stride():
            value = like_x.copy_(value)
    if not past:
        return value
    return torch.cat([value, *past], unit_dim)


def _moved(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Return tensors of one type on a device. All of them are moved in one copy."""
    flat = torch.cat([tensor.flatten() for tensor in tensors]).to(device)
    pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
    moved = list[Tensor]()
    for tensor, piece in zip(tensors, pieces, strict=True):
        moved.append(piece.view(tensor.shape))
    return moved
