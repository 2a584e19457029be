"""The sections that check attribution: against exact effects, by rule, and down to the pixels."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from circuitry.interventions.effects import AttributionCheck, map_agreement, mean_correlations
from circuitry.reports.figures.pictures import pixel_maps
from circuitry.reports.figures.scatters import attribution_against_patching
from circuitry.reports.figures.style import faint
from circuitry.reports.page import Report


def add_attribution_check(report: Report, check: AttributionCheck, sites: Sequence[str], what: str) -> None:
    """Add the section that sets attributed scores beside exact effects; ``what`` names the circuit."""
    report.section("Do scores equal the effect of removing a unit?")
    table = check.to_pandas()
    random = table[(table["sample"] == "random") & table["site"].isin(sites)].dropna(subset="spearman")
    rho = random.set_index("site")["spearman"]
    report.figure(
        attribution_against_patching(check.points, sites, table),
        f"{what}: attributed score and exact effect of moving a unit to the baseline, for the units with the largest "
        "scores (filled) and a random sample (hollow); they agree on the line. Rank correlation in the random sample: "
        f"{rho.min():.2f} ({rho.idxmin()}) to {rho.max():.2f} ({rho.idxmax()}).",
    )
    report.table(
        check.across_sites(),
        "Can scores of different sites be compared, as a global budget does? Exact effect per score in the random "
        "sample (alike everywhere if so), and where the strongest fifth of its units is, by score and by exact effect.",
    )


def add_rules(report: Report, rules: pd.DataFrame) -> None:
    """Add the section on which rule to trust; ``rules`` are from `compare_rules`, of several circuits."""
    report.section("Which rule should one trust?")
    report.table(
        mean_correlations(rules),
        "Correlation of node scores with exact patching of every unit, mean over sites and circuits.",
    )


def add_pixels(
    report: Report, images: np.ndarray, maps: Mapping[str, np.ndarray], names: Sequence[str], class_name: str
) -> None:
    """Add the section that shows which pixels raise the class's metric; the first map is the whole model's."""
    report.section(f"What do the circuits look at? {class_name}")
    agreement = map_agreement(maps)
    titles = {title: f"{title}<br>{faint(f'r {r:+.2f}')}" for title, r in agreement.items()}
    report.figure(
        pixel_maps(images, {titles.get(title, title): one for title, one in maps.items()}, names=names),
        "Pixel attributions (captum's integrated gradients from a blank image). Blue: for the class or unit; orange: "
        "against it; each map has its own scale. r: correlation with the whole model's map.",
    )
