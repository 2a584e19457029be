"""The sections on a comparison: sentences against numbers worked out on paper."""

import html
import math
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

from circuitry import Comparison
from circuitry.reports import Report
from circuitry.reports.figures import domain_marks
from circuitry.reports.sections.circuits import add_similarity
from circuitry.reports.sections.compared import (
    add_comparison,
    add_matrix,
    add_over_depth,
    add_summary,
    measure_name,
    with_intervals,
)
from tests.comparison.similarities import similarities
from tests.support.parts import parts_of_halves

DOMAINS = ("clipart", "real", "sketch")
MARKS = domain_marks(DOMAINS)


def table(values: dict[str, list[float]], site: str | None = None) -> pd.DataFrame:
    """Values of the pairs clipart-real, clipart-sketch, real-sketch by class."""
    pairs = [("clipart", "real"), ("clipart", "sketch"), ("real", "sketch")]
    rows = [(c, *pair, site, v) for c, found in values.items() for pair, v in zip(pairs, found, strict=True)]
    return pd.DataFrame(rows, columns=["class", "domain_a", "domain_b", "site", "value"])


def ceilings(values: list[float], site: str | None = None) -> pd.DataFrame:
    rows = [("axe", domain, site, value) for domain, value in zip(DOMAINS, values, strict=True)]
    return pd.DataFrame(rows, columns=["class", "domain", "site", "value"])


EDGES = {"axe": [0.2, 0.4, 0.6], "fish": [0.5, 0.2, 0.9]}


def overlap() -> Comparison:
    by_site = {
        # Means with the others: clipart, real, sketch
        "conv": [0.2, 0.4, 0.6],  # 0.3 0.4 0.5, mean 0.4
        "mid": [0.1, 0.2, 0.3],  # 0.15 0.2 0.25, mean 0.2
        "head": [0.8, 0.6, 0.1],  # 0.7 0.45 0.35, mean 0.5
    }
    halves = zip(by_site, (0.9, 0.8, 0.7), strict=True)
    return Comparison(
        "node_overlap",
        pd.concat([table({"axe": v, "fish": v}, site) for site, v in by_site.items()]),
        parts_of_halves(pd.concat([ceilings([v, v, v + 0.03], site) for site, v in halves])),
        pd.DataFrame({"site": list(by_site), "value": [0.05, 0.06, 0.08]}),
    )


def edges(values: dict[str, list[float]] = EDGES) -> Comparison:
    return Comparison("edge_jaccard", table(values), parts_of_halves(ceilings([0.5, 0.8, 0.9])))


def captions(report: Report, folder: Path) -> list[str]:
    page = report.write(folder / "report.html").read_text(encoding="utf-8")
    found = re.findall(r"<(?:fig)?caption>(.*?)</(?:fig)?caption>", page, flags=re.DOTALL)
    return [html.unescape(re.sub(r"<[^>]+>", "", caption)) for caption in found]


def test_sentences_of_depth_say_the_numbers_of_the_tables(tmp_path: Path) -> None:
    report = Report("t")
    add_over_depth(report, overlap(), MARKS, "The end.")
    (depth,) = captions(report, tmp_path)
    assert "(bars: 95 % intervals over classes)" in depth  # as the line under the heading of the figure
    assert depth.endswith(
        "It is largest at head (0.50) and smallest at mid (0.20). clipart has the lowest at 2 of 3 sites. "
        "Two parts of the same images reach 0.71 to 0.91 (dashed), random units 0.05 to 0.08 (dotted). The end."
    )


def test_far_is_large_for_distances_over_depth(tmp_path: Path) -> None:
    report = Report("t")
    add_over_depth(report, replace(overlap(), alike=False, chance=overlap().chance.iloc[:0]), MARKS)
    (depth,) = captions(report, tmp_path)
    # The largest with the others: sketch at conv and mid, clipart at head.
    assert "sketch has the highest at 2 of 3 sites. Two parts of the same images reach 0.71 to 0.91 (dashed)." in depth


def test_sentences_of_pairs_say_the_numbers_of_the_tables(tmp_path: Path) -> None:
    # Pairs: 0.35, 0.3, 0.75.  clipart: axe 0.3, fish 0.35; real: 0.4, 0.7; sketch: 0.5, 0.55; intervals of two values
    # are 12.706 (Student, one degree of freedom) times half their distance wide, to either side.
    report = Report("t")
    add_matrix(report, edges(), MARKS, title="x")
    assert captions(report, tmp_path)[0].endswith(
        "Mean over up to 2 classes. The most alike are real and sketch (0.750), the least alike clipart and sketch "
        "(0.300). With the other domains, real is the most alike (0.550 [-1.356, 2.456]) and clipart the least "
        "(0.325 [0.007, 0.643])."
    )


def test_sentences_on_distances_turn_near_and_far_round(tmp_path: Path) -> None:
    report = Report("t")
    add_matrix(report, replace(edges(), alike=False), MARKS, title="x", top=2.0, more="The end.")
    assert captions(report, tmp_path)[0].endswith(
        "The nearest are clipart and sketch (0.300), the farthest real and sketch (0.750). With the other domains, "
        "clipart is the nearest (0.325 [0.007, 0.643]) and real the farthest (0.550 [-1.356, 2.456]). The end."
    )
    (figure,) = report.plotly_figures.values()
    assert figure.data[0].zmax == 2


def test_sentences_where_the_order_matters_name_both_sides(tmp_path: Path) -> None:
    rows = [("all", a, b, None, v) for a, b, v in (("p", "p", 0.9), ("p", "q", 0.4), ("q", "p", 0.2), ("q", "q", 0.7))]
    values = pd.DataFrame(rows, columns=["class", "domain_a", "domain_b", "site", "value"])
    report = Report("t")
    directed = Comparison("transfer", values, directions=("circuit of", "images of"))
    add_matrix(report, directed, domain_marks("pq"), title="x")
    assert (
        "The highest is circuit of p, images of q (0.400), the lowest circuit of q, images of p (0.200). With the "
        "other domains, p is the most alike (0.400) and q the least (0.200)."
    ) in captions(report, tmp_path)[0]


def test_sentences_without_ceilings_do_not_speak_of_them(tmp_path: Path) -> None:
    report = Report("t")
    add_over_depth(report, replace(overlap(), parts=overlap().parts.iloc[:0]), MARKS)
    add_matrix(report, replace(edges(), parts=edges().parts.iloc[:0]), MARKS, title="x")
    depth, pairs = captions(report, tmp_path)
    assert depth.endswith("at 2 of 3 sites. Random units reach 0.05 to 0.08 (dotted).")
    assert pairs.endswith("clipart the least (0.325 [0.007, 0.643]).")


def test_a_single_class_and_missing_values_leave_no_nan_in_the_words(tmp_path: Path) -> None:
    report = Report("t")
    one = {name: values for name, values in EDGES.items() if name == "axe"}
    add_comparison(report, edges(one), MARKS, title="x")
    add_comparison(report, edges({"axe": [math.nan, 0.4, 0.6]}), MARKS, title="x")
    add_matrix(report, replace(edges({"axe": [math.nan] * 3})), MARKS, title="x")
    found = captions(report, tmp_path)
    assert "nan" not in re.sub(r"<script.*?</script>", "", (tmp_path / "report.html").read_text(), flags=re.DOTALL)
    assert found[-1].endswith("No pair of domains has a value.")


def test_the_summary_has_a_row_per_domain_and_group(tmp_path: Path) -> None:
    groups = {"all": ("axe", "fish", "key"), "held-out": ("axe", "fish")}
    found = replace(edges(EDGES | {"key": [0.3, 0.3, 0.3]}), groups=groups)
    report = Report("t")
    add_summary(report, [found, replace(found, measure="wl_kernel")])
    assert captions(report, tmp_path)[0].endswith("over classes, for all classes and for groups of them.")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    rows = [
        re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", page, flags=re.DOTALL)
    ]
    assert rows[0] == ["domain", "group", "classes", "edge Jaccard index", "Weisfeiler-Lehman kernel, depth 1"]
    assert [row[:2] for row in rows[1:]] == [[d, g] for d in DOMAINS for g in groups]
    # clipart, axe and fish: (0.3 + 0.35) / 2, of the ends 0.3 and 0.35.
    assert ["clipart", "held-out", "2", *["0.325 [0.007, 0.643]"] * 2] in rows


def test_tests_are_counted(tmp_path: Path) -> None:
    many = {f"c{i:02}": [0.1 + i / 100, 0.2 + i / 100, 0.9] for i in range(20)}
    report = Report("t")
    add_comparison(report, edges(many), MARKS, title="x")
    # With the others: clipart .15, real .5, sketch .55 in every class: all three pairs differ.
    assert captions(report, tmp_path)[-1].endswith("of tests; 3 of 3 have a corrected p below 0.05.")


def test_one_call_adds_all_that_there_is() -> None:
    report = Report("t")
    add_comparison(report, overlap(), MARKS, title="x")
    assert len(report.plotly_figures) == 2
    report = Report("t")
    add_comparison(report, edges(), MARKS, title="x")
    assert len(report.plotly_figures) == 1


def test_circuits_are_shown_by_every_measure(tmp_path: Path) -> None:
    report = Report("t")
    kernel = replace(edges(), measure="wl_kernel")
    add_similarity(report, {"node_overlap": overlap(), "edge_jaccard": edges(), "wl_kernel": kernel}, MARKS)
    found = captions(report, tmp_path)
    assert len(found) == 1 + 3 * 2 + 2  # depth; matrix and levels of each; summary and tests
    assert len(report.plotly_figures) == 4
    assert "edge Jaccard index of one domain" in found[-1]


def test_ratios_and_their_tests_are_shown_with_how_to_read_them(tmp_path: Path) -> None:
    found = similarities(8)
    report = Report("t")
    add_comparison(report, found, domain_marks(found.domains), title="x")
    assert len(report.plotly_figures) == 4  # means and ratios over depth, matrices of both
    said = captions(report, tmp_path)
    ratios = with_intervals(found.ratios().sort_values("value"), ".2f")
    assert f"({ratios.iloc[-1]}), the smallest" in said[3]
    assert said[3].endswith("No pair lies above the ceiling by more than its interval.")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.index("How to read node overlap") < page.index("It is largest at")
    assert "all images (40 a side)" in said[0] + said[2] + page
    assert "of parts (10 a side)" in said[0]
    assert page.count("this trained model") >= 3 + 4 + 1
    report = Report("t")
    add_comparison(report, similarities(4), domain_marks(found.domains), title="x")
    assert captions(report, tmp_path)[-1].endswith("3 could not be, with as few classes.")
    assert "cannot be significant with 4 classes" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_values_are_said_with_their_intervals() -> None:
    table = pd.DataFrame({"value": [0.5, 0.5], "low": [0.25, math.nan], "high": [0.75, math.nan]})
    assert with_intervals(table).tolist() == ["0.500 [0.250, 0.750]", "0.500"]
    table = pd.DataFrame({"difference": [0.5], "low": [-0.25], "high": [0.75]})
    assert with_intervals(table, "+.1f", "difference").tolist() == ["+0.5 [-0.2, +0.8]"]
    assert measure_name("feature_sharing") == "feature sharing"
