"""Read tables of circuits that were kept at one site at a time."""

import pandas as pd


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
