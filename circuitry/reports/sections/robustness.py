"""The section on whether the order of the domains hangs on how circuits were found, from `order_stability`."""

import pandas as pd

from circuitry.comparison.comparison import Comparison
from circuitry.comparison.order_stability import OrderStability, Varied
from circuitry.reports.page import Report
from circuitry.reports.sections.compared import with_intervals


def add_order_stability(report: Report, stability: OrderStability) -> None:
    """Add the table of orders, and where circuits were found anew that of each domain's mean, side by side."""
    report.section("Does the order of the domains hang on the settings?")
    table = stability.table.rename(
        columns={"rho_pairs": "rho of pairs", "n_domains": "domains", "n_classes": "classes"}
    )
    report.table(
        table,
        "Node overlap of each domain with the others under other settings, one changed at a time. rho: rank "
        "correlation of the domains' order with the default's; of pairs: the same over pairs of domains; least, most: "
        "the domains with the smallest and the largest mean. Orders of few domains, or of few classes, move easily: "
        "no row has an interval.",
        formats={"rho": "+.2f", "rho of pairs": "+.2f"},
    )
    if stability.extracted:
        side_by_side = means_side_by_side(stability.default, stability.extracted)
        report.table(
            side_by_side,
            f"Each domain's mean node overlap with the others, found with other settings on the same images, with "
            f"95 % intervals over {stability.default.n_classes} classes. {disagreements(stability)}",
        )


def means_side_by_side(default: Comparison, extracted: dict[Varied, Comparison]) -> pd.DataFrame:
    """Return each domain's mean with the others, with intervals, in a column for each way to find circuits."""
    columns = {"default": default} | {f"{varied}: {setting}": one for (varied, setting), one in extracted.items()}
    means = {name: one.summary().query("group == 'all'").set_index("domain") for name, one in columns.items()}
    return (
        pd.DataFrame({name: with_intervals(of, ".2f") for name, of in means.items()})
        .rename_axis("domain")
        .reset_index()
    )


def disagreements(stability: OrderStability) -> str:
    """Say under which of the extractions the last domain is another, and whether its interval leaves that open."""
    means = stability.default.summary().query("group == 'all'").set_index("domain")
    last = str(means["value"].idxmin())
    words = []
    for (varied, setting), one in stability.extracted.items():
        there = one.summary().query("group == 'all'").set_index("domain")
        other = str(there["value"].idxmin())
        if other == last:
            continue
        open_ = there["low"][last] <= there["value"][other] <= there["high"][last]
        words.append(
            f"with {varied} {setting} it is {other}"
            + (f" (its mean lies within the interval of {last})" if open_ else f" (below the interval of {last})")
        )
    if not words:
        return f"{last} shares least by default and under each of the other settings."
    return f"By default {last} shares least; {'; '.join(words)}."
