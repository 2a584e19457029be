"""Summaries of a transfer table: by domain, against structural similarity, and over depth. No torch, no model."""

from itertools import combinations
from typing import Annotated

import numpy as np
import pandas as pd

from circuitry.comparison.comparison import Comparison
from circuitry.comparison.significance import holm, mantel
from circuitry.comparison.table import VALUES, check_table, with_columns
from circuitry.interventions.curve_reading import (
    CURVE_MEASURES,
    draw_counts,
    faithfulness_ratio,
    percentile_band,
)
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked

OWN, OTHER = "own domain's circuit", "other domains' circuits"


CircuitTable = Annotated[
    pd.DataFrame, with_columns("class", "circuit_domain", "image_domain")
]
"""A table of `transfer_circuits`."""
TransferTable = Annotated[
    pd.DataFrame, with_columns("class", "circuit_domain", "image_domain", "sites")
]
"""The same with the ablated sites."""


def transfer_matrix(table: CircuitTable, value: str = "faithfulness") -> pd.DataFrame:
    """Return the mean over classes of a transfer table: a row per circuit's domain, a column per images' domain.

    Faithfulness and selectivity are ratios of means over classes, so that a class that the model hardly recognises in a
    domain cannot dominate; NaN where the model does no better than the baseline.

    Args:
        table: From `transfer_circuits` or `interchange`.
        value: ``faithfulness``, ``selectivity`` (of a table made with images of other classes), or the column to
            average.
    """
    numeric = [c for c in table.columns if pd.api.types.is_numeric_dtype(table[c])]
    if "other_metric" in numeric:
        numeric.append("selectivity")
    if value not in numeric:
        raise InputError(
            f"The table has no numbers under {value!r}; choose one of {', '.join(numeric)}."
        )
    domains = sorted({*table["circuit_domain"], *table["image_domain"]})
    cells = table.groupby(["circuit_domain", "image_domain"]).mean(numeric_only=True)
    if value in CURVE_MEASURES:
        kept, lead = (
            _difference(cells, name, value) for name in ("metric", "full_metric")
        )
        cells[value] = [
            faithfulness_ratio(k, whole, 0.0)[0]
            for k, whole in zip(kept, lead, strict=True)
        ]
    means = cells[value].unstack()
    return means.reindex(index=domains, columns=domains).rename_axis(
        index="circuit of", columns="images of"
    )


def compare_transfer(table: CircuitTable, value: str = "faithfulness") -> Comparison:
    """Return a transfer table as a `Comparison`: circuits of one domain on images of another.

    Values are those of `transfer_matrix`, so classes are pooled and there are no intervals; each domain's own circuits
    are on the diagonal. Where the table has rows of single sites, these are compared; rows of all sites at once
    (``table[table["sites"] == "all"]``) are a comparison of their own.

    Args:
        table: From `transfer_circuits`, or from `CausalChecks.extract_transfer` with the column ``sites``.
        value: As for `transfer_matrix`.

    Example:
        >>> compare_transfer(table, "selectivity").at("layer3.0").matrix(normalise=True)
    """
    alone = table[table["sites"] != "all"] if "sites" in table else table.iloc[:0]
    parts = alone.groupby("sites", sort=False) if len(alone) else [(None, table)]
    rows = []
    for site, part in parts:
        matrix = (
            transfer_matrix(part, value)
            .rename_axis(index="domain_a", columns="domain_b")
            .reset_index()
        )
        rows.append(
            matrix.melt("domain_a", value_name="value").dropna().assign(site=site)
        )
    values = pd.concat(rows, ignore_index=True).assign(**{"class": "all"})
    return Comparison(
        f"transfer_{value}",
        values[list(VALUES)],
        directions=("circuit of", "images of"),
        about={"n_classes": table["class"].nunique()},
    )


def transfer_comparisons(table: TransferTable | None) -> dict[str, Comparison]:
    """Return transfer as comparisons by measure, of single sites where there are any.

    None without a table, and of a measure that is not known: where the model has no lead over the baseline.
    """
    if table is None:
        return {}
    alone = table[table["sites"] != "all"]
    table = alone if len(alone) else table
    known = transfer_matrices(table).notna().any()
    found = [
        compare_transfer(table, value)
        for value in CURVE_MEASURES
        if known.get(value, False)
    ]
    return {one.measure: one for one in found}


def transfer_matrices(table: TransferTable) -> pd.DataFrame:
    """Return all matrices of a transfer table (`transfer_matrix`) in long form, by ablated sites."""
    values = ["faithfulness", "accuracy"]
    if "other_metric" in table:
        values = ["faithfulness", "selectivity", "accuracy", "other_accuracy"]
    parts = []
    for sites, part in table.groupby("sites", sort=False):
        long = pd.DataFrame(
            {value: transfer_matrix(part, value).stack() for value in values}
        ).reset_index()
        parts.append(long.assign(sites=sites))
    return pd.concat(parts, ignore_index=True)


@checked
def transfer_against_similarity(
    matrix: pd.DataFrame, similarity: pd.DataFrame
) -> tuple[float, float, pd.DataFrame]:
    """Return Spearman's rank correlation of transfer with structural similarity over pairs of domains (`mantel`).

    Similarity has no direction, so transfer is averaged over both of a pair.

    Args:
        matrix: From `transfer_matrix`.
        similarity: From `domain_matrix`.

    Returns:
        The correlation, its p value from orders of the domains, and the points: domain_a, domain_b, similarity,
        transfer. Correlation and p are NaN for fewer than three domains, or when one of the two is constant.
    """
    if set(matrix.index) != set(similarity.index):
        first, second = (
            ", ".join(sorted(map(str, table.index))) for table in (matrix, similarity)
        )
        raise InputError(
            f"Transfer and similarity need the same domains, but are of {first} and of {second}."
        )
    for name, table in (("matrix", matrix), ("similarity", similarity)):
        if sorted(map(str, table.columns)) != sorted(map(str, table.index)) or not all(
            map(pd.api.types.is_numeric_dtype, table.dtypes)
        ):
            raise InputError(
                f"A {name} has numbers of the same domains in rows and columns, but this one has the columns "
                f"{', '.join(map(str, table.columns))}: take it from transfer_matrix or domain_matrix."
            )
    domains = sorted(matrix.index)
    alike, works = (
        table.loc[domains, domains].to_numpy(dtype=float)
        for table in (similarity, matrix)
    )
    both_ways = (works + works.T) / 2
    rows = [
        (domains[a], domains[b], alike[a, b], both_ways[a, b])
        for a, b in combinations(range(len(domains)), 2)
    ]
    points = pd.DataFrame(
        rows, columns=["domain_a", "domain_b", "similarity", "transfer"]
    )
    return (*mantel(alike, both_ways), points)


def transfer_over_depth(
    table: TransferTable, value: str = "selectivity"
) -> pd.DataFrame:
    """Return the share of the metric that own circuits and circuits of other domains recover, site by site.

    Args:
        table: From `CausalChecks.extract_transfer`, with the column ``sites``; ``all`` is left out.
        value: ``faithfulness`` or ``selectivity``.

    Returns:
        Columns domain (`OWN` or `OTHER`), site, value, low, high (95 %, bootstrap over classes), n_classes. NaN where
        the model does no better than the baseline; no interval for one class, or where the lead is within the noise.
    """
    kept, lead = (_difference(table, name, value) for name in ("metric", "full_metric"))
    cells = table.assign(
        kept=kept,
        lead=lead,
        group=np.where(table.circuit_domain == table.image_domain, OWN, OTHER),
    )
    rows, rng = [], np.random.default_rng(0)
    for (site, group), part in cells[cells["sites"] != "all"].groupby(
        ["sites", "group"], sort=False
    ):
        by_class = part.groupby("class")[["kept", "lead"]].mean().to_numpy()
        n = len(by_class)
        drawn_kept, drawn_lead = (draw_counts(rng, n) @ by_class).T
        bounds = percentile_band(
            drawn_kept / np.where(drawn_lead > 0, drawn_lead, np.nan)
        )
        low, high = bounds if n > 1 else (np.nan, np.nan)
        kept, lead = by_class.mean(0)
        rows.append((group, site, faithfulness_ratio(kept, lead, 0.0)[0], low, high, n))
    return pd.DataFrame(
        rows, columns=["domain", "site", "value", "low", "high", "n_classes"]
    )


def lead_of_own_circuits(
    over_depth: pd.DataFrame,
) -> tuple[float, float, pd.Series, int] | None:
    """Return by how much own circuits lead those of other domains, kept at one site at a time.

    Returns:
        The means of own and of other circuits over sites, the lead at each site, the largest first, and the number of
        sites where the intervals do not overlap; None where it is known at no site.
    """
    wide = over_depth.pivot(
        index="site", columns="domain", values=["value", "low", "high"]
    )
    if not {OWN, OTHER} <= set(wide["value"].columns):
        return None
    means = wide["value"].dropna()
    if means.empty:
        return None
    by_site = (means[OWN] - means[OTHER]).sort_values(ascending=False, kind="stable")
    apart = wide["low"][OWN] > wide["high"][OTHER]
    return (
        float(means[OWN].mean()),
        float(means[OTHER].mean()),
        by_site,
        int(apart.sum()),
    )


def transfer_accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """Return the share of images that are assigned to the class, of a table of `transfer_circuits` or `interchange`.

    Columns images (of the class; of other classes, where the table has them), accuracy, full_accuracy.
    """
    kinds = (("of the class", ""), ("of other classes", "other_"))
    names = ("accuracy", "full_accuracy")
    rows = [
        (images, *(table[f"{start}{name}"].mean() for name in names))
        for images, start in kinds
        if f"{start}accuracy" in table
    ]
    return pd.DataFrame(rows, columns=["images", *names])


def transfer_correlations(
    transfer: pd.DataFrame, similarity: pd.DataFrame
) -> pd.DataFrame:
    """Return the correlation of transfer with similarity (`transfer_against_similarity`) for each ablated site.

    Columns sites, then rho, p and p (Holm) of faithfulness and, where it was measured, of selectivity, then pairs. The
    correction is for all sites and measures in the table.
    """
    values = (
        ("faithfulness", "selectivity")
        if "other_metric" in transfer
        else ("faithfulness",)
    )
    rows = []
    for sites, part in transfer.groupby("sites", sort=False):
        row: dict[str, object] = {"sites": sites}
        for value in values:
            rho, p, points = transfer_against_similarity(
                transfer_matrix(part, value), similarity
            )
            row |= {f"{value}: rho": rho, f"{value}: p": p}
        rows.append(row | {"pairs": len(points)})
    table = pd.DataFrame(rows)
    tried = table[[f"{value}: p" for value in values]].to_numpy(dtype=float)
    corrected = (
        holm(pd.Series(tried.ravel().tolist(), dtype=float))
        .to_numpy()
        .reshape(tried.shape)
    )
    table = table.assign(
        **{f"{value}: p (Holm)": corrected[:, i] for i, value in enumerate(values)}
    )
    named = [
        f"{value}: {what}" for value in values for what in ("rho", "p", "p (Holm)")
    ]
    return table[["sites", *named, "pairs"]]


def _difference(table: pd.DataFrame, metric: str, value: str) -> pd.Series:
    """The metric less the baseline's; for selectivity less the same difference on images of other classes."""
    others = (f"other_{metric}", "other_empty_metric") if value == "selectivity" else ()
    check_table(table, "transfer", (metric, "empty_metric", *others), key=())
    found = table[metric] - table["empty_metric"]
    if value == "selectivity":
        found = found - (table[f"other_{metric}"] - table["other_empty_metric"])
    return found
