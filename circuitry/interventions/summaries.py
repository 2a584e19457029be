"""A few numbers for many curves and tables of transfer, as reports state them. No torch.

1. `areas_by_domain`: areas under the curves of each domain;
2. `span`: the least and the largest of the domains' values at one size of circuit;
3. `mean_over_depth`: circuits kept at one site at a time, means over domains;
4. `lead_of_own_circuits`: how much better a domain is served by its own circuits than by others', site by site;
5. `transfer_correlations`: whether circuits that share more transfer better, for each ablated site.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from circuitry.interventions.curves import FaithfulnessCurve, pool_curves
from circuitry.interventions.transfer_tables import OTHER, OWN, transfer_against_similarity, transfer_matrix

TENTH = 0.1
"""The share of units that a circuit keeps in the study."""

RANKING_OF = {"CPR": "signed", "CMD": "absolute"}
"""Which ranking each area is taken of (MIB, arXiv 2504.13151)."""


def nearest_to_a_tenth(fractions: Sequence[float]) -> float:
    """Return the size of circuit that is nearest to a tenth of the units, by ratio."""
    return min(fractions, key=lambda fraction: abs(np.log(fraction / TENTH)))


def areas_by_domain(curves: Sequence[FaithfulnessCurve]) -> pd.DataFrame:
    """Return the areas under the curves of each domain, classes pooled; each area of its ranking, where there is one.

    Returns:
        Columns domain, ranking, measure (``CPR``, ``CMD``), circuit (``kept``, ``random``), value, low, high.
    """
    parts = []
    for domain in dict.fromkeys(curve.domain for curve in curves):
        for measure, ranking in RANKING_OF.items():
            mine = [curve for curve in curves if curve.domain == domain and curve.ranking == ranking]
            if mine:
                areas = pool_curves(mine).areas()
                parts.append(areas[areas["measure"] == measure])
    columns = ["domain", "ranking", "measure", "circuit", "value", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


class Span(NamedTuple):
    """The least and the largest of some values; NaN where none is known."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:z.2f} to {self.high:z.2f}"


def span(curves: pd.DataFrame, circuit: str, fraction: float) -> Span:
    """Return the span over domains of a curve's values at one size.

    Args:
        curves: From `curves_by_domain`.
        circuit: ``kept``, ``complement`` or ``random``.
        fraction: The size, one of the table's.
    """
    found = curves[(curves["circuit"] == circuit) & (curves["fraction"] == fraction)]["value"]
    return Span(float(found.min()), float(found.max()))


def mean_over_depth(one_site: pd.DataFrame) -> pd.DataFrame:
    """Return means over domains by site of curves whose circuits are kept at one site at a time.

    Args:
        one_site: From `curves_by_domain`, of one size.

    Returns:
        Index site, in order; columns ``kept`` and ``random``.
    """
    rows = one_site[one_site["circuit"].isin(["kept", "random"])]
    means = rows.pivot_table("value", "sites", "circuit", sort=False)
    return means.rename_axis(index="site", columns=None)[["kept", "random"]]


def lead_of_own_circuits(over_depth: pd.DataFrame) -> "pd.Series[float]":
    """Return by how much a domain's own circuits are ahead of the other domains', by site, the largest lead first.

    Args:
        over_depth: From `transfer_over_depth`.
    """
    means = over_depth.pivot(index="site", columns="domain", values="value")
    return (means[OWN] - means[OTHER]).dropna().sort_values(ascending=False, kind="stable")


def transfer_correlations(transfer: pd.DataFrame, similarity: pd.DataFrame) -> pd.DataFrame:
    """Return the rank correlation of transfer with structural similarity for each ablated site.

    Args:
        transfer: A transfer table with the column ``sites``.
        similarity: Structural similarity of the domains, from `domain_matrix`.

    Returns:
        Columns sites, then rho and p of faithfulness and, where it was measured, of selectivity, then pairs.
    """
    rows = []
    for sites, part in transfer.groupby("sites", sort=False):
        row: dict[str, object] = {"sites": sites}
        for value in ("faithfulness", "selectivity") if "other_metric" in part else ("faithfulness",):
            rho, p, points = transfer_against_similarity(transfer_matrix(part, value), similarity)
            row |= {f"{value}: rho": rho, f"{value}: p": p}
        rows.append(row | {"pairs": len(points)})
    return pd.DataFrame(rows)
