"""The report of a comparison of circuits."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from circuitry import Comparison, Task, compare_domains
from circuitry.circuits import (
    EDGE_METHODS,
    METHODS,
    AttributionSettings,
    Method,
    ReadingSettings,
    register_method,
)
from circuitry.circuits.consensus import STABILITY, mean_stability
from circuitry.reports import Report
from circuitry.reports.figures import domain_marks
from circuitry.reports.sections.circuits import add_domain_apart, add_guide
from tests.circuits.test_across_domains import folds, three_domains
from tests.reports.sections.test_compared import DOMAINS, captions


def comparisons(edges_per_node: int = 3) -> dict[str, Comparison]:
    return compare_domains(
        three_domains(),
        {"held-out": ["fish"]},
        folds=folds,
        settings=ReadingSettings(edges_per_node=edges_per_node),
    )


def guide(tmp_path: Path, **settings: str) -> str:
    """The text of "How to read this" in the page of a report."""
    report = Report("t")
    add_guide(report, settings)
    page = report.write(tmp_path / "report.html").read_text(encoding="utf-8")
    return " ".join(page[page.rindex("How to read this") :].split())


def test_a_report_explains_the_method_that_ran(tmp_path: Path) -> None:
    site_path = guide(tmp_path, method="site-path", node_rule="left-10")
    assert "Integrated gradients" in site_path
    assert "left-10" in site_path
    rounds = guide(tmp_path, method="iterative-fisher")
    assert "Integrated gradients" not in rounds
    assert "Fisher information in rounds" in rounds
    assert "measures no effect" in rounds
    assert "measures no effect" not in site_path


def test_a_report_tells_each_method_from_the_others(tmp_path: Path) -> None:
    assert len({guide(tmp_path, method=name) for name in METHODS}) == len(METHODS)
    assert len({guide(tmp_path, edge_method=name) for name in EDGE_METHODS}) == len(
        EDGE_METHODS
    )
    assert not any("from outside" in guide(tmp_path, method=name) for name in METHODS)


def test_a_report_says_how_edges_were_scored(tmp_path: Path) -> None:
    squared, readers, cuts = (
        guide(tmp_path, edge_method=name)
        for name in ("squared", "exact-readers", "cuts")
    )
    assert "how far the later unit moves" in squared
    assert "how far the later unit moves" not in readers
    assert "what the metric loses" in readers
    assert "do not measure what a cut costs" in readers
    assert "do not measure what a cut costs" not in cuts


def by_hand(task: Task, settings: AttributionSettings) -> dict[str, np.ndarray]:
    """Score units by what a reader wrote down.

    More lines are not shown.
    """
    return {}


def test_a_report_names_a_method_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "by-hand", Method("by-hand"))  # taken back afterwards
    register_method("by-hand", by_hand)
    told = guide(tmp_path, method="by-hand")
    assert "by-hand, registered from outside" in told
    assert "Score units by what a reader wrote down." in told
    assert "More lines" not in told
    monkeypatch.delitem(METHODS, "by-hand")  # whoever reads the report need not have it
    assert "by-hand, registered from outside" in guide(tmp_path, method="by-hand")


def test_means_of_stability() -> None:
    rows = [
        ("axe", "real", 4, 10, 0.8, 5, 0.5),
        ("cat", "real", 4, 10, 0.6, 5, 0.25),
        ("cat", "wash", 2, 4, 0.4, 2, 0),
    ]
    means = mean_stability(pd.DataFrame(rows, columns=list(STABILITY))).set_index(
        "domain"
    )
    assert means.loc["real"].to_numpy().tolist() == pytest.approx(
        [4, 10, 0.7, 5, 0.375]
    )
    assert means.loc[
        "all", ["unit_stability", "edge_stability"]
    ].to_numpy().tolist() == pytest.approx([0.6, 0.25])


def test_one_domain_is_set_against_the_others(tmp_path: Path) -> None:
    report = Report("t")
    add_domain_apart(report, comparisons(), "sketch", domain_marks(DOMAINS))
    found = captions(report, tmp_path)
    lines = {
        trace.name: np.array(trace.y)
        for trace in report.plotly_figures["figure-1"].data
    }
    first, second = re.findall("sketch with the others|without sketch", found[0])
    assert (
        f"lower at {int((lines[first] < lines[second]).sum())} of {len(lines[first])} sites"
        in found[0]
    )
    assert sum("held-out classes" in caption for caption in found) == 3
