"""Units that are ablated together, the runs in which they are ablated, and the rows that name them in tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from circuitry.circuits.graph import Circuit
from circuitry.data.folds import Key
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import one_tensor
from circuitry.interventions.kept_circuits import (
    ablated_embeddings,
    units_with_errors,
)
from circuitry.runs.plan import Forwards

PART = "part"
RANDOM = "random"
KEYS = ("part_class", "part_domain", "class", "domain", "cut")
"""Columns that name a lesion and the images that test it."""


@dataclass(frozen=True, eq=False)
class Ablated:
    """Units that are ablated together."""

    found_on: Key
    """Class and domain of the own part. For random units, it is the own part that they are compared with."""
    kind: str
    """``part`` or ``random``."""
    n_units: int
    """The number of units that are ablated."""
    units: Mapping[str, np.ndarray]
    """Indices of these units by site. Sites without ablated units are left out."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of a table of lesions, such as the share of the units that the part has."""

    def row(self, key: Key) -> dict[str, Any]:
        """Return the columns that name this lesion in a table, for images of a class in a domain.

        Args:
            key: The class and domain of the images.
        """
        names = zip(KEYS, (*self.found_on, *key, self.kind), strict=True)
        return {**self.told, **dict(names)}


def ablations(
    found_on: Key, part: Circuit, drawn: Sequence[Circuit], **told: Any
) -> list[Ablated]:
    """Return the lesion of a part, followed by the lesions of the random parts that it is compared with.

    Args:
        found_on: Class and domain of the part.
        part: The part.
        drawn: Random parts with as many units at every site.
        told: Further columns of the rows of these lesions.
    """
    lesions = list[Ablated]()
    for circuit in (part, *drawn):
        kind = RANDOM if lesions else PART
        units = dict[str, np.ndarray]()
        for site, of_site in units_with_errors(circuit).items():
            if len(of_site):
                units[site] = of_site
        lesions.append(Ablated(found_on, kind, circuit.count, units, told))
    return lesions


def lesion_forwards(n_images: int, n_lesions: int) -> Forwards:
    """Return what `lesioned_embeddings` runs at most: equal lesions run once.

    Args:
        n_images: Number of images.
        n_lesions: Number of lesions, of parts and of random units.
    """
    # A clean run, and one of the whole model under gates.
    return Forwards(alone=n_images * (2 + n_lesions))


def mean_of_draws(table: pd.DataFrame, lesions: Sequence[Ablated]) -> pd.DataFrame:
    """Return a table of lesions with the random draws of each part averaged into one row.

    Args:
        table: Rows of `Ablated.row` with further columns of numbers.
        lesions: The lesions of the table. They all tell the same columns.
    """
    names = [*lesions[0].told, *KEYS]
    return table.groupby(names, sort=False).mean().reset_index()


def lesioned_embeddings(
    task: Task, lesions: Sequence[Ablated]
) -> Float[Tensor, "runs images d"]:
    """Return the embeddings of a task's images in a run of the whole model, and in a run of each lesion.

    Args:
        task: The task with these images.
        lesions: The units that each lesion ablates.
    """
    quiet = replace(
        task,
        images=one_tensor(task.images),
        others=None,
        work=replace(task.work, progress=False),
    )
    # The whole model also runs as a circuit, so that the answers before and after a lesion do not differ by rounding.
    whole: Mapping[str, np.ndarray] = {}
    return ablated_embeddings(quiet, [whole, *(one.units for one in lesions)])
