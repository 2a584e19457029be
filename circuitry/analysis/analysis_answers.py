"""The results of the steps of an analysis, and their report: sections in one order, tables, answers. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Protocol

import pandas as pd

from circuitry.data.folds import Key
from circuitry.questions.answers_of_circuits import (
    AnswerContext,
    ComparedAnswer,
    CurvesAnswer,
    ScoresAnswer,
    TransferAnswer,
)
from circuitry.questions.own_parts_answer import OwnPartsAnswer
from circuitry.reports.figures.pictures import contact_sheet
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.accuracies import add_accuracy, recognised
from circuitry.reports.sections.circuits import add_guide

SHEET_ROWS = 20
"""Most classes on the contact sheet."""


@dataclass(frozen=True)
class AccuracyAnswer:
    """How well the model knows the classes.

    Example:
        >>> from circuitry.analysis import AccuracyAnswer
        >>> AccuracyAnswer(pd.DataFrame()).unknown
        []
    """

    by_domain: pd.DataFrame
    """Table of `accuracy_kinds`."""
    by_class: pd.DataFrame | None = None
    """Table of `class_accuracy` with the column known; None where every class counts as known."""
    test_domain: str | None = None
    """The domain that classes are held out of."""

    @property
    def unknown(self) -> list[Key]:
        """The classes that the model does not know, with the domain."""
        if self.by_class is None:
            return []
        left_out = self.by_class.loc[~self.by_class["known"], ["class", "domain"]]
        return list(left_out.itertuples(index=False))

    def findings(self) -> list[Finding | None]:
        """Answer whether the model knows the classes."""
        if self.by_class is None:
            return []
        return [recognised(self.by_class, self.by_domain)]

    def tables(self, of: AnswerContext) -> dict[str, pd.DataFrame]:
        """Return the tables of a report by name."""
        tables = {"accuracy": self.by_domain}
        if self.by_class is not None:
            tables["accuracy_by_class"] = self.by_class
        return tables

    def add_to(self, report: Report, of: AnswerContext) -> None:
        """Add the section on accuracy."""
        add_accuracy(report, self.by_domain, of.marks, test_domain=self.test_domain)


class Answer(Protocol):
    """The result of a step, as a report shows it."""

    def findings(self) -> list[Finding | None]:
        """Return the answers to the question of the step."""

    def tables(self, of: AnswerContext) -> dict[str, pd.DataFrame]:
        """Return the tables of a report by name."""

    def add_to(self, report: Report, of: AnswerContext) -> None:
        """Add the sections of a report."""


@dataclass
class AnalysisAnswers:
    """The results of the steps; None for a step that was not taken."""

    accuracy: AccuracyAnswer | None = None
    """Of `Analysis.accuracy`."""
    own_parts: OwnPartsAnswer | None = None
    """Of `Analysis.own_parts`."""
    own_parts_first: bool = False
    """Whether own parts were found before circuits were tested; answers come in the order of the steps."""
    own_parts_saved: bool = False
    """Whether the parts that a report tells of are written as circuits, by this or by another process."""
    curves: CurvesAnswer | None = None
    """Of `Analysis.curves` and `Analysis.curves_by_site`."""
    compared: ComparedAnswer | None = None
    """Of `Analysis.compare`."""
    transfer: TransferAnswer | None = None
    """Of `Analysis.transfer`."""
    scores: ScoresAnswer | None = None
    """Of `Analysis.scores`."""

    @property
    def unknown(self) -> list[Key]:
        """The classes that the model does not know, with the domain."""
        return [] if self.accuracy is None else self.accuracy.unknown

    @property
    def in_order(self) -> list[Answer]:
        """The answers of the steps that were taken, in the order of a report."""
        curves = self.curves
        # A reader of a comparison has to know that its circuits were not tested.
        if curves is None and self.compared is not None:
            curves = CurvesAnswer([])
        own_and_enough: list[Answer | None] = [curves, self.own_parts]
        if self.own_parts_first:
            own_and_enough.reverse()
        answers = [self.accuracy, *own_and_enough, self.compared, self.transfer]
        return [answer for answer in (*answers, self.scores) if answer is not None]

    def findings(self) -> list[Finding | None]:
        """Return the answers to the questions of all steps."""
        return list(chain(*(answer.findings() for answer in self.in_order)))

    def tables(self, of: AnswerContext) -> dict[str, pd.DataFrame]:
        """Return the tables of a report by name."""
        tables: dict[str, pd.DataFrame] = {}
        for answer in self.in_order:
            tables |= answer.tables(of)
        return tables

    def add_to(self, report: Report, of: AnswerContext, tested_on: str | None) -> None:
        """Add all answers to an empty report; ``tested_on`` names the images of tests, if there were any."""
        report.summary(self.findings())
        classes = of.images.classes
        if of.graphs is not None:
            # The guide explains the method, which is the same for all circuits.
            first = next(iter(of.graphs.values()))
            add_guide(report, first.settings, tested_on)
            # Own parts are of all classes, circuits perhaps of some.
            if self.own_parts is None:
                classes = of.graphs.classes
        add_images(report, classes, of)
        for answer in self.in_order:
            answer.add_to(report, of)


def add_images(report: Report, classes: Sequence[str], of: AnswerContext) -> None:
    """Add the section that shows some images, of classes and domains that are there."""
    # Given circuits may be of classes and domains that these images do not have.
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
