"""The report of a comparison of circuits: its sections and sentences against numbers worked out on paper."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from PIL import Image

from circuitry import Comparison, DomainFolder, compare_domains
from circuitry.circuits import ReadingSettings
from circuitry.circuits.consensus import STABILITY
from circuitry.reports import Report
from circuitry.reports.figures import circuit_pair, domain_marks
from circuitry.reports.sections.circuits import (
    add_circuit_pair,
    add_stability,
    comparison_report,
)
from circuitry.study.sections.accuracies import add_accuracy
from circuitry.study.sections.apart import add_domain_apart
from tests.circuits.test_across_domains import parts, three_domains
from tests.circuits.test_graph import small_graph
from tests.reports.sections.test_compared import DOMAINS, captions
from tests.study.sections.test_accuracy import accuracy


def page_of(report: Report) -> str:
    with TemporaryDirectory() as folder:
        return report.write(Path(folder) / "report.html").read_text(encoding="utf-8")


def comparisons(edges_per_node: int = 3) -> dict[str, Comparison]:
    return compare_domains(
        three_domains(), {"held-out": ["fish"]}, parts=parts, settings=ReadingSettings(edges_per_node=edges_per_node)
    )


def test_sentences_on_a_pair_of_circuits(tmp_path: Path) -> None:
    # b keeps conv 1, 2 where a keeps 1, 3; the edges of both: 1->1, 1->0 (one per node; those into
    # head 2 have scores below zero).
    a = small_graph()
    b = small_graph(domain="real", kept_units=a.kept_units | {"conv": np.array([1, 2])})
    report = Report("t")
    add_circuit_pair(report, a.circuit(1), b.circuit(1), ["conv", "head"])
    (caption,) = captions(report, tmp_path)
    assert "The kept units of alarm clock" in caption
    assert "in sketch and in real. Shared: 4 of 6 units and 2 of 2 edges." in caption
    assert caption.endswith("largest at head (100%) and smallest at conv (33%).")


def test_a_circuit_is_drawn_like_its_graph() -> None:
    a, b = small_graph().circuit(1), small_graph(domain="real").circuit(2)
    drawn = [
        circuit_pair(one, other, ["conv", "head"], name_a="sketch", name_b="real", title="t")
        for one, other in ((a, b), (a.graph, b.graph))
    ]
    assert drawn[0].to_json() == drawn[1].to_json()


def test_sentences_on_stability() -> None:
    report = Report("t")
    rows = [("axe", "real", 4, 10, 0.8, 5, 0.5), ("cat", "real", 4, 10, 0.6, 5, 0.25)]
    add_stability(report, pd.DataFrame(rows, columns=list(STABILITY)))
    page = page_of(report)
    assert "kept with its sign, on average 0.70, and that an edge is among the strongest into its unit, 0.38." in page
    assert "Means over 2 classes." in page


def test_one_domain_is_set_against_the_others(tmp_path: Path) -> None:
    report = Report("t")
    add_domain_apart(report, comparisons(), "sketch", domain_marks(DOMAINS))
    found = captions(report, tmp_path)
    values = comparisons()["node_overlap"].values
    other = values[(values["domain_a"] != "sketch") & (values["domain_b"] != "sketch")]
    by_class = other.groupby(["site", "class"])["value"].mean().groupby("site").mean()
    assert f"without sketch {by_class.mean():.3f}" in found[0]
    assert sum("held-out classes" in caption for caption in found) == 3


# The whole report


def test_the_whole_report_is_one_page_with_every_figure(tmp_path: Path) -> None:
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
        after_images=lambda report, marks: add_accuracy(report, accuracy(), marks, test_domain="sketch"),
    )
    page = report.write(tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", page)[:6] == [
        "How to read this",
        "The images",
        "Does the model recognise the classes?",
        "How much of the circuit is shared, site by site?",
        "Which domains share their circuits?",
        "One circuit in two domains: axe",
    ]
    assert "its error on this model was not measured." in page
    assert page.count("<img ") == 1
    assert len(report.plotly_figures) == 1 + 1 + 2 * 3 + 1  # each measure of all images, and over its ceiling
    assert page.count('class="plotly-graph-div"') == len(report.plotly_figures)
    assert "guessing would reach 12.5%" in page
    assert "Two test images of every class in every domain." in page
    edges = [set(three_domains()["axe", d].circuit(2).graph.edges) for d in ("real", "sketch")]
    assert f"units and {len(edges[0] & edges[1])} of {len(edges[0] | edges[1])} edges" in page


def test_a_report_without_accuracies_has_no_section_on_them(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for class_name, domain in three_domains():
        (folder / domain / class_name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / domain / class_name / "0.png")
    report = comparison_report(
        "t", "i", comparisons(), three_domains(), DomainFolder(folder), ("axe", "real", "sketch")
    )
    assert "recognise the classes" not in report.write(tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(report.plotly_figures) == 8
