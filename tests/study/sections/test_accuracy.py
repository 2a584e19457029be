"""Sentences on accuracy say what the table says."""

from pathlib import Path

import pandas as pd

from circuitry.reports import Report
from circuitry.reports.figures import domain_marks
from circuitry.study.sections.accuracies import READING, add_accuracy
from tests.reports.sections.test_compared import DOMAINS, captions


def accuracy() -> pd.DataFrame:
    """As `accuracy_kinds` makes it."""
    rows = [("clipart", 0.825, 0.9, 0.6), ("real", 0.75, 0.5, 0.8), ("sketch", 0.5, 0.75, 0.25)]
    table = pd.DataFrame(rows, columns=["domain", "all", "seen", "held_out"])
    kinds = {"alone": 0.7, "own_style": 0.4, "centred": 0.3, "predicted_held_out": 0.1, "harmonic_mean": 0.375}
    return table.assign(**kinds, chance=0.125, chance_alone=0.5, sd=float("nan"), seeds=1, n_classes=2, left_out="")


def test_sentences_on_accuracy(tmp_path: Path) -> None:
    report = Report("t")
    add_accuracy(report, accuracy(), domain_marks(DOMAINS), test_domain="sketch")
    figure, table = captions(report, tmp_path)
    assert figure.endswith(
        "guessing would reach 12.5%. Best in clipart (82.5%), worst in sketch (50.0%). In sketch, the classes that "
        "were left out of it in training reach 25.0%, its other classes 75.0%; in the other domains, where nothing was "
        "left out, the same classes reach 70.0% on average. A left-out class is predicted for 10.0% of their images; "
        "among themselves they reach 70.0% (guessing 50.0%), after centring 30.0%, with texts in the images' own style "
        "40.0%."
    )
    assert table.endswith(READING)


def test_without_own_style_texts_nothing_is_said_of_them(tmp_path: Path) -> None:
    report = Report("t")
    add_accuracy(report, accuracy().assign(own_style=float("nan")), domain_marks(DOMAINS), test_domain="sketch")
    assert captions(report, tmp_path)[0].endswith("after centring 30.0%.")


def test_sentences_on_accuracy_without_held_out_classes(tmp_path: Path) -> None:
    report = Report("t")
    nothing = [
        "seen",
        "held_out",
        "alone",
        "own_style",
        "centred",
        "predicted_held_out",
        "harmonic_mean",
        "chance_alone",
    ]
    add_accuracy(report, accuracy().assign(**dict.fromkeys(nothing, float("nan"))), domain_marks(DOMAINS))
    (caption,) = captions(report, tmp_path)
    assert "Best in clipart" in caption
    assert "left out" not in caption
