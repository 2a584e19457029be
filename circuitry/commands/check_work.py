"""Check circuits by ablation, and write the report."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd

from circuitry import CausalChecks, Comparison, compare_domains
from circuitry.commands.check_command import Config
from circuitry.interventions import (
    FaithfulnessCurve,
    check_attribution,
    compare_rules,
    compare_transfer,
    curves_by_domain,
    transfer_matrix,
    transfer_over_depth,
)
from circuitry.interventions.curves import HARDLY_ANY, nearest_to_a_tenth
from circuitry.interventions.transfer_tables import transfer_correlations
from circuitry.judging.planted import RULES
from circuitry.reports import Report, write_results
from circuitry.reports.figures import domain_marks
from circuitry.reports.listings import listings_of_records
from circuitry.reports.page import Written
from circuitry.reports.sections.causal_curves import (
    add_causal_guide,
    add_faithfulness,
    add_selectivity_over_depth,
    faithfulness_findings,
)
from circuitry.reports.sections.score_checks import add_attribution_check, add_pixels, add_rules
from circuitry.reports.sections.transfers import add_interchange, add_transfer, transfer_findings
from circuitry.runs import InputError, Work


def main(config: Config) -> Written | None:
    """Measure, write, and say where the report is."""
    if config.share_out(partial(measure_share, config), config.folder / "jobs"):
        write = write_transfer if config.transfer else write_faithfulness
        return write(config, config.checks())
    return None


def measure_share(config: Config, work: Work) -> None:
    """Measure one process's share."""
    measure = measure_transfer if config.transfer else measure_curves
    measure(config, config.checks(work.rank), work)


def measure_curves(
    config: Config, checks: CausalChecks, work: Work
) -> tuple[list[FaithfulnessCurve], list[FaithfulnessCurve]]:
    """Return the curves with all sites ablated at once, and with one site at a time; finished ones are read."""
    extract = partial(checks.extract_faithfulness, random_draws=config.random_draws, work=work)
    one_by_one = partial(extract, rankings=("absolute",), fractions=(config.one_site_size,), one_site=True)
    return extract(config.folder / "all-sites"), one_by_one(config.folder / "one-site")


def write_faithfulness(config: Config, checks: CausalChecks) -> Written:
    """Compare the rules, and write the report with its tables."""
    work = config.work()
    curves, alone = measure_curves(config, checks, work)
    keys = rule_keys(checks, config.rule_circuits)
    rules = pd.concat([rules_of(checks, key, work) for key in keys], ignore_index=True)
    shown = class_name, domain = keys[0]
    graph = checks.graphs[shown]
    sites = list(graph.inner_sites)
    check = check_attribution(checks.task_found_with(shown, work), graph)
    tables = {
        f"{measure}_{ranking}": curves_by_domain([curve for curve in curves if curve.ranking == ranking], measure)
        for measure in ("faithfulness", "selectivity")
        for ranking in ("absolute", "signed")
    }
    for measure in ("faithfulness", "selectivity"):
        tables[f"{measure}_one_site"] = curves_by_domain(alone, measure)
    tables |= {"rules_against_patching": rules, "attribution_against_patching": check.points}
    tables["scores_across_sites"] = check.across_sites()
    marks, checked_on = domain_marks(checks.images.domains), checks.chosen.in_words
    report = Report(
        f"Do the circuits of {checks.clip.name} recover its answer?",
        f"Causal checks of {len(checks.chosen.keys)} circuits, on {checked_on}.",
    )
    report.summary(faithfulness_findings(curves, alone))
    add_causal_guide(report, graph.settings, checked_on)
    add_faithfulness(report, curves, marks)
    report.text(listening_verdict(curves))
    add_selectivity_over_depth(report, alone, marks, sites)
    add_attribution_check(report, check, sites, f"{class_name} in {domain}")
    add_rules(report, rules)
    images, maps = checks.pixels(*shown, work=work)
    add_pixels(report, images, maps, [f"{domain} {i + 1}" for i in range(len(images))], class_name)
    return write(config, checks, report, tables)


def listening_verdict(curves: Sequence[FaithfulnessCurve]) -> str:
    """Say whether the circuits' answers depend on the image; nothing where selectivity was not measured."""
    selective = curves_by_domain([curve for curve in curves if curve.ranking == "absolute"], "selectivity")
    size = nearest_to_a_tenth(curves[0].fractions)
    at_size = selective[(selective["circuit"] == "kept") & (selective["fraction"] == size)]
    best = float(at_size["value"].max())
    if math.isnan(best):
        return ""
    words = f"With {size:.0%} of the units the most selective domain's circuits reach {best:z.2f}: "
    if best < HARDLY_ANY:
        return words + (
            f"below {HARDLY_ANY}, so the circuits answer their class for every image. Under this ablation the kept "
            "units of later sites hardly depend on the image, and faithfulness alone would not show it."
        )
    return words + f"{HARDLY_ANY} or more, so the circuits' answers still depend on the image."


def rule_keys(checks: CausalChecks, n: int) -> list[tuple[str, str]]:
    """Return n circuits of different classes, going round the domains."""
    keys = checks.chosen.keys
    classes = list(dict.fromkeys(name for name, _ in keys))
    domains = list(dict.fromkeys(domain for _, domain in keys))
    diagonal = [(name, domains[i % len(domains)]) for i, name in enumerate(classes)]
    return [key for key in diagonal if key in checks.graphs][:n] or keys[:1]


def rules_of(checks: CausalChecks, key: tuple[str, str], work: Work) -> pd.DataFrame:
    """Compare the rules on the images that a circuit was found on."""
    table = compare_rules(checks.task_found_with(key, work), RULES)
    table.insert(0, "class", key[0])
    table.insert(1, "domain", key[1])
    return table


def measure_transfer(config: Config, checks: CausalChecks, work: Work) -> dict[str, pd.DataFrame]:
    """Return the tables of transfer and interchange; finished ones are read.

    Raises:
        InputError: for circuits of a single domain.
    """
    domains = list(dict.fromkeys(domain for _, domain in checks.chosen.keys))
    if len(domains) < 2:
        raise InputError(
            f"Transfer is between domains, but the chosen circuits in {config.circuits} are of {domains[0]} alone: "
            "give more with --domains, or extract more."
        )
    return checks.extract_transfer(config.folder, one_site=config.one_site, work=work)


def write_transfer(config: Config, checks: CausalChecks) -> Written:
    """Set transfer beside structural similarity, and write the report with its tables."""
    found = measure_transfer(config, checks, config.work())
    transfer, exchanged = found["transfer"], found["interchange"]
    chosen = {key: checks.graphs[key] for key in checks.chosen.keys}
    similarity = compare_domains(chosen, measures=["edge_jaccard"])["edge_jaccard"].matrix()
    tables = {
        "matrices": matrices(transfer),
        "edge_jaccard_matrix": similarity.rename_axis(index="domain").reset_index(),
        "correlations": transfer_correlations(transfer, similarity),
        "transfer": transfer,
        "interchange": exchanged,
    }
    if config.one_site:
        tables["selectivity_over_depth"] = transfer_over_depth(transfer)
    marks, checked_on = domain_marks(checks.images.domains), checks.chosen.in_words
    report = Report(
        f"Do the circuits of {checks.clip.name} work in other domains?",
        f"{len(chosen)} circuits, each kept on images of every domain of its class, on {checked_on}.",
    )
    report.summary(transfer_findings(transfer, similarity))
    first = next(iter(chosen.values()))
    add_causal_guide(report, first.settings, checked_on)
    add_transfer(report, transfer, similarity, marks, list(first.inner_sites))
    add_interchange(report, exchanged, marks)
    small = [name for name in tables if name != "transfer"]
    return write(config, checks, report, tables, small, compared(transfer))


def compared(transfer: pd.DataFrame) -> dict[str, Comparison]:
    """Return transfer as comparisons, which the explorer shows; none where the model has no lead over the baseline."""
    alone = transfer[transfer["sites"] != "all"]
    transfer = alone if len(alone) else transfer
    known = matrices(transfer).notna().any()
    values = [value for value in ("faithfulness", "selectivity") if known.get(value, False)]
    found = [compare_transfer(transfer, value) for value in values]
    return {one.measure: one for one in found}


def matrices(transfer: pd.DataFrame) -> pd.DataFrame:
    """Return every transfer matrix, means over classes, in long form."""
    values = [value for value in ("faithfulness", "selectivity", "accuracy", "other_accuracy") if has(transfer, value)]
    parts = []
    for sites, part in transfer.groupby("sites", sort=False):
        long = pd.DataFrame({value: transfer_matrix(part, value).stack() for value in values}).reset_index()
        parts.append(long.assign(sites=sites))
    return pd.concat(parts, ignore_index=True)


def has(transfer: pd.DataFrame, value: str) -> bool:
    """Whether a transfer table holds a value; those of other classes need images of other classes."""
    return "other_metric" in transfer or value in ("faithfulness", "accuracy")


def write(
    config: Config,
    checks: CausalChecks,
    report: Report,
    tables: dict[str, pd.DataFrame],
    small: Sequence[str] | None = None,
    comparisons: Mapping[str, Comparison] | None = None,
) -> Written:
    """Write the report, its tables and comparisons, and say where they are."""
    listings = listings_of_records(record for key in checks.chosen.keys for record in checks.chosen.own(key))
    provenance = checks.provenance
    return write_results(report, tables, config.folder, config.results, provenance, small, listings, comparisons)
