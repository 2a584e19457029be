"""The section on whether other images would give the same circuits."""

import pandas as pd

from circuitry.circuits.consensus import mean_stability
from circuitry.reports.page import Report


def add_circuit_stability(report: Report, stability: pd.DataFrame) -> None:
    """Add the section on the stability of circuits when their images are drawn again, from `circuit_stability`."""
    report.section("Would other images give the same circuits?", folded=True)
    report.table(
        mean_stability(stability),
        "Stability of circuits when the parts of their images are drawn again with replacement: the probability that a "
        "unit is kept with its sign, and that an edge is among the strongest into its unit. Means over classes; the "
        "last row is the mean over all circuits.",
    )
