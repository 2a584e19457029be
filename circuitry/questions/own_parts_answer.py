"""The answer on own parts: tables, findings, and sections of a report. Does not import torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from circuitry.data.folds import Key
from circuitry.questions.answers_of_circuits import AnswerContext
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.findings import UNKNOWN
from circuitry.reports.sections.own_parts import (
    add_own_parts,
    matrix_with_counts,
    own_part_findings,
    own_part_tables,
)
from circuitry.runs.errors import InputError


@dataclass(frozen=True)
class OwnPartsAnswer:
    """The tables of lesions and of overlaps of own parts, or the reason why there are no own parts.

    An own part is a set of units that a class needs and that other classes do not need. A lesion ablates these units.

    Example:
        >>> from circuitry.questions import OwnPartsAnswer
        >>> nothing = OwnPartsAnswer(reason="The folder has one class.")
        >>> nothing.named_tables
        {}
    """

    lesions: pd.DataFrame | None = None
    """A table of `lesion` with the additional columns share and sites; None if no part was found."""
    overlaps: pd.DataFrame | None = None
    """A table of `part_overlaps` with the additional columns share and sites; None if no part was found."""
    reason: str = ""
    """A sentence which says why there are no parts, or why nothing can be concluded; empty if there are results."""

    def of_known(self, unknown: Sequence[Key]) -> "OwnPartsAnswer":
        """Return this answer without the rows of classes that the model does not know.

        Args:
            unknown: The (class, domain) pairs that the model does not know.

        Returns:
            The answer without rows that name one of these pairs. If too few rows are left for tables, the answer has no
            rows, only the reason.
        """
        if self.lesions is None or self.overlaps is None:
            return self
        # Each row names two classes: the class of the part and the tested class. Both have to be known.
        lesions = _without(self.lesions, unknown, "part_class", "part_domain")
        lesions = _without(lesions, unknown, "class", "domain")
        overlaps = _without(self.overlaps, unknown, "class_a", "domain_a")
        overlaps = _without(overlaps, unknown, "class_b", "domain_b")
        answer = OwnPartsAnswer(lesions, overlaps)
        # Tables need a bootstrap. If no row was removed, this answer already has them.
        if (len(lesions), len(overlaps)) == (len(self.lesions), len(self.overlaps)):
            answer = self
        # If too few rows are left, making the tables raises an error, which says why.
        try:
            _ = answer.named_tables
        except InputError as error:
            return OwnPartsAnswer(reason=str(error))
        return answer

    def to_pandas(self) -> pd.DataFrame:
        """Return the table `lesions`; no rows if there are no parts."""
        return pd.DataFrame() if self.lesions is None else self.lesions

    @cached_property
    def named_tables(self) -> dict[str, pd.DataFrame]:
        """The tables of `own_part_tables` by name; empty if no part was found."""
        if self.lesions is None or self.overlaps is None:
            return {}
        return own_part_tables(self.lesions, self.overlaps)

    def findings(self) -> list[Finding | None]:
        """Return findings on whether classes have own parts, and whether a class has the same part in two domains."""
        if self.named_tables:
            return list(own_part_findings(self.named_tables))
        return [
            Finding(
                f"Do classes have parts of their own? {UNKNOWN}: none was found. {self.reason}",
                "A class's own part is found by contrast with other classes, and tested on other images.",
                "Other classes beside each class, and two images or more of each.",
            )
        ]

    def tables(self, of: AnswerContext) -> dict[str, pd.DataFrame]:
        """Return the tables by the names that they have in a report on circuits.

        Args:
            of: The images and circuits of the report; ignored.
        """
        tables = self.named_tables.items()
        return {f"own_part_{name}": table for name, table in tables}

    def add_to(self, report: Report, of: AnswerContext) -> None:
        """Add the sections on own parts to a report, or the sentence which says why there are none.

        Args:
            report: The report.
            of: The images and circuits of the report; ignored.
        """
        report.section("What is the class's own?")
        if not self.named_tables:
            report.text(self.reason)
            return
        lesions = self.named_tables["lesions"]
        report.text(
            "A circuit that is enough for a class holds what every class needs, too. Its own part is found by "
            f"contrast: at most {lesions['share'].max():.1%} of the units, whose ablation costs the class much and "
            "other classes little. It is tested by lesion, on images that found no part, beside as many random units "
            "at the same sites."
        )
        self.add_charts(report, sorted({*lesions["part_domain"], *lesions["domain"]}))

    def add_charts(self, report: Report, domains: Sequence[str]) -> None:
        """Add only the sections on own parts to a report, without an introduction.

        Args:
            report: The report.
            domains: The domains, in the order in which charts show them.
        """
        add_own_parts(report, self.named_tables, domains)

    def matrix(self) -> pd.DataFrame:
        """Return a matrix of texts: which share of its right answers a class keeps when its own part is ablated.

        A row is the domain on whose images the parts were found. A column is the domain of the test images. An entry
        has the share, averaged over classes, and the number of these classes.
        """
        return matrix_with_counts(self.named_tables["told"])


def _without(table: pd.DataFrame, keys: Sequence[Key], *columns: str) -> pd.DataFrame:
    """Return a table without the rows of some (class, domain) pairs.

    Args:
        table: The table.
        keys: The pairs.
        columns: The names of the column of the class and the column of the domain.
    """
    return table[~pd.MultiIndex.from_frame(table[list(columns)]).isin(keys)]
