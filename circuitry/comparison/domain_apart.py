"""One domain against the others, as the study does with quickdraw. No torch."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from circuitry.comparison.comparison import Comparison
from circuitry.comparison.statistics import per_domain
from circuitry.runs.errors import unknown_name


def means_without(comparison: Comparison, apart: str) -> pd.DataFrame:
    """Return each domain's mean similarity with the others, with and without one domain; `InputError` if it is unknown.

    The domain ``all`` has the means over all ordered pairs. Without quickdraw the study leaves out the pairs whose
    second domain it is: of six domains 25 ordered pairs stay, and five of them compare quickdraw with another domain.

    Returns:
        Columns group, domain, value, without (NaN without a third domain).
    """
    _check(comparison, apart)
    rows = []
    for group in comparison.groups:
        matrix = comparison.matrix(group)
        off = matrix.where(~np.eye(len(matrix), dtype=bool))
        both = {"value": off, "without": off.drop(columns=apart, errors="ignore")}
        means = pd.DataFrame(
            {name: values.mean(axis=1) for name, values in both.items()}
        )
        means.loc["all"] = [
            np.nanmean(values.to_numpy(dtype=float)) for values in both.values()
        ]
        rows.append(
            means.rename_axis(index="domain", columns=None)
            .reset_index()
            .assign(group=group)
        )
    return pd.concat(rows, ignore_index=True)[["group", "domain", "value", "without"]]


def group_means(comparisons: Mapping[str, Comparison]) -> pd.DataFrame:
    """Return the mean similarity of every two domains over the classes of each group, by measure; each pair once."""
    tables = []
    for measure, comparison in comparisons.items():
        for group in comparison.groups:
            matrix = comparison.matrix(group)
            pairs = [(a, b, matrix.loc[a, b]) for a, b in combinations(matrix.index, 2)]
            table = pd.DataFrame(pairs, columns=["domain_a", "domain_b", "value"])
            tables.append(table.assign(measure=measure, group=group))
    return pd.concat(tables, ignore_index=True)[
        ["measure", "group", "domain_a", "domain_b", "value"]
    ]


def apart_over_depth(comparison: Comparison, apart: str) -> pd.DataFrame:
    """Return the mean similarity of one domain with the others, and of the others with each other, at every site.

    The two are phrases in the column domain; intervals are of 95 % over classes.
    """
    _check(comparison, apart)
    values = comparison.values
    with_it = (values["domain_a"] == apart) | (values["domain_b"] == apart)
    names = np.where(with_it, f"{apart} with the others", f"without {apart}")
    labelled = values.assign(domain=names, other="")
    parts = [
        per_domain(labelled[labelled["class"].isin(classes)]).assign(group=group)
        for group, classes in comparison.groups.items()
    ]
    return pd.concat(parts, ignore_index=True)


def _check(comparison: Comparison, apart: str) -> None:
    if apart not in comparison.domains:
        raise unknown_name("domain", apart, comparison.domains)
