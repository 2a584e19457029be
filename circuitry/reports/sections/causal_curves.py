"""The sections on faithfulness and selectivity: curves over the size of the circuit, and site by site."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from circuitry.interventions.curve_reading import CURVE_MEASURES, NO_OTHERS
from circuitry.interventions.curves import (
    FaithfulnessCurve,
    areas_by_domain,
    curves_by_domain,
    mean_over_depth,
    most_selective_site,
    nearest_to_a_tenth,
    pool_curves,
)
from circuitry.interventions.verdicts import OPEN, RIGHT, VERDICTS, WORKING, describe_leak, verdict_of, why_open
from circuitry.reports.figures.lines import faithfulness_curves, overlap_over_depth
from circuitry.reports.figures.style import Mark
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.compared import depth_ends, with_intervals
from circuitry.reports.sections.findings import ANOTHER_MODEL, HARDLY_ANY, NO, PARTLY, UNKNOWN, YES
from circuitry.reports.sections.one_circuit import in_cells, said_of, weights_said

QUESTIONS = {
    "selectivity": "Do the circuits tell their class from other classes?",
    "faithfulness": "Do the circuits recover the answer to their class?",
}
OVER = "over images, and over classes where there are several"
ONE_BY_ONE = "These circuits are lists of units that matter one by one."
ABOVE_ONE = "Above 1 is more than the whole model: the units outside the circuit work against it."


def faithfulness_findings(curves: Sequence[FaithfulnessCurve], alone: Sequence[FaithfulnessCurve]) -> list[Finding]:
    """Say whether circuits work: with all sites ablated, and at the most selective site.

    ``alone`` are curves of one site at a time, of one fraction.
    """
    by_size = [curve for curve in curves if curve.ranking == "absolute"]
    size = nearest_to_a_tenth(by_size[0].fractions)
    if all(map(why_open, by_size)):
        tables = {measure: curves_by_domain(by_size, measure) for measure in QUESTIONS}
        tell = _works(*_kept_and_random(tables["selectivity"], size)) in (YES, PARTLY)
        found = [kept_beats_random(table, name, size, selective=tell) for name, table in tables.items()]
    else:
        found = [circuits_work(by_size, size)]
    if alone:
        table = curves_by_domain(alone, "selectivity")
        if (site := most_selective_site(table)) is not None:
            where = f"at {site} alone, the best site"
            at = table[table["sites"] == site]
            found.append(kept_beats_random(at, "selectivity", alone[0].fractions[0], where))
    return found


def circuits_work(curves: Sequence[FaithfulnessCurve], size: float) -> Finding:
    """Count the verdicts on circuits of one size, beside what they do on average."""
    place = curves[0].fractions.index(size)
    told = [verdict_of(curve, place) for curve in curves]
    working, known = (sum(one in some for one in told) for some in (WORKING, VERDICTS[:-1]))
    answer = YES if working == known else PARTLY if working else NO
    counts = ", ".join(f"{one} {told.count(one)}" for one in VERDICTS if one in told)
    pooled = pool_curves([curve for curve, one in zip(curves, told, strict=True) if one != OPEN])
    right = pooled.to_pandas("right").query("circuit == 'kept'").iloc[place]
    return Finding(
        f"Do the circuits work? {answer}: of {len(told)} circuits with {size:.0%} of the units kept at all sites"
        f"{weights_said(pooled, place)}, {working} work ({counts}). Means: {said_of(pooled.at(place))}."
        + describe_leak(pooled)
        + f" {ONE_BY_ONE}" * (answer == NO),
        f"On unseen images. A circuit works with at least {RIGHT:.0%} of the whole model's right answers, hardly more "
        f"false ones, and half of its answers recovered. Right answers have the 95 % interval [{right['low']:.0%}, "
        f"{right['high']:.0%}] {_over(pooled.to_pandas('right'))}.",
        f"Another ablation: a few units at all sites may pass nothing on; other classes; {ANOTHER_MODEL}.",
    )


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
    if (kept["high"] < (HARDLY_ANY if apart else RIGHT)).all():
        return NO
    if apart == len(kept) and (kept["value"] >= RIGHT).all():
        return YES
    return PARTLY if apart else UNKNOWN


def add_faithfulness(report: Report, curves: Sequence[FaithfulnessCurve], marks: Mapping[str, Mark]) -> None:
    """Add the section on faithfulness and selectivity; curves with all sites ablated together."""
    report.section("Do the circuits work?")
    first, n_others = curves[0], int((~curves[0].own).sum())
    by_size = [curve for curve in curves if curve.ranking == "absolute"]
    tables = {name: curves_by_domain(by_size, name) for name in CURVE_MEASURES}
    size = nearest_to_a_tenth(first.fractions)
    if not all(map(why_open, by_size)):
        place = first.fractions.index(size)
        told = [(curve.class_name, curve.domain, verdict_of(curve, place)) for curve in by_size]
        verdicts = pd.DataFrame(told, columns=["class", "domain", "verdict"])
        report.table(
            verdicts.pivot_table("verdict", "class", "domain", aggfunc="first", sort=False).reset_index(),
            "The verdict on each circuit; its size is in the table below.",
        )
        _add_curves(
            report,
            tables["kl recovered"],
            "kl recovered",
            marks,
            "Answers recovered over size: 1 - KL(whole model || circuit) / KL(whole model || nothing kept) of the "
            "answers among the candidate classes, images of the class and of others alike.",
        )
    if n_others:
        _add_curves(
            report,
            tables["selectivity"],
            "selectivity",
            marks,
            "Selectivity over size: the lead of images of the class over images of other classes "
            f"({n_others} per class and domain). 0: the same answer for all images; 1: the lead in the whole model.",
        )
    _add_curves(
        report,
        tables["faithfulness"],
        "faithfulness",
        marks,
        "Faithfulness over size. Only the circuit's units are active, at all sites at once; the others are at the "
        f"{first.settings['baseline']} baseline. 0: nothing kept; 1: the whole model. Dotted: as many random units. "
        f"{int(first.own.sum())} images per class and domain; bars: 95 % bootstrap intervals {OVER}.",
    )
    at = pd.concat([table[(table["fraction"] == size) & (table["reason"] == "")] for table in tables.values()])
    if len(at):
        cells = in_cells(at, ["domain", "measure"])
        cells.insert(1, "units kept", f"{size:.0%}")
        report.table(
            cells,
            f"Circuits of the largest |scores|, with 95 % bootstrap intervals {OVER}. right, false: images of "
            "the class, and others, that get the class among all candidates.",
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
