"""The sections on faithfulness and selectivity: curves over the size of the circuit, and site by site."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from circuitry.interventions.curve_reading import CURVE_MEASURES
from circuitry.interventions.curves import (
    FaithfulnessCurve,
    areas_by_domain,
    curves_by_domain,
    mean_over_depth,
    most_selective_site,
    pool_curves,
)
from circuitry.interventions.verdicts import (
    AS_ANOTHERS,
    OPEN,
    OWN,
    RIGHT,
    VERDICTS,
    WORKING,
    describe_leak,
    verdict_of,
    why_open,
)
from circuitry.reports.figures.lines import faithfulness_curves, overlap_over_depth
from circuitry.reports.figures.style import Mark
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.compared import depth_ends, with_intervals
from circuitry.reports.sections.findings import ANOTHER_MODEL, NO, PARTLY, UNKNOWN, YES
from circuitry.reports.sections.one_circuit import in_cells, said_of, weights_said
from circuitry.runs.errors import name_some

OVER = "over images, and over classes where there are several"
ONE_BY_ONE = "These circuits are lists of units that matter one by one."
ABOVE_ONE = "Above 1 is more than the whole model: the units outside the circuit work against it."


def faithfulness_findings(
    curves: Sequence[FaithfulnessCurve], alone: Sequence[FaithfulnessCurve]
) -> list[Finding]:
    """Say whether circuits work: with all sites ablated, and at the most selective site.

    ``alone`` are curves of one site at a time, of one size.
    """
    by_size = [curve for curve in curves if curve.ranking == "absolute"]
    found = [circuits_work(by_size, by_size[0].size)]
    if alone:
        site = most_selective_site(curves_by_domain(alone, "selectivity"))
        if there := [curve for curve in alone if curve.settings["sites"] == [site]]:
            found.append(
                circuits_work(
                    there, there[0].sizes[0], f"at {site} alone, the best site"
                )
            )
    return found


def circuits_work(
    curves: Sequence[FaithfulnessCurve], size: float, where: str = "at all sites"
) -> Finding:
    """Count the verdicts on circuits of one size, beside what they do on average."""
    place = curves[0].sizes.index(size)
    told = [verdict_of(curve, place) for curve in curves]
    known = [curve for curve, one in zip(curves, told, strict=True) if one != OPEN]
    pooled = pool_curves(known or curves)
    kept, values = (
        f"{size:.0%} of the units kept {where}{weights_said(pooled, place)}",
        pooled.at(place),
    )
    change = f"Another ablation: a few units at all sites may pass nothing on; other classes; {ANOTHER_MODEL}."
    if not known:
        both = (
            f"{name} {values[name]['kept']:z.2f}"
            for name in ("selectivity", "faithfulness")
        )
        return Finding(
            f"Do the circuits work? {UNKNOWN}: {why_open(curves[0])}. With {kept}: {', '.join(both)} (nan: not known).",
            "A circuit that gives every image the same answer may have a faithfulness of 1.",
            f"Folders of other classes, and a logit of a class as metric. {change}",
        )
    working = sum(one in WORKING for one in told)
    answer = YES if working == len(known) else PARTLY if working else NO
    counts = "; ".join(f"{told.count(one)}: {one}" for one in VERDICTS if one in told)
    idle = [
        curve
        for curve, one in zip(curves, told, strict=True)
        if one not in (*WORKING, OPEN)
    ]
    named = name_some([f"{curve.class_name} in {curve.domain}" for curve in idle])
    not_working = f" These do not work: {named}." if working and idle else ""
    right = pooled.to_pandas("right").query("circuit == 'kept'").iloc[place]
    over = "classes and images" if len(known) > 1 else "images"
    return Finding(
        f"Do the circuits work? {answer}: of {len(told)} circuits with {kept}, {working} work ({counts})."
        f"{_whose(told)} Means: {said_of(values)}.{describe_leak(pooled)}"
        + f" {ONE_BY_ONE}"
        * (answer == NO),
        f"On unseen images. A circuit works with at least {RIGHT:.0%} of the whole model's right answers, hardly more "
        f"false ones, and half of its answers recovered. Right answers have the 95 % interval [{right['low']:.0%}, "
        f"{right['high']:.0%}] over {over}.{not_working}",
        change,
    )


def _whose(told: Sequence[str]) -> str:
    """Say how many of the circuits that work are the class's own, where that can be told of some."""
    own, anothers, n = (
        told.count(OWN),
        told.count(AS_ANOTHERS),
        sum(one in WORKING for one in told),
    )
    if not own + anothers:
        return ""
    answer = YES if own == n else PARTLY if own else NO
    return f" Are they the class's own? {answer}: {own} of {n} are; another class's would do for {anothers}."


def add_faithfulness(
    report: Report, curves: Sequence[FaithfulnessCurve], marks: Mapping[str, Mark]
) -> None:
    """Add the section on faithfulness and selectivity; curves with all sites ablated together."""
    report.section("Do the circuits work?")
    first, n_others = curves[0], int((~curves[0].own).sum())
    by_size = [curve for curve in curves if curve.ranking == "absolute"]
    tables = {name: curves_by_domain(by_size, name) for name in CURVE_MEASURES}
    size = first.size
    if not all(map(why_open, by_size)):
        place = first.sizes.index(size)
        told = [
            (curve.class_name, curve.domain, verdict_of(curve, place))
            for curve in by_size
        ]
        verdicts = pd.DataFrame(told, columns=["class", "domain", "verdict"])
        report.table(
            verdicts.pivot_table(
                "verdict", "class", "domain", aggfunc="first", sort=False
            ).reset_index(),
            "The verdict on each circuit; its size is in the table below.",
        )
    captions = {
        "kl recovered": "Answers recovered over size: 1 - KL(whole model || circuit) / KL(whole model || nothing "
        "kept) of answers among the candidate classes; images of the class and of others count alike.",
        "selectivity": "Selectivity over size: the lead of images of the class over images of other classes "
        f"({n_others} per class and domain). 0: the same answer for all images; 1: the lead in the whole model.",
        "faithfulness": "Faithfulness over size. Only the circuit's units are active, at all sites at once; the others "
        f"are at the {first.settings['baseline']} baseline. 0: nothing kept; 1: the whole model. Dotted: as many "
        f"random units. {int(first.own.sum())} images per class and domain; bars: 95 % bootstrap intervals {OVER}.",
    }
    for measure, caption in captions.items():
        table = tables[measure]
        if table["value"].notna().any():
            above = f" {ABOVE_ONE}" if (table["value"] > 1).any() else ""
            report.figure(
                faithfulness_curves(table, measure=measure, marks=marks),
                caption + above,
            )
        else:
            report.text(f"There is no {measure}: {table['reason'].iloc[0]}.")
    at = pd.concat([table[table["fraction"] == size] for table in tables.values()])
    if (at["reason"] == "").any():
        cells = in_cells(at, ["domain", "measure"])
        cells.insert(1, "units kept", f"{size:.0%}")
        report.table(
            cells,
            f"Circuits as large as they were found, with 95 % bootstrap intervals {OVER}. right, false: images of "
            "the class, and others, that get the class among all candidates.",
        )
    areas = areas_by_domain(curves)
    kept = areas["circuit"] == "kept"
    columns = areas["measure"] + np.where(
        kept, " (" + areas["ranking"] + ")", ", random"
    )
    areas = areas.assign(column=columns, low=areas["low"].where(kept))
    wide = areas.assign(cell=with_intervals(areas, "z.2f")).pivot(
        index="domain", columns="column", values="cell"
    )
    report.table(
        wide[list(dict.fromkeys(columns))].rename_axis(columns=None).reset_index(),
        f"Areas under the curves (MIB), with 95 % bootstrap intervals {OVER}, and those of random units. CMD, the "
        "area of |1 - faithfulness|: 0 is best; CPR: the area under faithfulness.",
        folded=True,
    )


def add_selectivity_over_depth(
    report: Report,
    curves: Sequence[FaithfulnessCurve],
    marks: Mapping[str, Mark],
    sites: Sequence[str],
) -> None:
    """Add the figure on circuits kept at one site at a time; curves of one ranking, drawn at their first size."""
    size = curves[0].sizes[0]
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
        figure,
        f"Only the circuit's units are kept at one site; all other sites stay as they are. {depth_ends(kept)}",
    )
