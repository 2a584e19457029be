"""The sections of a report on causal checks: figures, tables, and sentences that state numbers computed from them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from circuitry.circuits.rule_report import describe_rule
from circuitry.comparison.domain_tests import THIS_MODEL
from circuitry.interventions.curves import (
    FaithfulnessCurve,
    areas_by_domain,
    curves_by_domain,
    mean_over_depth,
    nearest_to_a_tenth,
    span,
)
from circuitry.interventions.effects import AttributionCheck
from circuitry.interventions.transfer_tables import (
    OTHER,
    OWN,
    lead_of_own_circuits,
    transfer_correlations,
    transfer_matrix,
    transfer_over_depth,
)
from circuitry.reports.figures.heatmaps import pixel_maps, transfer_beside_similarity
from circuitry.reports.figures.lines import faithfulness_curves, overlap_over_depth
from circuitry.reports.figures.scatters import attribution_against_patching
from circuitry.reports.figures.style import MARKS, Mark
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.compared import with_intervals
from circuitry.reports.sections.findings import kept_beats_random, own_circuits_lead, structure_predicts

GROUP_MARKS = {OWN: MARKS[8], OTHER: MARKS[9]}
"""Marks that few sets of domains reach, so that no group looks like a domain."""


def faithfulness_findings(curves: Sequence[FaithfulnessCurve], alone: Sequence[FaithfulnessCurve]) -> list[Finding]:
    """Answer whether circuits do the work: with all sites ablated at once, and at the site where it shows most.

    ``alone`` are curves of one site at a time, of one fraction.
    """
    by_size = [curve for curve in curves if curve.ranking == "absolute"]
    size = nearest_to_a_tenth(by_size[0].fractions)
    measures = ("faithfulness",) if by_size[0].own.all() else ("faithfulness", "selectivity")
    found = [kept_beats_random(curves_by_domain(by_size, measure), measure, size) for measure in measures]
    if alone and len(measures) > 1:
        table = curves_by_domain(alone, "selectivity")
        means = mean_over_depth(table).dropna()
        if len(means):
            site = str((means["kept"] - means["random"]).idxmax())
            at = table[table["sites"] == site]
            found.append(kept_beats_random(at, "selectivity", alone[0].fractions[0], f"at {site} alone, the best site"))
    return [one for one in found if one is not None]


def add_causal_guide(report: Report, settings: Mapping[str, Any], tested_on: str) -> None:
    """Add the section on how to read causal checks; ``settings`` are those of a graph, ``tested_on`` says on what."""
    report.section("How to read this")
    report.text(
        f"Circuits are tested on {tested_on}. {describe_rule(settings)}\n\n"
        "Faithfulness is the class's metric with only some units active, as a share of the whole model's lead over the "
        "baseline: 0 is nothing kept, 1 the whole model. It can be high for a circuit that answers alike whatever it "
        "is shown; selectivity sees that, the lead of images of the class over images of other classes. Read both "
        "against as many random units, and against all but the circuit: a circuit that is enough may still not be "
        f"needed. Intervals are over images or classes, p values speak of {THIS_MODEL}."
    )


def transfer_findings(transfer: pd.DataFrame, similarity: pd.DataFrame) -> list[Finding]:
    """Answer whether circuits work in other domains, and whether structure says so; arguments as `add_transfer`."""
    value = "selectivity" if "other_metric" in transfer else "faithfulness"
    found = [structure_predicts(transfer_correlations(transfer, similarity), value)]
    if (transfer["sites"] != "all").any():
        found.insert(0, own_circuits_lead(transfer_over_depth(transfer, value), value))
    return [one for one in found if one is not None]


def add_faithfulness(report: Report, curves: Sequence[FaithfulnessCurve], marks: Mapping[str, Mark]) -> None:
    """Add the section on faithfulness and selectivity; curves with all sites ablated together."""
    report.section("Do the circuits do the work?")
    first = curves[0]
    by_size = [curve for curve in curves if curve.ranking == "absolute"]
    size = nearest_to_a_tenth(first.fractions)
    faithful = curves_by_domain(by_size)
    words = (
        "Faithfulness: only a circuit's units are active, at all sites at once; the others are at the "
        f"{first.settings['baseline']} baseline. 0 is nothing kept, 1 the whole model ({int(first.own.sum())} images "
        "per class and domain; bars: 95 % bootstrap intervals over images). With the "
        f"{size:.0%} largest |scores| it is {span(faithful, 'kept', size)} by domain, with as many random units "
        f"{span(faithful, 'random', size)}, with all but the circuit {span(faithful, 'complement', size)}."
    )
    _add_curves(report, faithful, "faithfulness", marks, words)
    if not first.own.all():
        selective = curves_by_domain(by_size, "selectivity")
        words = (
            "Selectivity: how far the circuit keeps images of the class ahead of images of other classes "
            f"({int((~first.own).sum())} per class and domain). 0 is a circuit that answers alike whatever it is "
            f"shown, 1 the lead in the whole model. With the {size:.0%} largest |scores| it is "
            f"{span(selective, 'kept', size)} by domain, with as many random units {span(selective, 'random', size)}."
        )
        _add_curves(report, selective, "selectivity", marks, words)
    areas = areas_by_domain(curves)
    kept = areas["circuit"] == "kept"
    columns = areas["measure"] + np.where(kept, " (" + areas["ranking"] + ")", ", random")
    said = with_intervals(areas.assign(low=areas["low"].where(kept)))  # without the interval of random units
    wide = areas.assign(column=columns, cell=said).pivot(index="domain", columns="column", values="cell")
    report.table(
        wide[list(dict.fromkeys(columns))].rename_axis(columns=None).reset_index(),
        "Areas under the curves (MIB), with 95 % bootstrap intervals over images, and those of random units. CMD, the "
        "area of |1 - faithfulness|: 0 is best; CPR: the area under faithfulness.",
    )


def _add_curves(report: Report, curves: pd.DataFrame, measure: str, marks: Mapping[str, Mark], words: str) -> None:
    """Draw the curves, or say why there are none."""
    if curves["value"].notna().any():
        report.figure(faithfulness_curves(curves, measure=measure, marks=marks), words)
    else:
        report.text(f"There is no {measure}: {curves['reason'].iloc[0]}.")


def add_selectivity_over_depth(
    report: Report, curves: Sequence[FaithfulnessCurve], marks: Mapping[str, Mark], sites: Sequence[str]
) -> None:
    """Add the figure on circuits kept at one site at a time; curves of one ranking, drawn at their first fraction."""
    size = curves[0].fractions[0]
    table = curves_by_domain(curves, "selectivity").query("fraction == @size")
    means = mean_over_depth(table).dropna(subset="kept")
    if means.empty:
        report.text(
            "Selectivity with one site ablated is not known: the model gives images of these classes no lead over "
            "images of other classes."
        )
        return
    figure = overlap_over_depth(
        table[table["circuit"] == "kept"].rename(columns={"sites": "site"}),
        sites,
        chance=means["random"].rename("value").reset_index(),
        measure="selectivity, one site ablated",
        chance_label="random units",
        title="Selectivity with the circuit kept at one site",
        marks=marks,
    )
    best, least = str(means["kept"].idxmax()), str(means["kept"].idxmin())
    report.figure(
        figure,
        f"Only the circuit's {size:.0%} of the units kept at one site, everything else left as it is. On average over "
        f"domains selectivity is highest at {best} ({means['kept'][best]:.2f}; random units "
        f"{means['random'][best]:.2f}) and lowest at {least} ({means['kept'][least]:.2f}).",
    )


def add_transfer(
    report: Report, transfer: pd.DataFrame, similarity: pd.DataFrame, marks: Mapping[str, Mark], sites: Sequence[str]
) -> None:
    """Add the section on circuits of one domain that are kept on images of another.

    ``transfer`` is from `CausalChecks.extract_transfer`, with ``one_site`` also site by site; ``similarity`` is the
    structural similarity of the domains, e.g. ``comparison.matrix()``; ``sites`` are in order.
    """
    report.section("Does one domain's circuit work in another?")
    everywhere = transfer[transfer["sites"] == "all"]
    report.figure(
        transfer_beside_similarity(transfer_matrix(everywhere), similarity, marks=marks),
        f"Faithfulness of the circuits of one domain (rows) on images of another (columns), all sites ablated, over "
        f"{everywhere['class'].nunique()} classes. {_accuracy_words(everywhere)}",
    )
    alone = [site for site in sites if site in set(transfer["sites"])]
    if not alone:
        return
    value = "selectivity" if "other_metric" in transfer else "faithfulness"
    over_depth = transfer_over_depth(transfer, value)
    if over_depth["value"].isna().all():
        report.text(f"There is no {value}: the model does no better than the baseline.")
        return
    lead = lead_of_own_circuits(over_depth)
    measure, title = f"{value}, one site ablated", "Circuits of the images' own domain and of others"
    report.figure(
        overlap_over_depth(over_depth, alone, measure=measure, title=title, marks=GROUP_MARKS),
        f"Circuits kept at one site at a time: {value} for images of a domain with the domain's own circuits and with "
        f"those of the other domains (bars: 95 % bootstrap intervals over classes). Own circuits reach most more at "
        f"{lead.index[0]} ({lead.iloc[0]:+.2f}) and least at {lead.index[-1]} ({lead.iloc[-1]:+.2f}).",
    )
    _add_transfer_against_similarity(report, transfer, similarity, marks, value, alone)


def _accuracy_words(transfer: pd.DataFrame) -> str:
    """Say how many images are given the class with the circuit alone, of the class and of others."""
    words = f"With the circuit alone {transfer['accuracy'].mean():.0%} of the images are given their class"
    whole = f"{transfer['full_accuracy'].mean():.0%}"
    if "other_accuracy" in transfer:
        words += f", and {transfer['other_accuracy'].mean():.0%} of the images of other classes are given it, too"
        whole += f" and {transfer['other_full_accuracy'].mean():.0%}"
    return f"{words} (whole model: {whole})."


def _add_transfer_against_similarity(
    report: Report,
    transfer: pd.DataFrame,
    similarity: pd.DataFrame,
    marks: Mapping[str, Mark],
    value: str,
    sites: Sequence[str],
) -> None:
    """Add the matrix at the site where transfer follows similarity most closely, and the table of all sites."""
    table = transfer_correlations(transfer, similarity)
    rho, p = f"{value}: rho", f"{value}: p"
    known = table[table["sites"].isin(sites)].dropna(subset=rho)
    if len(known):
        best = known.sort_values(rho, ascending=False).iloc[0]
        matrix = transfer_matrix(transfer[transfer["sites"] == best["sites"]], value)
        report.figure(
            transfer_beside_similarity(matrix, similarity, measure=f"{value} at {best['sites']}", marks=marks),
            f"Transfer at {best['sites']}, the site where it follows the structural similarity most closely: "
            f"Spearman's rank correlation over {best['pairs']:.0f} pairs of domains {best[rho]:+.2f} "
            f"(p {best[p]:.2g} from orders of the domains, {best[f'{value}: p (Holm)']:.2g} when corrected for all "
            "sites and measures tried).",
        )
    report.table(
        table,
        "Does what circuits share predict how they transfer? Spearman's rank correlation of transfer, averaged over "
        "both directions, with the structural similarity, over pairs of domains. Pairs share domains: p is the share "
        "of orders of the domains with as large a correlation (Mantel), corrected for all rows and measures of this "
        "table (Holm). It is about this trained model.",
        formats={name: "+.2f" if name.endswith("rho") else ".2g" for name in table.columns[1:-1]} | {"pairs": ".0f"},
    )


def add_interchange(report: Report, exchanged: pd.DataFrame, marks: Mapping[str, Mark]) -> None:
    """Add the section on activations of one domain's circuits that are put into runs on another's images."""
    report.section("Can activations be exchanged between domains?")
    change, random = (transfer_matrix(exchanged, value) for value in ("change", "random_change"))
    off = ~np.eye(len(change), dtype=bool)
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
        "they have on images of another (rows); right: random units, as many at every site. Between different domains "
        f"it changes by {change.to_numpy()[off].mean():+.3f} on average, with random units by "
        f"{random.to_numpy()[off].mean():+.3f}; {exchanged['accuracy'].mean():.0%} of the images keep their class "
        f"({exchanged['full_accuracy'].mean():.0%} before).",
    )


def add_attribution_check(report: Report, check: AttributionCheck, sites: Sequence[str], what: str) -> None:
    """Add the section that sets attributed scores beside exact effects; ``what`` says of which circuit."""
    report.section("Are the scores what removing a unit does?")
    table = check.table()
    drawn = table[(table["sample"] == "random") & table["site"].isin(sites)]
    rho = drawn.dropna(subset="spearman").set_index("site")["spearman"]
    report.figure(
        attribution_against_patching(check.points, sites, table),
        f"{what}: attributed score and exact effect of putting a unit at the baseline, for the units with the largest "
        f"scores (filled) and a random sample (hollow); on the line they agree. Rank correlation in the random sample: "
        f"{rho.min():.2f} ({rho.idxmin()}) to {rho.max():.2f} ({rho.idxmax()}).",
    )


def add_methods(report: Report, rules: pd.DataFrame, planted: pd.DataFrame, n_circuits: int) -> None:
    """Add the section on which method to trust.

    ``rules`` are from `compare_rules` of that number of circuits, ``planted`` from `planted.score_methods` of several
    networks.
    """
    report.section("Which rule is to be trusted?")
    means = rules.assign(units=rules["sample"].map({"all": "all units", "top": "top units"}))
    correlations = means.pivot_table(["pearson", "spearman"], "rule", "units", sort=False).reset_index()
    correlations.columns = [" of ".join(filter(None, column)) for column in correlations.columns]
    report.table(
        correlations,
        "Correlation of node scores with exact patching of every unit, mean over the sites of "
        f"{n_circuits} circuit{'' if n_circuits == 1 else 's'}.",
    )
    areas = planted.assign(what=planted["network"] + ": " + planted["kind"] + "s")
    report.table(
        areas.pivot_table("auroc", "method", "what", sort=False),
        "Networks with a planted circuit: area under the ROC curve of finding its units and edges, mean over sites; "
        "1 finds them all first, 0.5 is chance. Integrated gradients of edges have a blind spot in attention.",
    )


def add_pixels(
    report: Report, images: np.ndarray, maps: Mapping[str, np.ndarray], names: Sequence[str], class_name: str
) -> None:
    """Add the section that shows which pixels speak for the class; the first map is the whole model's."""
    report.section(f"What do the circuits look at? {class_name}")
    (_, whole), *others = maps.items()
    agreement = ", ".join(f"{title} {np.corrcoef(whole.ravel(), one.ravel())[0, 1]:+.2f}" for title, one in others)
    report.figure(
        pixel_maps(images, maps, names=names),
        f"Pixel attributions (captum's integrated gradients from a blank image), blue: for the class or unit, orange: "
        f"against, each map on its own scale. Correlation with the whole model's map: {agreement}.",
    )
