"""The sections of a report on causal checks, in plain words computed from the tables they speak of."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from circuitry.interventions.curves import FaithfulnessCurve, curves_by_domain, pool_curves
from circuitry.interventions.effects import AttributionCheck
from circuitry.interventions.transfer_tables import (
    OTHER,
    OWN,
    transfer_against_similarity,
    transfer_matrix,
    transfer_over_depth,
)
from circuitry.reports.figures.causal_plots import (
    attribution_against_patching,
    faithfulness_curves,
    pixel_maps,
    transfer_beside_similarity,
)
from circuitry.reports.figures.plots import overlap_over_depth
from circuitry.reports.figures.style import MARKS, Mark
from circuitry.reports.page import Report

GROUP_MARKS = {OWN: MARKS[0], OTHER: MARKS[1]}


def add_faithfulness(report: Report, curves: Sequence[FaithfulnessCurve], marks: Mapping[str, Mark]) -> None:
    """Add the section on faithfulness and selectivity; curves with all sites ablated together."""
    report.section("Do the circuits do the work?")
    first = curves[0]
    by_size = [curve for curve in curves if curve.ranking == "absolute"]
    faithful = curves_by_domain(by_size)
    at = _middle(first.fractions)
    setting = (
        f"only a circuit's units are active, at all sites at once, the others are at the {first.settings['baseline']}"
    )
    _figure_or_reason(
        report,
        faithful,
        "faithfulness",
        marks,
        f"Faithfulness: {setting} baseline; 0 is nothing kept, 1 the whole model ({int(first.own.sum())} images per "
        "class and domain; bands: 95 % bootstrap intervals over images). With the "
        f"{at:.0%} largest |scores| it is {_range(faithful, 'kept', at)} by domain, with as many "
        f"random units {_range(faithful, 'random', at)}, with all but them {_range(faithful, 'complement', at)}.",
    )
    if not first.own.all():
        selective = curves_by_domain(by_size, "selectivity")
        best = selective[(selective["circuit"] == "kept") & (selective["fraction"] == at)]["value"].max()
        verdict = (
            "The circuits answer their class whatever they are shown: under this ablation what is kept of the later "
            "sites hardly hears the image any more, and faithfulness alone would not have said so."
            if best < 0.1
            else "So the circuits still hear the image."
        )
        _figure_or_reason(
            report,
            selective,
            "selectivity",
            marks,
            f"Selectivity: the same of the difference between images of the class and images of other classes "
            f"({int((~first.own).sum())} per class and domain). With {at:.0%} of the units it is "
            f"{_range(selective, 'kept', at)}. {verdict}",
        )
    report.table(
        _areas(curves),
        "Areas under the curves (MIB), with 95 % bootstrap intervals over images and for random units. CMD, the area "
        "of |1 - faithfulness|: 0 is best; CPR, the area under faithfulness.",
    )


def _figure_or_reason(
    report: Report, curves: pd.DataFrame, measure: str, marks: Mapping[str, Mark], words: str
) -> None:
    """Draw the curves, or say why there are none."""
    if curves["value"].notna().any():
        report.figure(faithfulness_curves(curves, measure=measure, marks=marks), words)
    else:
        report.text(f"There is no {measure}: {curves['reason'].iloc[0]}.")


def add_selectivity_over_depth(
    report: Report, curves: Sequence[FaithfulnessCurve], marks: Mapping[str, Mark], sites: Sequence[str]
) -> None:
    """Add the figure on circuits kept at one site at a time; curves of one ranking, drawn at their first fraction."""
    table = curves_by_domain(curves, "selectivity").query(f"fraction == {curves[0].fractions[0]}")
    kept = table[table["circuit"] == "kept"].rename(columns={"sites": "site"})
    random = table[table["circuit"] == "random"].groupby("sites", sort=False)["value"].mean()
    mean = kept.groupby("site", sort=False)["value"].mean()
    best = str(mean.idxmax())
    figure = overlap_over_depth(
        kept,
        sites,
        chance=random.rename_axis("site").reset_index(),
        measure="selectivity, one site ablated",
        chance_label="random units",
        marks=marks,
    )
    report.figure(
        figure,
        f"Only the circuit's {curves[0].fractions[0]:.0%} of the units kept at one site, everything else left as it "
        f"is. On average over domains selectivity is highest at {best} ({mean.max():.2f}; random units "
        f"{random[best]:.2f}) and lowest at {mean.idxmin()} ({mean.min():.2f}).",
    )


def add_transfer(
    report: Report, transfer: pd.DataFrame, similarity: pd.DataFrame, marks: Mapping[str, Mark], sites: Sequence[str]
) -> None:
    """Add the section on circuits of one domain that are kept on images of another.

    Args:
        report: The report.
        transfer: From `CausalStudy.extract_transfer`; with ``one_site`` also site by site.
        similarity: Structural similarity of the domains, e.g. ``comparison.matrix("edge_jaccard")``.
        marks: The looks of the domains.
        sites: Sites in order.
    """
    report.section("Does one domain's circuit work in another?")
    everywhere = transfer[transfer["sites"] == "all"]
    report.figure(
        transfer_beside_similarity(transfer_matrix(everywhere), similarity, marks=marks),
        f"Faithfulness of the circuits of one domain (rows) on images of another (columns), all sites ablated, over "
        f"{everywhere['class'].nunique()} classes. " + _deaf_words(everywhere),
    )
    alone = [site for site in sites if site in set(transfer["sites"])]
    if not alone:
        return
    value = "selectivity" if "other_metric" in transfer else "faithfulness"
    over_depth = transfer_over_depth(transfer, value)
    if over_depth["value"].isna().all():
        report.text(f"There is no {value}: the model does no better than the baseline.")
        return
    means = over_depth.pivot(index="site", columns="domain", values="value").loc[alone]
    gap = (means[OWN] - means[OTHER]).sort_values()
    report.figure(
        overlap_over_depth(over_depth, alone, measure=f"{value}, one site ablated", marks=GROUP_MARKS),
        f"Circuits kept at one site at a time: {value} for images of a domain of the domain's own circuits and of "
        f"those of the other domains (bands: 95 % bootstrap intervals over classes). "
        f"The own circuit is ahead most at {gap.index[-1]} ({gap.iloc[-1]:+.2f}), least at {gap.index[0]} "
        f"({gap.iloc[0]:+.2f}).",
    )
    table = transfer_correlations(transfer, similarity)
    known = table[table["sites"].isin(alone)].dropna(subset=f"{value}: rho")
    if len(known):
        best = known.sort_values(f"{value}: rho", ascending=False).iloc[0]
        matrix = transfer_matrix(transfer[transfer["sites"] == best["sites"]], value)
        report.figure(
            transfer_beside_similarity(matrix, similarity, measure=f"{value} at {best['sites']}", marks=marks),
            f"Transfer at {best['sites']}, the site where it follows the structural similarity most closely: "
            f"Spearman's rank correlation over {best['pairs']:.0f} pairs of domains {best[f'{value}: rho']:+.2f} "
            f"(p {best[f'{value}: p']:.2g}, not corrected for the choice among {len(alone)} sites).",
        )
    report.table(
        table,
        "Does what circuits share predict how they transfer? Spearman's rank correlation of transfer, averaged over "
        "both directions, with the structural similarity, over pairs of domains; pairs share domains, so p is too "
        "small by an unknown amount.",
        formats={name: "+.2f" if name.endswith("rho") else ".2g" for name in table.columns[1:-1]} | {"pairs": ".0f"},
    )


def add_interchange(report: Report, exchanged: pd.DataFrame, marks: Mapping[str, Mark]) -> None:
    """Add the section on activations of one domain's circuits that are put into runs on another's images."""
    report.section("Can activations be exchanged between domains?")
    change, random = (transfer_matrix(exchanged, value) for value in ("change", "random_change"))
    off = ~np.eye(len(change), dtype=bool)
    report.figure(
        transfer_beside_similarity(
            change, random, measure="change of the metric", similarity_measure="with random units", marks=marks
        ),
        "Change of the class's metric on images of one domain (columns) when the circuit's units take the activations "
        "they have on images of another (rows); right: random units, as many at every site. Between different domains "
        f"it changes by {change.to_numpy()[off].mean():+.3f} on average, with random units by "
        f"{random.to_numpy()[off].mean():+.3f}; {exchanged['accuracy'].mean():.0%} of the images keep their class "
        f"({exchanged['full_accuracy'].mean():.0%} before).",
    )


def transfer_correlations(transfer: pd.DataFrame, similarity: pd.DataFrame) -> pd.DataFrame:
    """Return the rank correlation of transfer with similarity per ablated site.

    Columns sites, then rho and p of faithfulness and of selectivity, pairs.
    """
    rows = []
    for sites, part in transfer.groupby("sites", sort=False):
        row: dict[str, object] = {"sites": sites}
        for value in ("faithfulness", "selectivity") if "other_metric" in part else ("faithfulness",):
            rho, p, points = transfer_against_similarity(transfer_matrix(part, value), similarity)
            row |= {f"{value}: rho": rho, f"{value}: p": p}
        rows.append(row | {"pairs": len(points)})
    return pd.DataFrame(rows)


def add_attribution_check(report: Report, check: AttributionCheck, sites: Sequence[str], what: str) -> None:
    """Add the section that sets attributed scores beside exact effects."""
    report.section("Are the scores what removing a unit does?")
    table = check.table()
    random = (
        table[(table["sample"] == "random") & table["site"].isin(sites)].dropna(subset="spearman").set_index("site")
    )
    report.figure(
        attribution_against_patching(check.points, sites, table),
        f"{what}: attributed score and exact effect of putting a unit at the baseline, for the units with the largest "
        f"scores (filled) and a random sample (hollow); on the line they agree. Rank correlation in the random sample: "
        f"{random['spearman'].min():.2f} ({random['spearman'].idxmin()}) to {random['spearman'].max():.2f} "
        f"({random['spearman'].idxmax()}).",
    )


def add_methods(report: Report, rules: pd.DataFrame, planted: pd.DataFrame, n_circuits: int) -> None:
    """Add the section on which method to trust.

    Args:
        report: The report.
        rules: From `compare_rules`, of several circuits.
        planted: From `planted.score_methods`, of several networks.
        n_circuits: Number of those circuits.
    """
    report.section("Which rule is to be trusted?")
    means = rules.assign(units=rules["sample"].map({"all": "all units", "top": "top units"}))
    correlations = means.pivot_table(["pearson", "spearman"], "rule", "units", sort=False).reset_index()
    correlations.columns = [" of ".join(filter(None, column)) for column in correlations.columns]
    report.table(
        correlations,
        f"Correlation of node scores with exact patching of every unit, mean over sites and {n_circuits} circuits.",
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
    """Add the section that shows which pixels speak for the class."""
    report.section(f"What do the circuits look at? {class_name}")
    whole, *rest = maps.values()
    agree = [float(np.corrcoef(whole.ravel(), one.ravel())[0, 1]) for one in rest]
    listed = ", ".join(f"{title} {r:+.2f}" for title, r in zip(list(maps)[1:], agree, strict=True))
    report.figure(
        pixel_maps(images, maps, names=names),
        f"Pixel attributions (captum's integrated gradients from a blank image), blue: for the class or unit, orange: "
        f"against, each map on its own scale. Correlation with the whole model's map: {listed}.",
    )


def _areas(curves: Sequence[FaithfulnessCurve]) -> pd.DataFrame:
    rows = []
    for domain in dict.fromkeys(str(curve.domain) for curve in curves):
        row = {"domain": domain}
        for measure, ranking in (("CPR", "signed"), ("CMD", "absolute")):
            mine = [curve for curve in curves if curve.domain == domain and curve.ranking == ranking]
            if not mine:
                continue
            areas = pool_curves(mine).areas()
            for found in areas[areas["measure"] == measure].itertuples():
                if found.circuit == "kept":
                    row[f"{measure} ({ranking})"] = f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
                else:
                    row[f"{measure}, random"] = f"{found.value:.3f}"
        rows.append(row)
    return pd.DataFrame(rows)


def _deaf_words(transfer: pd.DataFrame) -> str:
    words = f"With the circuit alone {transfer['accuracy'].mean():.0%} of the images are given their class"
    if "other_accuracy" in transfer:
        words += f"; but so are {transfer['other_accuracy'].mean():.0%} of the images of other classes"
    return f"{words} (whole model: {transfer['full_accuracy'].mean():.0%}" + (
        f" and {transfer['other_full_accuracy'].mean():.0%})." if "other_accuracy" in transfer else ")."
    )


def _middle(fractions: Sequence[float]) -> float:
    """The size that sentences speak of: a tenth, the study's, or what comes closest."""
    return min(fractions, key=lambda fraction: abs(np.log(fraction / 0.1)))


def _range(table: pd.DataFrame, circuit: str, fraction: float) -> str:
    found = table[(table["circuit"] == circuit) & (table["fraction"] == fraction)]["value"]
    return f"{found.min():z.2f} to {found.max():z.2f}"
