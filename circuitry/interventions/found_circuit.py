"""What `find_circuit` returns: a circuit with the scores of all units, and the ablated runs that it was judged by."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from circuitry.circuits.graph import AttributionGraph
from circuitry.interventions.circuit_sets import take_kept_units
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.runs.given import checked


@checked
@dataclass(frozen=True, eq=False, repr=False)
class FoundCircuit:
    """A circuit, by whichever method.

    Example:
        >>> found = find_circuit(Task(encoder, cats, metric, others=not_cats), selectivity=0.8)
        >>> found.size                               # share of the units
        >>> found.curve.table("selectivity")         # every size that was tried
        >>> faithfulness_curve(unseen, found.graph)  # functions of a graph take it
    """

    graph: AttributionGraph
    """Scores of all units, positive where a unit helps, and the kept ones; no edges are scored."""
    curve: FaithfulnessCurve
    """The circuits that were tried, by size, on the images that they were found on."""
    note: str = ""
    """Why this is not what was asked for, in a sentence; empty where it is."""

    @property
    def units(self) -> dict[str, np.ndarray]:
        """The kept units by site."""
        return take_kept_units(self.graph)

    @property
    def size(self) -> float:
        """Share of all units that is kept."""
        return sum(map(len, self.units.values())) / sum(len(self.graph.node_scores[site]) for site in self.units)

    @property
    def method(self) -> str:
        """One of `unit_scores.METHODS`."""
        return str(self.graph.settings.get("method", "unknown"))

    def table(self) -> pd.DataFrame:
        """Return what the curve says of this circuit, its complement and random units: faithfulness and selectivity."""
        tables = pd.concat([self.curve.table(measure) for measure in ("faithfulness", "selectivity")])
        n_units = sum(map(len, self.units.values()))
        return tables[tables["n_units"] == n_units].assign(method=self.method).reset_index(drop=True)

    def __repr__(self) -> str:
        kept, units = sum(map(len, self.units.values())), sum(map(len, self.graph.node_scores.values()))
        note = f"; {self.note}" if self.note else ""
        return f"FoundCircuit of {self.graph.title} by {self.method}: {kept} of {units} units{note}"
