"""The section on accuracy.

Accuracy on held-out classes mixes two things: how well the features separate these classes, and how often the model
predicts one of these classes at all. The section also shows each of the two alone; see `READING`.
"""

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
"""Text for readers of a report on the kinds of accuracy."""
SHARES = (
    "all",
    "seen",
    "held_out",
    "harmonic_mean",
    "alone",
    "chance_alone",
    "own_style",
    "centred",
    "predicted_held_out",
    "chance",
    "sd",
)
"""Columns of `accuracy_kinds` that are fractions."""


def recognised(by_class: pd.DataFrame, accuracy: pd.DataFrame) -> Finding:
    """Return the finding on whether the model recognises the classes in every domain.

    The model does not know a class in a domain if too few of its answers are right. The finding names these classes and
    domains. They are left out of own parts and comparisons.

    Args:
        by_class: A row for each class and domain, with the columns class, domain, right (share of right answers),
            n_images and known (whether the model knows the class there).
        accuracy: From `accuracy_kinds`.
    """
    question = "Does the model know the classes in these domains?"
    chance = accuracy["chance"].iloc[0]
    # With a single class every answer is right, so accuracy says nothing.
    if chance == 1:
        claim = f"{question} {UNKNOWN}: there is one class, so every answer is right. Give others, too."
        return Finding(claim, "Guessing reaches 100%.", "Images of other classes.")
    n = len(by_class)
    left_out = by_class[~by_class["known"]]
    answer = YES
    told = ""
    if len(left_out):
        answer = NO if len(left_out) == n else PARTLY
        right = left_out["right"].map(" ({:.0%})".format)
        names = left_out["class"] + " in " + left_out["domain"] + right
        told = f" Left out of own parts and comparisons: {name_some(list(names))}."
    means = ", ".join(accuracy["domain"] + accuracy["all"].map(" {:.0%}".format))
    return Finding(
        f"{question} {answer}: right answers in {means}; of {n} pairs of class and domain it knows "
        f"{n - len(left_out)}.{told}",
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
    """Add the section on accuracy.

    Args:
        accuracy: From `accuracy_kinds`.
        test_domain: The domain in which classes were held out of training. If it is given, the caption compares the
            accuracy on held-out classes in this domain with the accuracy on them in the other domains.
    """
    report.section("Does the model recognise the classes?")
    caption = (
        f"Accuracy on test images; guessing reaches {accuracy['chance'].iloc[0]:.1%}."
    )
    # If classes are held out, the figure draws held-out beside seen classes, and does not draw all classes together.
    held_out = accuracy["held_out"].notna().any()
    if held_out and test_domain in set(accuracy["domain"]):
        caption += _in_the_test_domain(accuracy.set_index("domain"), str(test_domain))
    report.figure(accuracy_bars(accuracy, marks=marks), caption)
    if held_out:
        table = accuracy.drop(columns=["sd", "seeds"])
        add_told_apart(report, table, "Accuracies on test images by domain.")


def _in_the_test_domain(accuracy: pd.DataFrame, test_domain: str) -> str:
    # Classes are held out of training in one domain, which tests generalisation. The other domains are the control.
    own = accuracy.loc[test_domain]
    others = accuracy["held_out"].drop(test_domain)
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
    """Add a table of `accuracy_kinds` with a caption on how to read it.

    The caption says what two things accuracy on held-out classes mixes, and which columns show each of the two alone
    (`READING`). Columns without a value are left out. A column of words is left out if it has the same word in all
    rows.

    Example:
        >>> page = circuitry.reports.Report("Accuracies")
        >>> table = pd.DataFrame({"domain": ["real", "sketch"], "all": [0.9, 0.7], "alone": [None, None]})
        >>> add_told_apart(page, table, "Accuracies by domain.")
    """
    shown = table.dropna(axis=1, how="all").reset_index(drop=True)
    # A column with the same word in each row belongs into the caption.
    words = shown.select_dtypes(exclude="number")
    shown = shown.drop(columns=words.columns[words.nunique() == 1])
    formats = {name: ".1%" for name in SHARES if name in shown}
    report.table(shown, f"{caption} {READING}", formats=formats)
