"""The report of a comparison of circuits."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from circuitry import Comparison, compare_domains
from circuitry.circuits import ReadingSettings
from circuitry.circuits.consensus import STABILITY, mean_stability
from circuitry.reports import Report
from circuitry.reports.figures import domain_marks
from circuitry.reports.sections.circuits import add_domain_apart
from tests.circuits.test_across_domains import parts, three_domains
from tests.reports.sections.test_compared import DOMAINS, captions


def comparisons(edges_per_node: int = 3) -> dict[str, Comparison]:
    return compare_domains(
        three_domains(), {"held-out": ["fish"]}, parts=parts, settings=ReadingSettings(edges_per_node=edges_per_node)
    )


def test_means_of_stability() -> None:
    rows = [("axe", "real", 4, 10, 0.8, 5, 0.5), ("cat", "real", 4, 10, 0.6, 5, 0.25), ("cat", "wash", 2, 4, 0.4, 2, 0)]
    means = mean_stability(pd.DataFrame(rows, columns=list(STABILITY))).set_index("domain")
    assert means.loc["real"].to_numpy().tolist() == pytest.approx([4, 10, 0.7, 5, 0.375])
    assert means.loc["all", ["unit_stability", "edge_stability"]].to_numpy().tolist() == pytest.approx([0.6, 0.25])


def test_one_domain_is_set_against_the_others(tmp_path: Path) -> None:
    report = Report("t")
    add_domain_apart(report, comparisons(), "sketch", domain_marks(DOMAINS))
    found = captions(report, tmp_path)
    lines = {trace.name: np.array(trace.y) for trace in report.plotly_figures["figure-1"].data}
    first, second = re.findall("sketch with the others|without sketch", found[0])
    assert f"lower at {int((lines[first] < lines[second]).sum())} of {len(lines[first])} sites" in found[0]
    assert sum("held-out classes" in caption for caption in found) == 3
