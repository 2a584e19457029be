"""The sections of causal checks against tables worked out on paper."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from circuitry.comparison.one_site_reading import mean_over_depth
from circuitry.interventions import FaithfulnessCurve
from circuitry.interventions.curves import areas_by_domain
from circuitry.reports.figures import domain_marks
from circuitry.reports.page import Report
from circuitry.reports.sections.causal_curves import (
    add_faithfulness,
    faithfulness_findings,
)
from circuitry.reports.sections.findings import UNKNOWN
from tests.interventions.test_verdicts import curve_by_hand
from tests.support.circuits import curve_of

DOMAINS = ("clipart", "real", "sketch")
MARKS = domain_marks(DOMAINS)


def curve(
    domain: str,
    kept: float,
    on_others: float,
    ranking: str = "absolute",
    site: str = "",
) -> FaithfulnessCurve:
    """Two images of the class (metric 1) and two of others (metric 0); a tenth of the units keeps what is told."""
    own = np.array([True, True, False, False])
    full, none = own.astype(float), np.zeros(4)
    values, random = (
        np.stack([np.where(own, kept, on_others), full]),
        np.stack([none, full])[None],
    )
    sites = [site] if site else ["a", "b"]
    of = (own, np.zeros(4, int), "cat", domain, {"baseline": "zero", "sites": sites})
    runs: Any = [
        run[None]
        for run in (full, none, values, np.zeros((2, 4)), random, np.zeros((0, 2, 4)))
    ]
    return FaithfulnessCurve((0.1, 1.0), ranking, (1, 10), *runs, *of)  # type: ignore[call-arg]


def curves_of(on_others: float) -> list[FaithfulnessCurve]:
    return [
        curve(domain, kept, on_others if on_others < 0.5 else kept, ranking)
        for domain, kept in (("real", 0.75), ("sketch", 0.5))
        for ranking in ("absolute", "signed")
    ]


@pytest.mark.parametrize("others", [True, False])
def test_faithfulness_alone_is_no_yes(others: bool) -> None:
    (finding,) = faithfulness_findings(
        [one if others else only_own(one) for one in curves_of(0.0)], []
    )
    selectivity = "0.62" if others else "nan"
    assert f"? {UNKNOWN}: the metric has no candidate classes" in finding.claim
    assert (
        f"selectivity {selectivity}, faithfulness 0.62" in finding.claim
    )  # the numbers are there


def test_verdicts_are_counted_and_read_beside_other_circuits(tmp_path: Path) -> None:
    settings = {"baseline": "zero", "sites": ["a", "b"]}
    given: dict[str, Any] = {
        "cat": {},
        "dog": {"kept": (0.9, 0.6, 1.8)},
        "fox": {"full": (0.0, 0.1, 0.0)},
    }
    curves = [
        replace(
            curve_by_hand(**runs),
            class_name=name,
            domain="real",
            settings=settings,
        )
        for name, runs in given.items()
    ]
    at_b = settings | {"sites": ["b"]}
    alone = [
        replace(one, settings=at_b, random=one.empty[:, None, None])
        for one in curves[:2]
    ]
    finding, best = faithfulness_findings(curves, alone)
    assert (
        "of 2 circuits with 10% of the units kept at b alone, the best site"
        in best.claim
    )
    assert (
        "Partly: of 3 circuits with 10% of the units kept at all sites, 1 work"
        in finding.claim
    )
    assert (
        "(1: works and is the class's own; 1: answers its class to everything; 1: cannot be told)"
        in finding.claim
    )
    assert "Are they the class's own? Yes: 1 of 1 are" in finding.claim
    assert "These do not work: dog in real." in finding.certainty
    means = "false answers 35% (whole model 10%, nothing kept 20%, circuits of other classes 20%)"
    assert means in finding.claim
    assert "over classes and images" in finding.certainty
    (nothing,) = faithfulness_findings([replace(curves[1])], [])
    assert "? No: " in nothing.claim
    assert "one by one" in nothing.claim
    report = Report("x", "y")
    add_faithfulness(report, curves, MARKS)
    page = report.write(tmp_path / "x.html").read_text(encoding="utf-8")
    for words in (
        "answers its class to everything",
        "Answers recovered over size",
        "circuits of other classes",
    ):
        assert words in page


def only_own(curve: FaithfulnessCurve) -> FaithfulnessCurve:
    arrays = (
        "full",
        "empty",
        "kept",
        "complement",
        "random",
        "foreign",
        "own",
        "group",
    )
    return replace(
        curve, **{name: getattr(curve, name)[..., curve.own] for name in arrays}
    )


def test_the_size_that_is_spoken_of() -> None:
    curve = curve_of(np.ones((4, 2)), (0.001, 0.05, 0.2, 1.0))
    assert curve.size == 0.05  # a tenth, by ratio, the first among equals
    assert replace(curve, settings={"size": 0.3}).size == 0.2


def test_areas_are_of_their_ranking() -> None:
    table = areas_by_domain(curves_of(0.2)).set_index(["domain", "measure", "circuit"])
    # Between a tenth and all: CPR (0.75 + 1) / 2 * 0.9; CMD 0.25 / 2 * 0.9.
    assert table.loc[("real", "CPR", "kept"), "value"] == pytest.approx(1.75 / 2 * 0.9)
    assert table.loc[("real", "CMD", "kept"), "value"] == pytest.approx(0.25 / 2 * 0.9)
    assert set(
        zip(table.index.get_level_values("measure"), table["ranking"], strict=True)
    ) == {
        ("CPR", "signed"),
        ("CMD", "absolute"),
    }
    signed = [curve for curve in curves_of(0.2) if curve.ranking == "signed"]
    assert set(areas_by_domain(signed)["measure"]) == {"CPR"}
    assert areas_by_domain([]).empty


def test_means_by_site() -> None:
    rows = [
        (d, s, c, v)
        for d, shift in (("a", 0), ("b", 0.2))
        for s, c, v in (("y", "kept", shift), ("x", "kept", 1))
    ]
    rows += [
        ("a", "y", "random", 0.5),
        ("a", "x", "random", 0.0),
        ("a", "x", "complement", 9.0),
    ]
    means = mean_over_depth(
        pd.DataFrame(rows, columns=["domain", "sites", "circuit", "value"])
    )
    assert means.index.tolist() == ["y", "x"]  # the order of the table
    assert means["kept"].tolist() == pytest.approx([0.1, 1])
    assert means["random"].tolist() == [0.5, 0]
