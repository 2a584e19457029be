"""What `find_circuit` returns: a circuit with the scores of all units, and the ablated runs that it was judged by.

No torch.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from circuitry.circuits.graph import AttributionGraph
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.runs.given import checked
from circuitry.runs.manifest import check_format, read_sealed, write_sealed

_GRAPH, _CURVE, _NOTE = "graph.safetensors", "curve.safetensors", "note.json"
_FORMAT = "circuitry found circuit 3"


@checked
@dataclass(frozen=True, eq=False, repr=False)
class FoundCircuit:
    """A circuit, by whichever method.

    Example:
        >>> found = find_circuit(Task(encoder, cats, metric, others=not_cats), selectivity=0.8)
        >>> found.size                               # share of the units
        >>> found.curve.to_pandas("selectivity")         # every size that was tried
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
        return dict(self.graph.edges.units)

    @property
    def size(self) -> float:
        """Share of all units that is kept."""
        return sum(map(len, self.units.values())) / sum(len(self.graph.node_scores[site]) for site in self.units)

    @property
    def method(self) -> str:
        """One of `unit_scores.METHODS`."""
        return str(self.graph.settings.get("method", "unknown"))

    def to_pandas(self) -> pd.DataFrame:
        """Return what the curve says of this circuit, its complement and random units: faithfulness and selectivity."""
        tables = pd.concat([self.curve.to_pandas(measure) for measure in ("faithfulness", "selectivity")])
        n_units = sum(map(len, self.units.values()))
        return tables[tables["n_units"] == n_units].assign(method=self.method).reset_index(drop=True)

    @checked
    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write graph, curve and note into a folder; return the files."""
        graph, curve, note = (Path(folder) / name for name in (_GRAPH, _CURVE, _NOTE))
        self.graph.save(graph)
        self.curve.save(curve)
        write_sealed(note, {"format": _FORMAT, "note": self.note})
        return graph, curve, note

    @classmethod
    @checked
    def load(cls, folder: str | os.PathLike[str]) -> "FoundCircuit":
        """Read a circuit that `save` wrote.

        Raises:
            InputError: for a missing or damaged file.
        """
        graph, curve = AttributionGraph.load(Path(folder) / _GRAPH), FaithfulnessCurve.load(Path(folder) / _CURVE)
        told = read_sealed(Path(folder) / _NOTE, "find the circuit again")
        check_format(Path(folder) / _NOTE, told.get("format"), _FORMAT)
        return cls(graph, curve, told["note"])

    def __repr__(self) -> str:
        kept, units = sum(map(len, self.units.values())), sum(map(len, self.graph.node_scores.values()))
        note = f"; {self.note}" if self.note else ""
        return f"FoundCircuit of {self.graph.title} by {self.method}: {kept} of {units} units{note}"
