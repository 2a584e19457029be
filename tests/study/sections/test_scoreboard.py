"""The sections of a scoreboard say what its tables say."""

import html
from pathlib import Path

import pandas as pd

from circuitry.reports import Report
from circuitry.study.sections.scoreboards import add_scoreboard, with_settings
from tests.study.charts.test_scoreboard import SUMMARY


def test_sections_hold_the_tables(tmp_path: Path) -> None:
    named = SUMMARY.assign(baseline=SUMMARY["setting"].str.split(", ").str[0], metric="margin", n_classes=3)
    kept = named[named["what"] == "size for 0.8, kept"]
    overlap = kept.assign(what="other seed, overlap at 0.4", value=0.625)
    curve = pd.DataFrame({"circuit": ["kept", "random"], "size": 0.4, "value": [0.75, 0.0], "low": 0.0, "high": 1.0})
    curves = [curve.assign(method="learned", baseline="mean", metric="margin", measure=m) for m in ("selectivity", "x")]
    planted = pd.DataFrame({"network": ["n"], "kind": ["node"], "site": ["s"], "method": ["learned"], "auroc": [0.875]})
    report = Report("Which?")
    summary = pd.concat([named, overlap], ignore_index=True)
    add_scoreboard(report, {"summary": summary, "curves": pd.concat(curves), "planted": planted})
    page = html.unescape(report.write(tmp_path / "page.html").read_text(encoding="utf-8"))
    for words in ("0.400 [0.300, 0.500]", "0.625", "0.875", "zero baseline, margin", "selectivity, mean baseline"):
        assert words in page
    assert len(report.plotly_figures) == 2  # cost, and the one curve that there is
    assert with_settings(planted.assign(baseline="a", metric="b"))["setting"].tolist() == ["a baseline, b"]
