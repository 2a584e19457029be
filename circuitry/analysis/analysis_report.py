"""The report of an analysis: a section and tables for each thing that its steps found, in one order."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from circuitry.circuits.graph_folder import GraphFolder
from circuitry.comparison.comparison import Comparison
from circuitry.comparison.domain_apart import (
    apart_over_depth,
    group_means,
    means_without,
)
from circuitry.data.domains import DomainFolder
from circuitry.data.parts import Key
from circuitry.interventions.curve_reading import CURVE_MEASURES
from circuitry.interventions.curves import curves_by_domain
from circuitry.interventions.transfer_tables import (
    transfer_correlations,
    transfer_matrices,
    transfer_over_depth,
)
from circuitry.reports.figures.pictures import contact_sheet
from circuitry.reports.figures.style import Mark, domain_marks
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.accuracies import add_accuracy, recognised
from circuitry.reports.sections.causal_curves import (
    add_faithfulness,
    add_selectivity_over_depth,
    faithfulness_findings,
)
from circuitry.reports.sections.circuits import (
    add_attribution_check,
    add_circuit_pair,
    add_circuit_stability,
    add_domain_apart,
    add_guide,
    add_pixels,
    add_similarity,
    circuit_findings,
)
from circuitry.reports.sections.findings import UNKNOWN
from circuitry.reports.sections.one_circuit import add_circuit
from circuitry.reports.sections.own_parts import add_own_parts, own_part_findings
from circuitry.reports.sections.transfers import (
    add_interchange,
    add_transfer,
    transfer_findings,
    transfer_value,
)

CIRCUITS_DRAWN = 4
"""Most circuits that are drawn one by one, where nothing is compared."""
SHEET_ROWS = 20
"""Most classes on the contact sheet."""

Found = Mapping[str, Any]
"""What the steps of an analysis found, by name."""


def add_findings(
    report: Report,
    graphs: GraphFolder,
    images: DomainFolder,
    found: Found,
    cut: Mapping[str, Any],
    tested_on: str | None,
    apart: str | None = None,
    pair: tuple[str, str, str] | None = None,
) -> None:
    """Add what the steps found to an empty report; ``apart`` and ``pair`` are those of `Analysis.report`.

    ``cut`` says how circuits are cut; see `AttributionGraph.circuit`. ``tested_on`` names the images of tests, if there
    were any.
    """
    first, marks = next(iter(graphs.values())), domain_marks(graphs.domains)
    sites = list(first.inner_sites)
    report.summary(findings_of(found))
    add_guide(report, first.settings, tested_on)
    add_images(
        report,
        images.classes if "own_parts" in found else graphs.classes,
        graphs.domains,
        images,
    )
    if "accuracy" in found:
        add_accuracy(report, found["accuracy"], marks, test_domain=found["test_domain"])
    if own_first(found):
        add_parts(report, found)
    if found.get("curves"):
        add_faithfulness(report, found["curves"], marks)
    if "one_site" in found:
        add_selectivity_over_depth(report, found["one_site"], marks, sites)
    if "own_parts" in found and not own_first(found):
        add_parts(report, found)
    if "comparisons" in found:
        add_circuits(report, graphs, found["comparisons"], cut, pair, marks)
    if "transfer" in found:
        add_transfer(report, found["transfer"], found["similarity"], marks, sites)
    if "interchange" in found:
        add_interchange(report, found["interchange"], marks)
    if "attribution" in found:
        (class_name, domain), check = found["attribution"]
        add_attribution_check(report, check, sites, f"{class_name} in {domain}")
    if "pixels" in found:
        (class_name, domain), shown, maps = found["pixels"]
        add_pixels(
            report,
            shown,
            maps,
            [f"{domain} {i + 1}" for i in range(len(shown))],
            class_name,
        )
    if len(found.get("stability", ())):
        add_circuit_stability(report, found["stability"])
    if apart is not None and found["comparisons"]:
        add_domain_apart(report, found["comparisons"], apart, marks)


def own_first(found: Found) -> bool:
    """Return whether own parts were found before circuits were tested: answers come in the order of the steps."""
    steps = [name for name in found if name in ("own_parts", "curves")]
    return steps[:1] == ["own_parts"]


def findings_of(found: Found) -> list[Finding | None]:
    """Answer what the steps asked."""
    answers: list[Finding | None] = []
    if "accuracy_by_class" in found:
        answers.append(recognised(found["accuracy_by_class"], found["accuracy"]))
    own: list[Finding | None] = []
    if "own_part_tables" in found:
        own += own_part_findings(found["own_part_tables"])
    elif "own_parts" in found:
        own = [
            Finding(
                f"Do classes have parts of their own? {UNKNOWN}: none was found. {found['own_parts']}",
                "A class's own part is found by contrast with other classes, and tested on other images.",
                "Other classes beside each class, and two images or more of each.",
            )
        ]
    whole: list[Finding | None] = []
    if found.get("curves"):
        whole += faithfulness_findings(found["curves"], found.get("one_site", []))
    elif "comparisons" in found:
        whole = [
            Finding(
                f"Do the circuits work? {UNKNOWN}: they were not tested. A smaller --n-images leaves images to test "
                "them on.",
                "An attribution claims causes; it does not prove them.",
                "Tests on images that the circuits were not found on, beside random units.",
            )
        ]
    answers += [*own, *whole] if own_first(found) else [*whole, *own]
    if found.get("comparisons"):
        answers += circuit_findings(found["comparisons"])
    if "transfer" in found:
        answers += transfer_findings(found["transfer"], found["similarity"])
    return answers


def add_images(
    report: Report, of: Sequence[str], styles: Sequence[str], images: DomainFolder
) -> None:
    """Add the section that shows some images, of classes and domains that are there."""
    classes, domains = (
        sorted({*of} & {*images.classes}),
        sorted({*styles} & {*images.domains}),
    )
    report.section("The images")
    shown = {
        (c, d): [r.path for r in images.select(c, d, 2)]
        for c in classes[:SHEET_ROWS]
        for d in domains
    }
    report.image(
        contact_sheet(shown, classes[:SHEET_ROWS], domains),
        f"Test images of {'every class' if len(classes) <= SHEET_ROWS else 'some classes'} in every domain.",
        alt="Contact sheet of the images by class and domain",
    )


def add_parts(report: Report, found: Found) -> None:
    """Add the sections on own parts, or the sentence that says why there are none."""
    report.section("What is the class's own?")
    if "own_part_tables" not in found:
        report.text(str(found["own_parts"]))
        return
    tables = found["own_part_tables"]
    lesions = tables["lesions"]
    report.text(
        "A circuit that is enough for a class holds what every class needs, too. Its own part is found by contrast: "
        f"at most {lesions['share'].max():.1%} of the units, whose ablation costs the class much and other classes "
        "little. It is tested by lesion, on images that found no part, beside as many random units at the same sites."
    )
    add_own_parts(report, tables, sorted({*lesions["part_domain"], *lesions["domain"]}))


def add_circuits(
    report: Report,
    graphs: GraphFolder,
    comparisons: Mapping[str, Comparison],
    cut: Mapping[str, Any],
    pair: tuple[str, str, str] | None,
    marks: Mapping[str, Mark],
) -> None:
    """Add the sections on similarity and a pair of circuits; where nothing is compared, on circuits one by one."""
    if comparisons:
        add_similarity(report, comparisons, marks)
        name, *domains = pair or least_similar(comparisons["edge_jaccard"])
        a, b = (graphs[name, domain].circuit(**cut) for domain in domains)
        add_circuit_pair(report, a, b, comparisons["node_overlap"].sites, marks)
        return
    for key in list(graphs)[:CIRCUITS_DRAWN]:
        circuit = graphs[key].circuit(**cut)
        found_on = f"found on {circuit.source.n_images} images"
        add_circuit(
            report,
            circuit,
            f"The kept units at every site, {found_on}, and the strongest edges into them.",
        )
    if len(graphs) > CIRCUITS_DRAWN:
        report.text(f"{len(graphs) - CIRCUITS_DRAWN} more circuits are not drawn here.")


def least_similar(comparison: Comparison) -> tuple[str, str, str]:
    """Return the first class and the two domains in which its circuits share the fewest edges."""
    table = comparison.values
    class_name = min(table["class"])
    row = (
        table[table["class"] == class_name].sort_values("value", kind="stable").iloc[0]
    )
    return str(class_name), str(row["domain_a"]), str(row["domain_b"])


def tables_of(found: Found, apart: str | None = None) -> dict[str, pd.DataFrame]:
    """Return the tables of what the steps found, by name."""
    comparisons = found.get("comparisons", {})
    tables = {
        name: table
        for one in comparisons.values()
        for name, table in one.tables().items()
    }
    if any(len(one.groups) > 1 for one in comparisons.values()):
        tables["similarity_by_group"] = group_means(comparisons)
    if "accuracy_by_class" in found:
        tables["accuracy_by_class"] = found["accuracy_by_class"]
    tables |= {
        f"own_part_{name}": table
        for name, table in found.get("own_part_tables", {}).items()
    }
    if apart is not None and comparisons:
        tables["domain_apart_over_depth"] = apart_over_depth(
            comparisons["node_overlap"], apart
        )
        tables |= {
            f"{name}_without": means_without(one, apart)
            for name, one in comparisons.items()
        }
    if len(found.get("stability", ())):
        tables["circuit_stability"] = found["stability"]
    tables |= {
        name: found[name]
        for name in ("accuracy", "transfer", "interchange")
        if name in found
    }
    rankings = list(dict.fromkeys(curve.ranking for curve in found.get("curves", ())))
    for measure in CURVE_MEASURES:
        name = measure.replace(" ", "_")
        for ranking in rankings:
            curves = [curve for curve in found["curves"] if curve.ranking == ranking]
            tables[f"{name}_{ranking}" if len(rankings) > 1 else name] = (
                curves_by_domain(curves, measure)
            )
        if "one_site" in found:
            tables[f"{name}_one_site"] = curves_by_domain(found["one_site"], measure)
    if "transfer" in found:
        transfer, similarity = found["transfer"], found["similarity"]
        tables |= {
            "matrices": transfer_matrices(transfer),
            "edge_jaccard_matrix": similarity.rename_axis(index="domain").reset_index(),
            "correlations": transfer_correlations(transfer, similarity),
        }
        if (transfer["sites"] != "all").any():
            tables["selectivity_over_depth"] = transfer_over_depth(
                transfer, transfer_value(transfer)
            )
    if "attribution" in found:
        check = found["attribution"][1]
        tables |= {
            "attribution_against_patching": check.points,
            "scores_across_sites": check.across_sites(),
        }
    return tables


def without_cells(
    table: pd.DataFrame, cells: Sequence[Key], *columns: str
) -> pd.DataFrame:
    """Return a table without the rows of some classes in domains, named by columns such as ``class domain``."""
    for pair in columns:
        table = table[~pd.MultiIndex.from_frame(table[pair.split()]).isin(cells)]
    return table
