"""Images of a task, held in memory for many runs under gates on units or on edges.

A gate is a real number for a unit or an edge: 1 keeps the unit or edge, and 0 replaces it by the baseline. Embeddings
are differentiable with respect to gates. Functions that learn or score gates use the same four members, whether the
gates are on units or on edges:

- `n_gates`: the number of gates;
- `run`: return the embeddings under given gates;
- `scored`: convert a value for each gate to scores of the units or edges;
- `chosen`: convert a mask of the gates to the chosen units or edges.

How gates act is described in `unit_gates` and `edge_gates`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
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
"""The units or edges that have gates, with a value for each: `UnitValues` or `Edges`."""
UnitValues = dict[str, np.ndarray]
"""An array by site. It holds either a value for each unit of the site, or the indices of some units."""
AnyGates = Annotated[Float[Tensor, "*some gates"], FINITE]
"""Gates [gates] for all images, or [images, gates] with a row for each image."""


class Gated(ABC, Generic[Scored]):
    """Images of a task, held in memory for many runs under gates; see `UnitsUnderGates` and `EdgesUnderGates`.

    The images are ``task.images`` followed by ``task.others``. Stages before the first gated site are run only once.
    Create and use the object within ``task.running(gradients=True)``.

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
        """Largest number of images in one run."""
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
                    continue  # the end of the first image is used for all images
                if not each_has_an_end:
                    clean = {site: a[:1] for site, a in clean.items()}
                for site, end in batch.ends(clean).items():
                    ends[site].append(end)
        self._start = torch.cat(starts)
        self._ends = {site: torch.cat(pieces) for site, pieces in ends.items()}
        self.embeddings: Float[Tensor, "images d"] = torch.cat(embeddings)
        """Embeddings of all images by the model without gates."""

    def __len__(self) -> int:
        return len(self._start)

    @abstractmethod
    def run(
        self, gates: AnyGates, chosen: Int[Tensor, " some"] | None = None
    ) -> Float[Tensor, "some d"]:
        """Return the embeddings under gates. They are differentiable with respect to the gates.

        Args:
            gates: The gates, either the same for all images or a row for each image.
            chosen: Indices of the images to run (default: all images).
        """

    @abstractmethod
    def scored(self, values: Shaped[np.ndarray, " gates"]) -> Scored:
        """Return the units or edges that have gates, with the value of each gate as the score."""

    @abstractmethod
    def chosen(
        self, mask: Bool[np.ndarray, " gates"], values: Float[np.ndarray, " gates"]
    ) -> Scored:
        """Return the units or edges whose gates the mask chooses.

        Args:
            mask: Mask of the gates.
            values: Values of the gates. They become the scores of edges; for units they are ignored.
        """

    def _places_of(self, chosen: Tensor | None) -> Tensor:
        """Return the indices of the images of a run, as a tensor on the device of the images.

        The indices are moved to the device only once, because each copy makes the program wait.
        """
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
    """Return the baselines of some images by site. A single baseline for all images is returned as it is."""
    chosen = dict[str, Tensor]()
    for site, end in ends.items():
        chosen[site] = end[images] if len(end) > 1 else end
    return chosen


class UnitsUnderGates(Gated[UnitValues]):
    """Images of a task in memory, with a gate on every unit at the sites of the task.

    Error units, which hold what the features of a basis do not reconstruct, have no gates. The site `input` has no
    gates either.

    Args:
        task: The task.
        keep_error: If True, error units are kept. If False, they are at the baseline.

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
        """Indices of the units that have a gate, by site."""
        for site, n in self._n_units.items():
            errors = task.encoder.error_units.get(site, ())
            self._with_gate[site] = np.setdiff1d(np.arange(n), errors)
        self._places = dict[str, Tensor]()
        """Indices of the units that have a gate, on the device, at sites that also have units without a gate."""
        for site, units in self._with_gate.items():
            if len(units) < self._n_units[site]:
                self._places[site] = torch.from_numpy(units).to(self._start.device)
        self._sizes = [len(units) for units in self._with_gate.values()]
        self.n_gates = sum(self._sizes)

    def run(
        self,
        gates: AnyGates,
        chosen: Int[Tensor, " some"] | None = None,
        shift: Float[Tensor, " gates"] | None = None,
    ) -> Float[Tensor, "some d"]:
        """Return the embeddings under gates. They are differentiable with respect to ``gates`` and ``shift``.

        Args:
            gates: The gates, either the same for all images or a row for each image.
            chosen: Indices of the images to run (default: all images).
            shift: A number for each unit with a gate. It is added to the baseline of the unit at all positions
                (default: no shift).
        """
        images = self._places_of(chosen)
        ends = self._ends if shift is None else self.shifted(shift)
        ends = _ends_of(ends, images)
        rows = self._on_device(gates[None] if gates.dim() == 1 else gates)
        placed = dict[str, Tensor]()
        pieces = torch.split(rows, self._sizes, 1)
        for site, piece in zip(self._n_units, pieces, strict=True):
            placed[site] = self._with_errors(site, piece, self._gate_of_errors)
        return self._gated.run_each(self._start[images], ends, placed)

    def shifted(self, shift: Float[Tensor, " gates"]) -> dict[str, Tensor]:
        """Return the baselines by site, with a number added to each unit at all its positions.

        Args:
            shift: The number for each unit with a gate.
        """
        shifted = dict(self._ends)
        pieces = torch.split(shift, self._sizes)
        for site, piece in zip(self._n_units, pieces, strict=True):
            unit_dim = self.encoder.unit_dim(site)
            end = shifted[site].movedim(unit_dim, -1)
            # A stream that the site carries past its units is not shifted.
            n_carried = end.shape[-1] - self._n_units[site]
            added = F.pad(self._with_errors(site, piece, 0.0), (0, n_carried))
            shifted[site] = (end + added).movedim(-1, unit_dim)
        return shifted

    def _with_errors(
        self, site: str, values: Shaped[Tensor, "*rows gates"], of_errors: float
    ) -> Shaped[Tensor, "*rows units"]:
        """Return values for all units of a site: given values for units with a gate, and a number for error units."""
        if site not in self._places:
            return values
        everywhere = values.new_full(
            (*values.shape[:-1], self._n_units[site]), of_errors
        )
        return everywhere.index_copy(-1, self._places[site], values)

    def flat(
        self, values: Mapping[str, Shaped[np.ndarray, " units"]]
    ) -> Shaped[Tensor, " gates"]:
        """Join values of the units of each site into one array, in the order of the gates.

        Args:
            values: An array [units] for each site. Values of error units are left out.
        """
        rows = list[Tensor]()
        for site, units in self._with_gate.items():
            rows.append(torch.from_numpy(values[site][units]))
        return torch.cat(rows)

    def scored(self, values: Shaped[np.ndarray, " gates"]) -> UnitValues:
        """Return the values of the gates as arrays [units] by site. Error units get NaN."""
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
        """Return the indices of the chosen units by site. ``values`` is ignored."""
        # An error unit has NaN. NaN is not 1, so an error unit is never chosen.
        marks = self.scored(mask)
        return {site: np.flatnonzero(of_site == 1) for site, of_site in marks.items()}


class EdgesUnderGates(Gated[Edges]):
    """Images of a task in memory, with gates on some edges.

    All other edges between the same pairs of sites are cut.

    Args:
        task: The task. Its sites are ignored.
        edges: The edges that have gates.

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
        """Rows and columns of the edges in the mask of each pair of sites, on the device where gates are written."""
        for pair, mask in self._masks.items():
            rows, columns = torch.from_numpy(mask).nonzero(as_tuple=True)
            device = self._start.device
            self._places[pair] = (rows.to(device), columns.to(device))
        self._sizes = [len(rows) for rows, _ in self._places.values()]
        self.n_gates = sum(self._sizes)

    def run(
        self, gates: AnyGates, chosen: Int[Tensor, " some"] | None = None
    ) -> Float[Tensor, "some d"]:
        """Return the embeddings under gates. They are differentiable with respect to the gates.

        Args:
            gates: The gates, either the same for all images or a row for each image. With a row for each image, the
                images are run one by one.
            chosen: Indices of the images to run (default: all images).
        """
        images = self._places_of(chosen)
        gates = self._on_device(gates)
        if gates.dim() == 2:
            # All images of a run have the same gates on edges. So each image gets a run of its own.
            alone = [self.run(own, images[i : i + 1]) for i, own in enumerate(gates)]
            return torch.cat(alone)
        ends = _ends_of(self._ends, images)
        opened = dict[Pair, Tensor]()
        # Gates are lifted, because otherwise closed gates would get no gradient and would never open again.
        pieces = torch.split(lifted(gates), self._sizes)
        for (pair, places), piece in zip(self._places.items(), pieces, strict=True):
            closed = piece.new_zeros(self._masks[pair].shape)
            opened[pair] = closed.index_put(places, piece)
        return self._gated.run(self._start[images], ends, opened)[0]

    def scored(self, values: Shaped[np.ndarray, " gates"]) -> Edges:
        """Return the edges with the values of the gates as scores. An edge whose value is NaN is left out."""
        self._check(len(values), "values")
        scores = dict[Pair, np.ndarray]()
        units = self._edges.units
        pieces = np.split(values, np.cumsum(self._sizes)[:-1])
        for (pair, mask), piece in zip(self._masks.items(), pieces, strict=True):
            # Gates are in the order of the mask over all units, row by row. The scores have only the rows and the
            # columns of `units`.
            of_all_units = np.full(mask.shape, np.nan)
            of_all_units[mask] = piece
            up, down = pair
            scores[pair] = of_all_units[np.ix_(units[down], units[up])]
        return replace(self._edges, scores=scores)

    def chosen(
        self, mask: Bool[np.ndarray, " gates"], values: Float[np.ndarray, " gates"]
    ) -> Edges:
        """Return the chosen edges with their ``values`` as scores."""
        return self.scored(np.where(mask, values, np.nan))
