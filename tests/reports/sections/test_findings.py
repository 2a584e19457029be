"""The answers at the top of reports, on tables worked out by hand."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from circuitry import Comparison
from circuitry.reports import Report
from circuitry.reports.figures import domain_marks
from circuitry.reports.sections.compared import add_ratios
from circuitry.reports.sections.findings import (
    NO,
    PARTLY,
    UNKNOWN,
    YES,
    class_or_domain,
    how_much_shared,
    which_differs,
)
from tests.comparison.similarities import similarities
from tests.reports.sections.test_compared import edges, table


def test_copies_share_everything() -> None:
    # Domains of which one is a copy of the other: folds of both are as alike as folds of one.
    comparison = similarities()
    folds = comparison.folds
    same = folds[
        (folds["domain_a"] == "d0")
        & (folds["domain_b"] == "d0")
        & (folds["class_a"] == folds["class_b"])
    ]
    both = pd.concat(
        [same, same.rename(columns={"fold_a": "fold_b", "fold_b": "fold_a"})]
    )
    copies = [same.assign(domain_a="d1", domain_b="d1"), both.assign(domain_b="d1")]
    values = comparison.values.query("domain_a == 'd0' and domain_b == 'd1'")
    claim = how_much_shared(
        replace(comparison, values=values, folds=pd.concat([same, *copies]), groups={})
    ).claim
    assert f"? {YES}: " in claim
    assert "1.00" in claim


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [(0.95, 1.0, YES), (0.3, 0.9, PARTLY), (0.3, 1.1, "At least partly"), (-0.2, 0.05, NO), (-0.2, 0.6, UNKNOWN),
     (float("nan"), float("nan"), UNKNOWN)],
)  # fmt: skip
def test_the_interval_of_a_ratio_gives_the_answer(
    low: float, high: float, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Comparison, "mean_ratio", lambda self: (0.5, (low, high)))
    assert f"? {answer}: " in how_much_shared(similarities()).claim


def test_what_has_no_ceiling_well_above_chance_is_left_out(tmp_path: Path) -> None:
    comparison = similarities(6, ("u",))
    folds, said = comparison.folds, Report("t")
    for weak, told in (
        (("d2",), "2 of 3 pairs have no ratio"),
        (("d0", "d1", "d2"), UNKNOWN),
    ):
        own = (folds["domain_a"] == folds["domain_b"]) & folds["domain_a"].isin(weak)
        own &= folds["class_a"] == folds["class_b"]
        found = replace(
            comparison,
            folds=folds.assign(
                value=folds["value"].where(~own, comparison.chance["value"][0])
            ),
        )
        finding = how_much_shared(found)
        assert told in finding.claim + finding.certainty
        assert f"ceiling of {weak[0]}" in finding.claim + finding.certainty
        assert found.matrix(normalise=True).notna().sum().sum() == 2 * (weak == ("d2",))
        add_ratios(said, found, domain_marks(found.domains), title="t")
    assert (
        "3 of 3 pairs have no ratio" in said.write(tmp_path / "report.html").read_text()
    )


def test_pairs_above_their_ceiling_do_not_count_as_below() -> None:
    comparison = similarities(10, ("u",))
    assert "3 of 3 pairs" in how_much_shared(comparison).certainty
    folds = comparison.folds
    more = folds["value"] + 0.9 * (folds["domain_a"] != folds["domain_b"])
    above = replace(comparison, folds=folds.assign(value=more))
    assert (above.ceiling_tests()["p_holm"] < 0.05).all()
    assert "0 of 3 pairs" in how_much_shared(above).certainty


# Pairs clipart-real, clipart-sketch, real-sketch; sketch is lowest in each of 16 classes, by nearly the same.
CLEAR = replace(
    edges(),
    values=table({f"c{i}": [0.8 + i / 1000, 0.2, 0.1 - i / 2000] for i in range(16)}),
    groups={},
)


@pytest.mark.parametrize(
    ("comparison", "domain", "value", "clear", "count"),
    [
        (CLEAR, "sketch", "0.148 [", True, "2 of 2"),
        (edges(), "clipart", "0.325 [0.007, 0.643]", False, "0 of 2"),
        (
            replace(edges(), alike=False),
            "real",
            "0.550 [-1.356, 2.456]",
            False,
            "0 of 2",
        ),
    ],
)
def test_which_domain_differs(
    comparison: Comparison, domain: str, value: str, clear: bool, count: str
) -> None:
    found = which_differs(comparison)
    assert found is not None
    assert f"{domain} " in found.claim
    assert value in found.claim
    assert (YES in found.claim, UNKNOWN in found.claim) == (clear, not clear)
    assert f"{count} differences from {domain}" in found.certainty
    assert ("so few classes" in found.certainty) != clear


def test_class_and_domain_are_told_by_their_tests() -> None:
    # Of four classes no test can say it, whatever the intervals: the least p is 2 / 2^4.
    four = similarities(4)
    effect = four.class_by_domain().set_index("what").loc["class effect"]
    assert effect["low"] > 0
    finding = class_or_domain(four)
    assert finding is not None
    assert f"? {UNKNOWN}: " in finding.claim
    assert "With 4 classes no p can be below 0.12" in finding.certainty
