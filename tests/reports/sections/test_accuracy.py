"""The section on accuracy states what the table shows, and no more than there is."""

from pathlib import Path

import pandas as pd
import pytest

from circuitry.reports import Report
from circuitry.reports.figures import domain_marks
from circuitry.reports.sections.accuracies import add_accuracy
from tests.reports.sections.test_compared import DOMAINS, captions


def accuracy() -> pd.DataFrame:
    """As `accuracy_kinds` makes it."""
    rows = [("clipart", 0.825, 0.9, 0.6), ("real", 0.75, 0.5, 0.8), ("sketch", 0.5, 0.75, 0.25)]
    table = pd.DataFrame(rows, columns=["domain", "all", "seen", "held_out"])
    kinds = {"alone": 0.7, "own_style": 0.4, "centred": 0.3, "predicted_held_out": 0.1, "harmonic_mean": 0.375}
    return table.assign(
        **kinds, chance=0.125, chance_alone=0.5, sd=float("nan"), seeds=1, n_classes=2, held_out_classes="a, b"
    )


WITHOUT = dict.fromkeys(["held_out", "alone", "own_style", "centred"], float("nan"))


@pytest.mark.parametrize(
    ("table", "stated"),
    [
        (accuracy(), [["12.5%", "25.0%", "75.0%", "70.0%", "60.0%", "80.0%"], ["82.5%", "50.0%", "10.0%"]]),
        (accuracy()[2:], [["25.0%", "75.0%"], []]),  # no best and worst of one domain
        (accuracy().assign(**WITHOUT), [["12.5%", "82.5%", "50.0%"]]),
    ],
)
def test_numbers_of_accuracy(table: pd.DataFrame, stated: list[list[str]], tmp_path: Path) -> None:
    report = Report("t")
    add_accuracy(report, table, domain_marks(DOMAINS), test_domain="sketch")
    found = captions(report, tmp_path)
    assert len(found) == len(stated)
    assert all(number in found[0] for number in stated[0])
    assert ("82.5%" in " ".join(found)) == (len(table) > 1)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(number in page for numbers in stated[1:] for number in numbers)
