"""The one runner of circuits: embeddings with some units or edges kept, and everything else at the baseline.

- `kept_embeddings` keeps each of some circuits, of units or of edges: gates of true and false, on images that come in
  batches. Circuits of units are stacked, as many in a run as memory allows.
- `Gated` holds images for many runs under gates of any real numbers, differentiable in them: what masks are learned on.
  Gates of 0 and 1 give the embeddings of `kept_embeddings`.

How gates act is in `gated_units` and `circuitry.circuits.edge_cuts`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from circuitry.bases.gated_reading import lifted
from circuitry.circuits.edge_cuts import (
    EdgeMasks,
    GatedEdges,
    gated_chain,
    gated_edges_of,
)
from circuitry.circuits.edges import Edges
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.circuits.made_with import check_made_with
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task, with_others
from circuitry.encoder.tensor_batches import count_batches, one_tensor
from circuitry.interventions.gated_units import GatedUnits, units_with_errors
from circuitry.interventions.patches import Chosen, mark_kept
from circuitry.runs.errors import InputError
from circuitry.runs.given import FINITE, SOME, checked
from circuitry.runs.identity import OF_TOWER
from circuitry.runs.progress import Bar


@checked
def kept_embeddings(
    task: Task, circuits: Annotated[Sequence[Circuit], SOME]
) -> Float[Tensor, "circuits images d"]:
    """Return the embeddings of a task's images with only each circuit's units, or edges, kept.

    Args:
        circuits: Of units; or all of edges, between the same sites.

    Raises:
        InputError: for no circuits or images, unknown sites or units, edges between other sites, or a baseline that
            does not fit the images.

    Example:
        >>> logit = metric(kept_embeddings(task, [graph.circuit(3)])[0]).mean()          # its edges
        >>> logit = metric(kept_embeddings(task, [graph.circuit(None)])[0]).mean()       # its units
        >>> logit = metric(kept_embeddings(task, [circuit_of(task, {"layer4.0": [3, 5]})])[0]).mean()
    """
    check_made_with(
        task, [one.source for one in circuits], (*OF_TOWER, "stages", "basis")
    )
    kinds = {
        None if one.edges is None else frozenset(one.edges.scores) for one in circuits
    }
    if len(kinds) > 1:
        raise InputError(
            f"Circuits of edges run between the same sites, but {len(kinds)} kinds were given."
        )
    if (pairs := kinds.pop()) is not None:
        gated = gated_edges_of(task, pairs)
        return gated_embeddings(
            task, gated, (edge_masks(gated, one) for one in circuits)
        )
    sites = dict.fromkeys(site for circuit in circuits for site in circuit.units)
    units = [units_with_errors(circuit) for circuit in circuits]
    return gated_embeddings(task, GatedUnits.of(task, list(sites)), units)


def gated_embeddings(
    task: Task, gated: Any, kept: Iterable[Any]
) -> Float[Tensor, "circuits images d"]:
    """Return the embeddings of a task's images under gates."""
    found, n_batches, runs = (
        list[Tensor](),
        count_batches(task.images, gated.rows),
        list(kept),
    )
    with (
        task.running(),
        Bar(desc="circuits", unit="circuit", disable=not task.work.progress) as bar,
    ):
        for batch in task.batches(gated.rows):
            clean = batch.clean([gated.start, *gated.sites])
            ends = batch.ends({site: clean[site] for site in gated.sites})
            stacks, which = gated.stacks(
                runs, clean, max(1, gated.rows // len(batch.images))
            )
            parts = list[Tensor]()
            bar.total = (1 + max(which)) * n_batches if n_batches else None
            for gates in stacks:
                parts.append(gated.run(clean[gated.start], ends, gates))
                bar.update(len(parts[-1]))
            found.append(torch.cat(parts)[which])
    return torch.cat(found, 1)


def edge_masks(gated: GatedEdges, circuit: Circuit) -> EdgeMasks:
    """Return the edges of a circuit as masks over all units, error units too."""
    masks = dict(gated.masks(circuit.its_edges))
    n_nodes = {site: len(circuit.source.node_scores[site]) for site in circuit.units}
    for (up, down), mask in masks.items() if circuit.keep_error else ():
        mask[:, n_nodes[up] :] = True
        mask[n_nodes[down] :] = True
    return masks


@checked
def circuit_of(task: Task, units: Mapping[str, Chosen]) -> Circuit:
    """Return the circuit of units that are chosen by hand; its source has no scores.

    Args:
        units: By site: numbers, or a boolean mask over all of them.

    Example:
        >>> kept_embeddings(task, [circuit_of(task, {"layer3.0": [0, 7], "layer4.0": scores > 0})])
    """
    encoder = task.encoder
    sizes = dict(
        gated_chain(encoder, GatedUnits.of(task, list(units)).sites, rows=1).sizes
    )
    n_nodes = {
        site: encoder.error_units[site].start if site in encoder.error_units else n
        for site, n in sizes.items()
    }
    chosen = {
        site: np.flatnonzero(mark_kept(units[site], n, site))
        for site, n in n_nodes.items()
    }
    scores, errors = (
        {s: np.zeros(n) for s, n in n_nodes.items()},
        {s: np.zeros(sizes[s] - n) for s, n in n_nodes.items()},
    )
    source = AttributionGraph(
        tuple(sizes), scores, chosen, {}, {}, 1, error_scores=errors
    )
    return Circuit(source, chosen, made_with={"chosen": "by hand"})


class Gated:
    """Images of a task, in memory for many runs under gates on units or on edges; masks are learned on them.

    Use it within ``task.running(gradients=True)``. Stages before the first gated site are run once. Images of other
    classes come after the task's own.

    Args:
        task: All units at its sites have a gate.
        edges: Edges that have a gate, in place of units; other edges between the same sites are cut.
        keep_error: Whether error units of feature bases, which have no gate, are kept; else they are at the baseline.

    Example:
        >>> with task.running(gradients=True):
        ...     runs = Gated(task)
        ...     embeddings = runs.run(torch.full((runs.n_gates,), 0.5))
    """

    def __init__(
        self, task: Task, edges: Edges | None = None, *, keep_error: bool = False
    ) -> None:
        everything, self.n_own = with_others(task)
        inner = [site for site in task.sites if site != INPUT]
        gated: Any = (
            GatedUnits.of(task, inner)
            if edges is None
            else gated_edges_of(task, edges.scores)
        )
        self._gated, self.rows = gated, int(gated.rows)
        sites, last, each = (
            gated.sites,
            gated.sites[-1],
            task.baseline.n_images is not None,
        )
        starts, whole, ends = (
            list[Tensor](),
            list[Tensor](),
            {site: list[Tensor]() for site in sites},
        )
        with torch.no_grad():
            for batch in replace(
                everything, images=one_tensor(everything.images)
            ).batches():
                clean = batch.clean(sites)
                if each or not batch.start:
                    for site, end in batch.ends(
                        clean if each else {site: a[:1] for site, a in clean.items()}
                    ).items():
                        ends[site].append(end)
                starts.append(clean[sites[0]])
                whole.append(task.encoder(clean[last], start=last))
        start = torch.cat(starts)
        # The layout in which convolutions on a CPU are fastest.
        self._start = (
            start.contiguous(memory_format=torch.channels_last)
            if start.dim() == 4
            else start
        )
        self._ends = {site: torch.cat(parts) for site, parts in ends.items()}
        self.embeddings: Float[Tensor, "images d"] = torch.cat(whole)
        """Embeddings of the model without cuts."""
        self._edges, self._without_gate = edges, float(keep_error and edges is None)
        self._with_gate: dict[Any, np.ndarray] = (
            dict(gated.masks(edges))
            if edges is not None
            else {
                site: np.isin(
                    np.arange(n), task.encoder.error_units.get(site, ()), invert=True
                )[None]
                for site, n in gated.sizes(self._ends).items()
            }
        )
        self._places = [
            _places(mask, self._start.device) for mask in self._with_gate.values()
        ]
        self._sizes = [len(rows) for rows, _ in self._places]
        self.n_gates = sum(self._sizes)

    def __len__(self) -> int:
        return len(self._start)

    def run(
        self,
        gates: Annotated[Float[Tensor, "*some gates"], FINITE],
        chosen: Int[Tensor, " some"] | None = None,
        shift: Float[Tensor, " gates"] | None = None,
    ) -> Float[Tensor, "some d"]:
        """Return the embeddings of the images, or of those chosen, under gates, the same for all or each image's own.

        They are differentiable in the gates. A ``shift`` of each unit is added to the baseline at all positions, and is
        differentiable, too.
        """
        images = torch.arange(len(self)) if chosen is None else chosen
        images = images.to(
            self._start.device
        )  # once, where each use would copy and wait
        whole = self._ends if shift is None else self.shifted(shift)
        ends = {
            site: end[images] if len(end) > 1 else end for site, end in whole.items()
        }
        if gates.shape[-1] != self.n_gates:
            raise InputError(
                f"Runs have {self.n_gates} gates, but {gates.shape[-1]} were given: give one for each."
            )
        gates = gates.to(self._start.device)
        if self._edges is not None:
            if gates.dim() == 2:
                return torch.cat(
                    [self.run(own, images[i : i + 1]) for i, own in enumerate(gates)]
                )
            parts = zip(
                self._with_gate.items(),
                self._places,
                torch.split(lifted(gates), self._sizes),
                strict=True,
            )
            masks = {
                key: part.new_zeros(mask.shape).index_put(places, part)
                for (key, mask), places, part in parts
            }
            edges: Tensor = self._gated.run(self._start[images], ends, masks)[0]
            return edges
        units = zip(
            self._with_gate.items(),
            self._places,
            torch.split(gates if gates.dim() == 2 else gates[None], self._sizes, 1),
            strict=True,
        )
        placed = {
            site: part.new_full(
                (len(part), mask.shape[1]), self._without_gate
            ).index_copy(1, places[1], part)
            for (site, mask), places, part in units
        }
        run = self._gated.run if gates.dim() == 1 else self._gated.run_each
        found: Tensor = run(self._start[images], ends, placed)
        return found[0] if gates.dim() == 1 else found

    def shifted(self, shift: Float[Tensor, " gates"]) -> dict[str, Tensor]:
        """Return the baselines of the sites with a number for each unit added at all its positions."""
        found, parts = dict(self._ends), torch.split(shift, self._sizes)
        for site, (_, units), part in zip(
            self._with_gate, self._places, parts, strict=True
        ):
            end = found[site].movedim(self._gated.encoder.unit_dim(site), -1)
            added = end + part.new_zeros(end.shape[-1]).index_put((units,), part)
            found[site] = added.movedim(-1, self._gated.encoder.unit_dim(site))
        return found

    def flat(
        self, values: Mapping[str, Shaped[np.ndarray, " units"]]
    ) -> Shaped[Tensor, " gates"]:
        """Return values [units] by site in the order of the gates."""
        return torch.cat(
            [
                torch.from_numpy(values[site][mask[0]])
                for site, mask in self._with_gate.items()
            ]
        )

    def scored(self, values: Shaped[np.ndarray, " gates"]) -> Any:
        """Return values of the gates: by site [units], NaN for error units, or as the scores of the edges."""
        if len(values) != self.n_gates:
            raise InputError(
                f"There are {self.n_gates} gates, but {len(values)} values were given: give one for each."
            )
        found, parts = (
            dict[Any, np.ndarray](),
            np.split(values, np.cumsum(self._sizes)[:-1]),
        )
        for (key, mask), part in zip(self._with_gate.items(), parts, strict=True):
            found[key] = np.full(mask.shape, np.nan)
            found[key][mask] = part
        if self._edges is None:
            return {site: placed[0] for site, placed in found.items()}
        units = self._edges.units
        return replace(
            self._edges,
            scores={
                (u, d): v[np.ix_(units[d], units[u])] for (u, d), v in found.items()
            },
        )

    def chosen(
        self, mask: Bool[np.ndarray, " gates"], values: Float[np.ndarray, " gates"]
    ) -> Any:
        """Return the numbers of the chosen units by site, or the chosen edges with these values as scores."""
        found = self.scored(np.where(mask, values, np.nan))
        return (
            found
            if self._edges is not None
            else {s: np.flatnonzero(~np.isnan(kept)) for s, kept in found.items()}
        )


def _places(
    mask: Bool[np.ndarray, "rows units"], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the row and the column of every entry that is true, on a device: what is written there has to be, too."""
    rows, columns = torch.from_numpy(mask).nonzero(as_tuple=True)
    return rows.to(device), columns.to(device)
