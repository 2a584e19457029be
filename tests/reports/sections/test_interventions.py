"""The sections of causal checks against tables worked out on paper."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from circuitry.comparison.one_site_reading import (
    OTHER_CIRCUITS,
    OWN_CIRCUIT,
    transfer_accuracies,
)
from circuitry.interventions import FaithfulnessCurve
from circuitry.interventions.scores_beside_effects import map_agreement
from circuitry.reports.figures import domain_marks
from circuitry.reports.page import Report
from circuitry.reports.sections.causal_curves import (
    add_faithfulness,
    faithfulness_findings,
)
from circuitry.reports.sections.findings import UNKNOWN
from circuitry.reports.sections.transfers import own_circuits_lead, structure_predicts
from tests.interventions.test_verdicts import curve_by_hand

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


def transfers(sites: str, other: float) -> pd.DataFrame:
    """Own circuits keep all, others more the nearer the domain."""
    near = {
        ("clipart", "real"): 0.9,
        ("clipart", "sketch"): 0.5,
        ("real", "sketch"): 0.1,
    }
    rows = [
        {
            "class": c,
            "circuit_domain": a,
            "image_domain": b,
            "sites": sites,
            "reason": "",
            "n_images": 2,
        }
        | {
            "metric": 1.0 if a == b else near[min(a, b), max(a, b)],
            "full_metric": 1.0,
            "empty_metric": 0.0,
        }
        | {
            "other_metric": other,
            "other_full_metric": 0.0,
            "other_empty_metric": 0.0,
            "faithfulness": 1.0,
        }
        | {
            "accuracy": 1.0,
            "full_accuracy": 0.5,
            "other_accuracy": 0.75,
            "other_full_accuracy": 0.25,
        }
        for c in ("axe", "cat")
        for a in DOMAINS
        for b in DOMAINS
    ]
    return pd.DataFrame(rows)


SIMILARITY = pd.DataFrame(
    [[1.0, 0.3, 0.2], [0.3, 1.0, 0.1], [0.2, 0.1, 1.0]],
    index=list(DOMAINS),
    columns=list(DOMAINS),
)


def test_means_that_reports_show() -> None:
    accuracies = transfer_accuracies(transfers("all", 0.0))
    assert accuracies.to_numpy().tolist() == [
        ["of the class", 1.0, 0.5],
        ["of other classes", 0.75, 0.25],
    ]
    assert (
        len(transfer_accuracies(transfers("all", 0.0).drop(columns="other_accuracy")))
        == 1
    )
    assert map_agreement({"whole": np.eye(8), "circuit": -np.eye(8)}) == pytest.approx(
        {"circuit": -1.0}
    )


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


def test_own_circuits_lead_at_the_sites_where_intervals_do_not_overlap() -> None:
    rows = [
        *(
            (OWN_CIRCUIT, "conv", 0.8, 0.7, 0.9),
            (OTHER_CIRCUITS, "conv", 0.4, 0.3, 0.5),
        ),
        *(
            (OWN_CIRCUIT, "head", 0.6, 0.4, 0.8),
            (OTHER_CIRCUITS, "head", 0.5, 0.3, 0.7),
        ),
    ]
    depth = pd.DataFrame(rows, columns=["domain", "site", "value", "low", "high"])
    found = own_circuits_lead(depth, "selectivity")
    assert found is not None
    assert "selectivity 0.45 against 0.70, mean over 2 sites" in found.claim
    assert "At 1 of 2 sites" in found.certainty
    assert "+0.40 at conv and +0.10 at head" in found.certainty
    head = own_circuits_lead(depth[depth["site"] == "head"], "selectivity")
    assert head is not None
    assert UNKNOWN in head.claim
    assert own_circuits_lead(depth.assign(value=float("nan")), "selectivity") is None


def test_structure_predicts_transfer_only_when_corrected_p_says_so() -> None:
    names = [
        "sites",
        *(f"selectivity: {name}" for name in ("rho", "p", "p (Holm)")),
        "pairs",
    ]
    table = pd.DataFrame(
        [("conv", 0.9, 0.001, 0.004, 15), ("head", 0.2, 0.5, 0.5, 15)], columns=names
    )
    found, unclear = (
        structure_predicts(rows, "selectivity") for rows in (table, table.iloc[1:])
    )
    assert found is not None
    assert unclear is not None
    assert "selectivity +0.90 at conv, over 15 pairs" in found.claim
    assert "1 of 2 rows" in found.certainty
    assert (UNKNOWN in found.claim, UNKNOWN in unclear.claim) == (False, True)
    assert structure_predicts(table.iloc[:0], "selectivity") is None
