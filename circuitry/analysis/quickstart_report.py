"""The report of the quickstart: tables, figures, the page and the explorer."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from circuitry.analysis.quickstart_settings import QuickstartSettings
from circuitry.circuits.across_domains import COMPARED
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.comparison.comparison import Comparison
from circuitry.data.domains import DomainFolder
from circuitry.data.drawn.drawing import STYLES, TOY_CLASSES
from circuitry.interventions.curves import FaithfulnessCurve, curves_by_domain
from circuitry.interventions.effects import AttributionCheck
from circuitry.reports.figures.style import Mark, domain_marks
from circuitry.reports.listings import listings_of
from circuitry.reports.page import Report, Written, write_results
from circuitry.reports.sections.accuracies import add_accuracy
from circuitry.reports.sections.causal_curves import add_faithfulness, faithfulness_findings
from circuitry.reports.sections.circuits import circuit_findings, comparison_report
from circuitry.reports.sections.score_checks import add_attribution_check, add_pixels
from circuitry.reports.sections.transfers import add_transfer

SMALL_TABLES = (
    "accuracy",
    "chance_node_overlap",
    "node_overlap_over_depth",
    "node_overlap_ceiling_by_site",
    *(
        f"{measure}_{what}"
        for measure in COMPARED
        for what in ("matrix", "summary", "paired_tests", "ratios", "levels", "class_by_domain")
    ),
)
"""Tables that are small enough to be committed."""
FEW_IMAGES = 10
"""With fewer images a circuit, the report says what they cannot tell."""
CHECKED = ("fish", "real")
"""Class and style whose scores are set beside exact patching, and whose pixels are shown."""


class Checked(NamedTuple):
    """What the causal checks found."""

    transfer: pd.DataFrame
    attribution: AttributionCheck
    shown: np.ndarray
    maps: dict[str, np.ndarray]


class Explored(NamedTuple):
    """What the explorer was written of."""

    comparisons: dict[str, Comparison]
    curves: list[FaithfulnessCurve]
    page: str
    """Where it is, and how large."""


def write_report(
    config: QuickstartSettings,
    subject: tuple[str, GraphFolder, DomainFolder],
    accuracy: pd.DataFrame,
    explored: Explored,
    checked: Checked,
) -> Written:
    """Write tables, figures and the report of a model's circuits, and say where they are."""
    (model, graphs, images), (comparisons, curves, page) = subject, explored
    held_out = [name for name in images.classes if name in config.held_out]

    def add_answers(report: Report, marks: Mapping[str, Mark]) -> None:
        add_accuracy(report, accuracy, marks, test_domain=config.test_domain)
        add_faithfulness(report, curves, marks)

    report = comparison_report(
        "Are the circuits of a small CLIP shared between styles?",
        f"A tiny CLIP was trained on drawn images of {len(TOY_CLASSES)} things in {len(STYLES)} styles; "
        f"{', '.join(config.held_out)} were left out of its {config.test_domain} images. For {len(images.classes)} "
        "classes the circuit that recognises it in each style was found by attribution. Circuits were compared between "
        "styles, and tested by taking everything else out of the model, on images that they were not found on. "
        + few(config),
        comparisons,
        graphs,
        images,
        (held_out[0], "real", config.test_domain),
        after_images=add_answers,
    )
    report.summary([*faithfulness_findings(curves, []), *circuit_findings(comparisons)])
    marks = domain_marks(images.domains)
    sites = comparisons["node_overlap"].sites
    add_transfer(report, checked.transfer, comparisons["edge_jaccard"].matrix(), marks, sites)
    add_attribution_check(report, checked.attribution, sites, " in ".join(CHECKED))
    names = [f"{CHECKED[1]} {i + 1}" for i in range(len(checked.shown))]
    add_pixels(report, checked.shown, checked.maps, names, CHECKED[0])
    tables = {name: table for comparison in comparisons.values() for name, table in comparison.tables().items()} | {
        "accuracy": accuracy,
        "faithfulness": curves_by_domain(curves),
        "selectivity": curves_by_domain(curves, "selectivity"),
        "transfer": checked.transfer,
        "attribution_against_patching": checked.attribution.points,
    }
    provenance = {"model": model, **graphs.settings, **graphs.manifest["versions"]}
    small = [name for name in SMALL_TABLES if name in tables]  # ceilings take two images of a class and style
    looked_at = listings_of(images, config.n_images, config.seed)
    print(page)
    in_parts = config.n_images > 1
    matrix = comparisons["edge_jaccard"].matrix(normalise=in_parts).to_string(float_format="{:.2f}".format)
    print(f"edges that two styles share{', as a share of the ceiling' if in_parts else ''}:\n{matrix}")
    print(few(config))
    return write_results(report, tables, config.folder, config.results, provenance, small, looked_at, comparisons)


def few(config: QuickstartSettings) -> str:
    """Return what the number of images cannot tell, or nothing where there are enough."""
    if config.n_images >= FEW_IMAGES:
        return ""
    return (
        f"Circuits were found on {config.n_images} images a class and style: small differences between styles, and "
        "their order, cannot be told from chance. One model was looked at, so nothing here is about models in general. "
        "More images: --n-images 14."
    )
