"""One domain against all the others, as the study reads its circuits. No torch.

The study sets quickdraw apart: circuits of the other domains among themselves, and quickdraw's with theirs, over depth;
and each domain's mean similarity with the others, with and without quickdraw among these.
"""

import numpy as np
import pandas as pd

from circuitry.comparison.comparison import Comparison
from circuitry.comparison.statistics import per_domain
from circuitry.runs.errors import InputError


def means_without(comparison: Comparison, apart: str) -> pd.DataFrame:
    """Return each domain's mean similarity with the others, with and without one domain among them.

    Returns:
        Columns group, domain, value, without; ``without`` is NaN where there is no third domain.

    Raises:
        InputError: for a domain that the comparison lacks.
    """
    _check(comparison, apart)
    rows = []
    for group in comparison.groups:
        matrix = comparison.matrix(group)
        off = matrix.where(~np.eye(len(matrix), dtype=bool))
        means = pd.DataFrame(
            {"value": off.mean(axis=1), "without": off.drop(columns=apart, errors="ignore").mean(axis=1)}
        )
        rows.append(means.rename_axis(index="domain", columns=None).reset_index().assign(group=group))
    return pd.concat(rows, ignore_index=True)[["group", "domain", "value", "without"]]


def apart_over_depth(comparison: Comparison, apart: str) -> pd.DataFrame:
    """Return the mean of one domain with the others, and of the others among themselves, at every site.

    Returns:
        Columns group, domain (one of two sentences), site, value, low, high (95 % over classes), n_classes.

    Raises:
        InputError: for a domain that the comparison lacks.
    """
    _check(comparison, apart)
    values = comparison.values
    with_it = (values["domain_a"] == apart) | (values["domain_b"] == apart)
    names = np.where(with_it, f"{apart} with the others", f"without {apart}")
    labelled = values.assign(domain=names, other="")
    parts = [
        per_domain(labelled[labelled["class"].isin(classes)], comparison.families).assign(group=group)
        for group, classes in comparison.groups.items()
    ]
    return pd.concat(parts, ignore_index=True)


def _check(comparison: Comparison, apart: str) -> None:
    if apart not in comparison.domains:
        raise InputError(
            f"A domain is set apart from the others, but there is no {apart!r}; the domains are "
            f"{', '.join(comparison.domains)}."
        )
