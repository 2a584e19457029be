"""Gates on units: each unit of a site is kept, put to its baseline, or mixed with it.

With gate g, activation a and baseline b a unit is b + g (a - b). Gates act at all sites in one run, so a site reads
what the gated sites before it make. The image itself is never gated; the embedding is a site like the others.
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
"""Gates by site, of error units too: booleans or real numbers. A site without gates is left alone."""


@dataclass(frozen=True, eq=False)
class GatedUnits:
    """An encoder with gates on the units of some sites."""

    encoder: Encoder
    """The encoder that runs."""
    sites: tuple[str, ...]
    """Sites with gates, in the encoder's order."""
    rows: int
    """Images that a run may take, each under one row of gates."""

    @classmethod
    def of(cls, task: Task, sites: Sequence[str]) -> "GatedUnits":
        """Return a task's encoder with gates at some sites."""
        if INPUT in sites:
            raise InputError(
                "The image itself is never ablated, but units at 'input' were given: leave out 'input'."
            )
        encoder = task.encoder
        ordered = tuple(sorted(set(sites), key=encoder.position))
        return cls(encoder, ordered, rows_that_fit(encoder, task.work.memory_gib))

    @property
    def start(self) -> str:
        """The site where runs start; no gate changes what lies before."""
        return self.sites[0] if self.sites else INPUT

    def sizes(self, activations: Mapping[str, Tensor]) -> dict[str, int]:
        """Return the number of units by site, error units included."""
        n_units = self.encoder.n_units
        return {site: n_units(site, activations[site]) for site in self.sites}

    def stacks(
        self,
        circuits: Sequence[Mapping[str, Chosen]],
        clean: Mapping[str, Tensor],
        at_once: int,
    ) -> tuple[Iterator[UnitGates], list[int]]:
        """Return the gates of all different circuits, ``at_once`` at a time, and the number of each circuit in these.

        Equal circuits are run once, and so are equal to the last bit. Gates are on the CPU, where `run` compares them.
        """
        sizes = self.sizes(clean)
        numbers = dict[bytes, int]()
        different = list[dict[str, Tensor]]()
        number_of = list[int]()
        for circuit in circuits:
            kept = {
                site: torch.ones(size, dtype=torch.bool) for site, size in sizes.items()
            }
            for site, units in circuit.items():
                kept[site] = torch.from_numpy(mark_kept(units, sizes[site], site))
            # Circuits are equal if all their masks are, whatever the order in which units were given.
            key = b"".join(kept[site].numpy().tobytes() for site in self.sites)
            if key not in numbers:
                numbers[key] = len(different)
                different.append(kept)
            number_of.append(numbers[key])

        def stacked() -> Iterator[UnitGates]:
            for i in range(0, len(different), at_once):
                some = different[i : i + at_once]
                yield {
                    site: torch.stack([kept[site] for kept in some])
                    for site in self.sites
                }

        return stacked(), number_of

    def run(
        self, start: Tensor, ends: Mapping[str, Tensor], gates: UnitGates
    ) -> Float[Tensor, "stack b d"]:
        """Return the embeddings under each row of gates; rows that begin alike are one run up to where they part.

        Args:
            start: Activations of the images at the first site.
            ends: Baselines by site, one for every image or one for all.
            gates: Gates of the units; only different ones are moved to the device. The embeddings are differentiable in
                real gates.
        """
        n = len(next(iter(gates.values()), start[:1]))
        hooks = list[tuple[str, Callable[..., Tensor]]]()
        # The run that each row of gates shares so far; before the first gate all rows share one.
        runs = [0] * n
        for site, of_site in gates.items():
            # Rows of real gates are never merged: each has a gradient of its own.
            is_mask = of_site.dtype == torch.bool
            rows = of_site.cpu().numpy() if is_mask else np.arange(n)
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
            different = of_site[first].to(start.device)
            places = torch.tensor(parents, device=start.device)
            hooks.append((site, self._hook(different, ends[site], places, len(start))))
        with self.encoder.hooks(fwd_hooks=hooks):
            stacked: Tensor = self.encoder(start, start=self.start)
        embeddings: Tensor = rearrange(
            stacked, "(stack b) d -> stack b d", b=len(start)
        )
        return embeddings[runs]

    def run_each(
        self, start: Tensor, ends: Mapping[str, Tensor], gates: UnitGates
    ) -> Float[Tensor, "b d"]:
        """Return the embeddings of the images, each under its own row of real gates."""
        hooks = list[tuple[str, Callable[..., Tensor]]]()
        # All images go on from the one run that there is: the parent of each row is 0.
        parent = torch.arange(1)
        for site, own in gates.items():
            hooks.append((site, self._hook(own, ends[site], parent, len(start))))
        with self.encoder.hooks(fwd_hooks=hooks):
            embeddings: Tensor = self.encoder(start, start=self.start)
        return embeddings

    def _hook(
        self, gates: Tensor, end: Tensor, parents: Tensor, n_images: int
    ) -> Callable[..., Tensor]:
        """Return a hook, by which the runs ``parents`` go on, each under its own gates.

        It is a function, since TransformerLens prints every hook, and tensors take long to print.
        """

        def gated(activation: Tensor, hook: Any) -> Tensor:
            n_runs = len(activation) // n_images
            if len(parents) > n_runs:  # rows part here: the run before serves several
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
    """Return an activation of stacked images [stack * b, ...] with its units under gates."""
    n = len(gates)
    # Error units and streams that a site carries past its units have no gate.
    x, *past = encoder.units_and_carried(site, activation)
    end = encoder.units_of(site, end).to(activation)
    unit_dim = encoder.unit_dim(site)
    shape = [n, *[1] * (x.dim() - 1)]
    shape[unit_dim % x.dim()] = -1
    gates = gates.view(shape)
    if n > 1:
        gates = gates.repeat_interleave(len(x) // n, 0)
        if 1 < len(end) < len(x):  # an end for each image, and the images n times
            end = end.expand(n, *end.shape).flatten(0, 1)
    value = mixed(gates, x, end)
    if gates.dtype == torch.bool:
        # In the memory layout of the activation the next stage rounds as in the clean run.
        value = torch.empty_like(x).copy_(value)
    if not past:
        return value
    return torch.cat([value, *past], unit_dim)
