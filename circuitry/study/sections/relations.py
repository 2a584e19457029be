"""The sections on whether numbers of models go with how they generalize, from `relate_over_models`."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from circuitry.comparison.significance import LEVEL
from circuitry.reports.figures.style import Mark
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.compared import with_intervals
from circuitry.study.charts.relation_panels import ENOUGH, relation_panels
from circuitry.study.over_models import FEWEST_MODELS

SHARED = {
    "overlap": "node overlap",
    "ratio": "node overlap, ratio to the ceiling",
    "transfer": "faithfulness of other domains' circuits",
    "cka": "CKA at the last site",
    "features": "shared features",
}
"""What a test domain shares with the others, by column, and what it is called."""
LABEL_FREE = {"shift": "circuit shift score", "depth_bias": "depth bias above the other domains'"}
"""What needs no accuracy."""


def relation_findings(
    relations: pd.DataFrame, names: Mapping[str, str], accuracy: str, groups: Sequence[Sequence[str]]
) -> list[Finding]:
    """Say for each group of numbers whether one of them goes with an accuracy over models, or that it cannot be told.

    Args:
        relations: From `relate_over_models`.
        names: What the numbers are called, by column.
        accuracy: Which accuracy the sentences are about.
        groups: Columns; of each group the one with the largest correlation, of either sign, is told.
    """
    found = []
    for group in groups:
        rows = relations[relations["what"].isin(group) & (relations["with"] == accuracy)].dropna(subset="rho")
        listed = " or ".join(names[column] for column in group)
        if rows.empty:
            n = int(relations["n_models"].max()) if len(relations) else 0
            few = n < FEWEST_MODELS
            why = f"it takes at least {FEWEST_MODELS}" if few else "one of the two does not vary over them"
            found.append(
                Finding(
                    f"Whether {listed} goes with {accuracy.replace('_', ' ')} accuracy cannot be told.",
                    f"There is no correlation over the {n} models with both numbers: {why}.",
                    "More models: other settings, test domains, seeds.",
                )
            )
            continue
        said = rows.assign(said=with_intervals(rows, "+.2f", "rho")).to_dict("records")
        best = max(said, key=lambda row: abs(row["rho"]))
        told = best["p_holm"] < LEVEL and (best["low"] > 0 or best["high"] < 0)
        start = f"{names[best['what']]} goes with {accuracy.replace('_', ' ')} accuracy" if told else (
            f"Whether {listed} goes with {accuracy.replace('_', ' ')} accuracy cannot be told"
        )  # fmt: skip
        found.append(
            Finding(
                f"{start}: rank correlation {best['said']} for {names[best['what']]}, over {best['n_models']} models.",
                f"Jackknife over models; without one of them {best['least']:+.2f} to {best['most']:+.2f}. p "
                f"{best['p']:.2g} from orders of the models, {best['p_holm']:.2g} corrected for all that was tried "
                f"(Holm){'; ' + best['note'] if best['note'] else ''}. {_given_words(best)}",
                "More models, of other settings and seeds. A correlation over models is no cause: settings change many "
                "things at once.",
            )
        )
    return found


def _given_words(row: Mapping[Hashable, Any]) -> str:
    """Say what the correlation is given a third number."""
    if not row["given"]:
        return "Nothing is taken out of either."
    known = f"{row['partial']:+.2f} (p {row['partial_p']:.2g})"
    return f"Given {row['given'].replace('_', ' ')}: {'unknown' if pd.isna(row['partial']) else known}."


def add_relations(
    report: Report,
    points: pd.DataFrame,
    relations: pd.DataFrame,
    names: Mapping[str, str],
    accuracies: Sequence[str],
    marks: Mapping[str, Mark],
) -> None:
    """Add how to read it, a figure for each accuracy, and the tables; arguments as `relation_panels`."""
    n = points["run"].nunique()
    report.section("How to read this")
    report.text(
        "Every point is a trained model in a test domain. Rank correlations are over models, ranks taken within a test "
        "domain; the interval is the jackknife's over models, and least and most are the correlation without one of "
        "them. p is the share of orders of the models with as large a correlation, corrected for everything that was "
        "tried (Holm): it speaks of models trained alike, not of classes. The partial correlation takes out what "
        "accuracy on the other domains explains: a model may be better at everything and share more, too.\n\n"
        + (
            f"{n} models are few: below {ENOUGH} a correlation of ranks is mostly the choice of models, and nothing "
            "here is evidence for or against."
            if n < ENOUGH
            else f"There are {n} models."
        )
    )
    report.section("Does what domains share go with accuracy?")
    for accuracy in accuracies:
        called = accuracy.replace("_", " ")
        if points[accuracy].notna().any():
            figure = relation_panels(
                points, relations, names, accuracy, title=f"Accuracy ({called}) against what is shared", marks=marks
            )
            report.figure(figure, _in_words(relations[relations["with"] == accuracy], names))
    told = relations.assign(
        what=relations["what"].map(names),
        rho=with_intervals(relations, "+.2f", "rho"),
        without_one=[f"{a:+.2f} to {b:+.2f}" for a, b in zip(relations["least"], relations["most"], strict=True)],
    ).drop(columns=["low", "high", "least", "most", "given"])
    order = ["what", "with", "rho", "without_one", "p", "p_holm", "partial", "partial_p", "n_models", "note"]
    report.table(
        told[order].rename(columns={"p_holm": "p (Holm)", "n_models": "models", "partial_p": "p of partial"}),
        "Rank correlations over models with 95 % jackknife intervals, their range without one model, p from orders of "
        "the models, and the partial correlation given accuracy on the other domains.",
        formats={"p": ".2g", "p (Holm)": ".2g", "partial": "+.2f", "p of partial": ".2g"},
    )
    report.table(points, "Every model and test domain.")


def _in_words(relations: pd.DataFrame, names: Mapping[str, str]) -> str:
    known = relations.dropna(subset="rho")
    if known.empty:
        return f"There is no correlation: fewer than {FEWEST_MODELS} models, or a number does not vary over them."
    said = ", ".join(f"{names[what]} {rho:+.2f}" for what, rho in zip(known["what"], known["rho"], strict=True))
    low = int((known["p_holm"] < LEVEL).sum())
    return f"Rank correlations: {said}. {low} of {len(known)} have a corrected p below {LEVEL}."
