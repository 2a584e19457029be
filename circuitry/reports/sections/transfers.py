"""The sections on transfer: circuits of one domain, or their activations, are used on images of another domain."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from circuitry.comparison.domain_testing import THIS_MODEL
from circuitry.comparison.one_site_reading import (
    OTHER_CIRCUITS,
    OWN_CIRCUIT,
    lead_of_own_circuits,
    transfer_accuracies,
)
from circuitry.comparison.significance import LEVEL
from circuitry.interventions.transfer_tables import (
    transfer_correlations,
    transfer_matrix,
    transfer_over_depth,
)
from circuitry.reports.figures.heatmaps import transfer_beside_similarity
from circuitry.reports.figures.lines import overlap_over_depth
from circuitry.reports.figures.style import MARKS, Mark
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.compared import depth_ends
from circuitry.reports.sections.findings import ANOTHER_MODEL, PARTLY, UNKNOWN, YES

GROUP_MARKS = {OWN_CIRCUIT: MARKS[8], OTHER_CIRCUITS: MARKS[9]}
"""Marks of the two groups of circuits. A domain has the same mark only if there are nine or more domains."""


def transfer_findings(
    transfer: pd.DataFrame, similarity: pd.DataFrame
) -> list[Finding | None]:
    """Return the findings on whether circuits work in other domains, and whether shared structure predicts this.

    Args:
        transfer: Table from `CausalChecks.extract_transfer`.
        similarity: Structural similarity of the circuits of all pairs of domains, such as ``comparison.matrix()``.
    """
    value = transfer_value(transfer)
    findings = []
    if (transfer["sites"] != "all").any():
        findings.append(own_circuits_lead(transfer_over_depth(transfer, value), value))
    correlations = transfer_correlations(transfer, similarity)
    return [*findings, structure_predicts(correlations, value)]


def transfer_value(transfer: pd.DataFrame) -> str:
    """Return the name of the measure by which a report judges a transfer table.

    The measure is selectivity if circuits were also run on images of other classes, and faithfulness otherwise.
    """
    return "selectivity" if "other_metric" in transfer else "faithfulness"


def own_circuits_lead(over_depth: pd.DataFrame, value: str) -> Finding | None:
    """Return the finding on whether a domain's own circuits work better on its images than circuits of other domains.

    If no site has a value for both groups of circuits, the result is None.

    Args:
        over_depth: Table from `transfer_over_depth`.
        value: Name of the measure in ``over_depth``.
    """
    lead = lead_of_own_circuits(over_depth)
    if lead is None:
        return None
    own, other, sites, n_apart = lead
    answer = PARTLY
    if n_apart == 0:
        answer = UNKNOWN
    elif n_apart == len(sites):
        answer = YES
    return Finding(
        f"Do circuits of other domains do worse than a domain's own? {answer}: {value} {other:.2f} against "
        f"{own:.2f}, mean over {len(sites)} sites kept one at a time.",
        f"At {n_apart} of {len(sites)} sites the 95 % bootstrap intervals over classes do not overlap. The "
        f"difference is {sites.iloc[0]:+.2f} at {sites.index[0]} and {sites.iloc[-1]:+.2f} at {sites.index[-1]}.",
        f"More classes; another site; {ANOTHER_MODEL}.",
    )


def structure_predicts(correlations: pd.DataFrame, value: str) -> Finding | None:
    """Return the finding on whether shared structure predicts transfer; None if no correlation is known.

    Args:
        correlations: From `transfer_correlations`.
        value: Name of the measure of transfer.
    """
    # Columns of the table.
    rho = f"{value}: rho"
    p = f"{value}: p"
    corrected = f"{value}: p (Holm)"
    if rho not in correlations or correlations[rho].isna().all():
        return None
    known = correlations.dropna(subset=rho)
    # The row with the smallest p. Of rows with equal p, take the row with the smallest rho.
    best = known.sort_values([p, rho], kind="stable").iloc[0]
    significant = int((known[corrected] < LEVEL).sum())
    answer = YES if significant else UNKNOWN
    where = f"at {best['sites']}"
    if best["sites"] == "all":
        where = "with all sites ablated"
    return Finding(
        f"Does shared structure predict transfer? {answer}: rank correlation of {value} "
        f"{best[rho]:+.2f} {where}, over {best['pairs']:.0f} pairs of domains.",
        f"p {best[p]:.2g} from orders of the domains, {best[corrected]:.2g} corrected for all sites and measures "
        f"(Holm); {significant} of {len(known)} rows have p < {LEVEL} after correction. About {THIS_MODEL}.",
        f"More domains, because pairs share them; {ANOTHER_MODEL}.",
    )


def add_transfer(
    report: Report,
    transfer: pd.DataFrame,
    similarity: pd.DataFrame,
    marks: Mapping[str, Mark],
    sites: Sequence[str],
) -> None:
    """Add the section on transfer: do circuits of one domain also work on images of another domain?

    In these runs, units outside the circuit are ablated, at all sites together or at one site at a time.

    Args:
        transfer: Table from `CausalChecks.extract_transfer`. If sites were also ablated one at a time (``one_site``),
            the table has rows for each of these sites, too, and the section shows them.
        similarity: Structural similarity of the circuits of all pairs of domains, such as ``comparison.matrix()``.
        sites: The sites to draw, from the image to the embedding.
    """
    report.section("Does one domain's circuit work in another?")
    everywhere = transfer[transfer["sites"] == "all"]
    report.figure(
        transfer_beside_similarity(
            transfer_matrix(everywhere), similarity, marks=marks
        ),
        "Faithfulness of the circuits of one domain (rows) on images of another (columns), all sites ablated.",
    )
    _add_accuracies(report, everywhere, "circuit alone", "whole model")
    alone = [site for site in sites if site in set(transfer["sites"])]
    if not alone:
        return
    value = transfer_value(transfer)
    over_depth = transfer_over_depth(transfer, value)
    if over_depth["value"].isna().all():
        report.text(f"There is no {value}: the model does no better than the baseline.")
        return
    report.figure(
        overlap_over_depth(
            over_depth,
            alone,
            measure=f"{value}, one site ablated",
            title="Circuits of the images' own domain and of others",
            marks=GROUP_MARKS,
        ),
        f"Circuits kept at one site at a time: {value} on images of a domain, with the domain's own circuits and with "
        f"those of other domains (bars: 95 % bootstrap intervals over classes). {depth_ends(over_depth)}",
    )
    correlations = transfer_correlations(transfer, similarity)
    of_sites = correlations[correlations["sites"].isin(alone)]
    rho = of_sites.set_index("sites")[f"{value}: rho"].dropna()
    if len(rho):
        best = rho.idxmax()
        matrix = transfer_matrix(transfer[transfer["sites"] == best], value)
        measure = f"{value} at {best}"
        report.figure(
            transfer_beside_similarity(
                matrix, similarity, measure=measure, marks=marks
            ),
            f"Transfer at {best}, the site with the highest correlation with structural similarity.",
        )
    formats = dict.fromkeys(correlations.columns[1:-1], ".2g")
    for name in formats:
        if name.endswith("rho"):
            formats[name] = "+.2f"
    report.table(
        correlations,
        "Does shared structure predict transfer? Spearman's rank correlation of transfer, averaged over both "
        "directions, with structural similarity, over pairs of domains. Pairs share domains: p is the share of orders "
        "of the domains with as large a correlation (Mantel), corrected for all numbers of this table (Holm).",
        formats=formats | {"pairs": ".0f"},
    )


def add_interchange(
    report: Report, exchanged: pd.DataFrame, marks: Mapping[str, Mark]
) -> None:
    """Add the section on the exchange of activations between domains.

    The activations of a circuit's units on images of one domain are put into runs of the model on images of another
    domain. The section shows how the metric changes.

    Args:
        exchanged: Table from `interchange`.
    """
    report.section("Can activations be exchanged between domains?")
    change = transfer_matrix(exchanged, "change")
    random = transfer_matrix(exchanged, "random_change")
    ends = []
    for matrix in (change, random):
        # The diagonal exchanges activations within one domain.
        between = matrix.to_numpy()[~np.eye(len(matrix), dtype=bool)]
        ends.append(f"{between.min():+.3f} to {between.max():+.3f}")
    report.figure(
        transfer_beside_similarity(
            change,
            random,
            measure="change of the metric",
            similarity_measure="with random units",
            similarity_diagonal="own domain's images",
            title="What exchanged activations change",
            marks=marks,
        ),
        "Change of the class's metric on images of one domain (columns) when the circuit's units take the activations "
        "that they have on images of another (rows). Right: random units, as many at every site. Between domains: "
        f"{ends[0]}; with random units {ends[1]}.",
    )
    _add_accuracies(report, exchanged, "exchanged", "before")


def _add_accuracies(
    report: Report, transfer: pd.DataFrame, circuit: str, model: str
) -> None:
    table = transfer_accuracies(transfer).rename(
        columns={"accuracy": circuit, "full_accuracy": model}
    )
    report.table(
        table,
        "Share of the images that the model assigns to the class.",
        formats={circuit: ".0%", model: ".0%"},
    )
