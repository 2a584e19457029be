"""The section on accuracy, with the parts that accuracy on held-out classes mixes."""

from collections.abc import Mapping

import pandas as pd

from circuitry.reports.figures.bars import accuracy_bars
from circuitry.reports.figures.style import Mark
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.findings import NO, PARTLY, UNKNOWN, YES
from circuitry.runs.errors import name_some

READING = (
    "Accuracy on held-out classes among all classes mixes two things: how well the features separate these classes, "
    "and how often the model predicts one of them at all. Therefore: alone: only held-out classes compete; own style: "
    "class texts name the style of the images; centred: the scores of each class are centred within the domain; "
    "predicted held out: the share of images of held-out classes for which the model predicts any of them."
)
"""How to read the kinds of accuracy."""
SHARES = (
    *(
        "all",
        "seen",
        "held_out",
        "harmonic_mean",
        "alone",
        "chance_alone",
        "own_style",
        "centred",
    ),
    *("predicted_held_out", "chance", "sd"),
)
"""Columns of `accuracy_kinds` that are fractions."""


def recognised(by_class: pd.DataFrame, accuracy: pd.DataFrame) -> Finding:
    """Say whether the model knows the classes in every domain, and which ones are left out; see `accuracy_kinds`."""
    question, chance = (
        "Does the model know the classes in these domains?",
        accuracy["chance"].iloc[0],
    )
    if chance == 1:
        claim = f"{question} {UNKNOWN}: there is one class, so every answer is right. Give others, too."
        return Finding(claim, "Guessing reaches 100%.", "Images of other classes.")
    left_out = by_class[~by_class["known"]]
    n, unknown = len(by_class), len(left_out)
    answer = YES if not unknown else NO if unknown == n else PARTLY
    means = ", ".join(
        f"{domain} {value:.0%}"
        for domain, value in accuracy.set_index("domain")["all"].items()
    )
    named = [
        f"{row['class']} in {row['domain']} ({row['right']:.0%})"
        for row in left_out.to_dict("records")
    ]
    out = (
        f" Left out of own parts and comparisons: {name_some(named)}."
        if unknown
        else ""
    )
    return Finding(
        f"{question} {answer}: right answers in {means}; of {n} pairs of class and domain it knows {n - unknown}.{out}",
        f"Means over classes, of {by_class['n_images'].sum():,} images, those that circuits are found on among them; "
        f"guessing reaches {chance:.0%}.",
        "Other images or class texts.",
    )


def add_accuracy(
    report: Report,
    accuracy: pd.DataFrame,
    marks: Mapping[str, Mark],
    *,
    test_domain: str | None = None,
) -> None:
    """Add the section on accuracy, from `accuracy_kinds`."""
    report.section("Does the model recognise the classes?")
    words = (
        f"Accuracy on test images; guessing reaches {accuracy['chance'].iloc[0]:.1%}."
    )
    held_out = (
        accuracy["held_out"].notna().any()
    )  # the figure then draws seen and held-out classes, not all
    there = (
        _in_the_test_domain(accuracy, test_domain)
        if held_out and test_domain in set(accuracy["domain"])
        else ""
    )
    report.figure(accuracy_bars(accuracy, marks=marks), words + there)
    if held_out:
        table = accuracy.drop(columns=["sd", "seeds"])
        add_told_apart(report, table, "Accuracies on test images by domain.")


def _in_the_test_domain(accuracy: pd.DataFrame, test_domain: str | None) -> str:
    there = accuracy["domain"] == test_domain
    own, others = accuracy[there].iloc[0], accuracy.loc[~there, "held_out"]
    words = (
        f" In {test_domain}, the held-out classes reach {own.held_out:.1%} and the other classes {own.seen:.1%}; among "
        f"themselves the held-out classes reach {own.alone:.1%} (guessing {own.chance_alone:.1%})."
    )
    if others.notna().any():
        words += (
            " In the other domains, where nothing was held out, "
            f"they reach {others.min():.1%} to {others.max():.1%}."
        )
    return words


def add_told_apart(report: Report, table: pd.DataFrame, caption: str) -> None:
    """Add a table of `accuracy_kinds` and how to read it, without empty columns and columns of one name."""
    there = table.dropna(axis=1, how="all")
    same = [
        name
        for name in there.select_dtypes(exclude="number")
        if there[name].nunique() == 1
    ]
    shown = there.drop(columns=same).reset_index(drop=True)
    report.table(
        shown,
        f"{caption} {READING}",
        formats={name: ".1%" for name in SHARES if name in shown},
    )
