"""The sentences of causal checks against tables worked out on paper."""

import html
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from circuitry.interventions import AttributionCheck, FaithfulnessCurve
from circuitry.reports import Report
from circuitry.reports.figures import domain_marks
from circuitry.study.sections.causal_checks import (
    add_attribution_check,
    add_faithfulness,
    add_interchange,
    add_methods,
    add_pixels,
    add_selectivity_over_depth,
    add_transfer,
)
from tests.support.scripts import script

DOMAINS = ("clipart", "real", "sketch")
MARKS = domain_marks(DOMAINS)


def curve(
    domain: str, kept: float, kept_on_others: float, ranking: str = "absolute", site: str = ""
) -> FaithfulnessCurve:
    """Two images of the class (metric 1) and two of others (metric 0); a tenth of the units keeps what is told."""
    own = np.array([True, True, False, False])
    full = own.astype(float)
    at_a_tenth = np.where(own, kept, kept_on_others)
    values = np.stack([at_a_tenth, full])
    return FaithfulnessCurve(
        (0.1, 1.0),
        ranking,
        (1, 10),
        full,
        np.zeros(4),
        values,
        np.zeros((2, 4)),
        np.stack([np.zeros(4), full])[None],
        own,
        np.zeros(4, int),
        "cat",
        domain,
        {"baseline": "zero", "sites": [site] if site else ["a", "b"]},
    )


def page(report: Report, tmp_path: Path) -> str:
    return html.unescape(report.write(tmp_path / "report.html").read_text(encoding="utf-8"))


def curves_of(on_others: float) -> list[FaithfulnessCurve]:
    return [
        curve(domain, kept, on_others if on_others < 0.5 else kept, ranking)
        for domain, kept in (("real", 0.75), ("sketch", 0.5))
        for ranking in ("absolute", "signed")
    ]


@pytest.mark.parametrize(
    ("on_others", "selectivity", "verdict"),
    [
        (0.7, "it is 0.00 to 0.00 by domain", "so the circuits answer their class whatever they are shown"),
        (0.2, "it is 0.30 to 0.55 by domain", "so what the circuits answer still depends on the image"),
    ],
)
def test_faithfulness_in_words(on_others: float, selectivity: str, verdict: str, tmp_path: Path) -> None:
    curves = curves_of(on_others)
    report = Report("t")
    add_faithfulness(report, curves, MARKS)
    text = page(report, tmp_path)
    assert "With the 10% largest |scores| it is 0.50 to 0.75 by domain, with as many random units 0.00 to 0.00" in text
    assert f"With the 10% largest |scores| {selectivity}, with as many random units 0.00 to 0.00" in text
    assert verdict not in text  # the page states numbers; what they mean is for the experiment that asks
    assert verdict in script("faithfulness").listening_verdict(curves)
    # CPR: (0.75 + 1) / 2 * 0.9; CMD: 0.25 / 2 * 0.9.
    assert "0.787 [0.787, 0.787]" in text
    assert "0.113 [0.113, 0.113]" in text
    assert "CPR, random" in text


def test_a_model_that_tells_nothing_apart_is_said_to(tmp_path: Path) -> None:
    same = replace(curve("real", 0.5, 0.5), full=np.ones(4))
    report = Report("t")
    add_faithfulness(report, [same], MARKS)
    assert len(report.plotly_figures) == 1
    table = pd.concat([transfers("all", 0.0), transfers("a", 0.0)]).assign(other_full_metric=1.0)
    add_transfer(report, table, SIMILARITY, MARKS, ["a"])
    text = page(report, tmp_path)
    assert "There is no selectivity: the model does no better than the baseline: 0 against 0." in text
    assert "There is no selectivity: the model does no better than the baseline." in text


def test_selectivity_over_depth_in_words(tmp_path: Path) -> None:
    curves = [
        curve(domain, kept, 0.1, site=site)
        for domain, shift in (("real", 0.1), ("sketch", 0.0))
        for site, kept in (("a", 0.3 + shift), ("b", 0.6 + shift))
    ]
    report = Report("t")
    add_selectivity_over_depth(report, curves, MARKS, ["a", "b"])
    assert "selectivity is highest at b (0.55; random units" in page(report, tmp_path)


def transfers(sites: str, other: float) -> pd.DataFrame:
    """Own circuits keep all, others more the nearer the domain."""
    near = {("clipart", "real"): 0.9, ("clipart", "sketch"): 0.5, ("real", "sketch"): 0.1}
    rows = [
        {"class": c, "circuit_domain": a, "image_domain": b, "sites": sites, "reason": "", "n_images": 2}
        | {"metric": 1.0 if a == b else near[min(a, b), max(a, b)], "full_metric": 1.0, "empty_metric": 0.0}
        | {"other_metric": other, "other_full_metric": 0.0, "other_empty_metric": 0.0, "faithfulness": 1.0}
        | {"accuracy": 1.0, "full_accuracy": 0.5, "other_accuracy": 0.75, "other_full_accuracy": 0.25}
        for c in ("axe", "cat")
        for a in DOMAINS
        for b in DOMAINS
    ]
    return pd.DataFrame(rows)


SIMILARITY = pd.DataFrame(
    [[1.0, 0.3, 0.2], [0.3, 1.0, 0.1], [0.2, 0.1, 1.0]], index=list(DOMAINS), columns=list(DOMAINS)
)


def test_transfer_in_words(tmp_path: Path) -> None:
    table = pd.concat([transfers("all", 0.0), transfers("a", 0.0), transfers("b", 0.1)])
    report = Report("t")
    add_transfer(report, table, SIMILARITY, MARKS, ["a", "b"])
    text = page(report, tmp_path)
    assert (
        "With the circuit alone 100% of the images are given their class, and 75% of the images of other classes"
        in text
    )
    assert "(whole model: 50% and 25%)" in text
    assert "Own circuits reach most more at" in text
    assert "rank correlation over 3 pairs of domains +1.00" in text
    assert len(report.plotly_figures) == 3
    short = Report("t")
    add_transfer(short, transfers("all", 0.0), SIMILARITY, MARKS, ["a"])
    assert len(short.plotly_figures) == 1


def test_interchange_in_words(tmp_path: Path) -> None:
    table = transfers("all", 0.0).assign(change=lambda t: t["metric"] - 1, random_change=-0.25, accuracy=0.5)
    report = Report("t")
    add_interchange(report, table, MARKS)
    # Off the diagonal -0.1, -0.5, -0.9.
    assert "changes by -0.500 on average, with random units by -0.250; 50% of the images keep" in page(report, tmp_path)


def test_methods_pixels_and_scores_in_words(tmp_path: Path) -> None:
    rules = pd.DataFrame(
        {"rule": ["left 10", "left 10"], "site": "a", "sample": ["all", "top"], "pearson": [0.5, 0.25]}
        | {"spearman": [0.75, 0.125]}
    )
    planted = pd.DataFrame(
        {"network": ["conv"], "method": ["left 10"], "kind": ["edge"], "site": "a", "auroc": [0.875]}
    )
    points = pd.DataFrame(
        {"site": ["a"] * 4, "unit": range(4), "top": True, "random": True, "attributed": [0.0, 1, 2, 3]}
        | {"exact": [0.0, 1, 3, 2]}
    )
    report = Report("t")
    add_methods(report, rules, planted, 2)
    add_attribution_check(report, AttributionCheck(points), ["a"], "cat in real")
    maps = {"whole model": np.eye(8)[None], "circuit": -np.eye(8)[None]}
    add_pixels(report, np.zeros((1, 8, 8, 3), np.uint8), maps, ["real 1"], "cat")
    text = page(report, tmp_path)
    for words in ("pearson of all units", "spearman of top units", "conv: edges", "0.875", "2 circuits"):
        assert words in text
    assert "Rank correlation in the random sample: 0.80 (a) to 0.80 (a)" in text
    assert "Correlation with the whole model's map: circuit -1.00" in text


def test_one_circuit_is_no_circuits(tmp_path: Path) -> None:
    rules = pd.DataFrame({"rule": ["left 10"], "site": "a", "sample": ["all"], "pearson": [0.5], "spearman": [0.75]})
    planted = pd.DataFrame({"network": ["conv"], "method": ["x"], "kind": ["edge"], "site": "a", "auroc": [0.5]})
    report = Report("t")
    add_methods(report, rules, planted, 1)
    assert "mean over the sites of 1 circuit." in page(report, tmp_path)
