"""The results of the steps of an analysis, and the sections, tables and findings that a report shows.

Does not import torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Protocol, runtime_checkable

import pandas as pd

from circuitry.data.folds import Key
from circuitry.questions.answers_of_circuits import (
    AnswerContext,
    ComparedAnswer,
    CurvesAnswer,
    ScoresAnswer,
)
from circuitry.questions.own_parts_answer import OwnPartsAnswer
from circuitry.reports.figures.pictures import contact_sheet
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.accuracies import add_accuracy, recognised
from circuitry.reports.sections.circuits import add_guide

SHEET_ROWS = 20
"""Largest number of classes on the contact sheet."""


@dataclass(frozen=True)
class AccuracyAnswer:
    """The answer to the question how well the model knows the classes.

    Example:
        >>> from circuitry.analysis import AccuracyAnswer
        >>> AccuracyAnswer(pd.DataFrame()).unknown
        []
    """

    by_domain: pd.DataFrame
    """Accuracy by domain, as `accuracy_kinds` returns it."""
    by_class: pd.DataFrame | None = None
    """Table of `class_accuracy` with an additional column ``known``; None if every class counts as known."""
    test_domain: str | None = None
    """The domain in which classes were held out in training."""

    @property
    def unknown(self) -> list[Key]:
        """Pairs of a class and a domain in which the model does not know the class."""
        if self.by_class is None:
            return []
        left_out = self.by_class.loc[~self.by_class["known"], ["class", "domain"]]
        return list(left_out.itertuples(index=False))

    def findings(self) -> list[Finding | None]:
        """Return the finding that says whether the model knows the classes, as the only item of a list.

        The list is empty if no accuracies of single classes were measured.
        """
        if self.by_class is None:
            return []
        return [recognised(self.by_class, self.by_domain)]

    def to_pandas(self) -> pd.DataFrame:
        """Return the table `by_domain`."""
        return self.by_domain

    def tables(self, of: AnswerContext) -> dict[str, pd.DataFrame]:
        """Return the tables on accuracy by name; ``of`` is ignored."""
        tables = {"accuracy": self.by_domain}
        if self.by_class is not None:
            tables["accuracy_by_class"] = self.by_class
        return tables

    def add_to(self, report: Report, of: AnswerContext) -> None:
        """Add the section on accuracy to a report."""
        add_accuracy(report, self.by_domain, of.marks, test_domain=self.test_domain)


@runtime_checkable
class Answer(Protocol):
    """Interface of the result of a step, which a report shows by its findings, tables and sections."""

    def findings(self) -> list[Finding | None]:
        """Return the findings that answer the question of the step."""

    def tables(self, of: AnswerContext) -> dict[str, pd.DataFrame]:
        """Return a dictionary from the name to the table, for each table of this result.

        Args:
            of: The images and circuits that the result is about, and how a report shows them.
        """

    def add_to(self, report: Report, of: AnswerContext) -> None:
        """Add the sections on this step to a report."""


@dataclass
class AnalysisAnswers:
    """The results of the steps of an `Analysis`. The result of a step that was not taken is None."""

    accuracy: AccuracyAnswer | None = None
    """Result of `Analysis.accuracy`."""
    own_parts: OwnPartsAnswer | None = None
    """Result of `Analysis.own_parts`."""
    own_parts_first: bool = False
    """Whether own parts were found before circuits were tested. A report shows the two in the order of these steps."""
    own_parts_saved: bool = False
    """Whether the own parts that a report is about are written as circuits, by this or by another process."""
    curves: CurvesAnswer | None = None
    """Result of `Analysis.curves` and `Analysis.curves_by_site`."""
    compared: ComparedAnswer | None = None
    """Result of `Analysis.compare`."""
    scores: ScoresAnswer | None = None
    """Result of `Analysis.scores`."""

    @property
    def unknown(self) -> list[Key]:
        """Pairs of a class and a domain in which the model does not know the class."""
        return [] if self.accuracy is None else self.accuracy.unknown

    @property
    def in_order(self) -> list[Answer]:
        """The results of the steps that were taken, in the order of a report."""
        curves = self.curves
        # If circuits were compared but not tested, an empty answer tells the reader so.
        if curves is None and self.compared is not None:
            curves = CurvesAnswer([])
        own_and_enough: list[Answer | None] = [curves, self.own_parts]
        if self.own_parts_first:
            own_and_enough.reverse()
        answers = [self.accuracy, *own_and_enough, self.compared, self.scores]
        return [answer for answer in answers if answer is not None]

    def findings(self) -> list[Finding | None]:
        """Return the findings of all steps that were taken."""
        return list(chain(*(answer.findings() for answer in self.in_order)))

    def tables(self, of: AnswerContext) -> dict[str, pd.DataFrame]:
        """Return a dictionary from the name to the table, for the tables of all steps that were taken."""
        tables: dict[str, pd.DataFrame] = {}
        for answer in self.in_order:
            tables |= answer.tables(of)
        return tables

    def add_to(self, report: Report, of: AnswerContext, tested_on: str | None) -> None:
        """Add the results of all steps to an empty report.

        Args:
            of: The images and circuits that the report is about.
            tested_on: Which images the circuits were tested on, in words; None if they were not tested.
        """
        report.summary(self.findings())
        classes = of.images.classes
        if of.graphs is not None:
            # The guide explains the method, which is the same for all circuits.
            first = next(iter(of.graphs.values()))
            add_guide(report, first.settings, tested_on)
            # Own parts are found for all classes, circuits perhaps only for some classes.
            if self.own_parts is None:
                classes = of.graphs.classes
        add_images(report, classes, of)
        for answer in self.in_order:
            answer.add_to(report, of)


def add_images(report: Report, classes: Sequence[str], of: AnswerContext) -> None:
    """Add the section that shows some images of each class and domain.

    Classes and domains without images are left out.
    """
    # Circuits that were given may be of classes and domains that these images do not have.
    rows = sorted({*classes} & {*of.images.classes})
    columns = sorted({*of.domains} & {*of.images.domains})
    which = "every class" if len(rows) <= SHEET_ROWS else "some classes"
    rows = rows[:SHEET_ROWS]
    shown: dict[Key, list[Path]] = {}
    for name, domain in product(rows, columns):
        records = of.images.select(name, domain, 2)
        shown[name, domain] = [record.path for record in records]
    report.section("The images")
    report.image(
        contact_sheet(shown, rows, columns),
        f"Test images of {which} in every domain.",
        alt="Contact sheet of the images by class and domain",
    )
