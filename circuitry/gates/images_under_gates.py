"""Images of a task, held in memory for many runs under gates on units or on edges.

Gates are real numbers, one for each unit or each edge: 1 keeps it, 0 puts it to the baseline, and embeddings are
differentiable in them. What is learned of gates, or scored by them, asks the same four things of both kinds: how many
gates there are (`n_gates`), the embeddings under some (`run`), values of gates as values of what they act on
(`scored`), and some of it (`chosen`).

How gates act is in `unit_gates` and `edge_gates`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from circuitry.bases.gated_reading import lifted
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task, with_others
from circuitry.encoder.tensor_batches import one_tensor
from circuitry.gates.edge_gates import GatedEdges, gated_edges_of
from circuitry.gates.edges import Edges, Pair
from circuitry.gates.unit_gates import GatedUnits
from circuitry.runs.arguments import FINITE
from circuitry.runs.errors import InputError

Scored = TypeVar("Scored")
"""What has gates, with a number for each."""
UnitValues = dict[str, np.ndarray]
"""By site: a number of every unit, or the numbers of some units."""
AnyGates = Annotated[Float[Tensor, "*some gates"], FINITE]
"""The same gates for all images, or each image's own."""


class Gated(ABC, Generic[Scored]):
    """Images of a task, held for many runs under gates: `UnitsUnderGates` or `EdgesUnderGates`.

    Stages before the first gated site are run once. Images of other classes come after the task's own. Use it within
    ``task.running(gradients=True)``.

    Example:
        >>> with task.running(gradients=True):
        ...     runs: circuitry.gates.Gated = circuitry.gates.UnitsUnderGates(task)
        >>> len(runs)  # 4 images of the class, 6 of other classes
        10
    """

    n_gates: int  #: Number of gates.

    def __init__(self, task: Task, gated: GatedUnits | GatedEdges) -> None:
        everything, self.n_own = with_others(task)
        self.encoder = task.encoder
        self.rows = gated.rows
        """Images that a run may take."""
        first = gated.sites[0]
        last = gated.sites[-1]
        # A baseline of counterfactual images differs from image to image.
        each_has_an_end = task.baseline.n_images is not None
        starts = list[Tensor]()
        embeddings = list[Tensor]()
        ends: dict[str, list[Tensor]] = {site: [] for site in gated.sites}
        with torch.no_grad():
            together = replace(everything, images=one_tensor(everything.images))
            for batch in together.batches():
                clean = batch.clean(gated.sites)
                starts.append(clean[first])
                embeddings.append(task.encoder(clean[last], start=last))
                if batch.start and not each_has_an_end:
                    continue  # the end of the first image serves all
                if not each_has_an_end:
                    clean = {site: a[:1] for site, a in clean.items()}
                for site, end in batch.ends(clean).items():
                    ends[site].append(end)
        start = torch.cat(starts)
        if start.dim() == 4:  # the layout in which convolutions on a CPU are fastest
            start = start.contiguous(memory_format=torch.channels_last)
        self._start = start
        self._ends = {site: torch.cat(pieces) for site, pieces in ends.items()}
        self.embeddings: Float[Tensor, "images d"] = torch.cat(embeddings)
        """Embeddings of the model without cuts."""

    def __len__(self) -> int:
        return len(self._start)

    @abstractmethod
    def run(
        self, gates: AnyGates, chosen: Int[Tensor, " some"] | None = None
    ) -> Float[Tensor, "some d"]:
        """Return the embeddings of the images, or of the chosen ones, under gates; differentiable in the gates."""

    @abstractmethod
    def scored(self, values: Shaped[np.ndarray, " gates"]) -> Scored:
        """Return values of the gates as scores of what has gates."""

    @abstractmethod
    def chosen(
        self, mask: Bool[np.ndarray, " gates"], values: Float[np.ndarray, " gates"]
    ) -> Scored:
        """Return what the mask chooses of all that has gates."""

    def _places_of(self, chosen: Tensor | None) -> Tensor:
        """Return the places of the images of a run, moved to the device once, where each use would copy and wait."""
        places = torch.arange(len(self)) if chosen is None else chosen
        return places.to(self._start.device)

    def _on_device(self, gates: Tensor) -> Tensor:
        self._check(gates.shape[-1], "gates")
        return gates.to(self._start.device)

    def _check(self, n_given: int, what: str) -> None:
        if n_given != self.n_gates:
            raise InputError(
                f"There are {self.n_gates} gates, but {n_given} {what} were given: give one for each."
            )


def _ends_of(ends: Mapping[str, Tensor], images: Tensor) -> dict[str, Tensor]:
    """Return the baselines of some images by site; an end that serves all images stays as it is."""
    chosen = dict[str, Tensor]()
    for site, end in ends.items():
        chosen[site] = end[images] if len(end) > 1 else end
    return chosen


class UnitsUnderGates(Gated[UnitValues]):
    """Images of a task in memory, with a gate on every unit at the task's sites.

    Args:
        task: All units at its sites have a gate.
        keep_error: Whether error units of feature bases, which have no gate, are kept; else they are at the baseline.

    Example:
        >>> with task.running(gradients=True):
        ...     runs = circuitry.gates.UnitsUnderGates(task)
        ...     embeddings = runs.run(torch.full((runs.n_gates,), 0.5))
        >>> len(embeddings)
        10
    """

    def __init__(self, task: Task, *, keep_error: bool = False) -> None:
        sites = [site for site in task.sites if site != INPUT]
        self._gated = GatedUnits.of(task, sites)
        super().__init__(task, self._gated)
        self._gate_of_errors = float(keep_error)
        self._n_units = self._gated.sizes(self._ends)
        self._with_gate = dict[str, np.ndarray]()
        """Numbers of the units that have a gate, by site."""
        for site, n in self._n_units.items():
            errors = task.encoder.error_units.get(site, ())
            self._with_gate[site] = np.setdiff1d(np.arange(n), errors)
        self._places = {
            site: torch.from_numpy(units).to(self._start.device)
            for site, units in self._with_gate.items()
        }
        self._sizes = [len(units) for units in self._with_gate.values()]
        self.n_gates = sum(self._sizes)

    def run(
        self,
        gates: AnyGates,
        chosen: Int[Tensor, " some"] | None = None,
        shift: Float[Tensor, " gates"] | None = None,
    ) -> Float[Tensor, "some d"]:
        """Return the embeddings of the images, or of the chosen ones, under gates.

        They are differentiable in the gates, and in a ``shift`` of each unit, which is added to the baseline at all
        positions.
        """
        images = self._places_of(chosen)
        ends = self._ends if shift is None else self.shifted(shift)
        ends = _ends_of(ends, images)
        same_for_all = gates.dim() == 1
        rows = self._on_device(gates[None] if same_for_all else gates)
        placed = dict[str, Tensor]()
        pieces = torch.split(rows, self._sizes, 1)
        for (site, units), piece in zip(self._places.items(), pieces, strict=True):
            # Error units have no gate, but the run gates all units of a site: one fixed gate for these.
            everywhere = piece.new_full(
                (len(piece), self._n_units[site]), self._gate_of_errors
            )
            placed[site] = everywhere.index_copy(1, units, piece)
        if same_for_all:
            return self._gated.run(self._start[images], ends, placed)[0]
        return self._gated.run_each(self._start[images], ends, placed)

    def shifted(self, shift: Float[Tensor, " gates"]) -> dict[str, Tensor]:
        """Return the baselines of the sites with a number for each unit added at all its positions."""
        shifted = dict(self._ends)
        pieces = torch.split(shift, self._sizes)
        for (site, units), piece in zip(self._places.items(), pieces, strict=True):
            unit_dim = self.encoder.unit_dim(site)
            end = shifted[site].movedim(unit_dim, -1)
            # All units of the site, since the baseline has them all: error units are shifted by 0.
            added = piece.new_zeros(end.shape[-1]).index_put((units,), piece)
            shifted[site] = (end + added).movedim(-1, unit_dim)
        return shifted

    def flat(
        self, values: Mapping[str, Shaped[np.ndarray, " units"]]
    ) -> Shaped[Tensor, " gates"]:
        """Return values [units] by site in the order of the gates."""
        rows = list[Tensor]()
        for site, units in self._with_gate.items():
            rows.append(torch.from_numpy(values[site][units]))
        return torch.cat(rows)

    def scored(self, values: Shaped[np.ndarray, " gates"]) -> UnitValues:
        """Return values of the gates by site [units], NaN for error units."""
        self._check(len(values), "values")
        scores = UnitValues()
        pieces = np.split(values, np.cumsum(self._sizes)[:-1])
        for (site, units), piece in zip(self._with_gate.items(), pieces, strict=True):
            scores[site] = np.full(self._n_units[site], np.nan)
            scores[site][units] = piece
        return scores

    def chosen(
        self, mask: Bool[np.ndarray, " gates"], values: Float[np.ndarray, " gates"]
    ) -> UnitValues:
        """Return the numbers of the chosen units by site; their values play no part."""
        # NaN, an error unit, is not 1, and so is never chosen.
        marks = self.scored(mask)
        return {site: np.flatnonzero(of_site == 1) for site, of_site in marks.items()}


class EdgesUnderGates(Gated[Edges]):
    """Images of a task in memory, with a gate on some edges; all other edges between the same sites are cut.

    Args:
        task: Its sites play no part.
        edges: Edges that have a gate.

    Example:
        >>> edges = circuit.edges
        >>> with task.running(gradients=True):
        ...     runs = circuitry.gates.EdgesUnderGates(task, edges)
        ...     scores = runs.scored(np.zeros(runs.n_gates))
    """

    def __init__(self, task: Task, edges: Edges) -> None:
        self._gated = gated_edges_of(task, edges.scores)
        super().__init__(task, self._gated)
        self._edges = edges
        self._masks = dict(self._gated.masks(edges))
        self._places = dict[Pair, tuple[Tensor, Tensor]]()
        """Rows and columns of the edges of a pair of sites; what is written on a device has to know them there."""
        for pair, mask in self._masks.items():
            rows, columns = torch.from_numpy(mask).nonzero(as_tuple=True)
            device = self._start.device
            self._places[pair] = (rows.to(device), columns.to(device))
        self._sizes = [len(rows) for rows, _ in self._places.values()]
        self.n_gates = sum(self._sizes)

    def run(
        self, gates: AnyGates, chosen: Int[Tensor, " some"] | None = None
    ) -> Float[Tensor, "some d"]:
        """Return the embeddings of the images, or of the chosen ones, under gates; differentiable in the gates."""
        images = self._places_of(chosen)
        gates = self._on_device(gates)
        if gates.dim() == 2:
            # A run under gates on edges has the same gates for all its images.
            alone = [self.run(own, images[i : i + 1]) for i, own in enumerate(gates)]
            return torch.cat(alone)
        ends = _ends_of(self._ends, images)
        opened = dict[Pair, Tensor]()
        # Lifted, else closed gates had no gradient and stayed closed for good.
        pieces = torch.split(lifted(gates), self._sizes)
        for (pair, places), piece in zip(self._places.items(), pieces, strict=True):
            closed = piece.new_zeros(self._masks[pair].shape)
            opened[pair] = closed.index_put(places, piece)
        return self._gated.run(self._start[images], ends, opened)[0]

    def scored(self, values: Shaped[np.ndarray, " gates"]) -> Edges:
        """Return the edges with values of the gates as scores; where a value is NaN, there is no edge."""
        self._check(len(values), "values")
        scores = dict[Pair, np.ndarray]()
        units = self._edges.units
        pieces = np.split(values, np.cumsum(self._sizes)[:-1])
        for (pair, mask), piece in zip(self._masks.items(), pieces, strict=True):
            # Gates follow the mask over all units, row by row; the scores have rows and columns of `units` alone.
            of_all_units = np.full(mask.shape, np.nan)
            of_all_units[mask] = piece
            up, down = pair
            scores[pair] = of_all_units[np.ix_(units[down], units[up])]
        return replace(self._edges, scores=scores)

    def chosen(
        self, mask: Bool[np.ndarray, " gates"], values: Float[np.ndarray, " gates"]
    ) -> Edges:
        """Return the chosen edges with these values as scores."""
        return self.scored(np.where(mask, values, np.nan))
