"""What a lesion leaves of the information on a class.

A lesion may take right answers although the network still computes what tells the class from other classes: then only
the way to the answer is broken. The embeddings after a lesion are read again (`read_again`), by the same head, with one
constant, and by a new head. The constant and the head are fitted to images that neither found nor test the part.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from circuitry.encoder.metrics import ClassLogit
from circuitry.interventions.ablated_units import Ablated, mean_of_draws
from circuitry.models.heads_fitted_again import read_again

FEWEST_FITTED = 4
"""Fewest images of each class that a constant or a head is fitted to."""

EmbeddingsOfRuns = Mapping[str, Float[Tensor, "runs _ d"]]
"""Embeddings of the images of several classes of one domain, by class: in a run of the whole model, followed by a run
of each lesion."""


def information_left(
    domain: str,
    metrics: Mapping[str, ClassLogit],
    lesions: Sequence[Ablated],
    tested: EmbeddingsOfRuns,
    fitted: EmbeddingsOfRuns,
) -> pd.DataFrame:
    """Return how well each lesion leaves classes of a domain apart, as columns for the table of `lesion`.

    Args:
        domain: The domain of the images.
        metrics: The metric of each class, with the scale of the model.
        lesions: The lesions. Those of parts whose class is not in ``metrics`` are left out.
        tested: Embeddings of the images that test the parts, from `lesioned_embeddings`.
        fitted: Embeddings of images that neither found nor test the parts. If there are none, there are only the
            columns on order.

    Returns:
        For each lesion a row of each class, with the columns of `Ablated.row` and those of `read_again`. For the whole
        model they have the prefix ``whole_``. The random draws of a part are averaged into one row.
    """

    @cache  # the whole model is read once for each class
    def read(run: int, part_class: str) -> pd.DataFrame:
        of_tests = {name: runs[run] for name, runs in tested.items()}
        of_fitted = {name: runs[run] for name, runs in fitted.items()}
        return read_again(part_class, metrics, of_tests, of_fitted)

    rows = list[dict[str, Any]]()
    for run, lesion in enumerate(lesions, start=1):
        part_class = lesion.found_on[0]
        if part_class in metrics:
            whole = read(0, part_class).add_prefix("whole_")
            table = read(run, part_class).join(whole)
            for class_name in metrics:
                row = lesion.row((class_name, domain))
                rows.append(row | dict(table.loc[class_name]))
    return mean_of_draws(pd.DataFrame(rows), lesions) if rows else pd.DataFrame()


def join_information(
    table: pd.DataFrame, information: Sequence[pd.DataFrame]
) -> pd.DataFrame:
    """Return a table of lesions with the columns of several tables of `information_left`.

    Rows of the table that have no such columns get NaN.
    """
    known = [rows for rows in information if len(rows)]
    if not known:
        return table.assign(whole_auc=np.nan, auc=np.nan)
    # On the columns that name a lesion, which are those that both tables have.
    return table.merge(pd.concat(known), how="left")
