"""The sections and findings on own parts.

An own part is a set of units that the model needs to recognise a class, and does not need for other classes. A lesion
ablates an own part. A style is a domain. Three questions are answered: Does the model lose the class of a part after
the lesion, and no other class? Is the part of a class the same in two styles? At which depth of the model are parts?
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from circuitry.comparison.lesion_reading import (
    BY_STYLE,
    EVERYWHERE,
    KNOWN,
    OTHER_PARTS,
    OTHER_STYLE,
    OTHERS,
    OWN,
    OWN_STYLE,
    SAME_PART,
    SPARED,
    TAKEN,
    UNTESTED,
    known_cells,
    lesion_matrix,
    lesion_summary,
    style_verdicts,
    told_share,
)
from circuitry.comparison.overlap_reading import overlap_by_styles, overlap_summary
from circuitry.reports.figures.heatmaps import similarity_heatmap
from circuitry.reports.figures.lines import lesion_lines
from circuitry.reports.figures.style import capitalised, domain_marks
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.compared import with_intervals
from circuitry.reports.sections.findings import ANOTHER_MODEL, NO, PARTLY, UNKNOWN, YES
from circuitry.runs.errors import InputError

Cells = Mapping[Hashable, Mapping[Hashable, Any]]
"""Rows of a `lesion_summary`, by their values in the columns styles, cut and answers."""
LEFT = "Right answers that are left"
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
        - by_share: `lesion_summary` for every size;
        - by_style: `lesion_summary` of ``told``, by the styles of parts and images;
        - by_class: `lesion_summary` of ``told``, by class and styles, without intervals;
        - by_depth: `lesion_summary` for the largest size, by the sites where units may lie;
        - overlap: `overlap_summary` of parts of this size;
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
    by_class = lesion_summary(told, ("part_class", *BY_STYLE))
    return {
        "lesions": lesions,
        "overlaps": overlaps,
        "told": told,
        "by_share": lesion_summary(everywhere, ("share", "styles")),
        "by_style": lesion_summary(told),
        "by_class": by_class.drop(columns=["low", "high", "n_classes"]),
        "by_depth": lesion_summary(largest, ("sites", "styles")),
        "overlap": overlap_summary(alike),
        "overlap_by_styles": overlap_by_styles(alike),
        "verdicts": style_verdicts(told, alike),
    }


def own_part_findings(tables: dict[str, pd.DataFrame]) -> list[Finding]:
    """Return the findings on own parts.

    Args:
        tables: From `own_part_tables`.
    """
    share = float(tables["told"]["share"].iloc[0])
    cells = _cells(tables["by_share"][tables["by_share"]["share"] == share])
    findings = [_own_part(cells, share)]
    if len(verdicts := tables["verdicts"]):
        findings.append(
            _across_styles(cells, verdicts, tables["overlap"].set_index("parts"))
        )
    if tables["by_depth"]["sites"].nunique() > 1:
        findings.append(_over_depth(tables["by_depth"]))
    return findings


def _cells(summary: pd.DataFrame) -> Cells:
    """Return a dictionary from (styles, cut, answers) to the row of a summary with these values.

    Each row is a dictionary of the other columns. The new entry ``said`` has the value and the interval as a text.
    """
    table = summary.assign(said=with_intervals(summary, ".2f"))
    return table.set_index(["styles", "cut", "answers"]).to_dict("index")


def _own_part(cells: Cells, share: float) -> Finding:
    question = "Do classes have parts of their own?"
    if (OWN_STYLE, "part", OWN) not in cells:
        return Finding(
            f"{question} {UNKNOWN}: no class that the model knows has an image to test its part on.",
            "Parts were found, and not tested in their own style.",
            "Two images or more of each class.",
        )
    own = cells[OWN_STYLE, "part", OWN]
    random = cells[OWN_STYLE, "random", OWN]
    others = cells.get((OWN_STYLE, "part", OTHERS))
    lost = _left(own, "keeps", "gains", " of its right answers")
    are_spared = False
    spared = ""
    if others is not None:
        are_spared = others["value"] >= SPARED
        spared = f"; other classes {_left(others, 'keep', 'gain')}"
    # Yes needs three things: the class is lost, the other classes are not, and random units leave clearly more of it.
    if own["value"] <= TAKEN and are_spared and random["value"] > own["high"]:
        answer = YES
    elif own["value"] >= random["low"]:
        answer = NO
    else:
        answer = PARTLY
    return Finding(
        f"{question} {answer}: without {share:.1%} of the units a class {lost}{spared}; "
        f"without as many random units it {_left(random, 'keeps', 'gains')}.",
        f"Shares of the whole model's right answers on images that found no part, mean and 95 % interval over "
        f"{own['n_classes']} classes that the model knows.",
        f"Other classes that are lost, too; random units that take as much; {ANOTHER_MODEL}.",
    )


def _left(row: Mapping[Hashable, Any], keep: str, gain: str, of_what: str = "") -> str:
    """Return a phrase on the share of right answers that is left after a lesion, such as "keeps 0.25 [0.10, 0.40]".

    If the share is above 1, more answers are right after the lesion than before, and the phrase says so.

    Args:
        row: Row of `_cells`.
        keep, gain: Verbs of the phrase: the first for a share up to 1, the second for a share above 1.
        of_what: End of the phrase for a share up to 1, such as " of its right answers".
    """
    if row["value"] <= 1:
        return f"{keep} {row['said']}{of_what}"
    return f"{gain} some ({row['said']} times as many right answers as before)"


def matrix_with_counts(lesions: pd.DataFrame) -> pd.DataFrame:
    """Return `lesion_matrix` with texts such as "0.25 (9)": the share of right answers of the own class that is left.

    The number in brackets is the number of classes.
    """
    left = lesion_matrix(lesions)
    counts = lesion_matrix(lesions, values="n_classes")
    said = left.map("{:.2f}".format) + counts.map(" ({:.0f})".format)
    return said.mask(left.isna(), "–")


def _across_styles(
    cells: Cells, verdicts: pd.DataFrame, overlap: pd.DataFrame
) -> Finding:
    counts = verdicts["verdict"].value_counts()
    same = int(counts.get(SAME_PART, 0))
    # Two parts can be compared only if both styles have an own part.
    n = same + int(counts.get(OTHER_PARTS, 0))
    answer = PARTLY
    if n == 0:
        answer = UNKNOWN
    elif same == n:
        answer = YES
    elif same == 0:
        answer = NO
    of_these = f", and in {same} of these it is the same part." if n else "."
    untested = ""
    if UNTESTED in counts:
        why = "a part has no unseen image of its own style, or of other classes"
        untested = f" {counts[UNTESTED]} are not tested: {why}."
    left = ""
    other_style = (OTHER_STYLE, "part", OWN)
    if other_style in cells:
        said = cells[other_style]["said"]
        left = f"A part takes its class in another style to {said}. "
    of_edges = overlap[overlap["compared"] == "edges"]["value"]
    overlap = overlap[overlap["compared"] == "units"]
    overlaps = "; ".join(overlap.index + " " + with_intervals(overlap, ".3f"))
    edges = ""
    if len(of_edges):
        said = "; ".join(of_edges.index + of_edges.map(" {:.3f}".format))
        edges = f" Overlap of the edges between them: {said}."
    return Finding(
        f"Is it the same part in another style? {answer}: of {len(verdicts)} classes and pairs of styles {n} have a "
        f"part in both that takes the class and spares {SPARED:.0%} of others{of_these}{untested}",
        f"{left}Overlap of units: {overlaps}; chance {overlap['chance'].mean():.3f}.{edges}",
        "Parts that take their class in one style alone, or overlap no more than those of two classes.",
    )


def _over_depth(by_depth: pd.DataFrame) -> Finding:
    own = by_depth[
        (by_depth["styles"] == OWN_STYLE)
        & (by_depth["cut"] == "part")
        & (by_depth["answers"] == OWN)
    ]
    left = own.set_index("sites")["value"]
    said = "; ".join(left.index + left.map(" {:.2f}".format))
    taken = left.index[left <= TAKEN]
    # The narrowest places are the ones with the earliest end, and with the latest beginning.
    up_to = taken[taken.str.startswith("up to")]
    begins = taken[taken.str.startswith("from")]
    narrowest = [*up_to[:1], *begins[-1:]]
    places = " and ".join(f"units {place} have one" for place in narrowest)
    return Finding(
        f"At which depth does a class have a part of its own? {capitalised(places or 'no place has one')}.",
        f"What the class keeps in its own style by the sites that may have units: {said}.",
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
    report.section("Is the class lost, and are the others spared?")
    lines = lesion_lines_of(by_share).assign(place=100 * by_share["share"])
    report.figure(
        lesion_lines(lines, "ablated units (%)", LEFT),
        "What is left of right answers over the share of units that is ablated, with 95 % intervals over classes.",
    )
    report.table(_shown(by_share), "The same as a table.")
    if len(domains) > 1:
        report.section("Does the part found in one style take the class in another?")
        # The first map shows answers that should be lost, the second map answers that should stay.
        for answers, of in ((OWN, "the own class"), (OTHERS, OTHERS)):
            matrix = lesion_matrix(told, answers)
            if matrix.isna().all(axis=None):
                continue
            title = f"Right answers of {of} after the lesion"
            figure = similarity_heatmap(
                matrix,
                title=title,
                measure="share of the whole model's",
                marks=domain_marks(domains),
                diagonal="own style",
                counts=lesion_matrix(told, answers, values="n_classes"),
            )
            report.figure(
                figure,
                f"{title}: rows are styles that parts were found on, columns styles of the images; n is the number "
                "of classes behind a cell.",
            )
        by_style = "The same with intervals, beside random units."
        report.table(_shown(tables["by_style"]), by_style)
        overlap = "Overlap of parts (Jaccard index of units), and its expectation by chance."  # fmt: skip
        report.table(_shown(tables["overlap"]), overlap)
        verdicts = "By class and two styles: what is left after each lesion, and the verdict."  # fmt: skip
        report.table(tables["verdicts"], verdicts)
    if by_depth["sites"].nunique() > 1:
        report.section("At which depth?")
        lines = lesion_lines_of(by_depth[by_depth["sites"] != EVERYWHERE])
        # Site names follow these words in the column sites.
        for way in ("up to", "from"):
            of_way = lines[lines["sites"].str.startswith(way)]
            of_way = of_way.assign(place=of_way["sites"].str.removeprefix(f"{way} "))
            report.figure(
                lesion_lines(of_way, f"units may lie {way}", LEFT),
                f"The same share of the units {way} each site; see above.",
            )
        report.table(_shown(by_depth), "The same as a table.")


def lesion_lines_of(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a `lesion_summary` that `lesion_lines` draws. Other rows are left out.

    The new column ``line`` has the name of the line to which a row belongs. There are four lines: the own class on
    images of the style in which the part was found, the own class on images of other styles, other classes, and the own
    class after the ablation of as many random units.

    Example:
        >>> keys = {"styles": "its own style", "cut": "part", "answers": ["own class", "other classes"]}
        >>> list(lesion_lines_of(pd.DataFrame(keys))["line"])
        ['own class, style that found the part', 'other classes']
    """
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
