"""Compare one domain with the other domains, as the ICML paper ("the study") does with the domain quickdraw.

Does not import torch.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from circuitry.comparison.comparison import Comparison
from circuitry.comparison.statistics import per_domain
from circuitry.runs.errors import unknown_name


def means_without(comparison: Comparison, apart: str) -> pd.DataFrame:
    """Return each domain's mean similarity with the other domains, and the same mean without one domain.

    In each group, the last row has the domain ``all`` and the means over all ordered pairs of domains.

    To leave out a domain such as quickdraw, the ordered pairs whose second domain is quickdraw are removed, as in the
    study. The pairs whose first domain is quickdraw stay. For example, six domains have 30 ordered pairs, and 25 pairs
    stay. Five of these 25 pairs have quickdraw as their first domain.

    Args:
        apart: The domain to leave out.

    Returns:
        Columns group, domain, value (mean with the other domains), without (the same mean without ``apart``; NaN if
        no other domain is left).
    """
    _check(comparison, apart)
    tables = []
    for group in comparison.groups:
        matrix = comparison.matrix(group)
        # A domain with itself is no similarity with another domain.
        off = matrix.where(~np.eye(len(matrix), dtype=bool))
        # A group whose classes have no images in the domain lacks its column.
        without = off.drop(columns=apart, errors="ignore")
        means = pd.DataFrame(
            {"value": off.mean(axis=1), "without": without.mean(axis=1)}
        )
        # These means are over pairs. Without one domain, the means of domains are over unequal numbers of pairs.
        mean_value = np.nanmean(off.to_numpy(dtype=float))
        mean_without = np.nanmean(without.to_numpy(dtype=float))
        means.loc["all"] = [mean_value, mean_without]
        means = means.rename_axis(index="domain", columns=None).reset_index()
        tables.append(means.assign(group=group))
    columns = ["group", "domain", "value", "without"]
    return pd.concat(tables, ignore_index=True)[columns]


def group_means(comparisons: Mapping[str, Comparison]) -> pd.DataFrame:
    """Return the mean similarity of every two domains, for each measure and each group of classes.

    Args:
        comparisons: Comparisons by measure.

    Returns:
        Columns measure, group, domain_a, domain_b, value. Each pair of domains has one row.
    """
    tables = []
    for measure, comparison in comparisons.items():
        for group in comparison.groups:
            matrix = comparison.matrix(group)
            rows = []
            for a, b in combinations(matrix.index, 2):
                rows.append((a, b, matrix.loc[a, b]))
            table = pd.DataFrame(rows, columns=["domain_a", "domain_b", "value"])
            tables.append(table.assign(measure=measure, group=group))
    columns = ["measure", "group", "domain_a", "domain_b", "value"]
    return pd.concat(tables, ignore_index=True)[columns]


def apart_over_depth(comparison: Comparison, apart: str) -> pd.DataFrame:
    """Return the mean similarity of one domain with the other domains, and of the other domains with each other.

    Means are over the classes of a group, at every site.

    Returns:
        Columns domain, site, value, low, high (95 % interval over classes), n_classes, group. The column domain has one
        of two phrases in place of a domain, such as "quickdraw with the others" and "without quickdraw".
    """
    _check(comparison, apart)
    values = comparison.values
    with_it = (values["domain_a"] == apart) | (values["domain_b"] == apart)
    names = np.where(with_it, f"{apart} with the others", f"without {apart}")
    # The table then has two "domains", and each pair is in one of them. This is all that `per_domain` needs.
    labelled = values.assign(domain=names, other="")
    tables = []
    for group, classes in comparison.groups.items():
        of_group = labelled[labelled["class"].isin(classes)]
        tables.append(per_domain(of_group).assign(group=group))
    return pd.concat(tables, ignore_index=True)


def _check(comparison: Comparison, apart: str) -> None:
    if apart not in comparison.domains:
        raise unknown_name("domain", apart, comparison.domains)
