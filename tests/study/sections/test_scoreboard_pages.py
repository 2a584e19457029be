"""The sections of a scoreboard hold its tables."""

import html
from pathlib import Path

import pandas as pd

from circuitry.reports import Report
from circuitry.reports.sections.findings import UNKNOWN, YES
from experiments.study.measure_charts import size_panels
from experiments.study.scoreboard_command import add_scoreboard, scoreboard_findings, with_settings
from tests.study.test_cost_scatter import SUMMARY


def scoreboard() -> dict[str, pd.DataFrame]:
    named = SUMMARY.assign(baseline=SUMMARY["setting"].str.split(", ").str[0], metric="margin", n_classes=3)
    named["budget"] = named["method"].where(named["method"] == "learned", "same-share")
    curve = pd.DataFrame({"circuit": ["kept", "random"], "size": 0.4, "value": [0.75, 0.0], "low": 0.0, "high": 1.0})
    curves = [
        curve.assign(method="learned", budget="learned", baseline="mean", metric="margin", measure=m)
        for m in ("selectivity", "x")
    ]
    planted = pd.DataFrame({"network": ["n"], "kind": ["node"], "site": ["s"], "method": ["learned"], "auroc": [0.875]})
    return {
        "summary": named,
        "curves": pd.concat(curves),
        "planted": planted,
    }


def test_the_page_holds_the_numbers_of_the_tables(tmp_path: Path) -> None:
    report = Report("Which?")
    add_scoreboard(report, scoreboard())
    page = html.unescape(report.write(tmp_path / "page.html").read_text(encoding="utf-8"))
    for number in ("0.400 [0.300, 0.500]", "0.875", "zero baseline, margin", "selectivity, mean baseline"):
        assert number in page
    assert len(report.plotly_figures) == 2  # cost, and the one curve that there is


def test_the_answer_names_the_smallest_circuits_and_their_random_units() -> None:
    table = scoreboard()["summary"].query("setting == 'zero, logit'")
    small, first = scoreboard_findings(table)
    # Of gradient and learned the sizes are 0.9 and 0.4, of random units 1.0 and 0.95, each plus or minus 0.1.
    assert f"? {YES}: " in small.claim
    assert "learned" in small.claim
    assert small.claim.index("40% [30%, 50%]") < small.claim.index("95% [85%, 105%]")
    assert f"? {YES}: " in first.claim
    assert "learned 40% [30%, 50%], gradient (same-share) 90%" in first.claim
    fair = pd.concat([table, table[table["method"] == "gradient"].assign(budget="global", value=0.6)])
    assert "gradient (global) 60%" in scoreboard_findings(fair)[1].claim  # each method has its best budget
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


def test_every_panel_has_the_lines_of_its_rows_and_the_legend_names_each_method_once() -> None:
    curve = pd.DataFrame({"circuit": ["kept", "random"], "size": 0.4, "low": 0.0, "high": 1.0})
    parts = [
        curve.assign(panel=panel, method=method, value=[value, 0.0])
        for panel, values in {"small": (0.25, 0.5), "large": (0.75, 1.0)}.items()
        for method, value in zip(("fisher", "learned"), values, strict=True)
    ]
    figure = size_panels(pd.concat(parts), "selectivity", "Which?")
    drawn = {(trace.name, trace.xaxis): float(trace.y[0]) for trace in figure.data if trace.x[0] is not None}
    assert drawn == {
        ("fisher", "x"): 0.25,
        ("learned", "x"): 0.5,
        ("fisher", "x2"): 0.75,
        ("learned", "x2"): 1.0,
        **{(f"{name}, random units", axis): 0.0 for name in ("fisher", "learned") for axis in ("x", "x2")},
    }
    assert [trace.name for trace in figure.data if trace.showlegend] == ["fisher", "learned", "random units"]
