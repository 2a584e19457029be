"""Summaries of a transfer table: by domain, against structural similarity, and over depth. No torch, no model."""

from collections.abc import Iterable
from itertools import combinations
from typing import Annotated, Any

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
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError

OWN_CIRCUIT = "own domain's circuit"
OTHER_CIRCUITS = "other domains' circuits"
"""Groups of `transfer_over_depth`."""


CircuitTable = Annotated[
    pd.DataFrame, with_columns("class", "circuit_domain", "image_domain")
]
"""A table of `transfer_circuits`."""
TransferTable = Annotated[
    pd.DataFrame, with_columns("class", "circuit_domain", "image_domain", "sites")
]
"""A table of `transfer_circuits` with the column ``sites``: the sites at which circuits were kept."""


def transfer_matrix(table: CircuitTable, value: str = "faithfulness") -> pd.DataFrame:
    """Return the mean over classes of a transfer table: a row per circuit's domain, a column per images' domain.

    Faithfulness and selectivity are ratios of means over classes, so that a class that the model hardly recognises in a
    domain cannot dominate; NaN where the model does no better than the baseline.

    Args:
        table: From `transfer_circuits` or `interchange`.
        value: ``faithfulness``, ``selectivity`` (of a table made with images of other classes), or the column to
            average.

    Example:
        >>> names = ("circuit_domain", "image_domain", "metric", "full_metric", "empty_metric")
        >>> rows = [("real", "real", 3, 5, 1), ("real", "sketch", 2, 5, 1)]
        >>> transfer_matrix(pd.DataFrame(rows, columns=names).assign(**{"class": "clock", "faithfulness": 0.0}))
        images of   real  sketch
        circuit of
        real         0.5    0.25
        sketch       NaN     NaN
    """
    numeric = table.select_dtypes("number").columns.tolist()
    if "other_metric" in numeric:
        numeric.append("selectivity")
    if value not in numeric:
        raise InputError(
            f"The table has no numbers under {value!r}; choose one of {', '.join(numeric)}."
        )
    domains = sorted({*table["circuit_domain"], *table["image_domain"]})
    cells = table.groupby(["circuit_domain", "image_domain"]).mean(numeric_only=True)
    if value in CURVE_MEASURES:
        # Both are leads over the baseline already, which therefore is 0.
        kept = _difference(cells, "metric", value)
        lead = _difference(cells, "full_metric", value)
        ratios = list[float]()
        for of_circuit, of_model in zip(kept, lead, strict=True):
            ratios.append(faithfulness_ratio(of_circuit, of_model, 0.0)[0])
        cells[value] = ratios
    means = cells[value].unstack().reindex(index=domains, columns=domains)
    return means.rename_axis(index="circuit of", columns="images of")


def compare_transfer(table: CircuitTable, value: str = "faithfulness") -> Comparison:
    """Return a transfer table as a `Comparison`: circuits of one domain on images of another.

    Values are those of `transfer_matrix`, so classes are pooled and there are no intervals; each domain's own circuits
    are on the diagonal. Where the table has rows of single sites, these are compared; rows of all sites at once
    (``table[table["sites"] == "all"]``) are a comparison of their own.

    Args:
        table: From `transfer_circuits`, or from `CausalChecks.extract_transfer` with the column ``sites``.
        value: As for `transfer_matrix`.

    Example:
        >>> of_sketch = graphs["clock", "sketch"]
        >>> circuits = {("clock", "real"): graph.circuit(None), ("clock", "sketch"): of_sketch.circuit(None)}
        >>> table = transfer_circuits({("clock", "real"): task}, circuits)
        >>> compare_transfer(table, "accuracy").matrix().shape
    """
    # All sites at once are another intervention, so they are no site of this comparison.
    by_site: Iterable[tuple[Any, pd.DataFrame]] = [(None, table)]
    if "sites" in table:
        alone = table[table["sites"] != "all"]
        if len(alone):
            by_site = alone.groupby("sites", sort=False)
    tables = list[pd.DataFrame]()
    for site, rows in by_site:
        matrix = transfer_matrix(rows, value)
        matrix = matrix.rename_axis(index="domain_a", columns="domain_b").reset_index()
        # Pairs without a value are no rows of a comparison.
        long = matrix.melt("domain_a", value_name="value").dropna()
        tables.append(long.assign(site=site))
    values = pd.concat(tables, ignore_index=True).assign(**{"class": "all"})
    return Comparison(
        f"transfer_{value}",
        values[list(VALUES)],
        directions=("circuit of", "images of"),
        about={"n_classes": table["class"].nunique()},
    )


def transfer_comparisons(table: TransferTable | None) -> dict[str, Comparison]:
    """Return transfer as comparisons by measure, of single sites where there are any.

    None without a table. A measure that is not known, because the model has no lead over the baseline, is absent.
    """
    if table is None:
        return {}
    alone = table[table["sites"] != "all"]
    if len(alone):
        table = alone
    # A measure that is NaN everywhere would be a comparison without values.
    known = transfer_matrices(table).notna().any()
    comparisons = dict[str, Comparison]()
    for value in CURVE_MEASURES:
        if known.get(value, False):
            comparison = compare_transfer(table, value)
            comparisons[comparison.measure] = comparison
    return comparisons


def transfer_matrices(table: TransferTable) -> pd.DataFrame:
    """Return all matrices of a transfer table (`transfer_matrix`) in long form, by ablated sites."""
    values = ["faithfulness", "accuracy"]
    if "other_metric" in table:
        values = ["faithfulness", "selectivity", "accuracy", "other_accuracy"]
    tables = list[pd.DataFrame]()
    for sites, rows in table.groupby("sites", sort=False):
        columns = {value: transfer_matrix(rows, value).stack() for value in values}
        tables.append(pd.DataFrame(columns).reset_index().assign(sites=sites))
    return pd.concat(tables, ignore_index=True)


@checked
def transfer_against_similarity(
    matrix: pd.DataFrame, similarity: pd.DataFrame
) -> tuple[float, float, pd.DataFrame]:
    """Return Spearman's rank correlation of transfer with structural similarity over pairs of domains (`mantel`).

    Similarity has no direction, so transfer is averaged over both directions of a pair.

    Args:
        matrix: From `transfer_matrix`.
        similarity: From `domain_matrix`.

    Returns:
        The correlation, its p value from orders of the domains, and the points: domain_a, domain_b, similarity,
        transfer. Correlation and p are NaN for fewer than three domains, or when one of the two is constant.

    Example:
        >>> domains = ["quickdraw", "real", "sketch"]
        >>> transfer = pd.DataFrame([[1, 0.2, 0.5], [0.2, 1, 0.7], [0.5, 0.7, 1]], domains, domains)
        >>> rho, p, points = transfer_against_similarity(transfer, transfer**2)
        >>> round(rho, 3), len(points)
        (1.0, 3)
    """
    if set(matrix.index) != set(similarity.index):
        raise InputError(
            f"Transfer and similarity need the same domains, but are of {_names(matrix)} and of {_names(similarity)}."
        )
    # Both are indexed by pairs of domains below, so each needs all domains in rows and columns.
    for name, table in (("matrix", matrix), ("similarity", similarity)):
        columns = sorted(str(column) for column in table.columns)
        rows = sorted(str(row) for row in table.index)
        n_numeric = table.select_dtypes("number").shape[1]
        if columns != rows or n_numeric < table.shape[1]:
            raise InputError(
                f"A {name} has numbers of the same domains in rows and columns, but this one has the columns "
                f"{', '.join(map(str, table.columns))}: take it from transfer_matrix or domain_matrix."
            )
    domains = sorted(matrix.index)
    alike = similarity.loc[domains, domains].to_numpy(dtype=float)
    transfer = matrix.loc[domains, domains].to_numpy(dtype=float)
    both_ways = (transfer + transfer.T) / 2
    points = list[tuple[str, str, float, float]]()
    for a, b in combinations(range(len(domains)), 2):
        points.append((domains[a], domains[b], alike[a, b], both_ways[a, b]))
    rho, p = mantel(alike, both_ways)
    columns = ["domain_a", "domain_b", "similarity", "transfer"]
    return rho, p, pd.DataFrame(points, columns=columns)


def _names(table: pd.DataFrame) -> str:
    return ", ".join(sorted(map(str, table.index)))


def transfer_over_depth(
    table: TransferTable, value: str = "selectivity"
) -> pd.DataFrame:
    """Return the share of the metric that own circuits and circuits of other domains recover, site by site.

    Args:
        table: From `CausalChecks.extract_transfer`, with the column ``sites``; ``all`` is left out.
        value: ``faithfulness`` or ``selectivity``.

    Returns:
        Columns domain (`OWN_CIRCUIT` or `OTHER_CIRCUITS`), site, value, low, high (95 %, bootstrap over classes),
        n_classes. NaN where the model does no better than the baseline; no interval for one class, or where the lead
        is within the noise.

    Example:
        >>> of_sketch = graphs["clock", "sketch"]
        >>> circuits = {("clock", "real"): graph.circuit(None), ("clock", "sketch"): of_sketch.circuit(None)}
        >>> at = circuitry.Task(encoder, images, metric, others=others, sites=("layer4.0",))
        >>> table = transfer_circuits({("clock", "real"): at}, circuits).assign(sites="layer4.0")
        >>> transfer_over_depth(table)["domain"].tolist()
        ["own domain's circuit", "other domains' circuits"]
    """
    own = table["circuit_domain"] == table["image_domain"]
    cells = table.assign(
        kept=_difference(table, "metric", value),
        lead=_difference(table, "full_metric", value),
        group=np.where(own, OWN_CIRCUIT, OTHER_CIRCUITS),
    )
    rng = np.random.default_rng(0)
    rows = list[dict[str, Any]]()
    alone = cells[cells["sites"] != "all"]
    for (site, group), of_group in alone.groupby(["sites", "group"], sort=False):
        # Classes are the units of resampling: their images are their own.
        by_class = of_group.groupby("class")[["kept", "lead"]].mean().to_numpy()
        n = len(by_class)
        resampled = draw_counts(rng, n) @ by_class  # [resamples, kept and lead]
        # A resample without a lead has no ratio.
        lead = np.where(resampled[:, 1] > 0, resampled[:, 1], np.nan)
        low, high = percentile_band(resampled[:, 0] / lead)
        if n == 1:
            low = high = np.nan
        mean_kept, mean_lead = by_class.mean(0)
        ratio, _ = faithfulness_ratio(mean_kept, mean_lead, 0.0)
        row = {
            "domain": group,
            "site": site,
            "value": ratio,
            "low": low,
            "high": high,
            "n_classes": n,
        }
        rows.append(row)
    columns = ["domain", "site", "value", "low", "high", "n_classes"]
    return pd.DataFrame(rows, columns=columns)


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
    if not {OWN_CIRCUIT, OTHER_CIRCUITS} <= set(wide["value"].columns):
        return None
    means = wide["value"].dropna()
    if means.empty:
        return None
    by_site = (means[OWN_CIRCUIT] - means[OTHER_CIRCUITS]).sort_values(
        ascending=False, kind="stable"
    )
    # A comparison with NaN is False: without an interval, a site is not counted.
    apart = wide["low"][OWN_CIRCUIT] > wide["high"][OTHER_CIRCUITS]
    return (
        float(means[OWN_CIRCUIT].mean()),
        float(means[OTHER_CIRCUITS].mean()),
        by_site,
        int(apart.sum()),
    )


def transfer_accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """Return the share of images that are assigned to the class, of a table of `transfer_circuits` or `interchange`.

    Columns images (of the class; of other classes, where the table has them), accuracy, full_accuracy.
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


def transfer_correlations(
    transfer: pd.DataFrame, similarity: pd.DataFrame
) -> pd.DataFrame:
    """Return the correlation of transfer with similarity (`transfer_against_similarity`) for each ablated site.

    Columns sites, then rho, p and p (Holm) of faithfulness and, where it was measured, of selectivity, then pairs. The
    correction is for all sites and measures in the table.
    """
    values = ["faithfulness"]
    if "other_metric" in transfer:
        values.append("selectivity")
    rows = list[dict[str, Any]]()
    for sites, of_group in transfer.groupby("sites", sort=False):
        row: dict[str, Any] = {"sites": sites}
        for value in values:
            matrix = transfer_matrix(of_group, value)
            rho, p, points = transfer_against_similarity(matrix, similarity)
            row[f"{value}: rho"] = rho
            row[f"{value}: p"] = p
            row[f"{value}: p (Holm)"] = np.nan  # below, from the p values of all rows
        row["pairs"] = len(points)  # of domains: the same for all measures
        rows.append(row)
    table = pd.DataFrame(rows)
    p_values = table[[f"{value}: p" for value in values]]
    # Holm takes one family of tests: all cells, row by row.
    cells = pd.Series(p_values.to_numpy(dtype=float).ravel())
    corrected = holm(cells).to_numpy().reshape(p_values.shape)
    table[[f"{value}: p (Holm)" for value in values]] = corrected
    return table


def _difference(table: pd.DataFrame, metric: str, value: str) -> pd.Series:
    """Return by how much the metric in a run exceeds the baseline's.

    Selectivity is this difference on images of the class, less that on images of other classes.
    """
    columns = [metric, "empty_metric"]
    if value == "selectivity":
        columns += [f"other_{metric}", "other_empty_metric"]
    check_table(table, "transfer", columns, key=())
    difference = table[metric] - table["empty_metric"]
    if value == "selectivity":
        others = table[f"other_{metric}"] - table["other_empty_metric"]
        return difference - others
    return difference
