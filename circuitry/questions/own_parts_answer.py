"""The answer on own parts: tables, findings, and sections of a report. No torch."""

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
    """The lesions and overlaps of own parts, or the reason why there are none.

    Example:
        >>> from circuitry.questions import OwnPartsAnswer
        >>> nothing = OwnPartsAnswer(reason="The folder has one class.")
        >>> nothing.named_tables
        {}
    """

    lesions: pd.DataFrame | None = None
    """Table of `lesion` with columns share and sites; None where no part was found."""
    overlaps: pd.DataFrame | None = None
    """Table of `part_overlaps` with the same columns."""
    reason: str = ""
    """A sentence on why no part was found or none can be told; empty where there are some."""

    def of_known(self, unknown: Sequence[Key]) -> "OwnPartsAnswer":
        """Return the answer without classes in the domains where the model does not know them."""
        if self.lesions is None or self.overlaps is None:
            return self
        # Each row names two classes, the part's and the tested one, and both have to be known.
        lesions = _without(self.lesions, unknown, "part_class", "part_domain")
        lesions = _without(lesions, unknown, "class", "domain")
        overlaps = _without(self.overlaps, unknown, "class_a", "domain_a")
        overlaps = _without(overlaps, unknown, "class_b", "domain_b")
        answer = OwnPartsAnswer(lesions, overlaps)
        # Tables take a bootstrap, so an answer of known classes alone keeps those that it has.
        if (len(lesions), len(overlaps)) == (len(self.lesions), len(self.overlaps)):
            answer = self
        # Perhaps too few rows are left; the error says which are missing.
        try:
            _ = answer.named_tables
        except InputError as error:
            return OwnPartsAnswer(reason=str(error))
        return answer

    @cached_property
    def named_tables(self) -> dict[str, pd.DataFrame]:
        """The tables of `own_part_tables` by name; none where nothing was found."""
        if self.lesions is None or self.overlaps is None:
            return {}
        return own_part_tables(self.lesions, self.overlaps)

    def findings(self) -> list[Finding | None]:
        """Answer whether classes have parts of their own, and whether they are the same in two styles."""
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
        """Return the tables of a report on circuits, too, by name."""
        tables = self.named_tables.items()
        return {f"own_part_{name}": table for name, table in tables}

    def add_to(self, report: Report, of: AnswerContext) -> None:
        """Add the sections on own parts, or the sentence that says why there are none."""
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
        """Add the sections on own parts alone, with domains in this order."""
        add_own_parts(report, self.named_tables, domains)

    def matrix(self) -> pd.DataFrame:
        """Return in words what a lesion leaves of the own class's right answers, found on (rows) and tested on."""
        return matrix_with_counts(self.named_tables["told"])


def _without(table: pd.DataFrame, keys: Sequence[Key], *columns: str) -> pd.DataFrame:
    """Return a table without the rows of some classes in domains, which two columns name."""
    return table[~pd.MultiIndex.from_frame(table[list(columns)]).isin(keys)]
