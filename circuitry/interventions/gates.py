"""Gated runs: every unit is mixed with its baseline, at all sites at once, differentiable in the gates.

With gate g, activation a and baseline b a unit is g a + (1 - g) b; what a site gets has gone through the gated sites
before it. Gates of 0 and 1 are the ablated runs of `ablation`. What lies before the first gated site does not depend on
the gates and is run once.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitry.models.baselines import AnyBaseline, as_baseline, check_count
from circuitry.models.batches import ImageBatches, Images, rows_that_fit
from circuitry.models.encoder import Encoder, clean_activations
from circuitry.runs.errors import InputError

Gates = Mapping[str, Float[Tensor, " units"]]
"""A number for every unit of a site, error units too, by site; a site that is not there is left alone."""


@runtime_checkable
class Gated(Protocol):
    """Some images, ready for runs under gates on anything: what a mask is learned on."""

    rows: int
    """Images that a run without gradients may take."""
    embeddings: Float[Tensor, "images d"]
    """Those of the whole model."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the groups of gates."""

    @property
    def n_units(self) -> Mapping[str, int]:
        """The number of gates in each group."""

    def __len__(self) -> int: ...

    def run(self, gates: Gates, chosen: Int[Tensor, " some"] | None = None) -> Float[Tensor, "some d"]:
        """Return the embeddings of the images, or of those chosen, under gates; differentiable in them."""


class PreparedImages:
    """Some images up to the first of some sites, and the baseline there and at the others.

    Args:
        encoder: The encoder, frozen by the caller for as long as this is used.
        images: A tensor [B, 3, H, W] or an iterable of such batches.
        inner: The sites, in the encoder's order.
        baseline: What a closed gate puts in; see `circuitry.models.baselines`.
        memory_gib: Budget for the activations of a run, in GiB.

    Raises:
        InputError: for no images, or a baseline that does not fit them.
    """

    def __init__(
        self, encoder: Encoder, images: Images, inner: Sequence[str], baseline: AnyBaseline, memory_gib: float
    ) -> None:
        self.encoder, self.inner = encoder, tuple(inner)
        self.rows = rows_that_fit(encoder, memory_gib)
        ends, count = as_baseline(baseline), 0
        starts, whole, values = [], [], {site: list[Tensor]() for site in inner}
        with torch.no_grad():
            for batch in ImageBatches(images, encoder, self.rows):
                clean = clean_activations(encoder, batch, self.inner)
                if ends.n_images is not None or not count:
                    like = clean if ends.n_images is not None else {site: a[:1] for site, a in clean.items()}
                    for site, value in ends.activations(encoder, like, count).items():
                        values[site].append(value)
                starts.append(clean[self.inner[0]])
                whole.append(encoder(clean[self.inner[-1]], start=self.inner[-1]))
                count += len(batch)
        if not count:
            raise InputError("Gated runs need at least one image, but there were none.")
        check_count(ends, count)
        self._start = _channels_last(torch.cat(starts))
        self._ends = {site: torch.cat(parts) for site, parts in values.items()}
        self.embeddings: Float[Tensor, "images d"] = torch.cat(whole)
        """Those of the whole model."""

    def __len__(self) -> int:
        return len(self._start)

    def start(self, chosen: Int[Tensor, " some"]) -> Float[Tensor, "some ..."]:
        """Return the activations of some images at the first site."""
        return self._start[chosen]

    def end(self, site: str, chosen: Int[Tensor, " some"]) -> Float[Tensor, "some_or_1 ..."]:
        """Return the baseline of some images at a site, or that of all."""
        end = self._ends[site]
        return end[chosen] if len(end) > 1 else end


class GatedRuns(PreparedImages):
    """Some images, ready for runs under many gates on units; for the arguments see `PreparedImages`."""

    def __init__(
        self, encoder: Encoder, images: Images, sites: Sequence[str], baseline: AnyBaseline, memory_gib: float = 1.0
    ) -> None:
        super().__init__(encoder, images, sites, baseline, memory_gib)
        self.sites, self.dims = self.inner, {site: encoder.unit_dim(site) for site in sites}
        self.n_units = {site: encoder.units_of(site, self._ends[site]).shape[dim] for site, dim in self.dims.items()}

    def run(self, gates: Gates, chosen: Int[Tensor, " some"] | None = None) -> Float[Tensor, "some d"]:
        """Return the embeddings of the images, or of those chosen, under gates."""
        rows = torch.arange(len(self)) if chosen is None else chosen
        hooks = [(site, partial(self._mixed, gate, rows)) for site, gate in gates.items()]
        with self.encoder.hooks(fwd_hooks=hooks):
            found: Tensor = self.encoder(self.start(rows), start=self.sites[0])
        return found

    def _mixed(self, gate: Tensor, rows: Tensor, activation: Tensor, hook: Any) -> Tensor:
        site = hook.name
        end = self.encoder.units_of(site, self.end(site, rows)).to(activation)
        units = self.encoder.units_of(site, activation)
        shape = [1] * activation.dim()
        shape[self.dims[site]] = -1
        return self.encoder.carry(site, end + gate.view(shape).to(activation) * (units - end), activation)


def _channels_last(activation: Tensor) -> Tensor:
    """Return the same numbers in the layout in which convolutions on a CPU are fastest."""
    return activation.contiguous(memory_format=torch.channels_last) if activation.dim() == 4 else activation
