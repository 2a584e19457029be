"""The sections on whether properties of models correlate with how they generalize, from `relate_over_models`."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from circuitry.comparison import LEVEL
from circuitry.reports import Finding, Report
from circuitry.reports.figures import Mark
from experiments.study.differences import with_intervals
from experiments.study.over_models import FEWEST_MODELS
from experiments.study.relation_panels import ENOUGH, relation_panels

import pandas as pd

SHARED = {
    "overlap": "node overlap",
    "ratio": "node overlap, ratio to the ceiling",
    "transfer": "faithfulness of other domains' circuits",
    "cka": "CKA at the last site",
    "features": "shared features",
}
"""Columns of what a test domain shares with the others, with their names."""
LABEL_FREE = {"shift": "circuit shift score", "depth_bias": "depth bias above the other domains'"}
"""Columns that need no accuracy, with their names."""


def relation_findings(
    relations: pd.DataFrame, names: Mapping[str, str], accuracy: str, groups: Sequence[Sequence[str]]
) -> list[Finding]:
    """Say for each group of numbers whether one of them correlates with an accuracy over models, or that it is open.

    Args:
        relations: From `relate_over_models`.
        names: Sequence[str] of the numbers, by column.
        accuracy: Which accuracy the sentences are about.
        groups: Columns; a sentence is about the one of a group with the largest correlation, of either sign.
    """
    found = []
    for group in groups:
        rows = relations[relations["what"].isin(group) & (relations["with"] == accuracy)].dropna(subset="rho")
        listed, target = " or ".join(names[column] for column in group), f"{accuracy.replace('_', ' ')} accuracy"
        if rows.empty:
            n = int(relations["n_models"].max()) if len(relations) else 0
            few = n < FEWEST_MODELS
            why = f"it takes at least {FEWEST_MODELS}" if few else "one of the two does not vary over them"
            found.append(
                Finding(
                    f"Does {listed} correlate with {target}? Cannot be told.",
                    f"{n} models have both numbers, but there is no correlation: {why}.",
                    "More models: other settings, test domains, seeds.",
                )
            )
            continue
        said = rows.assign(said=with_intervals(rows, "+.2f", "rho")).to_dict("records")
        best = max(said, key=lambda row: abs(row["rho"]))
        clear = best["p_holm"] < LEVEL and (best["low"] > 0 or best["high"] < 0)
        found.append(
            Finding(
                f"Does {listed} correlate with {target}? {'Yes' if clear else 'Cannot be told'}: rank correlation "
                f"{best['said']} for {names[best['what']]}, over {best['n_models']} models.",
                f"Jackknife over models; without one of them {best['least']:+.2f} to {best['most']:+.2f}. p "
                f"{best['p']:.2g} from orders of the models, {best['p_holm']:.2g} corrected for all tests "
                f"(Holm){'; ' + best['note'] if best['note'] else ''}. {_given_words(best)}",
                "More models, of other settings and seeds. A correlation over models shows no cause: settings change "
                "many things at once.",
            )
        )
    return found


def models_agree(tests: pd.DataFrame) -> Finding:
    """Say whether one domain shares more than another in the same way over models: from `compare_models`."""
    n, clear = len(tests), int((tests["p_holm"] < LEVEL).sum())
    told = "Cannot be told" if not clear else "Yes" if clear == n else "Partly"
    return Finding(
        f"Do models agree which domains share more? {told}: {clear} of {n} differences have p < {LEVEL} (Holm).",
        f"Each of {tests['n_models'].max()} models counts once; five models can give no p below 0.0625.",
        "More models, of other architectures and seeds.",
    )


def _given_words(row: Mapping[Hashable, Any]) -> str:
    """Say what the correlation is given a third number."""
    if not row["given"]:
        return "No third number is taken out."
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
    report.section("How to read this", folded=True)
    report.text(
        "Every point is a trained model in a test domain. Rank correlations are over models, with ranks within each "
        "test domain; their intervals are jackknife intervals over models. p is the share of orders of the models with "
        "as large a correlation, corrected for all tests (Holm); it is about other models trained in this way, not "
        "about other classes. The partial correlation takes out accuracy on the other domains, because a model that is "
        "better at everything may also share more.\n\n"
        + (
            f"There are {n} models. With fewer than {ENOUGH}, a rank correlation mostly shows which models were "
            "chosen, and is no evidence."
            if n < ENOUGH
            else f"There are {n} models."
        )
    )
    report.section("Does sharing between domains correlate with accuracy?")
    for accuracy in accuracies:
        called = accuracy.replace("_", " ")
        if points[accuracy].notna().any():
            figure = relation_panels(
                points, relations, names, accuracy, title=f"Accuracy ({called}) against what is shared", marks=marks
            )
            report.figure(figure, _in_words(relations[relations["with"] == accuracy], names))
    shown = relations.assign(
        what=relations["what"].map(names),
        rho=with_intervals(relations, "+.2f", "rho"),
        without_one=[f"{a:+.2f} to {b:+.2f}" for a, b in zip(relations["least"], relations["most"], strict=True)],
    ).drop(columns=["low", "high", "least", "most", "given"])
    order = ["what", "with", "rho", "without_one", "p", "p_holm", "partial", "partial_p", "n_models", "note"]
    report.table(
        shown[order].rename(columns={"p_holm": "p (Holm)", "n_models": "models", "partial_p": "p of partial"}),
        "Rank correlations over models with 95 % jackknife intervals, their range without one model, p from orders of "
        f"the models ({int((relations['p_holm'] < LEVEL).sum())} of {len(relations)} with corrected p < {LEVEL}), and "
        "the partial correlation given accuracy on the other domains.",
        formats={"p": ".2g", "p (Holm)": ".2g", "partial": "+.2f", "p of partial": ".2g"},
    )
    report.table(points, "Every model and test domain.")


def _in_words(relations: pd.DataFrame, names: Mapping[str, str]) -> str:
    known = relations.dropna(subset="rho")
    if known.empty:
        return f"There is no correlation: fewer than {FEWEST_MODELS} models, or no variation over them."
    said = ", ".join(f"{names[what]} {rho:+.2f}" for what, rho in zip(known["what"], known["rho"], strict=True))
    return f"Rank correlations: {said}."
