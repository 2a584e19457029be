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
    sites: tuple[str, ...]
    rows: int
    """Images that a run may take, each under one row of gates."""

    @classmethod
    def of(cls, task: Task, sites: Sequence[str]) -> "GatedUnits":
        """Return a task's encoder with gates at some sites."""
        if INPUT in sites:
            raise InputError(
                "The image itself is never ablated, but units at 'input' were given: leave out 'input'."
            )
        ordered = sorted(set(sites), key=task.encoder.position)
        return cls(
            task.encoder,
            tuple(ordered),
            rows_that_fit(task.encoder, task.work.memory_gib),
        )

    @property
    def start(self) -> str:
        """The site where runs start; no gate changes what lies before."""
        return self.sites[0] if self.sites else INPUT

    def sizes(self, activations: Mapping[str, Tensor]) -> dict[str, int]:
        """Return the number of units by site, error units included."""
        dims = {site: self.encoder.unit_dim(site) for site in self.sites}
        return {
            site: self.encoder.units_of(site, activations[site]).shape[dim]
            for site, dim in dims.items()
        }

    def stacks(
        self,
        circuits: Sequence[Mapping[str, Chosen]],
        clean: Mapping[str, Tensor],
        at_once: int,
    ) -> tuple[Iterator[UnitGates], list[int]]:
        """Return the gates of all different circuits, ``at_once`` at a time, and the number of each circuit in these.

        Equal circuits are run once, and so are equal to the last bit. Gates are on the CPU, where `run` compares them.
        """
        sizes, places, different = (
            self.sizes(clean),
            dict[bytes, int](),
            list[dict[str, Tensor]](),
        )
        whole = {
            site: torch.ones(size, dtype=torch.bool) for site, size in sizes.items()
        }
        which = []
        for circuit in circuits:
            kept = whole | {
                s: torch.from_numpy(mark_kept(units, sizes[s], s))
                for s, units in circuit.items()
            }
            which.append(
                places.setdefault(
                    b"".join(kept[s].numpy().tobytes() for s in self.sites), len(places)
                )
            )
            if len(places) > len(different):
                different.append(kept)
        chunks = (different[i : i + at_once] for i in range(0, len(different), at_once))
        return (
            {s: torch.stack([kept[s] for kept in some]) for s in self.sites}
            for some in chunks
        ), which

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
        n, hooks = (
            len(next(iter(gates.values()), start[:1])),
            list[tuple[str, Callable[..., Tensor]]](),
        )
        runs = [0] * n
        for site, of_site in gates.items():
            before, rows = (
                runs,
                of_site.cpu().numpy() if of_site.dtype == torch.bool else np.arange(n),
            )
            places = dict[tuple[int, bytes], int]()
            runs = [
                places.setdefault((run, row.tobytes()), len(places))
                for run, row in zip(before, rows, strict=True)
            ]
            first = [runs.index(place) for place in range(len(places))]
            parents = torch.tensor([before[row] for row in first], device=start.device)
            different = of_site[first].to(start.device)
            hooks.append((site, self._hook(different, ends[site], parents, len(start))))
        with self.encoder.hooks(fwd_hooks=hooks):
            found: Tensor = self.encoder(start, start=self.start)
        embeddings: Tensor = rearrange(found, "(stack b) d -> stack b d", b=len(start))
        return embeddings[runs]

    def run_each(
        self, start: Tensor, ends: Mapping[str, Tensor], gates: UnitGates
    ) -> Float[Tensor, "b d"]:
        """Return the embeddings of the images, each under its own row of real gates."""
        hooks = [
            (site, self._hook(own, ends[site], torch.arange(1), len(start)))
            for site, own in gates.items()
        ]
        with self.encoder.hooks(fwd_hooks=hooks):
            found: Tensor = self.encoder(start, start=self.start)
        return found

    def _hook(
        self, gates: Tensor, end: Tensor, parents: Tensor, n_images: int
    ) -> Callable[..., Tensor]:
        """Return a hook, by which the runs ``parents`` go on, each under its own gates.

        It is a function, since TransformerLens prints every hook, and tensors take long to print.
        """

        def gated(activation: Tensor, hook: Any) -> Tensor:
            if len(parents) > len(activation) // n_images:
                activation = rearrange(
                    activation, "(stack b) ... -> stack b ...", b=n_images
                )[parents].flatten(0, 1)
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
    (x, *past), end = (
        encoder.parts_of(site, activation),
        encoder.units_of(site, end).to(activation),
    )
    shape = [n, *[1] * (x.dim() - 1)]
    shape[encoder.unit_dim(site) % x.dim()] = -1
    gates = gates.view(shape)
    if n > 1:
        gates = gates.repeat_interleave(len(x) // n, 0)
        end = end.expand(n, *end.shape).flatten(0, 1) if 1 < len(end) < len(x) else end
    value = mixed(gates, x, end)
    if gates.dtype == torch.bool:
        value = torch.empty_like(x).copy_(
            value
        )  # the same memory layout: the next stage then rounds alike
    return torch.cat([value, *past], encoder.unit_dim(site)) if past else value
