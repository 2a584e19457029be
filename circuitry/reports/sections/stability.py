"""The sections on whether circuits and the order of the domains hold: with other settings, and with other images."""

import pandas as pd

from circuitry.circuits.consensus import mean_stability
from circuitry.comparison.order_stability import OrderStability
from circuitry.reports.page import Report
from circuitry.reports.sections.compared import with_intervals


def add_order_stability(report: Report, stability: OrderStability) -> None:
    """Add the table of orders, and the means of the domains by each way to find circuits, side by side.

    Nothing for two domains, which have no order.
    """
    if (stability.table["n_domains"] < 3).all():
        return
    report.section("Does the order of the domains depend on the settings?", folded=True)
    report.table(
        stability.table.rename(columns={"rho_pairs": "rho of pairs", "n_domains": "domains", "n_classes": "classes"}),
        "Node overlap of each domain with the others, one setting changed at a time. rho: rank correlation of the "
        "order of the domains with the default order; of pairs: the same over pairs of domains; least, most: the "
        "domains with the smallest and the largest mean. No row has an interval: orders of few domains or classes "
        "change easily.",
        formats={"rho": "+.2f", "rho of pairs": "+.2f"},
    )
    if not stability.extracted:
        return
    columns = {"default": stability.default}
    columns |= {f"{varied}: {setting}": one for (varied, setting), one in stability.extracted.items()}
    means = {name: one.summary().query("group == 'all'").set_index("domain") for name, one in columns.items()}
    last = [f"{table['value'].idxmin()} ({name})" for name, table in means.items() if table["value"].notna().any()]
    report.table(
        pd.DataFrame({name: with_intervals(of, ".2f") for name, of in means.items()})
        .rename_axis("domain")
        .reset_index(),
        "Each domain's mean node overlap with the others, of circuits found with other settings on the same images, "
        f"with 95 % intervals over {stability.default.n_classes} classes. Lowest: {', '.join(last)}.",
    )


def add_circuit_stability(report: Report, stability: pd.DataFrame) -> None:
    """Add the section on the stability of circuits when their images are drawn again, from `circuit_stability`."""
    report.section("Would other images give the same circuits?", folded=True)
    report.table(
        mean_stability(stability),
        "Stability of circuits when the parts of their images are drawn again with replacement: the probability that a "
        "unit is kept with its sign, and that an edge is among the strongest into its unit. Means over classes; the "
        "last row is the mean over all circuits.",
    )
