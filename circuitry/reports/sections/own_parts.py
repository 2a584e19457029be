"""Own parts in a report: are classes lost and others spared, is it one part in two styles, and at which depth?"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from circuitry.comparison.lesion_reading import (
    BY_STYLE,
    EVERYWHERE,
    KNOWN,
    NO_PART,
    OTHER_STYLE,
    OTHERS,
    OWN,
    OWN_STYLE,
    SAME_PART,
    SPARED,
    TAKEN,
    known_cells,
    lesion_matrix,
    lesion_summary,
    overlap_summary,
    style_verdicts,
    told_share,
)
from circuitry.reports.figures.heatmaps import similarity_heatmap
from circuitry.reports.figures.lines import lesion_lines
from circuitry.reports.figures.style import capitalised, domain_marks
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.compared import with_intervals
from circuitry.reports.sections.findings import ANOTHER_MODEL, NO, PARTLY, UNKNOWN, YES
from circuitry.runs.errors import InputError

Cells = Mapping[tuple[str, str, str], Mapping[str, Any]]
"""Rows of a summary by (styles, cut, answers)."""
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
    """Return the tables of a report: lesions and overlaps as they are, their summaries, and verdicts by class.

    Verdicts, styles, classes and overlaps are of one share (`told_share`), of parts that may lie anywhere; depth is of
    the largest.
    """
    if known_cells(lesions).empty:
        raise InputError(
            f"The model gives no class {KNOWN:.0%} of the images that test the parts, so none can be lost: give "
            "classes that it knows, or more images."
        )
    told = told_share(lesions)
    whole = lesions[(lesions["share"] == told) & (lesions["sites"] == EVERYWHERE)]
    alike = overlaps[(overlaps["share"] == told) & (overlaps["sites"] == EVERYWHERE)]
    return {
        "lesions": lesions,
        "overlaps": overlaps,
        "told": whole,
        "by_share": lesion_summary(
            lesions[lesions["sites"] == EVERYWHERE], ("share", "styles")
        ),
        "by_style": lesion_summary(whole),
        "by_class": lesion_summary(whole, ("part_class", *BY_STYLE)).drop(
            columns=["low", "high", "n_classes"]
        ),
        "by_depth": lesion_summary(
            lesions[lesions["share"] == lesions["share"].max()], ("sites", "styles")
        ),
        "overlap": overlap_summary(alike),
        "verdicts": style_verdicts(whole, alike),
    }


def own_part_findings(tables: dict[str, pd.DataFrame]) -> list[Finding]:
    """Answer the questions of the report from its tables."""
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
    """Return the rows by (styles, cut, answers), with value and interval as ``said``."""
    rows = summary.assign(said=with_intervals(summary, ".2f")).to_dict("records")
    return {
        (row["styles"], row["cut"], row["answers"]): {str(k): v for k, v in row.items()}
        for row in rows
    }


def _own_part(cells: Cells, share: float) -> Finding:
    question, own_style = (
        "Do classes have parts of their own?",
        (OWN_STYLE, "part", OWN),
    )
    if own_style not in cells:
        return Finding(
            f"{question} {UNKNOWN}: no class that the model knows has an image to test its part on.",
            "Parts were found, and not tested in their own style.",
            "Two images or more of each class.",
        )
    own, random = (cells[OWN_STYLE, cut, OWN] for cut in ("part", "random"))
    others = cells.get((OWN_STYLE, "part", OTHERS))
    spared = others is not None and others["value"] >= SPARED
    answer = PARTLY
    if own["value"] <= TAKEN and spared and random["value"] > own["high"]:
        answer = YES
    elif own["value"] >= random["low"]:
        answer = NO
    lost = _kept(own, "keeps", "gains", " of its right answers")
    kept = "" if others is None else f"; other classes {_kept(others, 'keep', 'gain')}"
    return Finding(
        f"{question} {answer}: without {share:.1%} of the units a class {lost}{kept}; "
        f"without as many random units it {_kept(random, 'keeps', 'gains')}.",
        f"Shares of the whole model's right answers on images that found no part, mean and 95 % interval over "
        f"{own['n_classes']} classes that the model knows.",
        f"Other classes that are lost, too; random units that take as much; {ANOTHER_MODEL}.",
    )


def _kept(row: Mapping[str, Any], keep: str, gain: str, of_what: str = "") -> str:
    """Say what is left of right answers, or that there are more: a lesion may make images right that were not."""
    if row["value"] <= 1:
        return f"{keep} {row['said']}{of_what}"
    return f"{gain} some ({row['said']} times as many right answers as before)"


def matrix_with_counts(lesions: pd.DataFrame) -> pd.DataFrame:
    """Return `lesion_matrix` of the own class in words, with the number of classes behind each cell."""
    left, counts = (
        lesion_matrix(lesions, values=values) for values in ("value", "n_classes")
    )
    said = {
        domain: [
            "–" if pd.isna(value) else f"{value:.2f} ({count:.0f})"
            for value, count in zip(left[domain], counts[domain], strict=True)
        ]
        for domain in left
    }
    matrix = pd.DataFrame(said, index=left.index)
    matrix.columns.name = left.columns.name
    return matrix


def _across_styles(
    cells: Cells, verdicts: pd.DataFrame, overlap: pd.DataFrame
) -> Finding:
    counts = verdicts["verdict"].value_counts()
    same, without = (int(counts.get(name, 0)) for name in (SAME_PART, NO_PART))
    n = len(verdicts) - without
    answer = UNKNOWN if n == 0 else YES if same == n else NO if same == 0 else PARTLY
    said = with_intervals(overlap, ".3f")
    beside = "; ".join(f"{kind} {said[kind]}" for kind in said.index)
    edges = "; ".join(
        f"{kind} {value:.3f}" for kind, value in overlap["edges"].dropna().items()
    )
    moved = (OTHER_STYLE, "part", OWN)
    left = (
        f"A part takes its class in another style to {cells[moved]['said']}. "
        if moved in cells
        else ""
    )
    return Finding(
        f"Is it the same part in another style? {answer}: of {len(verdicts)} classes and pairs of styles {n} have a "
        f"part in both that takes the class and spares {SPARED:.0%} of others"
        + (f", and in {same} of these it is the same part." if n else "."),
        f"{left}Overlap of units: {beside}; chance {overlap['chance'].mean():.3f}."
        + (f" Overlap of the edges between them: {edges}." if edges else ""),
        "Parts that take their class in one style alone, or overlap no more than those of two classes.",
    )


def _over_depth(by_depth: pd.DataFrame) -> Finding:
    own = by_depth[
        (by_depth["styles"] == OWN_STYLE)
        & (by_depth["cut"] == "part")
        & (by_depth["answers"] == OWN)
    ]
    left = own.set_index("sites")["value"]
    said = "; ".join(f"{name} {value:.2f}" for name, value in left.items())
    taken = [str(name) for name, value in left.items() if value <= TAKEN]
    early, late = (
        [name for name in taken if name.startswith(way)] for way in ("up to", "from")
    )
    places = (
        " and ".join([f"units {name} have one" for name in (*early[:1], *late[-1:])])
        or "no place has one"
    )
    return Finding(
        f"At which depth does a class have a part of its own? {capitalised(places)}.",
        f"What the class keeps in its own style by the sites that may have units: {said}.",
        f"{ANOTHER_MODEL.capitalize()}; more units at early sites.",
    )


def add_own_parts(
    report: Report, tables: dict[str, pd.DataFrame], domains: Sequence[str]
) -> None:
    """Add figures and tables of own parts."""
    by_share, whole = tables["by_share"], tables["told"]
    report.section("Is the class lost, and are the others spared?")
    lines = lesion_lines_of(by_share)
    report.figure(
        lesion_lines(
            lines.assign(place=100 * lines["share"]), "ablated units (%)", LEFT
        ),
        "What is left of right answers over the share of units that is ablated, with 95 % intervals over classes.",
    )
    report.table(_shown(by_share), "The same as a table.")
    if len(domains) > 1:
        report.section("Does the part found in one style take the class in another?")
        for answers in (OWN, OTHERS):
            matrix = lesion_matrix(whole, answers)
            if matrix.notna().any().any():
                title = f"Right answers of {'the own class' if answers == OWN else answers} after the lesion"
                figure = similarity_heatmap(
                    matrix,
                    title=title,
                    measure="share of the whole model's",
                    marks=domain_marks(domains),
                    diagonal="own style",
                    counts=lesion_matrix(whole, answers, values="n_classes"),
                )
                report.figure(
                    figure,
                    f"{title}: rows are styles that parts were found on, columns styles of the images; n is the number "
                    "of classes behind a cell.",
                )
        report.table(
            _shown(tables["by_style"]), "The same with intervals, beside random units."
        )
        report.table(
            _shown(tables["overlap"]),
            "Overlap of parts (Jaccard index of units), and its expectation by chance.",
        )
        report.table(
            tables["verdicts"],
            "By class and two styles: what is left after each lesion, and the verdict.",
        )
    if tables["by_depth"]["sites"].nunique() > 1:
        report.section("At which depth?")
        lines = lesion_lines_of(
            tables["by_depth"][tables["by_depth"]["sites"] != EVERYWHERE]
        )
        for way in ("up to", "from"):
            some = lines[lines["sites"].str.startswith(way)]
            some = some.assign(place=some["sites"].str.removeprefix(f"{way} "))
            report.figure(
                lesion_lines(some, f"units may lie {way}", LEFT),
                f"The same share of the units {way} each site; see above.",
            )
        report.table(_shown(tables["by_depth"]), "The same as a table.")


def lesion_lines_of(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the lines that figures draw, with their names."""
    keys = zip(summary["styles"], summary["cut"], summary["answers"], strict=True)
    named = pd.Series([_LINES.get(key) for key in keys], summary.index, dtype=object)
    return summary.assign(line=named).dropna(subset="line")


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with values and intervals in one cell; one without rows may have no columns."""
    return (
        table
        if table.empty
        else table.assign(value=with_intervals(table, ".3f")).drop(
            columns=["low", "high"]
        )
    )
