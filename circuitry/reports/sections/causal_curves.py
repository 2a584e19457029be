"""The sections on faithfulness and selectivity: curves over the size of the circuit, and site by site."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from circuitry.interventions.curve_reading import NO_OTHERS
from circuitry.interventions.curves import (
    HARDLY_ANY,
    FaithfulnessCurve,
    areas_by_domain,
    curves_by_domain,
    mean_over_depth,
    most_selective_site,
    nearest_to_a_tenth,
)
from circuitry.reports.figures.lines import faithfulness_curves, overlap_over_depth
from circuitry.reports.figures.style import Mark
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.compared import depth_ends, with_intervals
from circuitry.reports.sections.findings import ANOTHER_MODEL, NO, PARTLY, UNKNOWN, WORKS_FROM, YES
from circuitry.reports.sections.one_circuit import KINDS_OF_CIRCUITS

QUESTIONS = {
    "selectivity": "Do the circuits tell their class from other classes?",
    "faithfulness": "Do the circuits recover the answer to their class?",
}
OVER = "over images, and over classes where there are several"
ONE_BY_ONE = "These circuits are lists of units that matter one by one."
ABOVE_ONE = "Above 1 is more than the whole model: the units outside the circuit work against it."


def faithfulness_findings(curves: Sequence[FaithfulnessCurve], alone: Sequence[FaithfulnessCurve]) -> list[Finding]:
    """Say whether circuits work, beside random units: with all sites ablated, and at the most selective site.

    ``alone`` are curves of one site at a time, of one fraction.
    """
    by_size = [curve for curve in curves if curve.ranking == "absolute"]
    size = nearest_to_a_tenth(by_size[0].fractions)
    selective, faithful = (curves_by_domain(by_size, measure) for measure in QUESTIONS)
    tell = _works(*_kept_and_random(selective, size)) in (YES, PARTLY)
    found = [
        kept_beats_random(selective, "selectivity", size),
        kept_beats_random(faithful, "faithfulness", size, selective=tell),
    ]
    if alone:
        table = curves_by_domain(alone, "selectivity")
        if (site := most_selective_site(table)) is not None:
            where = f"at {site} alone, the best site"
            at = table[table["sites"] == site]
            found.append(kept_beats_random(at, "selectivity", alone[0].fractions[0], where))
    return found


def kept_beats_random(
    curves: pd.DataFrame, measure: str, size: float, where: str = "at all sites", selective: bool = True
) -> Finding:
    """Say whether circuits of one size work, and in how many domains better than random units: `curves_by_domain`.

    Unless they are known to be ``selective``, faithfulness tells nothing more than No.
    """
    kept, random = _kept_and_random(curves, size)
    if kept["value"].isna().all():
        reason, change = curves["reason"].iloc[0], f"A model that does better on these images; {ANOTHER_MODEL}."
        return Finding(
            f"{QUESTIONS[measure]} {UNKNOWN}: {reason}.",
            f"There is no {measure} to measure.",
            "Folders of other classes." if reason == NO_OTHERS else change,
        )
    by_domain = " by domain" if len(kept) > 1 else ""
    told = _works(kept, random)
    deaf = measure == "selectivity" and told == NO
    if not selective and told != NO:
        told = f"{UNKNOWN}, since a circuit that gives every image the same answer may reach this"
    return Finding(
        f"{QUESTIONS[measure]} {told}: with {size:.0%} of the units kept {where}, they reach a "
        f"{measure} of {_ends(kept)}{by_domain}, random units {_ends(random)}." + f" {ONE_BY_ONE}" * deaf,
        f"In {_n_apart(kept, random)} of {len(kept)} domains the 95 % interval {_over(curves)} lies above that of "
        f"random units; 1 is the whole model." + f" {ABOVE_ONE}" * bool((kept["value"] > 1).any()),
        f"Another ablation: a few units at all sites may pass nothing on; other classes; {ANOTHER_MODEL}.",
    )


def _kept_and_random(curves: pd.DataFrame, size: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    at = curves[(curves["fraction"] == size)].set_index(["domain", "circuit"])[["value", "low", "high"]]
    kept, random = (pd.DataFrame(at.xs(name, level="circuit")) for name in ("kept", "random"))
    return kept, random


def _over(curves: pd.DataFrame) -> str:
    """Say what intervals are over; the table names a class where there is a single one."""
    return "over classes and images" if curves["class"].isna().all() else OVER


def _ends(table: pd.DataFrame) -> str:
    low, high = table["value"].min(), table["value"].max()
    return f"{low:z.2f}" if len(table) < 2 else f"{low:z.2f} to {high:z.2f}"


def _n_apart(kept: pd.DataFrame, random: pd.DataFrame) -> int:
    """Count the domains in which circuits lie above random units, to the two digits that are printed."""
    return int((kept["low"].round(2) > random["high"].round(2)).sum())


def _works(kept: pd.DataFrame, random: pd.DataFrame) -> str:
    """Answer whether circuits work: in every domain enough, and better than random units, which they are in some."""
    apart = _n_apart(kept, random)
    if (kept["high"] < (HARDLY_ANY if apart else WORKS_FROM)).all():
        return NO
    if apart == len(kept) and (kept["value"] >= WORKS_FROM).all():
        return YES
    return PARTLY if apart else UNKNOWN


def add_faithfulness(report: Report, curves: Sequence[FaithfulnessCurve], marks: Mapping[str, Mark]) -> None:
    """Add the section on faithfulness and selectivity; curves with all sites ablated together."""
    report.section("Do the circuits work?")
    first = curves[0]
    by_size = [curve for curve in curves if curve.ranking == "absolute"]
    tables = {}
    if not first.own.all():
        tables["selectivity"] = curves_by_domain(by_size, "selectivity")
        _add_curves(
            report,
            tables["selectivity"],
            "selectivity",
            marks,
            "Selectivity over size: the lead of images of the class over images of other classes "
            f"({int((~first.own).sum())} per class and domain). 0: the same answer for all images; 1: the lead in the "
            "whole model.",
        )
    tables["faithfulness"] = curves_by_domain(by_size)
    _add_curves(
        report,
        tables["faithfulness"],
        "faithfulness",
        marks,
        "Faithfulness over size. Only the circuit's units are active, at all sites at once; the others are at the "
        f"{first.settings['baseline']} baseline. 0: nothing kept; 1: the whole model. Dotted: as many random units. "
        f"{int(first.own.sum())} images per class and domain; bars: 95 % bootstrap intervals {OVER}.",
    )
    size = nearest_to_a_tenth(first.fractions)
    at = pd.concat([table[table["fraction"] == size] for table in tables.values()])
    wide = _wide(at.assign(column=at["measure"] + ", " + at["circuit"].map(KINDS_OF_CIRCUITS)))
    wide.insert(1, "units kept", size)
    report.table(
        wide, f"Circuits of the largest |scores|, with 95 % bootstrap intervals {OVER}.", formats={"units kept": ".0%"}
    )
    areas = areas_by_domain(curves)
    kept = areas["circuit"] == "kept"
    columns = areas["measure"] + np.where(kept, " (" + areas["ranking"] + ")", ", random")
    report.table(
        _wide(areas.assign(column=columns, low=areas["low"].where(kept))),
        f"Areas under the curves (MIB), with 95 % bootstrap intervals {OVER}, and those of random units. CMD, the "
        "area of |1 - faithfulness|: 0 is best; CPR: the area under faithfulness.",
        folded=True,
    )


def _add_curves(report: Report, curves: pd.DataFrame, measure: str, marks: Mapping[str, Mark], caption: str) -> None:
    """Draw the curves, or say why there are none."""
    if curves["value"].notna().any():
        above = f" {ABOVE_ONE}" if (curves["value"] > 1).any() else ""
        report.figure(faithfulness_curves(curves, measure=measure, marks=marks), caption + above)
    else:
        report.text(f"There is no {measure}: {curves['reason'].iloc[0]}.")


def _wide(table: pd.DataFrame) -> pd.DataFrame:
    """Return values with their intervals by domain, a column for each name in ``column``, in their order."""
    wide = table.assign(cell=with_intervals(table, "z.2f")).pivot(index="domain", columns="column", values="cell")
    return wide[list(dict.fromkeys(table["column"]))].rename_axis(columns=None).reset_index()


def add_selectivity_over_depth(
    report: Report, curves: Sequence[FaithfulnessCurve], marks: Mapping[str, Mark], sites: Sequence[str]
) -> None:
    """Add the figure on circuits kept at one site at a time; curves of one ranking, drawn at their first fraction."""
    size = curves[0].fractions[0]
    table = curves_by_domain(curves, "selectivity").query("fraction == @size")
    kept = table[table["circuit"] == "kept"].rename(columns={"sites": "site"})
    if kept["value"].isna().all():
        report.text(
            "Selectivity with one site ablated is not known: the model gives images of these classes no lead over "
            "images of other classes."
        )
        return
    figure = overlap_over_depth(
        kept,
        sites,
        chance=mean_over_depth(table)["random"].rename("value").reset_index(),
        measure="selectivity, one site ablated",
        chance_label="random units",
        title=f"Selectivity with {size:.0%} of the units kept at one site",
        marks=marks,
    )
    report.figure(
        figure, f"Only the circuit's units are kept at one site; all other sites stay as they are. {depth_ends(kept)}"
    )
