"""The sections and findings on own parts.

An own part is a set of units that the model needs to recognise a class, and does not need for other classes. A lesion
ablates an own part. A style is a domain. Three questions are answered: What does the model lose of the class of a part
after the lesion, and what of other classes? Is the part of a class the same in two styles? In which layers are parts?
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from circuitry.comparison.lesion_reading import (
    BY_STYLE,
    EVERYWHERE,
    FALL,
    KNOWN,
    NEAR,
    OTHER_STYLE,
    OTHERS,
    OWN,
    OWN_STYLE,
    RANK,
    REFIT,
    REFIT_AUC,
    RIGHT,
    TAKEN,
    LossMeasure,
    known_cells,
    lesion_matrix,
    summary_of_measures,
    told_share,
)
from circuitry.comparison.overlap_reading import overlap_by_styles, overlap_summary
from circuitry.comparison.own_part_verdicts import (
    OTHER_PARTS,
    OVERLAPPING,
    SAME_PART,
    SELECTIVE,
    depths_of_loss,
    style_verdicts,
    transfers,
)
from circuitry.comparison.statistics import mean_interval, ratio_interval
from circuitry.reports.figures.heatmaps import similarity_heatmap
from circuitry.reports.figures.lines import lesion_lines
from circuitry.reports.figures.style import capitalised, domain_marks
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.compared import with_intervals
from circuitry.reports.sections.findings import ANOTHER_MODEL, NO, PARTLY, UNKNOWN, YES
from circuitry.runs.errors import InputError

Cells = Mapping[Hashable, Mapping[Hashable, Any]]
"""Rows of a `summary_of_measures`, by their values in the columns measure, styles, cut and answers."""
DRAWN = {
    FALL: "what the log-odds of a class lose",
    RIGHT: "the share of right answers that is left",
}
"""Measures that charts show, with their meaning."""
_LINES = {
    (OWN_STYLE, "part", OWN): "own class, style that found the part",
    (OTHER_STYLE, "part", OWN): "own class, other styles",
    (OWN_STYLE, "part", OTHERS): "other classes",
    (OWN_STYLE, "random", OWN): "own class, as many random units",
}


def own_part_tables(
    lesions: pd.DataFrame, overlaps: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Return the tables of a report on own parts, by name.

    Args:
        lesions: Table from `lesion`, with two further columns: ``share`` (the size of a part, as a share of all units)
            and ``sites`` (where units of a part may lie).
        overlaps: Table from `part_overlaps`, with the same two further columns.

    Returns:
        Dictionary of tables. Parts of several sizes are tested. Most tables are of the size at which a report gives its
        results (`told_share`). All tables except lesions, overlaps and by_depth are of parts whose units may lie at any
        site.

        - lesions, overlaps: the arguments, unchanged;
        - told: the lesions of parts of this size;
        - depths: `depths_of_loss` of ``told``;
        - by_share: `summary_of_measures` for every size;
        - by_style: `summary_of_measures` of ``told``, by the styles of parts and images;
        - by_class: `summary_of_measures` of ``told``, by class and styles, without intervals;
        - by_depth: `summary_of_measures` for the largest size, by the sites where units may lie;
        - overlap: `overlap_summary` of parts of this size;
        - transfers: `transfers` of parts of this size;
        - overlap_by_styles: `overlap_by_styles` of parts of this size;
        - verdicts: `style_verdicts` on parts of this size.

    Raises:
        InputError: if the model does not know any of the classes, because then no lesion can take a class.
    """
    if known_cells(lesions).empty:
        raise InputError(
            f"The model gives no class {KNOWN:.0%} of the images that test the parts, so none can be lost: give "
            "classes that it knows, or more images."
        )
    share = told_share(lesions)
    everywhere = lesions[lesions["sites"] == EVERYWHERE]
    told = everywhere[everywhere["share"] == share]
    # The overlaps are taken at the same share and the same sites as the lesions in ``told``.
    alike = overlaps[(overlaps["share"] == share) & (overlaps["sites"] == EVERYWHERE)]
    largest = lesions[lesions["share"] == lesions["share"].max()]
    by_class = summary_of_measures(told, ("part_class", *BY_STYLE))
    return {
        "lesions": lesions,
        "overlaps": overlaps,
        "told": told,
        "depths": depths_of_loss(told),
        "by_share": summary_of_measures(everywhere, ("share", "styles")),
        "by_style": summary_of_measures(told, BY_STYLE),
        "by_class": by_class.drop(columns=["low", "high", "n_classes"]),
        "by_depth": summary_of_measures(largest, ("sites", "styles")),
        "overlap": overlap_summary(alike),
        "overlap_by_styles": overlap_by_styles(alike),
        "transfers": transfers(everywhere, share),
        "verdicts": style_verdicts(everywhere, alike, share),
    }


def own_part_findings(tables: dict[str, pd.DataFrame]) -> list[Finding]:
    """Return the findings on own parts.

    Args:
        tables: From `own_part_tables`.
    """
    share = float(tables["told"]["share"].iloc[0])
    cells = _cells(tables["by_share"][tables["by_share"]["share"] == share])
    findings = [_own_part(cells, tables, share)]
    if len(tables["verdicts"]):
        findings.append(_across_styles(tables))
    if tables["by_depth"]["sites"].nunique() > 1:
        findings.append(_over_depth(tables["by_depth"]))
    return findings


def _cells(summary: pd.DataFrame) -> Cells:
    """Return a dictionary from (measure, styles, cut, answers) to the row of a summary with these values.

    Each row is a dictionary of the other columns. The new entry ``said`` has the value and the interval as a text.
    """
    table = summary.assign(said=with_intervals(summary, ".2f"))
    keys = ["measure", "styles", "cut", "answers"]
    return table.set_index(keys).to_dict("index")


def _own_part(cells: Cells, tables: dict[str, pd.DataFrame], share: float) -> Finding:
    question = "Do classes have parts of their own?"

    def of(
        measure: LossMeasure, cut: str = "part", answers: str = OWN
    ) -> Mapping[Hashable, Any] | None:
        return cells.get((measure.name, OWN_STYLE, cut, answers))

    fall = of(FALL)
    right = of(RIGHT)
    if fall is None or right is None:
        return Finding(
            f"{question} {UNKNOWN}: no class that the model knows has an image to test its part on.",
            "Parts were found, and not tested in their own style.",
            "Two images or more of each class.",
        )
    beside = list[str]()
    others_fall = 0.0
    if (others := of(FALL, answers=OTHERS)) is not None:
        others_fall = others["value"]
        beside.append(f"those of other classes by {others['said']}")
    if (near := of(FALL, answers=NEAR)) is not None:
        beside.append(f"those of the nearest among them by {near['said']}")
    random_fall = 0.0
    random_high = 0.0
    if (random := of(FALL, "random")) is not None:
        random_fall = random["value"]
        random_high = random["high"]
        beside.append(
            f"after as many random units those of the class by {random['said']}"
        )
    # Yes needs the whole interval of the fall above what other classes and random units lose.
    needed = SELECTIVE * max(others_fall, random_fall, 0.0)
    answer = PARTLY
    if fall["low"] > max(needed, random_high):
        answer = YES
    elif fall["value"] <= random_high:
        answer = NO
    # Columns that tables made by hand may lack.
    told: dict[Hashable, Any] = {
        "units": "units",
        "baseline": "baseline",
        "candidates": "the",
    }
    told |= tables["told"].iloc[0].to_dict()
    answers = f"of its right answers a class {_left(right, 'keeps', 'gains')}"
    kept_by = {OTHERS: "other classes", NEAR: "the nearest among them"}
    for kind, classes in kept_by.items():
        if (left := of(RIGHT, answers=kind)) is not None:
            answers += f", {classes} {_left(left, 'keep', 'gain')}"
    answers += f" (answers are among {told['candidates']} candidates"
    if (rank := of(RANK)) is not None:
        answers += f"; the class is then at rank {rank['said']}"
    answers += ")"
    counts = tables["depths"]["takes"].value_counts()
    takes = "; ".join(f"{n} {verdict}" for verdict, n in counts.items())
    information = ""
    if (head := of(REFIT)) is not None:
        information = f" A head that is fitted again reads {head['said']} of it."
    return Finding(
        f"{question} {answer}: with {share:.1%} of the units ({told['units']}) at their {told['baseline']} the "
        f"log-odds of a class fall by {fall['said']}, {', '.join(beside)}{_ratio(tables['depths'])}; "
        f"{answers}.{information}",
        f"What the lesions take: {takes}. On images that found no part, mean and 95 % interval over "
        f"{fall['n_classes']} classes that the model knows.",
        f"Other classes that are lost, too; random units that take as much; {ANOTHER_MODEL}.",
    )


def _ratio(depths: pd.DataFrame) -> str:
    """Return a phrase on how many times as much a class falls as other classes; empty if this cannot be told.

    Args:
        depths: From `depths_of_loss`.
    """
    falls = depths.groupby("class")[["fall", "others_fall"]].mean()
    ratio, low, high = ratio_interval(
        falls["fall"].to_numpy(dtype=float), falls["others_fall"].to_numpy(dtype=float)
    )
    if np.isnan(low):
        return ""
    times = f"{ratio:.1f} [{low:.1f}, {high:.1f}]"
    if np.isnan(ratio):
        times = f"at least {low:.1f}"
    return f" ({times} times the fall of other classes)"


def _left(row: Mapping[Hashable, Any], keep: str, gain: str) -> str:
    """Return a phrase on the share of right answers that is left after a lesion, such as "keeps 0.25 [0.10, 0.40]".

    If the share is above 1, more answers are right after the lesion than before, and the phrase says so.

    Args:
        row: Row of `_cells`.
        keep, gain: Verbs of the phrase: the first for a share up to 1, the second for a share above 1.
    """
    if row["value"] <= 1:
        return f"{keep} {row['said']}"
    return f"{gain} some ({row['said']} times as many right answers as before)"


def matrix_with_counts(lesions: pd.DataFrame) -> pd.DataFrame:
    """Return `lesion_matrix` with texts such as "0.25 (9)": the share of right answers of the own class that is left.

    The number in brackets is the number of classes.
    """
    left = lesion_matrix(lesions)
    counts = lesion_matrix(lesions, values="n_classes")
    said = left.map("{:.2f}".format) + counts.map(" ({:.0f})".format)
    return said.mask(left.isna(), "–")


def _across_styles(tables: dict[str, pd.DataFrame]) -> Finding:
    verdicts = tables["verdicts"]
    n_by = dict[str, "pd.Series[int]"]()
    for way in ("by_transfer", "by_units"):
        n_by[way] = verdicts[way].value_counts()
    # Two parts can be compared only if both styles have an own part.
    told = (SAME_PART, OVERLAPPING, OTHER_PARTS)
    counts = n_by["by_transfer"]
    n = int(counts.reindex(told).sum())
    same = int(counts.get(SAME_PART, 0))
    answer = PARTLY
    if n == 0:
        answer = UNKNOWN
    elif same == n:
        answer = YES
    elif counts.get(OTHER_PARTS, 0) == n:
        answer = NO
    said = list[str]()
    for way, of_way in n_by.items():
        listed = ", ".join(f"{verdict} {n}" for verdict, n in of_way.items())
        said.append(f"{way.replace('_', ' ')} {listed}")
    transfer = tables["transfers"]
    between = transfer[transfer["part_domain"] != transfer["domain"]]
    mean, low, high = mean_interval(
        between.groupby("class")["transfer"].mean().to_numpy(dtype=float)
    )
    overlap = tables["overlap"].set_index("parts")
    of_edges = overlap[overlap["compared"] == "edges"]["value"].dropna()
    overlap = overlap[overlap["compared"] == "units"]
    overlaps = "; ".join(overlap.index + " " + with_intervals(overlap, ".3f"))
    overlaps = f"{overlaps}; chance {overlap['chance'].mean():.3f}"
    of_ceiling = overlap.dropna(subset="share")
    for share, low_share, high_share in of_ceiling[
        ["share", "share_low", "share_high"]
    ].to_numpy():
        overlaps += (
            f"; two styles share {share:.2f} [{low_share:.2f}, {high_share:.2f}] of "
            "what two parts of one style share"
        )
    if overlap["value"].isna().all():
        overlaps = str(overlap["reason"].iloc[0])
    edges = ""
    if len(of_edges):
        listed = "; ".join(of_edges.index + of_edges.map(" {:.3f}".format))
        edges = f" Overlap of the edges between them: {listed}."
    return Finding(
        f"Is it the same part in another style? {answer}: of {len(verdicts)} classes and pairs of styles "
        f"{'; '.join(said)}.",
        "At equal damage to other classes the part of another style takes "
        f"{mean:.2f} [{low:.2f}, {high:.2f}] of the evidence that the style's own part takes (random units 0). Overlap "
        f"of units: {overlaps}.{edges}",
        "Parts that take their class in one style alone; an overlap under that of two parts of one class and style.",
    )


def _over_depth(by_depth: pd.DataFrame) -> Finding:
    own = by_depth[
        (by_depth["styles"] == OWN_STYLE)
        & (by_depth["cut"] == "part")
        & (by_depth["answers"] == OWN)
    ]
    by_measure = dict(list(own.groupby("measure")))
    left = by_measure[RIGHT.name].set_index("sites")["value"]
    said = "; ".join(left.index + left.map(" {:.2f}".format))
    taken = left.index[left <= TAKEN]
    # The narrowest places are the ones with the earliest end, and with the latest beginning.
    up_to = taken[taken.str.startswith("up to")]
    begins = taken[taken.str.startswith("from")]
    narrowest = [*up_to[:1], *begins[-1:]]
    places = " and ".join(f"units {place} take the answers" for place in narrowest)
    information = ""
    if REFIT_AUC.name in by_measure:
        area = by_measure[REFIT_AUC.name].set_index("sites")["value"]
        listed = "; ".join(area.index + area.map(" {:.2f}".format))
        information = f" Area under the ROC curve of a new head: {listed}."
    return Finding(
        f"In which layers does a class have a part of its own? {capitalised(places or 'no place takes the answers')}.",
        f"Right answers that the class keeps in its own style by the sites that may have units: {said}.{information}",
        f"{ANOTHER_MODEL.capitalize()}; more units at early sites.",
    )


def add_own_parts(
    report: Report, tables: dict[str, pd.DataFrame], domains: Sequence[str]
) -> None:
    """Add the sections on own parts, with their figures and tables.

    Args:
        tables: From `own_part_tables`.
        domains: All styles. With a single style, the section on two styles is left out.
    """
    by_share = tables["by_share"]
    told = tables["told"]
    by_depth = tables["by_depth"]
    report.section("What is lost of the class, and what of others?")
    for measure, meaning in DRAWN.items():
        lines = lesion_lines_of(by_share, measure)
        lines = lines.assign(place=100 * lines["share"])
        report.figure(
            lesion_lines(
                lines, "ablated units (%)", capitalised(measure.name), measure
            ),
            f"Over the share of units that is ablated: {meaning}, with 95 % intervals over classes.",
        )
    # What a lesion takes stands beside the class, in front of the numbers.
    depths = tables["depths"].set_index(["class", "domain", "takes"]).reset_index()
    report.table(
        depths,
        "By class, in the style that found the part: what the lesion takes. A new head and one constant are fitted "
        "after the lesion, to images that neither found nor test the part.",
    )
    report.table(
        _shown(by_share),
        "All measures of the loss, by share. The nearest classes are also among the other classes: the tenth of the "
        "candidates whose weights are nearest to those of the class.",
    )
    if len(domains) > 1:
        report.section("Does the part found in one style take the class in another?")
        # The first maps show what should be lost, the others what should stay.
        for answers, of in ((OWN, "the own class"), (OTHERS, OTHERS)):
            for measure, meaning in DRAWN.items():
                matrix = lesion_matrix(told, answers, measure=measure)
                if matrix.isna().all(axis=None):
                    continue
                title = f"{capitalised(measure.name)}, images of {of}"
                figure = similarity_heatmap(
                    matrix,
                    title=title,
                    measure=meaning,
                    marks=domain_marks(domains),
                    diagonal="own style",
                    counts=lesion_matrix(
                        told, answers, values="n_classes", measure=measure
                    ),
                )
                report.figure(
                    figure,
                    f"{title}: rows are styles that parts were found on, columns styles of the images; n is the "
                    "number of classes behind a cell.",
                )
        by_style = "All measures with intervals, beside random units."
        report.table(_shown(tables["by_style"]), by_style)
        overlap = "Overlap of parts (Jaccard index of units), and its expectation by chance."  # fmt: skip
        report.table(_shown(tables["overlap"]), overlap)
        report.table(
            tables["verdicts"],
            "By class and two styles: what each part takes of the evidence in the other style, at equal damage to "
            "other classes (1: what the style's own part takes, 0: what random units take), and how many units the "
            "parts share, beside two parts of one class and style (the ceiling).",
        )
    if by_depth["sites"].nunique() > 1:
        report.section("In which layers?")
        drawn = by_depth[by_depth["sites"] != EVERYWHERE]
        measures = (
            (RIGHT, REFIT_AUC) if REFIT_AUC.name in set(drawn["measure"]) else (RIGHT,)
        )
        for measure in measures:
            lines = lesion_lines_of(drawn, measure)
            # Site names follow these words in the column sites.
            for way in ("up to", "from"):
                of_way = lines[lines["sites"].str.startswith(way)]
                of_way = of_way.assign(
                    place=of_way["sites"].str.removeprefix(f"{way} ")
                )
                report.figure(
                    lesion_lines(
                        of_way,
                        f"units may lie {way}",
                        capitalised(measure.name),
                        measure,
                    ),
                    f"The same share of the units {way} each site; see above.",
                )
        report.table(_shown(by_depth), "The same as a table.")


def lesion_lines_of(summary: pd.DataFrame, measure: LossMeasure) -> pd.DataFrame:
    """Return the rows of a `summary_of_measures` that `lesion_lines` draws for one measure.

    The new column ``line`` has the name of the line to which a row belongs. There are four lines: the own class on
    images of the style in which the part was found, the own class on images of other styles, other classes, and the own
    class after the ablation of as many random units.

    Example:
        >>> from circuitry.comparison.lesion_reading import FALL
        >>> keys = {"styles": "its own style", "cut": "part", "answers": ["own class", "other classes"]}
        >>> list(lesion_lines_of(pd.DataFrame(keys).assign(measure=FALL.name), FALL)["line"])
        ['own class, style that found the part', 'other classes']
    """
    summary = summary[summary["measure"] == measure.name]
    # Other combinations, such as random units in another style, have no line.
    keys = zip(summary["styles"], summary["cut"], summary["answers"], strict=True)
    names = pd.Series([_LINES.get(key) for key in keys], summary.index, dtype=object)
    return summary.assign(line=names).dropna(subset="line")


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table in a form for readers of a report, with each value and its interval in one cell.

    A table without rows is returned unchanged, because it may have no columns.
    """
    if table.empty:
        return table
    cells = with_intervals(table, ".3f")
    return table.assign(value=cells).drop(columns=["low", "high"])
