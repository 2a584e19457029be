"""Summaries of a table of `transfer_circuits`: by domain, against structural similarity, and over depth.

Needs no model. Does not import torch.
"""

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
import pandas as pd

from circuitry.comparison.bootstrap import draw_counts, percentile_band
from circuitry.comparison.comparison import Comparison
from circuitry.comparison.one_site_reading import OTHER_CIRCUITS, OWN_CIRCUIT
from circuitry.comparison.significance import holm, mantel
from circuitry.comparison.table import VALUES, check_table, with_columns
from circuitry.interventions.curve_reading import (
    CURVE_MEASURES,
    RESAMPLES,
)
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError

CircuitTable = Annotated[
    pd.DataFrame, with_columns("class", "circuit_domain", "image_domain")
]
"""A table of `transfer_circuits`."""
TransferTable = Annotated[
    pd.DataFrame, with_columns("class", "circuit_domain", "image_domain", "sites")
]
"""A table of `transfer_circuits` with the column ``sites``, which says at which sites circuits were kept."""


def transfer_matrix(table: CircuitTable, value: str = "faithfulness") -> pd.DataFrame:
    """Return the means of a transfer table over classes, as a matrix.

    The rows are the domains of the circuits, and the columns are the domains of the images. Faithfulness and
    selectivity are ratios of means over classes, so that a class that the model hardly recognises in a domain cannot
    dominate. They are NaN if the model does no better than the baseline.

    Args:
        table: From `transfer_circuits` or `interchange`.
        value: ``faithfulness``, ``selectivity`` (if the table was made with images of other classes), or the name of
            the column to average.

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
        # Without a lead over the baseline there is no ratio.
        kept = _difference(cells, "metric", value)
        lead = _difference(cells, "full_metric", value)
        cells[value] = kept / lead.where(lead > 0)
    means = cells[value].unstack().reindex(index=domains, columns=domains)
    return means.rename_axis(index="circuit of", columns="images of")


def compare_transfer(table: CircuitTable, value: str = "faithfulness") -> Comparison:
    """Return a transfer table as a `Comparison` of domains: of the circuits, and of the images.

    The values are the values of `transfer_matrix`. Classes are pooled, so there are no intervals. The diagonal has the
    values of circuits on images of their own domain. If the table has rows of single sites, only these rows are used,
    and each site has a matrix. To use only the rows of all sites together, give ``table[table["sites"] == "all"]``.

    Args:
        table: From `transfer_circuits`, or from `CausalChecks.extract_transfer` with the column ``sites``.
        value: As for `transfer_matrix`.

    Example:
        >>> of_sketch = graphs["clock", "sketch"]
        >>> circuits = {("clock", "real"): graph.circuit(None), ("clock", "sketch"): of_sketch.circuit(None)}
        >>> table = transfer_circuits({("clock", "real"): task}, circuits)
        >>> compare_transfer(table, "accuracy").matrix().shape
    """
    # Keeping circuits at all sites at once is another intervention, so it is no site of this comparison.
    by_site: Iterable[tuple[Any, pd.DataFrame]] = [(None, table)]
    if "sites" in table:
        alone = table[table["sites"] != "all"]
        if len(alone):
            by_site = alone.groupby("sites", sort=False)
    tables = list[pd.DataFrame]()
    for site, rows in by_site:
        matrix = transfer_matrix(rows, value)
        matrix = matrix.rename_axis(index="domain_a", columns="domain_b").reset_index()
        # A comparison has no rows for pairs without a value.
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
    """Return the comparisons of `compare_transfer` for faithfulness and selectivity, as far as they are known.

    A measure is not known if the model does no better than the baseline. Selectivity is not known without images of
    other classes.

    Args:
        table: The transfer table. If it has rows of single sites, only these rows are used. If it is None, the
            dictionary is empty.

    Returns:
        A dictionary from the name of a measure to its comparison.
    """
    if table is None:
        return {}
    alone = table[table["sites"] != "all"]
    if len(alone):
        table = alone
    # A measure that is NaN everywhere would be a comparison without values.
    known = transfer_matrices(table).dropna(axis=1, how="all")
    comparisons = [compare_transfer(table, v) for v in CURVE_MEASURES if v in known]
    return {comparison.measure: comparison for comparison in comparisons}


def transfer_matrices(table: TransferTable) -> pd.DataFrame:
    """Return all matrices of a transfer table (`transfer_matrix`) in long form.

    Returns:
        A table with a row for each pair of domains and each value of ``sites``. Its columns are ``circuit of`` and
        ``images of`` (the two domains), the values (faithfulness and accuracy; if there were images of other classes
        also selectivity and other_accuracy) and sites.
    """
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

    Similarity has no direction, so transfer is averaged over the two directions of each pair.

    Args:
        matrix: From `transfer_matrix`.
        similarity: From `domain_matrix`.

    Returns:
        The correlation, its p value from permutations of the domains, and a table of the points with the columns
        domain_a, domain_b, similarity and transfer. Correlation and p are NaN if there are fewer than three domains, or
        if transfer or similarity is constant.

    Raises:
        InputError: if the two matrices have different domains, or one is not a matrix of numbers.

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
    # Both matrices are indexed by pairs of domains below, so each must have all domains in rows and columns.
    for name, table in (("matrix", matrix), ("similarity", similarity)):
        is_square = sorted(map(str, table.columns)) == sorted(map(str, table.index))
        if not is_square or table.select_dtypes("number").shape != table.shape:
            raise InputError(
                f"A {name} has numbers of the same domains in rows and columns, but this one has the columns "
                f"{', '.join(map(str, table.columns))}: take it from transfer_matrix or domain_matrix."
            )
    domains = matrix.index.sort_values()
    alike = similarity.loc[domains, domains].to_numpy(dtype=float)
    transfer = matrix.loc[domains, domains].to_numpy(dtype=float)
    both_ways = (transfer + transfer.T) / 2
    a, b = np.triu_indices(len(domains), 1)
    points = {
        "domain_a": domains[a],
        "domain_b": domains[b],
        "similarity": alike[a, b],
        "transfer": both_ways[a, b],
    }
    return *mantel(alike, both_ways), pd.DataFrame(points)


def _names(table: pd.DataFrame) -> str:
    return ", ".join(sorted(map(str, table.index)))


def transfer_over_depth(
    table: TransferTable, value: str = "selectivity"
) -> pd.DataFrame:
    """Return faithfulness or selectivity of circuits that were kept at one site at a time, for each site.

    Circuits on images of their own domain, and circuits on images of other domains, are averaged separately.

    Args:
        table: From `CausalChecks.extract_transfer`, with the column ``sites``. Rows of all sites (``all``) are ignored.
        value: ``faithfulness`` or ``selectivity``.

    Returns:
        A table with the columns domain (`OWN_CIRCUIT` or `OTHER_CIRCUITS`), site, value, low, high and n_classes. Low
        and high are the 95 % interval from a bootstrap over classes. The value is NaN if the model does no better than
        the baseline. The interval is NaN if there is only one class, or if in too many resamples the model does no
        better than the baseline.

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
    rows = list[tuple[Any, ...]]()
    alone = cells[cells["sites"] != "all"]
    for (site, group), of_group in alone.groupby(["sites", "group"], sort=False):
        # Classes are resampled, because every class has images of its own.
        by_class = of_group.groupby("class")[["kept", "lead"]].mean().to_numpy()
        n = len(by_class)
        # The first row is without resampling, and the others are resamples: kept and lead, summed over classes.
        counts = np.vstack([np.ones(n), draw_counts(rng, n, RESAMPLES)])
        kept, lead = (counts @ by_class).T
        # Without a lead there is no ratio.
        ratios = kept / np.where(lead > 0, lead, np.nan)
        low, high = percentile_band(ratios[1:])
        if n == 1:
            low = high = np.nan
        rows.append((group, site, ratios[0], low, high, n))
    columns = ["domain", "site", "value", "low", "high", "n_classes"]
    return pd.DataFrame(rows, columns=columns)


def transfer_correlations(
    transfer: pd.DataFrame, similarity: pd.DataFrame
) -> pd.DataFrame:
    """Return the correlation of transfer with similarity (`transfer_against_similarity`) for each entry of ``sites``.

    Args:
        transfer: A transfer table with the column ``sites``.
        similarity: From `domain_matrix`.

    Returns:
        A table with a row for each entry of ``sites``. Its columns are sites; then ``faithfulness: rho``,
        ``faithfulness: p`` and ``faithfulness: p (Holm)``; three such columns for selectivity, if it was measured; and
        pairs, the number of pairs of domains. Holm's correction is over all sites and measures in the table.
    """
    values = ["faithfulness"]
    if "other_metric" in transfer:
        values.append("selectivity")
    rows = list[dict[str, Any]]()
    corrected = [f"{value}: p (Holm)" for value in values]
    for sites, of_group in transfer.groupby("sites", sort=False):
        row: dict[str, Any] = {"sites": sites}
        for value in values:
            matrix = transfer_matrix(of_group, value)
            rho, p, points = transfer_against_similarity(matrix, similarity)
            row |= {f"{value}: rho": rho, f"{value}: p": p, f"{value}: p (Holm)": p}
        row["pairs"] = len(points)  # the same for all measures
        rows.append(row)
    table = pd.DataFrame(rows)
    # Holm's correction is over one family of tests: all sites and measures.
    cells = pd.Series(table[corrected].to_numpy(dtype=float).ravel())
    table[corrected] = holm(cells).to_numpy().reshape(len(table), -1)
    return table


def _difference(table: pd.DataFrame, metric: str, value: str) -> pd.Series:
    """Return the metric of a run minus the metric of the model with every unit ablated, for each row.

    For selectivity, the difference on images of other classes is subtracted from the difference on images of the class.

    Args:
        table: The transfer table.
        metric: The column of the run: ``metric`` (the circuit alone) or ``full_metric`` (the whole model).
        value: ``faithfulness`` or ``selectivity``.
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
