"""The section on accuracy, with what accuracy on held-out classes mixes told apart.

Every sentence is computed from the tables it speaks of.
"""

from collections.abc import Mapping

import pandas as pd

from circuitry.reports.figures.style import Mark
from circuitry.reports.page import Report
from circuitry.study.charts.bars import accuracy_bars

READING = (
    "Accuracy on held-out classes among all classes mixes two things: whether the features tell these classes apart, "
    "and how readily one of them is predicted at all. Beside it stand the accuracy when only held-out classes compete "
    "(alone), with class texts in the images' own style, after each class's scores were centred within the domain, and "
    "the share of images of held-out classes that any of them is predicted for."
)
"""How the kinds of accuracy are read."""
SHARES = (
    *("all", "seen", "held_out", "harmonic_mean", "alone", "chance_alone", "own_style", "centred"),
    *("predicted_held_out", "chance", "sd"),
)
"""Columns of `accuracy_kinds` that are fractions."""


def add_accuracy(
    report: Report, accuracy: pd.DataFrame, marks: Mapping[str, Mark], *, test_domain: str | None = None
) -> None:
    """Add the section on zero-shot accuracy, from `accuracy_kinds`."""
    report.section("Does the model recognise the classes?")
    words = [f"Zero-shot accuracy on test images; guessing would reach {accuracy['chance'].iloc[0]:.1%}."]
    means = accuracy.set_index("domain")["all"]
    best, worst = str(means.idxmax()), str(means.idxmin())
    words.append(f"Best in {best} ({means[best]:.1%}), worst in {worst} ({means[worst]:.1%}).")
    held_out = accuracy["held_out"].notna().any()
    if test_domain is not None and held_out:
        words += _in_the_test_domain(accuracy, test_domain)
    report.figure(accuracy_bars(accuracy, marks=marks), " ".join(words))
    if held_out:
        add_told_apart(report, accuracy.drop(columns=["sd", "seeds"]), "Accuracies on test images by domain.")


def _in_the_test_domain(accuracy: pd.DataFrame, test_domain: str) -> list[str]:
    there = accuracy["domain"] == test_domain
    own, others = accuracy[there].iloc[0], accuracy[~there]
    words = [
        f"In {test_domain}, the classes that were left out of it in training reach {own.held_out:.1%}, its other "
        f"classes {own.seen:.1%}; in the other domains, where nothing was left out, the same classes reach "
        f"{others['held_out'].mean():.1%} on average.",
        f"A left-out class is predicted for {own.predicted_held_out:.1%} of their images; among themselves they reach "
        f"{own.alone:.1%} (guessing {own.chance_alone:.1%}), after centring {own.centred:.1%}",
    ]
    if pd.notna(own.own_style):
        words[-1] += f", with texts in the images' own style {own.own_style:.1%}"
    return [words[0], words[1] + "."]


def add_told_apart(report: Report, table: pd.DataFrame, caption: str) -> None:
    """Add a table of `accuracy_kinds` and how it is read, without columns of no value or the same name in every row."""
    there = table.dropna(axis=1, how="all")
    same = [name for name in there.select_dtypes(exclude="number") if there[name].nunique() == 1]
    shown = there.drop(columns=same).reset_index(drop=True)
    report.table(shown, f"{caption} {READING}", formats={name: ".1%" for name in SHARES if name in shown})
