"""Find and compare circuits, and write the report."""

from dataclasses import replace
from functools import partial

import pandas as pd

from circuitry import DomainFolder, GraphFolder
from circuitry.circuits import Extraction, Measure, ReadingSettings, compare_domains
from circuitry.circuits.consensus import circuit_stability
from circuitry.commands.compare_command import Config
from circuitry.comparison import Comparison
from circuitry.comparison.domain_apart import apart_over_depth, group_means, means_without
from circuitry.data.imagenet_classes import class_key
from circuitry.data.names import chosen_names
from circuitry.interventions import FaithfulnessCurve, curves_by_domain
from circuitry.interventions.circuit_tests import curves_on_unseen
from circuitry.interventions.curve_reading import CURVE_MEASURES
from circuitry.reports import Report, write_results
from circuitry.reports.figures import domain_marks
from circuitry.reports.listings import listings_of
from circuitry.reports.page import Written
from circuitry.reports.sections.apart import add_domain_apart
from circuitry.reports.sections.causal_curves import add_answers, works_findings
from circuitry.reports.sections.circuits import (
    add_circuit_stability,
    circuit_findings,
    comparison_report,
    found_report,
)
from circuitry.runs import ALONE, InputError, Work
from circuitry.training import accuracy_kinds, zero_shot_accuracy

SMALL = 500
"""Rows of a table that is small enough to be committed."""


def main(config: Config) -> Written | None:
    """Extract, compare, write; print where the report is."""
    images = config.images()
    config = spelt_as_in(images, config)
    check_names(config, images)
    if config.dry_run:
        for line in planned(config, config.work()).estimate(config.work()):
            print(line, flush=True)
        return None
    if not config.share_out(partial(extract_share, config), config.out / "jobs"):
        return None
    graphs = GraphFolder(config.out / "circuits")
    if not graphs:
        raise InputError(f"No circuit was found: none of the {len(images)} images in {images.root} can be read.")
    accuracy = measured_accuracy(config, images) if config.accuracy else None
    curves = tested(config, planned(config, config.work()), config.work())
    if any(len({d for c, d in graphs if c == name}) > 1 for name in graphs.classes):
        report, tables, comparisons = compared(config, graphs, images, accuracy, curves)
    else:
        report, tables, comparisons = nothing_compared(config, graphs, images, accuracy, curves), {}, {}
    tables |= {} if accuracy is None else {"accuracy": accuracy}
    tables |= {measure: curves_by_domain(curves, measure) for measure in CURVE_MEASURES} if curves else {}
    provenance = {
        "weights": config.checkpoint or config.pretrained,
        "data": config.data,
        "sae": list(config.sae),
        **graphs.settings,
        **graphs.manifest["versions"],
    }
    looked_at = listings_of(images, config.n_images, config.seed)
    small = [name for name, table in tables.items() if len(table) <= SMALL]
    return write_results(report, tables, config.out, config.results, provenance, small, looked_at, comparisons)


def spelt_as_in(images: DomainFolder, config: Config) -> Config:
    """Return the settings with the held-out classes as the folder spells them; refuse unknown ones."""
    if not config.held_out:
        return config
    try:
        return replace(config, held_out=chosen_names("class", config.held_out, images.all_classes, class_key))
    except InputError as error:
        raise InputError(f"--held-out: {error}") from error


def check_names(config: Config, images: DomainFolder) -> None:
    """Refuse unknown names before the work begins, and a pair that cannot be drawn."""
    if config.apart is not None:
        try:
            chosen_names("domain", (config.apart,), images.domains)
        except InputError as error:
            raise InputError(f"--apart: {error}") from error
    if config.pair is None:
        return
    class_name, *domains = config.pair
    try:
        empty = [domain for domain in domains if not images.select(class_name, domain, 1)]
    except InputError as error:
        raise InputError(f"--pair: {error}") from error
    if empty or len(set(domains)) < 2:
        wrong = f"there are no images of {class_name} in {empty[0]}" if empty else f"{domains[0]} was given twice"
        raise InputError(f"--pair is a class and two domains in which it has images, but {wrong}.")


def planned(config: Config, work: Work) -> Extraction:
    """Return the jobs of the extraction."""
    return Extraction(config.clip(work.rank), config.images(), config.out / "circuits", config)


def extract_share(config: Config, work: Work) -> None:
    """Do one process's share of the extraction."""
    plan = planned(config, work)
    plan.run(work)
    tested(config, plan, work)


def tested(config: Config, plan: Extraction, work: Work) -> list[FaithfulnessCurve]:
    """Test the circuits on images that they were not found on."""
    return curves_on_unseen(plan, config.n_unseen, config.out / "faithfulness", work)


def measured_accuracy(config: Config, images: DomainFolder) -> pd.DataFrame:
    """Return the zero-shot accuracies on all images by domain."""
    clip = config.clip(ALONE)
    return accuracy_kinds(zero_shot_accuracy(clip, images, config.held_out, work=config.work()))


def compared(
    config: Config,
    graphs: GraphFolder,
    images: DomainFolder,
    accuracy: pd.DataFrame | None,
    curves: list[FaithfulnessCurve],
) -> tuple[Report, dict[str, pd.DataFrame], dict[str, Comparison]]:
    """Compare the circuits, print the domain-by-domain similarity, and return report, tables and comparisons."""
    seen = [name for name in images.classes if name not in config.held_out] if config.held_out else []
    groups = {"held-out": config.held_out, "others": seen}
    reading = ReadingSettings(
        edges_per_node=config.edges_per_node, any_sign=config.any_sign, all_sites=config.all_sites, seed=config.seed
    )
    measures = [
        Measure("node_overlap"),
        Measure("edge_jaccard"),
        *(Measure("wl_kernel", depth) for depth in config.kernel_depths),
    ]
    comparisons = compare_domains(graphs, groups, measures=measures, settings=reading)
    domains = sorted(graphs.domains)
    report = comparison_report(
        f"Circuits of {graphs.manifest['config']['model']} in {len(domains)} domains",
        f"For each of {len(images.classes)} classes in {', '.join(domains)}, the circuit that recognises it was found "
        f"by attribution on up to {config.n_images} images, and circuits were compared between domains.",
        comparisons,
        graphs,
        images,
        config.pair or least_similar(comparisons["edge_jaccard"]),
        after_images=partial(add_answers, accuracy, curves),
    )
    report.summary([*works_findings(curves), *circuit_findings(comparisons)])
    stability = circuit_stability(graphs, edges_per_node=config.edges_per_node, any_sign=config.any_sign)
    tables = {name: table for one in comparisons.values() for name, table in one.tables().items()}
    if len(stability):
        add_circuit_stability(report, stability)
        tables["circuit_stability"] = stability
    if config.held_out:
        tables["similarity_by_group"] = group_means(comparisons)
    if config.apart is not None:
        add_domain_apart(report, comparisons, config.apart, domain_marks(domains))
        tables["domain_apart_over_depth"] = apart_over_depth(comparisons["node_overlap"], config.apart)
        tables |= {f"{name}_without": means_without(one, config.apart) for name, one in comparisons.items()}
    print(comparisons["edge_jaccard"].matrix().to_string(float_format=lambda v: f"{v:.3f}"))
    return report, tables, comparisons


def nothing_compared(
    config: Config,
    graphs: GraphFolder,
    images: DomainFolder,
    accuracy: pd.DataFrame | None,
    curves: list[FaithfulnessCurve],
) -> Report:
    """Return a report of the circuits, which says why none were compared."""
    domains = sorted(graphs.domains)
    reason = (
        f"Nothing was compared: that takes a class with circuits in at least two domains, and each of the "
        f"{len(graphs.classes)} classes has one in only one of {', '.join(domains)}. Give more domains, or classes "
        f"that have images in them. The {len(graphs)} circuits are in {graphs.path}: read them with GraphFolder."
    )
    print(reason)
    report = found_report(
        f"Circuits of {graphs.manifest['config']['model']}",
        reason,
        graphs,
        images,
        edges_per_node=config.edges_per_node,
        any_sign=config.any_sign,
        after_images=partial(add_answers, accuracy, curves),
    )
    report.summary(works_findings(curves))
    return report


def least_similar(comparison: Comparison) -> tuple[str, str, str]:
    """Return the first class and the two domains in which its circuits share the fewest edges."""
    table = comparison.values
    class_name = min(table["class"])
    row = table[table["class"] == class_name].sort_values("value", kind="stable").iloc[0]
    return str(class_name), str(row["domain_a"]), str(row["domain_b"])
