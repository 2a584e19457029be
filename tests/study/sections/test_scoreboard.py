"""The sections of a scoreboard hold its tables."""

import html
from pathlib import Path

import pandas as pd

from circuitry.reports import Report
from circuitry.reports.sections.findings import UNKNOWN, YES
from circuitry.study.sections.scoreboards import add_scoreboard, scoreboard_findings, with_settings
from tests.study.charts.test_scoreboard import SUMMARY


def scoreboard() -> dict[str, pd.DataFrame]:
    named = SUMMARY.assign(baseline=SUMMARY["setting"].str.split(", ").str[0], metric="margin", n_classes=3)
    named["budget"] = named["method"].where(named["method"] == "learned", "same-share")
    overlap = named[named["what"] == "size for 0.8, kept"].assign(what="other seed, overlap at 0.4", value=0.625)
    curve = pd.DataFrame({"circuit": ["kept", "random"], "size": 0.4, "value": [0.75, 0.0], "low": 0.0, "high": 1.0})
    curves = [
        curve.assign(method="learned", budget="learned", baseline="mean", metric="margin", measure=m)
        for m in ("selectivity", "x")
    ]
    planted = pd.DataFrame({"network": ["n"], "kind": ["node"], "site": ["s"], "method": ["learned"], "auroc": [0.875]})
    return {
        "summary": pd.concat([named, overlap], ignore_index=True),
        "curves": pd.concat(curves),
        "planted": planted,
    }


def test_the_page_holds_the_numbers_of_the_tables(tmp_path: Path) -> None:
    report = Report("Which?")
    add_scoreboard(report, scoreboard())
    page = html.unescape(report.write(tmp_path / "page.html").read_text(encoding="utf-8"))
    for number in ("0.400 [0.300, 0.500]", "0.625", "0.875", "zero baseline, margin", "selectivity, mean baseline"):
        assert number in page
    assert len(report.plotly_figures) == 2  # cost, and the one curve that there is


def test_the_answer_names_the_smallest_circuits_and_their_random_units() -> None:
    table = scoreboard()["summary"].query("setting == 'zero, logit'")
    small, first = scoreboard_findings(table)
    # Of gradient and learned the sizes are 0.9 and 0.4, of random units 1.0 and 0.95, each plus or minus 0.1.
    assert f"? {YES}: " in small.claim
    assert "learned" in small.claim
    assert small.claim.index("40% [30%, 50%]") < small.claim.index("95% [85%, 105%]")
    assert f"? {YES}: learned needs 40% [30%, 50%] of the units, gradient 90%" in first.claim
    unknown = table["what"].str.startswith("size")
    (nothing,) = scoreboard_findings(table.assign(value=table["value"].mask(unknown)))
    assert UNKNOWN in nothing.claim


def test_several_budgets_are_settings_of_their_own_and_masks_are_in_each() -> None:
    rows = [("gradient", "same-share"), ("gradient", "global"), ("learned", "learned")]
    table = pd.DataFrame(rows, columns=["method", "budget"]).assign(baseline="mean", metric="logit")
    found = with_settings(table)
    assert list(zip(found["setting"], found["method"], strict=True)) == [
        (f"mean baseline, logit, budget {budget}", method)
        for budget in ("same-share", "global")
        for method in ("gradient", "learned")
    ]
    assert with_settings(table.iloc[1:])["setting"].tolist() == ["mean baseline, logit"] * 2
