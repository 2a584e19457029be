"""The report of a comparison of circuits."""

import re
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from circuitry import Comparison, DomainFolder, compare_domains
from circuitry.circuits import ReadingSettings
from circuitry.circuits.consensus import STABILITY, mean_stability
from circuitry.reports.sections.accuracies import add_accuracy
from circuitry.reports.sections.circuits import comparison_report
from tests.circuits.test_across_domains import parts, three_domains
from tests.reports.sections.test_compared import accuracy


def comparisons(edges_per_node: int = 3) -> dict[str, Comparison]:
    return compare_domains(
        three_domains(), {"held-out": ["fish"]}, parts=parts, settings=ReadingSettings(edges_per_node=edges_per_node)
    )


def test_means_of_stability() -> None:
    rows = [("axe", "real", 4, 10, 0.8, 5, 0.5), ("cat", "real", 4, 10, 0.6, 5, 0.25), ("cat", "wash", 2, 4, 0.4, 2, 0)]
    means = mean_stability(pd.DataFrame(rows, columns=list(STABILITY))).set_index("domain")
    assert means.loc["real"].to_numpy().tolist() == pytest.approx([4, 10, 0.7, 5, 0.375])
    assert means.loc["all", ["unit_stability", "edge_stability"]].to_numpy().tolist() == pytest.approx([0.6, 0.25])


@pytest.mark.parametrize("known", [True, False])
def test_the_whole_report_is_one_page_with_every_figure(known: bool, tmp_path: Path) -> None:
    for class_name, domain in three_domains():
        folder = tmp_path / "images" / domain / class_name
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(folder / "0.png")
    report = comparison_report(
        "A title",
        "An introduction.",
        comparisons(2),
        three_domains(),
        DomainFolder(tmp_path / "images"),
        ("axe", "real", "sketch"),
        after_images=(lambda report, marks: add_accuracy(report, accuracy(), marks)) if known else None,
    )
    page = report.write(tmp_path / "report.html").read_text(encoding="utf-8")
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert len(headings) == 6 + known
    assert headings[-1].endswith("axe")
    assert len(re.findall('<details class="section">', page)) == 2
    assert len(report.plotly_figures) == known + 1 + 2 * 3 + 1  # each measure of all images, and over its ceiling
    assert page.count("<img ") == 1
    assert page.count('class="plotly-graph-div"') == len(report.plotly_figures)
    assert ("12.5%" in page) == known
    edges = [set(three_domains()["axe", d].circuit(2).graph.edges) for d in ("real", "sketch")]
    assert f"{len(edges[0] & edges[1])} edges" in page
