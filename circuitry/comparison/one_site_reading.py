"""Read tables of circuits that were kept at one site at a time, or used in another domain."""

from typing import Any

import pandas as pd

OWN_CIRCUIT = "own domain's circuit"
OTHER_CIRCUITS = "other domains' circuits"
"""The groups of circuits in `transfer_over_depth`."""


def lead_of_own_circuits(
    over_depth: pd.DataFrame,
) -> tuple[float, float, pd.Series, int] | None:
    """Compare circuits on images of their own domain with circuits of other domains, kept at one site at a time.

    Args:
        over_depth: A table of `transfer_over_depth`.

    Returns:
        None if no site has values of both groups. Otherwise four values: the mean over sites for circuits on their own
        domain; the mean over sites for circuits of other domains; the difference at each site, in descending order; and
        the number of sites at which the interval of the first group lies above the interval of the second group.
    """
    by_site = over_depth.set_index("site").sort_index()
    own = by_site[by_site["domain"] == OWN_CIRCUIT]
    other = by_site[by_site["domain"] == OTHER_CIRCUITS]
    own, other = own.align(other, join="inner", axis=0)
    leads = (own["value"] - other["value"]).dropna()
    if leads.empty:
        return None
    # A comparison with NaN is False, so a site without an interval is not counted.
    apart = own["low"] > other["high"]
    return (
        float(own.loc[leads.index, "value"].mean()),
        float(other.loc[leads.index, "value"].mean()),
        leads.sort_values(ascending=False, kind="stable"),
        int(apart.sum()),
    )


def transfer_accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean share of images that are classified as the class, over all rows of a table.

    Args:
        table: A table of `transfer_circuits` or `interchange`.

    Returns:
        A table with the columns images, accuracy (in the runs with circuits) and full_accuracy (of the whole model). It
        has a row for images of the class. If ``table`` has columns for images of other classes, they have a row, too.
    """
    rows = list[dict[str, Any]]()
    for images, prefix in (("of the class", ""), ("of other classes", "other_")):
        if f"{prefix}accuracy" in table:
            row = {
                "images": images,
                "accuracy": table[f"{prefix}accuracy"].mean(),
                "full_accuracy": table[f"{prefix}full_accuracy"].mean(),
            }
            rows.append(row)
    return pd.DataFrame(rows, columns=["images", "accuracy", "full_accuracy"])


def mean_over_depth(one_site: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over domains of a measure, for circuits and random circuits that were kept at a single site.

    Args:
        one_site: Rows of a table of `curves_by_domain`, of one size and one measure, for circuits that were kept at
            one site at a time.

    Returns:
        A table with a row for each site, in the order of ``one_site``, and the columns ``kept`` and ``random``. Means
        without any known value are NaN.
    """
    circuits = ["kept", "random"]
    rows = one_site[one_site["circuit"].isin(circuits)]
    means = rows.pivot_table("value", "sites", "circuit", sort=False)
    means = means.rename_axis(index="site", columns=None)
    # A circuit without any known value gets a column of NaN.
    return means.reindex(columns=circuits)


def most_selective_site(one_site: pd.DataFrame) -> str | None:
    """Return the site at which circuits exceed random circuits most, or None if no site has both values.

    Args:
        one_site: Rows of selectivity from a table of `curves_by_domain`, as for `mean_over_depth`.
    """
    means = mean_over_depth(one_site).dropna()
    return None if means.empty else str((means["kept"] - means["random"]).idxmax())
