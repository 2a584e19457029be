"""The sections on faithfulness and selectivity of circuits.

For curves over the size of the circuit, units outside the circuit are ablated at all sites together. For a further
figure over the sites, they are ablated at one site at a time.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from circuitry.comparison.one_site_reading import mean_over_depth, most_selective_site
from circuitry.interventions.curve_reading import CURVE_MEASURES
from circuitry.interventions.curves import (
    FaithfulnessCurve,
    areas_by_domain,
    curves_by_domain,
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
from circuitry.reports.sections.one_circuit import (
    in_cells,
    values_in_words,
)
from circuitry.runs.errors import name_some

OVER = "over images, and over classes where there are several"
ONE_BY_ONE = "These circuits are lists of units that matter one by one."
ABOVE_ONE = "Above 1 is more than the whole model: the units outside the circuit work against it."


def faithfulness_findings(
    curves: Sequence[FaithfulnessCurve], alone: Sequence[FaithfulnessCurve]
) -> list[Finding]:
    """Return the findings on whether circuits work.

    In the first finding, units outside the circuit are ablated at all sites. In the second, they are ablated only at
    the site at which circuits are most selective.

    Args:
        curves: Curves with all sites ablated together.
        alone: Curves with one site ablated at a time, all at one size. If empty, there is no second finding.
    """
    # Circuits are cut by absolute score; curves of other rankings are for comparison.
    by_size = [curve for curve in curves if curve.ranking == "absolute"]
    findings = [circuits_work(by_size, by_size[0].size)]
    if alone:
        site = most_selective_site(curves_by_domain(alone, "selectivity"))
        at_site = [curve for curve in alone if curve.settings["sites"] == [site]]
        if at_site:
            where = f"at {site} alone, the best site"
            findings.append(circuits_work(at_site, at_site[0].sizes[0], where))
    return findings


def circuits_work(
    curves: Sequence[FaithfulnessCurve], size: float, where: str = "at all sites"
) -> Finding:
    """Return the finding on whether circuits of one size work.

    The finding says how many circuits have each verdict. It also gives means over the circuits whose verdict is known,
    or over all circuits if no verdict is known.

    Args:
        size: Share of the units that the circuits keep; one of the sizes of the curves.
        where: Phrase that names the sites at which units are kept and ablated.
    """
    place = curves[0].sizes.index(size)
    verdicts = pd.Series([verdict_of(curve, place) for curve in curves])
    known = []
    for curve, verdict in zip(curves, verdicts, strict=True):
        if verdict != OPEN:
            known.append(curve)
    # If no verdict is known, the finding gives the means of all circuits.
    pooled = pool_curves(known or curves)
    values = pooled.at(place)
    size_said = f"{size:.0%} of the units kept {where}"
    change = f"Another ablation: a few units at all sites may pass nothing on; other classes; {ANOTHER_MODEL}."
    if not known:
        selectivity = f"selectivity {values['selectivity']['kept']:z.2f}"
        faithfulness = f"faithfulness {values['faithfulness']['kept']:z.2f}"
        return Finding(
            f"Do the circuits work? {UNKNOWN}: {why_open(curves[0])}. With {size_said}: {selectivity}, {faithfulness} "
            "(nan: not known).",
            "A circuit that gives every image the same answer may have a faithfulness of 1.",
            f"Folders of other classes, and a logit of a class as metric. {change}",
        )
    works = verdicts.isin(WORKING)
    n_working = int(works.sum())
    answer = _share_answer(n_working, len(known))
    # In the order of `VERDICTS`, so that texts of two reports can be compared.
    n_of = verdicts.value_counts()
    counted = [f"{n_of[name]}: {name}" for name in VERDICTS if name in n_of]
    counts = "; ".join(counted)
    # Circuits that do not work are named, unless no circuit works.
    idle = verdicts.index[~works & (verdicts != OPEN)]
    not_working = ""
    if n_working and len(idle):
        names = [f"{curves[i].class_name} in {curves[i].domain}" for i in idle]
        not_working = f" These do not work: {name_some(names)}."
    one_by_one = f" {ONE_BY_ONE}" if answer == NO else ""
    right = pooled.to_pandas("right").query("circuit == 'kept'").iloc[place]
    over = "classes and images" if len(known) > 1 else "images"
    return Finding(
        f"Do the circuits work? {answer}: of {len(curves)} circuits with {size_said}, {n_working} work ({counts})."
        f"{_whose(verdicts)} Means: {values_in_words(values)}.{describe_leak(pooled)}{one_by_one}",
        f"On unseen images. A circuit works with at least {RIGHT:.0%} of the whole model's right answers, hardly more "
        f"false ones, and half of its answers recovered. Right answers have the 95 % interval [{right['low']:.0%}, "
        f"{right['high']:.0%}] over {over}.{not_working}",
        change,
    )


def _share_answer(n: int, of: int) -> str:
    if n == 0:
        return NO
    return YES if n == of else PARTLY


def _whose(verdicts: "pd.Series[str]") -> str:
    """Return a sentence that says how many of the circuits that work are specific to their class.

    A circuit that works is not specific to its class if a circuit of another class also works on the same images. If
    it is unknown for every circuit whether the circuit is specific, the returned text is empty.
    """
    own = int((verdicts == OWN).sum())
    anothers = int((verdicts == AS_ANOTHERS).sum())
    # Without images of other classes nobody can tell whose circuit it is.
    if not own + anothers:
        return ""
    n = int(verdicts.isin(WORKING).sum())
    answer = _share_answer(own, n)
    return f" Are they the class's own? {answer}: {own} of {n} are; another class's would do for {anothers}."


def add_faithfulness(
    report: Report, curves: Sequence[FaithfulnessCurve], marks: Mapping[str, Mark]
) -> None:
    """Add the section on faithfulness and selectivity.

    Args:
        curves: Curves with all sites ablated together.
    """
    report.section("Do the circuits work?")
    first = curves[0]
    n_others = int((~first.own).sum())
    by_size = [curve for curve in curves if curve.ranking == "absolute"]
    tables = {name: curves_by_domain(by_size, name) for name in CURVE_MEASURES}
    size = first.size
    if not all(map(why_open, by_size)):
        place = first.sizes.index(size)
        verdicts = pd.DataFrame(
            {
                "class": [curve.class_name for curve in by_size],
                "domain": [curve.domain for curve in by_size],
                "verdict": [verdict_of(curve, place) for curve in by_size],
            }
        )
        wide = verdicts.pivot_table(
            "verdict", "class", "domain", aggfunc="first", sort=False
        )
        report.table(
            wide.reset_index(),
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
        if table["value"].isna().all():
            report.text(f"There is no {measure}: {table['reason'].iloc[0]}.")
            continue
        if (table["value"] > 1).any():
            caption = f"{caption} {ABOVE_ONE}"
        figure = faithfulness_curves(table, measure=measure, marks=marks)
        report.figure(figure, caption)
    # A row that has a reason has no value: the reason says why it is unknown.
    every = pd.concat(tables.values())
    of_size = every[every["fraction"] == size]
    if (of_size["reason"] == "").any():
        cells = in_cells(of_size, ["domain", "measure"])
        cells.insert(1, "units kept", f"{size:.0%}")
        report.table(
            cells,
            f"Circuits as large as they were found, with 95 % bootstrap intervals {OVER}. right, false: images of "
            "the class, and others, that get the class among all candidates.",
        )
    areas = areas_by_domain(curves)
    kept = areas["circuit"] == "kept"
    circuits = (" (" + areas["ranking"] + ")").where(kept, ", random")
    # Random units have no interval worth showing: without its low end only the value is written.
    areas = areas.assign(
        column=areas["measure"] + circuits,
        low=areas["low"].where(kept),
    )
    areas["cell"] = with_intervals(areas, "z.2f")
    wide = areas.pivot(index="domain", columns="column", values="cell")
    wide = wide[areas["column"].unique()].rename_axis(columns=None)
    report.table(
        wide.reset_index(),
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
    """Add the figure of the selectivity of circuits at each site: one site is ablated except for the circuit's units.

    Args:
        curves: Curves with one site ablated at a time, all of one ranking of units. They are drawn at their first size.
        sites: The sites to draw, from the image to the embedding.
    """
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
        chance=mean_over_depth(table)["random"].reset_index(name="value"),
        measure="selectivity, one site ablated",
        chance_label="random units",
        title=f"Selectivity with {size:.0%} of the units kept at one site",
        marks=marks,
    )
    report.figure(
        figure,
        f"Only the circuit's units are kept at one site; all other sites stay as they are. {depth_ends(kept)}",
    )
